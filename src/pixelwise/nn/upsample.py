"""Enlarging maps: bilinearly, by transposed convolutions that begin so (Long, Shelhamer, Darrell 2015, 1411.4038), and
by stored indices (Badrinarayanan, Kendall, Cipolla 2015, 1511.00561)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def enlarge(x: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """[B, C, h, w] -> [B, C, *size], bilinear; as it is where it has that size."""
    height, width = size
    if not torch.compiler.is_exporting() and x.shape[2:] == (height, width):  # an exported program is for any size
        return x
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=align_corners)


def bilinear_kernel(side: int) -> Tensor:
    """[side, side] weights of bilinear interpolation by a factor of side / 2, rounded up: the outer product of a tent.

    >>> bilinear_kernel(4)[0]
    tensor([0.0625, 0.1875, 0.1875, 0.0625])
    """
    factor = (side + 1) // 2
    middle = factor - 1 if side % 2 else factor - 0.5
    tent = 1 - (torch.arange(side, dtype=torch.float64) - middle).abs() / factor
    return torch.outer(tent, tent).float()


def bilinear_up(channels: int, factor: int, *, learned: bool = True) -> nn.ConvTranspose2d:
    """[B, C, h, w] -> [B, C, (h + 1) factor, (w + 1) factor]: a transposed convolution without bias that begins by
    enlarging each channel alone, bilinearly; pixel i of the input lies at (i + 1) factor - 0.5.

    learned  whether training may change it
    """
    up = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, bias=False)
    with torch.no_grad():
        each = torch.eye(channels, device=up.weight.device)[:, :, None, None]
        up.weight.copy_(each * bilinear_kernel(2 * factor).to(up.weight))
    up.weight.requires_grad_(learned)
    return up


def pool(x: Tensor, *, ceil: bool = False) -> tuple[Tensor, Tensor]:
    """[B, C, H, W] -> the largest of each 2x2 and where it stood: values and indices, both [B, C, H / 2, W / 2].

    The indices count within a channel's H x W pixels, row by row; `ceil` keeps the last row and column of odd sizes.
    """
    values, indices = F.max_pool2d(x, 2, 2, ceil_mode=ceil, return_indices=True)
    return values, indices


def unpool(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, *size]: each value where its index says, zero everywhere else.

    indices  [B, C, h, w] int64 as `pool` stored them      size  of the map that was pooled, 2h - 1 to 2h + 1 by as much
    """
    return F.max_unpool2d(x, indices, [2, 2], [2, 2], output_size=list(size))
