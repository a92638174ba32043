"""How an enlarged map lies on its grid, as compiled kernels walk over it: bands of rows, and cells of columns."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from pixelwise.kernels.compiled import compiled
from pixelwise.kernels.resample import taps

LANES = 16  # float32 numbers in a vector register
AT_ONCE = 4  # rows whose sums lie in the first cache together
STEEP = 10.0  # the most a logit may change from a pixel to the next of a cell: three steps stay far from overflow
PAYS = 0.6  # the largest step from pixel to pixel, in columns of the grid, at which cells are worth their trouble


class Geometry(NamedTuple):
    """How the enlarged map lies on the grid. Bands that begin at an even grid row come first."""

    bands: np.ndarray  # [N, 2] int64 first row of pixels and the one after the last
    upper: np.ndarray  # [H] int32 grid row above the row of pixels, or on it
    lower: np.ndarray  # [H] int32
    share: np.ndarray  # [H] float32 of the lower one
    left: np.ndarray  # [W] int32
    right: np.ndarray  # [W] int32
    weight: np.ndarray  # [W] float32 of the right one
    lane: np.ndarray  # [W] int64 the column's cell; cell c lies between grid columns c-1 and c
    place: np.ndarray  # [W] int64 where its numbers lie in a row's [blocks, Q, 4, 16]
    nth: np.ndarray  # [W] int64 which pixel of its four it is
    origin: np.ndarray  # [W] float32 weight of the first pixel of its four
    first: np.ndarray  # [Q C] float32 the same by cell; empty where cells do not pay
    step: np.float32  # in weight, from pixel to pixel of a cell
    steep: np.float32  # the largest difference of neighbours on the grid that cells serve


class Room(NamedTuple):
    """Where numbers lie while a band is worked on."""

    ends: np.ndarray  # [C+1]
    above: np.ndarray  # [C+1]
    below: np.ndarray  # [C+1]
    values: np.ndarray  # [C+1]
    ratios: np.ndarray  # [C]
    top: np.ndarray  # [C]
    masses: np.ndarray  # [C]
    slopes: np.ndarray  # [4 C]
    sums: np.ndarray  # [AT_ONCE 4 Q C]
    shares: np.ndarray  # likewise
    common: np.ndarray  # likewise
    row: np.ndarray  # [6, W]


@lru_cache(maxsize=64)
def geometry(grid: tuple[int, int], size: tuple[int, int], align_corners: bool) -> Geometry:
    """Of a grid (h, w) enlarged to `size` (H, W), or shrunk to it."""
    (upper, lower, share), (left, right, weight) = (
        _lines(n, m, align_corners) for n, m in zip(grid, size, strict=True)
    )
    starts = np.flatnonzero(np.diff(upper, prepend=-1))
    bands = np.stack([starts, np.append(starts[1:], size[0])], 1)
    bands = bands[np.argsort(upper[starts] % 2, kind="stable")]
    step = _step(grid[1], size[1], align_corners)
    beyond = (np.arange(size[1]) + 0.5) * step < 0.5 if not align_corners else np.zeros(size[1], bool)
    lane, place, nth, origin, first = _cells(left, weight, beyond, grid[1], step)
    steep = np.float32(STEEP / max(step, 1e-6))
    return Geometry(bands, upper, lower, share, left, right, weight, lane, place, nth, origin, first, np.float32(step),
                    steep)  # fmt: skip


def _step(grid: int, size: int, align_corners: bool) -> float:
    return (grid - 1) / max(1, size - 1) if align_corners else grid / size


def _lines(grid: int, size: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    step = _step(grid, size, align_corners)
    left, right, weight = taps(size, 0.0 if align_corners else step / 2 - 0.5, step, grid, torch.device("cpu"))
    return left.int().numpy(), right.int().numpy(), weight.numpy()


def _cells(left: np.ndarray, weight: np.ndarray, beyond: np.ndarray, grid: int, step: float) -> Any:
    """`lane`, `place`, `nth`, `origin` and `first`. Pixels `beyond` the first column are in cell 0, which is flat."""
    lane = np.where(beyond, 0, left + 1).astype(np.int64)
    count = np.arange(len(lane)) - np.searchsorted(lane, lane)  # which pixel of its cell
    q, nth = count // 4, count % 4
    lanes, fours = -(-(grid + 1) // LANES) * LANES, int(q.max()) + 1
    place = ((lane // LANES * fours + q) * 4 + nth) * LANES + lane % LANES
    first = np.zeros((fours, lanes), np.float32)
    first[q[nth == 0], lane[nth == 0]] = weight[nth == 0]
    return lane, place, nth, first[q, lane], first.ravel() if step <= PAYS else np.zeros(0, np.float32)


@compiled
def make_room(width: int, first: int, pixels: int) -> Room:
    """For a grid of `width` columns, `first` numbers in `Geometry.first`, and rows of so many pixels."""
    lanes, sums = -(-(width + 1) // LANES) * LANES, (AT_ONCE, 4 * first)
    return Room(
        np.zeros(lanes + 1, np.float32), np.zeros(lanes + 1, np.float32), np.zeros(lanes + 1, np.float32),
        np.zeros(lanes + 1, np.float32), np.zeros(lanes, np.float32), np.zeros(lanes, np.float32),
        np.zeros(lanes, np.float32), np.zeros(4 * lanes, np.float32), np.zeros(sums, np.float32),
        np.zeros(sums, np.float32), np.zeros(sums, np.float32), np.zeros((6, pixels), np.float32),
    )  # fmt: skip
