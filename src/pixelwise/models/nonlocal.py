"""Non-local networks (Wang, Girshick, Gupta, He 2017, 1711.07971): every position gathers from all others.

The paper's block, embedded Gaussian, y_i = sum_j softmax_j(theta_i phi_j) g_j, z_i = W y_i + x_i, stands between two
3x3 convolutions on the last map of a dilated ResNet; their result joins that map, and pixels are labelled. The norm
behind W begins with zero weights, so that the block begins as the identity.

The paper has no net for semantic segmentation: this is mmsegmentation's r50-d8 (50,023,814 parameters at 19 classes),
with the auxiliary head of PSPNet; `r101` its r101-d8. Files of its 769x769 configurations want `align_corners=True`,
which no shape tells. It divides theta_i phi_j by the square root of their length, as later attention does; the paper
does not: `scaled=False`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.core.keys import Dialect
from pixelwise.core.outputs import Dense, Frame
from pixelwise.nn.attention import attend, tokens
from pixelwise.nn.conv import conv_norm
from pixelwise.nn.encoder import STRIDES, make_encoder
from pixelwise.nn.encoder_keys import MMSEG, MMSEG_AUX, MMSEG_BACKBONE, mmseg_dilated_encoder
from pixelwise.nn.heads import FCNHead, dense
from pixelwise.nn.options import check_choice, check_dropout, check_flags, check_weight, check_whole

PAPER = {"title": "Non-local Neural Networks", "year": 2017, "arxiv": "1711.07971"}

VARIANTS: dict[str, dict[str, Any]] = {"": {}, "r101": {"encoder": "resnet101c"}}
THIN = {"encoder": "test_resnet", "width": 16}  # for the tests of what every net promises


class NonLocalBlock(nn.Module):
    """[B, C, h, w] -> the same.

    inner    channels of theta, phi and g, half as many in the paper
    scaled   theta_i phi_j is divided by the square root of `inner`
    """

    def __init__(self, channels: int, inner: int, scaled: bool) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.out = conv_norm(inner, channels, act=False)
        self.scale = inner**-0.5 if scaled else 1.0
        for conv in (self.theta, self.phi, self.g):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.out[1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        found = attend(tokens(self.theta(x)), tokens(self.phi(x)), tokens(self.g(x)), self.scale)  # [B, h w, inner]
        return x + self.out(found.mT.unflatten(2, x.shape[2:]))


class NonLocal(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H/8, W/8]; any H, W from `min_size` up."""

    min_size = 8

    def __init__(self, *, classes: int, channels: int, encoder: str, pretrained: bool, aux: float, output_stride: int,
                 width: int | None, inner: int | None, scaled: bool, dropout: float,
                 align_corners: bool) -> None:  # fmt: skip
        super().__init__()
        self.encoder = make_encoder(encoder, channels=channels, pretrained=pretrained, output_stride=output_stride,
                                    levels=(16, 32))  # fmt: skip
        middle, deep = self.encoder.channels
        width = width or max(1, deep // 4)
        self.before = conv_norm(deep, width, 3)
        self.block = NonLocalBlock(width, inner or max(1, width // 2), scaled)
        self.after = conv_norm(width, width, 3)
        self.join = nn.Sequential(*conv_norm(deep + width, width, 3), nn.Dropout2d(dropout))
        self.head = nn.Conv2d(width, classes, 1)
        self.aux = FCNHead(middle, classes, dropout=dropout, maps=True) if aux else None
        self.aux_weight, self.align_corners = aux, align_corners

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        middle, deep = self.encoder(images)
        x = self.after(self.block(self.before(deep)))  # [B, width, h, w]
        logits = self.head(self.join(torch.cat([deep, x], 1)))  # [B, K, h, w]
        aux = [("aux", self.aux_weight, self.aux(middle))] if self.training and self.aux is not None else []
        return dense(images, frames, logits, aux=aux, align_corners=self.align_corners)


def build(*, classes: int, channels: int = 3, encoder: str = "resnet50c", pretrained: bool = False, aux: float = 0.4,
          output_stride: int = 8, width: int | None = None, inner: int | None = None, scaled: bool = True,
          dropout: float = 0.1, align_corners: bool = False) -> NonLocal:  # fmt: skip
    """Non-local net with numbers.

    channels  of the input                 encoder  see `pixelwise list encoders`
    pretrained  the encoder begins with timm's weights
    aux       weight of the auxiliary head's loss on the third stage, mmsegmentation's 0.4; 0: no such head
    output_stride  8, 16 or 32 of the last map: below 32 later stages are dilated
    width     of the convolutions; None: a quarter of the channels of the last map
    inner     channels of theta, phi and g; None: half the width
    scaled    similarities are divided by the square root of `inner`
    dropout   of whole maps, before the last convolution
    align_corners  how logits are enlarged
    Raises ConfigError for what cannot be.
    """
    check_whole("NonLocal", channels=channels)
    check_whole("NonLocal", none=True, width=width, inner=inner)
    check_choice("NonLocal", STRIDES, output_stride=output_stride)
    check_dropout("NonLocal", dropout=dropout)
    check_weight("NonLocal", aux=aux)
    check_flags("NonLocal", pretrained=pretrained, scaled=scaled, align_corners=align_corners)
    return NonLocal(classes=classes, channels=channels, encoder=encoder, pretrained=pretrained, aux=aux,
                    output_stride=output_stride, width=width, inner=inner, scaled=scaled, dropout=dropout,
                    align_corners=align_corners)  # fmt: skip


def _mmseg_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    inner, width = tensors["decode_head.nl_block.theta.conv.weight"].shape[:2]
    return {**mmseg_dilated_encoder(tensors), "classes": len(tensors["decode_head.conv_seg.weight"]), "width": width,
            "inner": inner}  # fmt: skip


KEYS = {
    "mmseg": Dialect(
        signs=(r"^backbone\.layer4\.", r"^decode_head\.nl_block\.theta\.", r"^decode_head\.conv_cat\."),
        rules=(
            *MMSEG_BACKBONE,
            (r"decode_head\.nl_block\.(theta|phi|g)\.conv\.(.*)", r"block.\1.\2"),
            (r"decode_head\.nl_block\.conv_out\.conv\.(.*)", r"block.out.0.\1"),
            (r"decode_head\.nl_block\.conv_out\.bn\.(.*)", r"block.out.1.\1"),
            (r"decode_head\.convs\.0\.conv\.(.*)", r"before.0.\1"),
            (r"decode_head\.convs\.0\.bn\.(.*)", r"before.1.\1"),
            (r"decode_head\.convs\.1\.conv\.(.*)", r"after.0.\1"),
            (r"decode_head\.convs\.1\.bn\.(.*)", r"after.1.\1"),
            (r"decode_head\.conv_cat\.conv\.(.*)", r"join.0.\1"),
            (r"decode_head\.conv_cat\.bn\.(.*)", r"join.1.\1"),
            (r"decode_head\.conv_seg\.(.*)", r"head.\1"),
            *MMSEG_AUX,
        ),
        options=_mmseg_options,
        **MMSEG,
    ),
}
