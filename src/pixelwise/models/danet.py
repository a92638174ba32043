"""DANet (Fu, Liu, Tian, Li, Bao, Fang, Lu 2018, 1809.02983): dual attention, of positions and of channels.

Two branches read the last map of a dilated ResNet. In one every position gathers from all others, by how alike their
features are; in the other every channel from all channels. Each is weighted by a number learnt from zero and added to
the branch's map; the sum of both branches is labelled. In training each branch is labelled alone too.

The plain variant is mmsegmentation's r50-d8 (49,846,574 parameters at 19 classes), `r101` its r101-d8; files of its
769x769 configurations want `align_corners=True`, which no shape tells. The authors' own code differs: no auxiliary head
on the third stage (`aux=0`), a plain stem (`encoder="resnet50"`), dilations of 4, 8 and 16 in the last stage's three
blocks, enlarging with aligned corners. As both codes have it, a channel attends to those most *unlike* itself: the
paper's formula is softmax(A A^T), theirs softmax(max - A A^T), row by row.
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

PAPER = {"title": "Dual Attention Network for Scene Segmentation", "year": 2018, "arxiv": "1809.02983"}

VARIANTS: dict[str, dict[str, Any]] = {"": {}, "r101": {"encoder": "resnet101c"}}
THIN = {"encoder": "test_resnet", "width": 16}  # for the tests of what every net promises


class PositionAttention(nn.Module):
    """[B, C, h, w] -> the same: gamma sum_j softmax_j(q_i k_j) v_j + x_i over all positions j, unscaled.

    keys   channels of queries and keys
    """

    def __init__(self, channels: int, keys: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, keys, 1)
        self.key = nn.Conv2d(channels, keys, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        found = attend(tokens(self.query(x)), tokens(self.key(x)), tokens(self.value(x)))  # [B, h w, C]
        return x + self.gamma * found.mT.view_as(x)


class ChannelAttention(nn.Module):
    """[B, C, h, w] -> the same: gamma sum_j softmax_j(-x_i x_j) x_j + x_i over all channels j.

    x_i x_j is a sum over all positions, too large for half precision. The row's maximum, which the authors add within
    the softmax, changes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2)  # [B, C, h w]
        weights = (-_energy(rows)).softmax(-1).to(x.dtype)  # [B, C, C]
        return x + self.gamma * (weights @ rows).view_as(x)


def _energy(rows: Tensor) -> Tensor:
    """[B, C, N] -> [B, C, C] float32."""
    if rows.dtype == torch.float32:
        return rows @ rows.mT
    with torch.autocast(rows.device.type, enabled=False):
        return rows.float() @ rows.float().mT


class Branch(nn.Module):
    """3x3 convolution, attention, 3x3 convolution, and a head for training: [B, C, h, w] -> [B, width, h, w]."""

    def __init__(self, channels: int, width: int, attention: nn.Module, classes: int | None, dropout: float) -> None:
        super().__init__()
        self.before = conv_norm(channels, width, 3)
        self.attention = attention
        self.after = conv_norm(width, width, 3)
        self.head = None if classes is None else _head(width, classes, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.attention(self.before(x)))


def _head(width: int, classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1))


