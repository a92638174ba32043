"""Bilinear sampling of a coarse map on any window of a finer grid, without building the whole fine map."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Taps = tuple[Tensor, Tensor, Tensor]


def taps(count: int, start: float, step: float, source: int, device: torch.device) -> Taps:
    """Left neighbour, right neighbour and weight of the right one at positions start + step * i on `source` pixels."""
    position = (torch.arange(count, device=device, dtype=torch.float32) * step + start).clamp(0, source - 1)
    left = position.floor().long().clamp(max=source - 1)
    return left, (left + 1).clamp(max=source - 1), position - left


def sample_window(
    maps: Tensor, *, origin: tuple[float, float], step: tuple[float, float], size: tuple[int, int]
) -> Tensor:
    """[K, h, w] -> [K, H, W]: pixel (y, x) of the answer is `maps` at (origin_y + y step_y, origin_x + x step_x).

    Positions are in pixels of `maps`, pixel centres at whole numbers; outside, the border is repeated. With
    step = h/H and origin = step/2 - 1/2 this is torch's `interpolate(mode="bilinear", align_corners=False)`. Between a
    and b the value is a + (b - a) w, each operation rounded by itself, first down, then across: compiled kernels do the
    same and so find the same numbers to the bit.
    """
    first, end = _reach(size[1], origin[1], step[1], maps.shape[2])  # a narrow window takes no more than its columns
    rows = taps(size[0], origin[0], step[0], maps.shape[1], maps.device)
    left, right, wx = taps(size[1], origin[1], step[1], maps.shape[2], maps.device)
    return sample_taps(maps[:, :, first:end], rows, (left - first, right - first, wx))


def sample_taps(maps: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """[K, h, w] -> [K, H, W] float32 at the H rows and W columns that `taps` found."""
    (top, bottom, wy), (left, right, wx) = rows, columns
    maps = maps.float()
    above, below = maps[:, top], maps[:, bottom]
    between = above + (below - above) * wy[None, :, None]  # [K, H, w]
    before, behind = between[:, :, left], between[:, :, right]
    return before + (behind - before) * wx[None, None, :]


def _reach(count: int, start: float, step: float, source: int) -> tuple[int, int]:
    """The first column that may be read and the one past the last, with one to spare for rounding."""
    first = min(source - 1, max(0, math.floor(start) - 1))
    end = min(source, max(first + 2, math.ceil(start + step * (count - 1)) + 2))
    return first, end
