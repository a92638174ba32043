"""UPerNet (Xiao, Liu, Zhou, Jiang, Sun 2018, 1807.10221): a feature pyramid with a view of the whole at its top.

Means over 1, 2, 3 and 6 cells (PSPNet's pyramid pooling) stand beside the encoder's last map; a 3x3 convolution joins
them. From there maps go down as in FPN: enlarged, added to the next finer one after a 1x1 convolution, smoothed by
3x3. All levels are enlarged to a quarter of the image's size, joined by a 3x3 convolution, and labelled. The paper's
net also names scenes, parts, materials and textures by further heads; this is its branch for objects, which became
UPerNet for everybody else.

The plain variant is the paper's with a ResNet-50, 512 channels wide as the authors' code. Ports, whose files load:

    mmseg-r50, mmseg-r101  a stem of three convolutions (ResNet-V1c), dropout, an auxiliary head on the third stage
    smp                    256 wide, a layer norm on each map of the encoder, logits enlarged with aligned corners
    transformers           a ConvNeXt-T whose maps pass layer norms, the auxiliary head 256 wide
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.core.keys import Dialect, Rule
from pixelwise.core.outputs import Dense, Frame
from pixelwise.errors import ModelFileError
from pixelwise.nn.context import PyramidPooling
from pixelwise.nn.conv import conv_norm
from pixelwise.nn.encoder import Encoder, make_encoder
from pixelwise.nn.encoder_keys import MMSEG, MMSEG_AUX, MMSEG_BACKBONE, mmseg_encoder
from pixelwise.nn.heads import FCNHead, dense
from pixelwise.nn.options import check_dropout, check_flags, check_weight, check_whole, check_wholes
from pixelwise.nn.pyramid import coarse
from pixelwise.nn.smp_keys import SMP_ENCODER, smp_encoder
from pixelwise.nn.upsample import enlarge

PAPER = {"title": "Unified Perceptual Parsing for Scene Understanding", "year": 2018, "arxiv": "1807.10221"}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "mmseg-r50": {"encoder": "resnet50c", "aux": 0.4, "dropout": 0.1},
    "mmseg-r101": {"encoder": "resnet101c", "aux": 0.4, "dropout": 0.1},
    "smp": {"encoder": "resnet34", "width": 256, "norm_maps": True, "align_corners": True},
    "transformers": {"encoder": "convnext_tiny", "aux": 0.4, "norm_maps": True},
}
THIN = {"encoder": "resnet10t", "width": 8, "aux": 0.4, "aux_width": 8}  # for the tests of what every net promises


class MapNorm(nn.LayerNorm):
    """Layer norm over the channels of each place: [B, C, h, w] -> the same."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Decoder(nn.Module):
    """The encoder's maps, the finest first -> [B, width, h, w] on the grid of the first."""

    def __init__(self, channels: Sequence[int], width: int, bins: Sequence[int]) -> None:
        super().__init__()
        *finer, deep = channels
        self.context = PyramidPooling(deep, width, bins)
        self.top = conv_norm(deep + len(bins) * width, width, 3)
        self.laterals = nn.ModuleList(conv_norm(c, width) for c in finer)
        self.smooth = nn.ModuleList(conv_norm(width, width, 3) for _ in finer)
        self.fuse = conv_norm(len(channels) * width, width, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *finer, deep = maps
        x = self.top(self.context(deep))
        size, levels = maps[0].shape[-2:], [x]
        for i in reversed(range(len(finer))):
            x = self.laterals[i](finer[i]) + enlarge(x, finer[i].shape[-2:])
            levels.append(self.smooth[i](x))
        return self.fuse(torch.cat([enlarge(level, size) for level in reversed(levels)], 1))


class UPerNet(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H/4, W/4]; any H, W from `min_size` up. A norm stands behind
    the mean of the image: training takes at least 2 images."""

    min_size = 32

    def __init__(self, encoder: Encoder, *, classes: int, width: int, bins: Sequence[int], norm_maps: bool, aux: float,
                 aux_width: int, dropout: float, align_corners: bool) -> None:  # fmt: skip
        super().__init__()
        self.encoder = encoder
        channels = encoder.channels
        self.norms = nn.ModuleList(MapNorm(c, eps=1e-6) if norm_maps else nn.Identity() for c in channels)
        self.decoder = Decoder(channels, width, bins)
        self.drop = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(width, classes, 1)
        self.aux = FCNHead(channels[-2], classes, aux_width, dropout, maps=True) if aux else None
        self.aux_weight, self.align_corners = aux, align_corners

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        maps = [norm(x) for norm, x in zip(self.norms, self.encoder(images))]
        logits = self.head(self.drop(self.decoder(maps)))  # [B, K, h, w]
        aux = [("aux", self.aux_weight, self.aux(maps[-2]))] if self.training and self.aux is not None else []
        return dense(images, frames, logits, aux=aux, align_corners=self.align_corners)


def build(*, classes: int, channels: int = 3, encoder: str = "resnet50", pretrained: bool = False, width: int = 512,
          bins: Sequence[int] = (1, 2, 3, 6), norm_maps: bool = False, aux: float = 0.0, aux_width: int = 256,
          dropout: float = 0.0, align_corners: bool = False) -> UPerNet:  # fmt: skip
    """UPerNet with numbers.

    channels  of the input                 encoder  see `pixelwise list encoders`
    pretrained  the encoder begins with timm's weights
    width     of all levels                bins     cells a side of each grid of means
    norm_maps  the encoder's maps pass layer norms first, for encoders that end without a norm
    aux       weight of the loss of an auxiliary head on the last map but one, 0.4 in the ports; 0: no such head
    aux_width  channels of that head
    dropout   of whole maps, before the last convolution and in the auxiliary head
    align_corners  how the logits are enlarged (maps within the net go by half pixels)
    Raises ConfigError for what cannot be.
    """
    check_whole("UPerNet", channels=channels, width=width, aux_width=aux_width)
    check_flags("UPerNet", pretrained=pretrained, norm_maps=norm_maps, align_corners=align_corners)
    check_dropout("UPerNet", dropout=dropout)
    check_weight("UPerNet", aux=aux)
    bins = check_wholes("UPerNet", "bins", bins)
    body = coarse(make_encoder(encoder, channels=channels, pretrained=pretrained))
    return UPerNet(body, classes=classes, width=width, bins=bins, norm_maps=norm_maps, aux=aux, aux_width=aux_width,
                   dropout=dropout, align_corners=align_corners)  # fmt: skip


# -- files of others --------------------------------------------------------------------------------------------------


def _smp_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    head = tensors["segmentation_head.0.weight"]
    return {**VARIANTS["smp"], **smp_encoder(tensors), "classes": head.shape[0], "width": head.shape[1]}


def _mmseg_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    head = tensors["decode_head.conv_seg.weight"]
    told = {**mmseg_encoder(tensors), "dropout": 0.1, "classes": head.shape[0], "width": head.shape[1]}
    return {**told, "aux_width": tensors["auxiliary_head.conv_seg.weight"].shape[1]} if told["aux"] else told


# blocks in the four stages, width of the first -> timm's name
CONVNEXTS: dict[tuple[tuple[int, ...], int], str] = {
    ((3, 3, 9, 3), 96): "convnext_tiny",
    ((3, 3, 27, 3), 96): "convnext_small",
    ((3, 3, 27, 3), 128): "convnext_base",
    ((3, 3, 27, 3), 192): "convnext_large",
    ((3, 3, 27, 3), 256): "convnext_xlarge",
}
# a part of a block there -> here
CONVNEXT = {"layer_scale_parameter": "gamma", r"dwconv\.(.*)": r"conv_dw.\3", r"layernorm\.(.*)": r"norm.\3",
            r"pwconv1\.(.*)": r"mlp.fc1.\3", r"pwconv2\.(.*)": r"mlp.fc2.\3"}  # fmt: skip


def _transformers_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    stem, head = tensors["backbone.embeddings.patch_embeddings.weight"], tensors["decode_head.classifier.weight"]
    stages = (f"backbone.encoder.stages.{i}.layers." for i in range(4))
    depths = tuple(sum(n.startswith(s) and n.endswith(".dwconv.weight") for n in tensors) for s in stages)
    if (depths, len(stem)) not in CONVNEXTS:
        raise ModelFileError(f"its ConvNeXt has {list(depths)} blocks and begins {len(stem)} wide: none that is known.")
    aux = tensors.get("auxiliary_head.classifier.weight")
    return {**VARIANTS["transformers"], "encoder": CONVNEXTS[depths, len(stem)], "channels": stem.shape[1],
            "classes": head.shape[0], "width": head.shape[1],
            **({"aux": 0.0} if aux is None else {"aux_width": aux.shape[1]})}  # fmt: skip


def _head(norm: str) -> tuple[Rule, ...]:
    """Rules for mmsegmentation's head, of which transformers' differs in the name of the norms."""
    return tuple(
        rule
        for part, index in (("conv", 0), (norm, 1))
        for rule in (
            (rf"decode_head\.psp_modules\.(\d)\.1\.{part}\.(.*)", rf"decoder.context.convs.\1.{index}.\2"),
            (rf"decode_head\.bottleneck\.{part}\.(.*)", rf"decoder.top.{index}.\1"),
            (rf"decode_head\.lateral_convs\.(\d)\.{part}\.(.*)", rf"decoder.laterals.\1.{index}.\2"),
            (rf"decode_head\.fpn_convs\.(\d)\.{part}\.(.*)", rf"decoder.smooth.\1.{index}.\2"),
            (rf"decode_head\.fpn_bottleneck\.{part}\.(.*)", rf"decoder.fuse.{index}.\1"),
        )
    )


KEYS = {
    "smp": Dialect(
        signs=(
            r"^encoder\.",
            r"^decoder\.psp\.out_conv\.",
            r"^decoder\.fpn_lateral_blocks\.2\.",
            r"^segmentation_head\.",
        ),
        rules=(
            *SMP_ENCODER,
            (r"decoder\.feature_norms\.(\d)\.(.*)", r"norms.\1.\2"),
            (r"decoder\.psp\.blocks\.(\d)\.1\.(.*)", r"decoder.context.convs.\1.\2"),
            (r"decoder\.psp\.out_conv\.(.*)", r"decoder.top.\1"),
            *(
                rule
                for i in range(3)  # there the coarsest is the first
                for rule in (
                    (rf"decoder\.fpn_lateral_blocks\.{i}\.conv_norm_relu\.(.*)", rf"decoder.laterals.{2 - i}.\1"),
                    (rf"decoder\.fpn_conv_blocks\.{i}\.(.*)", rf"decoder.smooth.{2 - i}.\1"),
                )
            ),
            (r"decoder\.fusion_block\.(.*)", r"decoder.fuse.\1"),
            (r"segmentation_head\.0\.(.*)", r"head.\1"),
            (r"classification_head\..*", ""),
        ),
        options=_smp_options,
    ),
    "mmseg": Dialect(
        signs=(r"^backbone\.layer4\.", r"^decode_head\.psp_modules\.3\.1\.", r"^decode_head\.fpn_bottleneck\.conv"),
        rules=(
            *MMSEG_BACKBONE,
            *_head("bn"),
            (r"decode_head\.conv_seg\.(.*)", r"head.\1"),
            *MMSEG_AUX,
        ),
        options=_mmseg_options,
        **MMSEG,
    ),
    "transformers": Dialect(
        signs=(r"^backbone\.encoder\.stages\.3\.layers\.0\.dwconv\.", r"^backbone\.hidden_states_norms\.stage4\.",
               r"^decode_head\.fpn_bottleneck\.batch_norm\.", r"^decode_head\.classifier\."),
        rules=(
            (r"backbone\.embeddings\.patch_embeddings\.(.*)", r"encoder.body.stem_0.\1"),
            (r"backbone\.embeddings\.layernorm\.(.*)", r"encoder.body.stem_1.\1"),
            (r"backbone\.encoder\.stages\.(\d)\.downsampling_layer\.(.*)", r"encoder.body.stages_\1.downsample.\2"),
            *(
                (rf"backbone\.encoder\.stages\.(\d)\.layers\.(\d+)\.{a}", rf"encoder.body.stages_\1.blocks.\2.{b}")
                for a, b in CONVNEXT.items()
            ),
            *((rf"backbone\.hidden_states_norms\.stage{i + 1}\.(.*)", rf"norms.{i}.\1") for i in range(4)),
            *_head("batch_norm"),
            (r"decode_head\.classifier\.(.*)", r"head.\1"),
            (r"auxiliary_head\.convs\.0\.conv\.(.*)", r"aux.0.\1"),
            (r"auxiliary_head\.convs\.0\.batch_norm\.(.*)", r"aux.1.\1"),
            (r"auxiliary_head\.classifier\.(.*)", r"aux.4.\1"),
        ),
        options=_transformers_options,
        **MMSEG,  # where its weights are from
    ),
}  # fmt: skip
