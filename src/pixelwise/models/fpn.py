"""Semantic FPN (Kirillov, Girshick, He, Dollar 2019, 1901.02446): pixels labelled from a feature pyramid.

The pyramid (FPN, Lin et al. 2016, 1612.03144) adds to each map of the encoder, brought to one width, the next coarser
one enlarged: P_i = enlarge(P_{i+1}) + conv1x1(C_i), each then smoothed by a 3x3 convolution. The branch brings every
level to a quarter of the image's size by stages of 3x3 convolution, norm, ReLU and twofold bilinear enlargement, adds
them up and labels the pixels. `panoptic_fpn` has the same branch beside its boxes.

The plain variant is the paper's, with a ResNet-50; `r101` its larger encoder. Two ports, whose files load:
`mmseg-r50` has batch norms in the branch, dropout and a stem of three convolutions (ResNet-V1c); `smp` leaves the
smoothing convolutions out, enlarges with aligned corners and has dropout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from pixelwise.core.keys import Dialect
from pixelwise.core.outputs import Dense, Frame
from pixelwise.nn.encoder import Encoder, make_encoder
from pixelwise.nn.encoder_keys import MMSEG, MMSEG_BACKBONE, mmseg_encoder
from pixelwise.nn.heads import dense
from pixelwise.nn.options import check_choice, check_dropout, check_flags, check_whole
from pixelwise.nn.pyramid import coarse
from pixelwise.nn.smp_keys import SMP_ENCODER, smp_encoder
from pixelwise.nn.unet_decoder import check_cells
from pixelwise.nn.upsample import enlarge

PAPER = {"title": "Panoptic Feature Pyramid Networks", "year": 2019, "arxiv": "1901.02446"}
GROUPS = 32  # of a group norm, as in the paper

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "r101": {"encoder": "resnet101"},
    "mmseg-r50": {"encoder": "resnet50c", "norm": "batch", "dropout": 0.1},
    "smp": {"encoder": "resnet34", "smooth": False, "align_corners": True, "dropout": 0.2},
}
THIN = {"encoder": "resnet10t", "width": 16, "branch": 8}  # for the tests of what every net promises


class SemanticBranch(nn.Module):
    """Pyramid {level: [B, D, h, w]} -> logits [B, S, h, w] on the grid of its finest level.

    levels   how many it reads, the finest first, each half as fine as the one before
    norm     "group" (32 groups, as far as they divide) or "batch"
    dropout  of whole maps, before the last convolution
    """

    def __init__(self, *, outputs: int, width: int, branch: int, levels: int, norm: str = "group",
                 align_corners: bool = False, dropout: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        self.align_corners = align_corners
        self.stages = nn.ModuleList()
        for level in range(levels):
            widths = [width] + [branch] * max(1, level)
            stages = (_stage(a, b, norm, level > 0, align_corners) for a, b in pairwise(widths))
            self.stages.append(nn.Sequential(*stages))
        self.drop = nn.Dropout2d(dropout)
        self.predictor = nn.Conv2d(branch, outputs, 1)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.01)  # sure of nothing at first, however few outputs there are
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        total: Tensor | None = None
        for stages, features in zip(self.stages, pyramid.values()):
            x = stages(features)
            # twice the half of an odd size is one too many
            total = x if total is None else total + enlarge(x, total.shape[2:], self.align_corners)
        return self.predictor(self.drop(total))


def _stage(channels: int, width: int, norm: str, enlarge: bool, align_corners: bool) -> nn.Sequential:
    layer = nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(math.gcd(GROUPS, width), width)
    parts: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False), layer, nn.ReLU(inplace=True)]
    if enlarge:
        parts.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners))
    return nn.Sequential(*parts)


class FPN(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H/4, W/4]; any H, W from `min_size` up."""

    min_size = 32

    def __init__(self, encoder: Encoder, width: int, smooth: bool, semantic: SemanticBranch) -> None:
        super().__init__()
        self.encoder, self.semantic = encoder, semantic
        self.pyramid = FeaturePyramidNetwork(list(encoder.channels), width)
        if not smooth:
            self.pyramid.layer_blocks = nn.ModuleList(nn.Identity() for _ in encoder.channels)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        check_cells(self, images, self.encoder.strides[-1])
        maps = {str(i): x for i, x in enumerate(self.encoder(images))}
        logits = self.semantic(self.pyramid(maps))  # [B, K, h, w]
        return dense(images, frames, logits, align_corners=self.semantic.align_corners)


