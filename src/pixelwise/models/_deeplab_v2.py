"""The head of DeepLab v2 (Chen et al. 2016, 1606.00915), and the maximum over several scales of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SummedASPP(nn.Module):
    """Dilated 3x3 convolutions of the last map straight to the classes, added up: maps -> logits [B, K, h, w]."""

    def __init__(self, channels: int, classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in rates)
        for module in self.convs:
            nn.init.normal_(module.weight, std=0.01)  # type: ignore[arg-type]  # of a convolution
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        first, *others = self.convs
        total = first(maps[-1])
        for conv in others:
            total = total + conv(maps[-1])
        return total


def scaled(net: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float], align_corners: bool,
           ) -> tuple[Tensor, dict[float, Tensor]]:  # fmt: skip
    """What a net says of an image at several scales, 1 among them.

    net      images -> logits on a grid of its own
    Returns the largest of the logits for each class and cell [B, K, h, w], on the grid of scale 1, and {scale: logits}.
    """
    parts = {}
    for scale in scales:
        x = images
        if scale != 1:  # by the factor itself, since rounded sizes would move the samples
            x = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=align_corners)
        parts[scale] = net(x)
    fused = parts[1]
    for scale, logits in parts.items():
        if scale != 1:
            grid = F.interpolate(logits, parts[1].shape[-2:], mode="bilinear", align_corners=align_corners)
            fused = torch.maximum(fused, grid)
    return fused, parts
