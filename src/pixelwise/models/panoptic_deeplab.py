"""Panoptic-DeepLab (Cheng, Collins, Zhu, Liu, Huang, Adam, Chen 2020, 1911.10194): bottom-up panoptic segmentation.

One encoder; two decoders, each with its own atrous spatial pyramid, of which one labels pixels and the other finds the
centres of things and the way from every pixel to its own. What training asks of them is said in `losses/centers.py`;
the classes' own loss is cross-entropy and Dice, or by `--loss "topk(fraction=0.2)"` the paper's.

`r50`, the plain variant, is the net of the authors' public code with output stride 32: 55,308,870 parameters at 19
classes; `r101` its larger sister. `small` is the same heads at a quarter of the width on the first three stages of a
ResNet-18, for training from scratch without a GPU: it enlarges by half pixels, its bumps are narrower, for smaller
images, and its offsets grow in fewer steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pixelwise.losses.centers  # noqa: F401  # registers the loss of `Centers`
from pixelwise.core.centers import Centers, Goal, Grouping
from pixelwise.core.keys import Dialect
from pixelwise.core.outputs import Frame
from pixelwise.core.sample import Preprocessing
from pixelwise.errors import ConfigError
from pixelwise.nn.context import ASPP
from pixelwise.nn.conv import conv_norm, separable_conv
from pixelwise.nn.encoder import make_encoder

PAPER = {
    "title": "Panoptic-DeepLab: A Simple, Strong, and Fast Baseline for Bottom-Up Panoptic Segmentation",
    "year": 2020,
    "arxiv": "1911.10194",
}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "r50": {},
    "r101": {"encoder": "resnet101"},
    "small": {"encoder": "resnet18", "levels": 3, "width": 64, "dropout": 0.1, "momentum": 0.1, "align_corners": False,
              "top_k": 1000, "stuff_area": 64, "sigma": 4.0, "small_area": 1024, "unit": 32},
}  # fmt: skip
THIN = {"encoder": "resnet10t", "levels": 3, "width": 16}  # for the tests of what every net promises
TASKS = ("panoptic", "instance")
LOSS = "ce+dice"  # from scratch it learns in fewer steps than the paper's, which is "topk(fraction=0.2)"
STRIDES = (4, 8, 16, 32)
HEAD = 16  # channels that the heads for centres have at least


class Decoder(nn.Module):
    """The coarsest map through the pyramid, then stage by stage enlarged and fused with the finer maps.

    channels  of the encoder's maps, the coarsest first
    skips     channels to which the finer maps are projected, the coarsest first
    """

    def __init__(self, channels: Sequence[int], pyramid: int, width: int, skips: Sequence[int], rates: Sequence[int],
                 dropout: float, align_corners: bool) -> None:  # fmt: skip
        super().__init__()
        self.align_corners = align_corners
        self.aspp = ASPP(channels[0], pyramid, rates, dropout, pooled_norm=False)
        self.project = nn.ModuleList(conv_norm(c, s) for c, s in zip(channels[1:], skips, strict=True))
        inputs = [pyramid] + [width] * (len(skips) - 1)
        self.fuse = nn.ModuleList(separable_conv(c + s, width, 5) for c, s in zip(inputs, skips, strict=True))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, the coarsest first -> [B, width, h, w] on the grid of the last one."""
        x = self.aspp(maps[0])
        for project, fuse, finer in zip(self.project, self.fuse, maps[1:]):
            x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=self.align_corners)
            x = fuse(torch.cat([x, project(finer)], 1))
        return x