class DANet(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H/8, W/8]; any H, W from `min_size` up."""

    min_size = 8

    def __init__(self, *, classes: int, channels: int, encoder: str, pretrained: bool, aux: float, branches: float,
                 output_stride: int, width: int | None, keys: int | None, dropout: float,
                 align_corners: bool) -> None:  # fmt: skip
        super().__init__()
        self.encoder = make_encoder(encoder, channels=channels, pretrained=pretrained, output_stride=output_stride,
                                    levels=(16, 32))  # fmt: skip
        middle, deep = self.encoder.channels
        width = width or max(1, deep // 4)
        position = PositionAttention(width, keys or max(1, width // 8))
        own = classes if branches else None
        self.position = Branch(deep, width, position, own, dropout)
        self.channel = Branch(deep, width, ChannelAttention(), own, dropout)
        self.head = _head(width, classes, dropout)
        self.aux = FCNHead(middle, classes, dropout=dropout, maps=True) if aux else None
        self.weights, self.align_corners = {"branches": branches, "aux": aux}, align_corners

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        middle, deep = self.encoder(images)
        x, y = self.position(deep), self.channel(deep)
        logits = self.head(x + y)  # [B, K, h, w]
        aux = []
        if self.training and self.position.head is not None and self.channel.head is not None:
            weight = self.weights["branches"]
            aux += [("position", weight, self.position.head(x)), ("channel", weight, self.channel.head(y))]
        if self.training and self.aux is not None:
            aux.append(("aux", self.weights["aux"], self.aux(middle)))
        return dense(images, frames, logits, aux=aux, align_corners=self.align_corners)


def build(*, classes: int, channels: int = 3, encoder: str = "resnet50c", pretrained: bool = False, aux: float = 0.4,
          branches: float = 1.0, output_stride: int = 8, width: int | None = None, keys: int | None = None,
          dropout: float = 0.1, align_corners: bool = False) -> DANet:  # fmt: skip
    """DANet with numbers.

    channels  of the input                 encoder  see `pixelwise list encoders`
    pretrained  the encoder begins with timm's weights
    aux       weight of the auxiliary head's loss on the third stage, mmsegmentation's 0.4; 0: no such head
    branches  weight of each branch's own loss, beside 1 for their sum; 0: no such heads
    output_stride  8, 16 or 32 of the last map: below 32 later stages are dilated
    width     of the branches; None: a quarter of the channels of the last map
    keys      channels of queries and keys; None: an eighth of the width
    dropout   of whole maps, before the last convolutions
    align_corners  how logits are enlarged
    Raises ConfigError for what cannot be.
    """
    check_whole("DANet", channels=channels)
    check_whole("DANet", none=True, width=width, keys=keys)
    check_choice("DANet", STRIDES, output_stride=output_stride)
    check_dropout("DANet", dropout=dropout)
    check_weight("DANet", aux=aux, branches=branches)
    check_flags("DANet", pretrained=pretrained, align_corners=align_corners)
    return DANet(classes=classes, channels=channels, encoder=encoder, pretrained=pretrained, aux=aux, branches=branches,
                 output_stride=output_stride, width=width, keys=keys, dropout=dropout,
                 align_corners=align_corners)  # fmt: skip


def _mmseg_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    keys, width = tensors["decode_head.pam.key_project.weight"].shape[:2]
    return {**mmseg_dilated_encoder(tensors), "classes": len(tensors["decode_head.conv_seg.weight"]), "width": width,
            "keys": keys}  # fmt: skip


_BRANCHES = tuple(
    rule
    for theirs, ours in (("pam", "position"), ("cam", "channel"))
    for rule in (
        (rf"decode_head\.{theirs}_in_conv\.conv\.(.*)", rf"{ours}.before.0.\1"),
        (rf"decode_head\.{theirs}_in_conv\.bn\.(.*)", rf"{ours}.before.1.\1"),
        (rf"decode_head\.{theirs}_out_conv\.conv\.(.*)", rf"{ours}.after.0.\1"),
        (rf"decode_head\.{theirs}_out_conv\.bn\.(.*)", rf"{ours}.after.1.\1"),
        (rf"decode_head\.{theirs}_conv_seg\.(.*)", rf"{ours}.head.1.\1"),
        (rf"decode_head\.{theirs}\.gamma\.scale", f"{ours}.attention.gamma"),
    )
)
KEYS = {
    "mmseg": Dialect(
        signs=(r"^backbone\.layer4\.", r"^decode_head\.pam\.gamma", r"^decode_head\.cam\.gamma"),
        rules=(
            *MMSEG_BACKBONE,
            *_BRANCHES,
            (r"decode_head\.pam\.(query|key|value)_project\.(.*)", r"position.attention.\1.\2"),
            (r"decode_head\.conv_seg\.(.*)", r"head.1.\1"),
            *MMSEG_AUX,
        ),
        options=_mmseg_options,
        **MMSEG,
    ),
}