def build(*, classes: int, channels: int = 3, encoder: str = "resnet50", pretrained: bool = False, width: int = 256,
          branch: int = 128, norm: str = "group", smooth: bool = True, align_corners: bool = False,
          dropout: float = 0.0) -> FPN:  # fmt: skip
    """Semantic FPN with numbers.

    channels  of the input                 encoder  see `pixelwise list encoders`
    pretrained  the encoder begins with timm's weights
    width     of the pyramid               branch   channels of the branch
    norm      in the branch: group or batch
    smooth    with a 3x3 convolution on each level of the pyramid
    align_corners  how the branch's maps and the logits are enlarged
    dropout   of whole maps, before the last convolution
    Raises ConfigError for what cannot be.
    """
    check_whole("FPN", channels=channels, width=width, branch=branch)
    check_flags("FPN", pretrained=pretrained, smooth=smooth, align_corners=align_corners)
    check_choice("FPN", ("group", "batch"), norm=norm)
    check_dropout("FPN", dropout=dropout)
    body = coarse(make_encoder(encoder, channels=channels, pretrained=pretrained, cover=True))
    semantic = SemanticBranch(outputs=classes, width=width, branch=branch, levels=len(body.strides), norm=norm,
                              align_corners=align_corners, dropout=dropout)  # fmt: skip
    return FPN(body, width, smooth, semantic)


# -- files of others --------------------------------------------------------------------------------------------------


def _smp_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    branch = tensors["decoder.seg_blocks.3.block.0.block.0.weight"]
    return {**VARIANTS["smp"], **smp_encoder(tensors), "classes": len(tensors["segmentation_head.0.weight"]),
            "width": branch.shape[1], "branch": branch.shape[0]}  # fmt: skip


def _mmseg_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    told, predictor = mmseg_encoder(tensors), tensors["decode_head.conv_seg.weight"]
    return {**VARIANTS["mmseg-r50"], "encoder": told["encoder"], "channels": told["channels"],
            "classes": predictor.shape[0], "branch": predictor.shape[1],
            "width": len(tensors["neck.lateral_convs.0.conv.weight"])}  # fmt: skip


MMSEG_BRANCH = tuple(
    rule
    for level in range(4)
    for stage in range(max(1, level))  # mmsegmentation counts the enlargements too
    for rule in (
        (rf"decode_head\.scale_heads\.{level}\.{2 * stage}\.conv\.weight", f"semantic.stages.{level}.{stage}.0.weight"),
        (rf"decode_head\.scale_heads\.{level}\.{2 * stage}\.bn\.(.*)", rf"semantic.stages.{level}.{stage}.1.\1"),
    )
)
KEYS = {
    # how maps are enlarged and merged stands in no file: its defaults, "nearest" and "add"
    "smp": Dialect(
        signs=(r"^encoder\.", r"^decoder\.p5\.", r"^decoder\.seg_blocks\.0\.block\.2\.", r"^segmentation_head\.0\."),
        rules=(
            *SMP_ENCODER,
            *((rf"decoder\.p{i + 2}\.skip_conv\.(.*)", rf"pyramid.inner_blocks.{i}.0.\1") for i in range(3)),
            (r"decoder\.p5\.(.*)", r"pyramid.inner_blocks.3.0.\1"),
            *(
                (rf"decoder\.seg_blocks\.{3 - i}\.block\.(\d)\.block\.([01])\.(.*)", rf"semantic.stages.{i}.\1.\2.\3")
                for i in range(4)
            ),
            (r"segmentation_head\.0\.(.*)", r"semantic.predictor.\1"),
            (r"classification_head\..*", ""),
        ),
        options=_smp_options,
    ),
    "mmseg": Dialect(
        signs=(r"^backbone\.layer4\.", r"^neck\.lateral_convs\.3\.", r"^decode_head\.scale_heads\.3\.4\."),
        rules=(
            *MMSEG_BACKBONE,
            (r"neck\.lateral_convs\.(\d)\.conv\.(.*)", r"pyramid.inner_blocks.\1.0.\2"),
            (r"neck\.fpn_convs\.(\d)\.conv\.(.*)", r"pyramid.layer_blocks.\1.0.\2"),
            *MMSEG_BRANCH,
            (r"decode_head\.conv_seg\.(.*)", r"semantic.predictor.\1"),
        ),
        options=_mmseg_options,
        **MMSEG,
    ),
}