class PanopticDeepLab(nn.Module):
    """net(images [B, C, H, W]) -> Centers on a grid of a quarter of the input's size; any H, W from `min_size` up."""

    min_size = 32

    def __init__(self, *, classes: int, channels: int, encoder: str, levels: int, output_stride: int, width: int,
                 rates: Sequence[int], dropout: float, momentum: float, align_corners: bool, grouping: Grouping,
                 goal: Goal, unit: int) -> None:  # fmt: skip
        super().__init__()
        self.encoder = make_encoder(encoder, channels=channels, output_stride=output_stride, levels=STRIDES[:levels])
        maps = self.encoder.channels[::-1]
        skips = [max(1, width * stride // 32) for stride in STRIDES[: levels - 1]][::-1]  # 128, 64, 32 of 256
        half = max(1, width // 2)
        shared: dict[str, Any] = {"rates": rates, "dropout": dropout, "align_corners": align_corners}
        self.semantic = Decoder(maps, width, width, skips, **shared)
        self.instance = Decoder(maps, width, half, [max(1, s // 2) for s in skips], **shared)
        self.classes = self._head(width, width, classes)
        self.heat = self._head(half, max(HEAD, width // 8), 1)
        self.offsets = self._head(half, max(HEAD, width // 8), 2)
        self.grouping, self.goal, self.align_corners = grouping, goal, align_corners
        self.unit = unit or self.encoder.strides[0]
        self._initialise(momentum)

    @staticmethod
    def _head(channels: int, width: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(separable_conv(channels, width, 5), nn.Conv2d(width, outputs, 1))

    def _initialise(self, momentum: float) -> None:
        """The authors' for decoders and heads: nearly nothing before a norm, and nearly even answers."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("encoder."):
                nn.init.normal_(module.weight, std=0.001)
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Centers:
        maps = self.encoder(images)[::-1]
        x, y = self.semantic(maps), self.instance(maps)
        offsets = self.offsets(y) * self.unit  # [B, 2, h, w]
        frames = frames or (Frame.whole(*images.shape[-2:]),) * len(images)
        return Centers(self.classes(x), self.heat(y), offsets, self.grouping, frames, self.align_corners, self.goal)


def build(*, classes: int, things: Sequence[int] | None = None, channels: int = 3, encoder: str = "resnet50",
          levels: int = 4, output_stride: int = 32, width: int = 256, rates: Sequence[int] = (3, 6, 9),
          dropout: float = 0.5, momentum: float = 0.01, align_corners: bool = True, threshold: float = 0.1,
          nms: int = 7, top_k: int = 200, stuff_area: int = 2048, sigma: float = 8.0, spread: float = 0.0,
          small_area: int = 4096, small_weight: float = 3.0, unit: int = 0) -> PanopticDeepLab:  # fmt: skip
    """Panoptic-DeepLab with numbers.

    things    labels of the channels that have instances; None: all but the last one, which is "nothing" then
    channels  of the input                   encoder  see `pixelwise list encoders`
    levels    maps of the encoder used: 4 reach stride 32, 3 stride 16, 2 stride 8; later stages are not built
    output_stride  8, 16 or 32 of the coarsest map: below 32 later stages are dilated
    width     of the semantic decoder (all other widths follow)
    rates     of the pyramid's three dilated convolutions
    dropout   behind the pyramid             momentum of the batch norms' statistics
    align_corners  how maps are enlarged: the authors' way, made for inputs of 32 n + 1 pixels, or by half pixels
    threshold, nms, top_k, stuff_area   of the grouping, see `Grouping`
    unit      pixels that a 1 from the head for offsets stands for; 0: the finest stride, as the authors have it. Where
              steps are few, a head that begins near 0 does not get far: then about the radius of a thing.
    sigma, spread, small_area, small_weight   of what training aims at, see `Goal`
    Raises ConfigError for numbers that cannot be, and for encoders without these strides.
    """
    _check({"channels": channels, "width": width, "levels": levels}, momentum, dropout)
    if isinstance(unit, bool) or not isinstance(unit, int) or unit < 0:
        raise ConfigError(f"Panoptic-DeepLab: unit is {unit!r}; it must be a whole number of pixels, or 0.")
    if levels not in (2, 3, 4):
        raise ConfigError(f"Panoptic-DeepLab: levels is {levels!r}; it can be 2, 3, 4.")
    if not isinstance(align_corners, bool):
        raise ConfigError(f"Panoptic-DeepLab: align_corners is {align_corners!r}; it can be true or false.")
    rates = _whole_numbers("rates", rates)
    if len(rates) != 3 or min(rates) < 1:
        raise ConfigError(f"Panoptic-DeepLab: rates is {list(rates)}; it must be three numbers from 1 up.")
    labels = tuple(range(classes - 1)) if things is None else _whole_numbers("things", things)
    if list(labels) != sorted(set(labels)) or not set(labels) <= set(range(classes)):
        raise ConfigError(
            f"Panoptic-DeepLab: things is {list(labels)}; rising labels in 0..{classes - 1} were expected."
        )
    grouping = Grouping(labels, threshold=threshold, nms=nms, top_k=top_k, stuff_area=stuff_area)
    return PanopticDeepLab(classes=classes, channels=channels, encoder=encoder, levels=levels,
                           output_stride=output_stride, width=width, rates=rates, dropout=dropout, momentum=momentum,
                           align_corners=align_corners, grouping=grouping,
                           goal=Goal(sigma, spread, small_area, small_weight), unit=unit)  # fmt: skip


def _whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or any(isinstance(v, bool) or not isinstance(v, int) for v in values):
        raise ConfigError(f"Panoptic-DeepLab: {name} is {values!r}; it must be a list of whole numbers.")
    return tuple(values)


def _check(whole: Mapping[str, Any], momentum: Any, dropout: Any) -> None:
    for name, number in whole.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigError(f"Panoptic-DeepLab: {name} is {number!r}; it must be a whole number from 1 up.")
    ranges = {"momentum": (momentum, 0, 1), "dropout": (dropout, 0, 0.99)}
    for name, (number, low, high) in ranges.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
            raise ConfigError(f"Panoptic-DeepLab: {name} is {number!r}; it must be a number in {low}..{high}.")


def _options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options of `build` from a file's shapes. 19 classes are Cityscapes', whose things are the last eight."""
    classes = len(tensors["decoder.semantic_head.classifier.semantic.1.weight"])
    deep = max(int(name.split(".")[2]) for name in tensors if name.startswith("backbone.layer3."))
    things = {19: list(range(11, 19)), 133: list(range(80))}.get(classes)
    encoder = "resnet50" if deep == 5 else "resnet101"
    return {"classes": classes, "encoder": encoder, **({"things": things} if things else {})}


KEYS = {
    "bowenc0221": Dialect(
        signs=(r"^backbone\.layer4\.", r"^decoder\.semantic_decoder\.aspp\.", r"^decoder\.instance_head\.classifier\."),
        rules=(
            (r"backbone\.(.+)", r"encoder.body.\1"),
            (r"decoder\.(semantic|instance)_decoder\.(fuse\.\d)\.0\.(.+)", r"\1.\2.\3"),
            (
                r"decoder\.(semantic|instance)_decoder\.aspp\.convs\.4\.aspp_pooling\.1\.(.+)",
                r"\1.aspp.convs.4.conv.\2",
            ),
            (r"decoder\.(semantic|instance)_decoder\.(.+)", r"\1.\2"),
            (r"decoder\.semantic_head\.classifier\.semantic\.0\.0\.(.+)", r"classes.0.\1"),
            (r"decoder\.semantic_head\.classifier\.semantic\.1\.(.+)", r"classes.1.\1"),
            (r"decoder\.instance_head\.classifier\.center\.0\.0\.(.+)", r"heat.0.\1"),
            (r"decoder\.instance_head\.classifier\.center\.1\.(.+)", r"heat.1.\1"),
            (r"decoder\.instance_head\.classifier\.offset\.0\.0\.(.+)", r"offsets.0.\1"),
            (r"decoder\.instance_head\.classifier\.offset\.1\.(.+)", r"offsets.1.\1"),
        ),
        options=_options,
        preprocessing=Preprocessing(),
        task="panoptic",
        labels={19: "cityscapes"},
    ),
}
