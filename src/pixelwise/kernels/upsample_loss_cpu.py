"""Numba's form of `upsample_loss`: band by band, each by cells where that is safe, else row by row.

A band is all rows of pixels between the same two grid rows. Forward, bands write to different places. Backward, a band
adds to its two grid rows, so those that begin at an even grid row come first, then the others: no two at the same time
share a row, and the order in which numbers are added up depends on nothing else. `upsample_loss_cells` and
`upsample_loss_rows` do the arithmetic.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.kernels import upsample_loss_cells as cells
from pixelwise.kernels import upsample_loss_rows as rows
from pixelwise.kernels.compiled import compiled, in_parts
from pixelwise.kernels.upsample_geometry import AT_ONCE, Geometry, geometry, make_room
from pixelwise.kernels.upsample_loss_rows import row_of


def forward(logits: Tensor, labels: Tensor, align_corners: bool, lse: bool,
            masses: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """`log_p`; each pixel's sum of exponentials, for `backward`; `lse`, `predicted` and `true` where asked for.

    The sums are positive where they were taken less a cell's reference, negative less the pixel's largest logit, and 0
    at void.
    """
    grid, ids, lay = _array(logits), _array(labels), _geometry(logits, labels, align_corners)
    log_p, sums = torch.empty(labels.shape), torch.empty(labels.shape)
    logsum = torch.empty(labels.shape if lse else (0, 0, 0))
    parts = torch.zeros(2, len(labels), len(lay.bands), logits.shape[1] if masses else 0, dtype=torch.float64)
    same = logits.shape[2:] == labels.shape[1:]
    work: Any = partial(forward_bands, grid, ids, lay, same, *(x.numpy() for x in (log_p, sums, logsum, *parts)))
    in_parts(work, len(labels) * len(lay.bands))
    predicted, true = parts.sum(2).float() if masses else (None, None)
    return log_p, sums, logsum if lse else None, predicted, true


def backward(logits: Tensor, labels: Tensor, log_p: Tensor, sums: Tensor, align_corners: bool,
             grads: tuple[Tensor | None, ...]) -> Tensor:  # fmt: skip
    """The gradient by `logits`, from those by `log_p`, `lse`, `predicted` and `true`."""
    grid, ids, lay = _array(logits), _array(labels), _geometry(logits, labels, align_corners)
    same = logits.shape[2:] == labels.shape[1:]
    out = torch.empty(logits.shape) if same else torch.zeros(logits.shape)
    none = (torch.empty(0, 0, 0), torch.empty(0, 0, 0), torch.empty(0, 0), torch.empty(0, 0))
    by_log_p, by_lse, by_predicted, by_true = (
        _array(nothing if grad is None else grad) for grad, nothing in zip(grads, none, strict=True)
    )
    work: Any = partial(backward_bands, grid, ids, lay, same, log_p.numpy(), sums.numpy(), by_log_p, by_lse,
                        by_predicted, by_true, out.numpy())  # fmt: skip
    even = len(labels) * int((lay.upper[lay.bands[:, 0]] % 2 == 0).sum())
    for first, count in ((0, even), (even, len(labels) * len(lay.bands) - even)):
        in_parts(partial(_moved, work, first), count)
    return out


def _moved(work: Any, first: int, start: int, stop: int) -> None:
    work(first + start, first + stop)


def _geometry(logits: Tensor, labels: Tensor, align_corners: bool) -> Geometry:
    return geometry((logits.shape[2], logits.shape[3]), (labels.shape[1], labels.shape[2]), align_corners)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@compiled
def forward_bands(grid: np.ndarray, labels: np.ndarray, lay: Geometry, same: bool, log_p: np.ndarray,
                  sums: np.ndarray, lse: np.ndarray, predicted: np.ndarray, true: np.ndarray, start: int,
                  stop: int) -> None:  # fmt: skip
    """Units start..stop of (band, image), images running fastest."""
    images, width, room = len(grid), grid.shape[3], make_room(grid.shape[3], len(lay.first), labels.shape[2])
    for unit in range(start, stop):
        b, band = unit % images, unit // images
        begin, end = lay.bands[band]
        logsum = lse[b] if len(lse) else np.zeros((0, width), np.float32)
        own = labels[b], log_p[b], sums[b], logsum, predicted[b, band], true[b, band]
        calm = len(lay.first) > 0 and cells.references(grid[b], lay, room, begin)
        for y in range(begin, end, AT_ONCE):
            until = min(end, y + AT_ONCE)
            if calm and cells.forward(grid[b], lay, room, y, until, *own):
                continue
            for r in range(y, until):
                rows.forward(grid[b], lay, room, same, r, labels[b, r], log_p[b, r], sums[b, r], row_of(logsum, r),
                             predicted[b, band], true[b, band])  # fmt: skip


@compiled
def backward_bands(grid: np.ndarray, labels: np.ndarray, lay: Geometry, same: bool, log_p: np.ndarray,
                   sums: np.ndarray, by_log_p: np.ndarray, by_lse: np.ndarray, by_predicted: np.ndarray,
                   by_true: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:  # fmt: skip
    """Adds the gradient of units start..stop to `out` [B, K, h, w]; where the grid is the labels' size, writes it."""
    images, room = len(grid), make_room(grid.shape[3], len(lay.first), labels.shape[2])
    none = np.zeros((0, 1), np.float32)
    for unit in range(start, stop):
        b, band = unit % images, unit // images
        begin, end = lay.bands[band]
        slopes = by_log_p[b] if len(by_log_p) else none, by_lse[b] if len(by_lse) else none
        factors = row_of(by_predicted, b), row_of(by_true, b)
        for y in range(begin, end, AT_ONCE):
            until = min(end, y + AT_ONCE)
            kind = _kind(sums[b, y:until])
            if kind > 0:
                cells.references(grid[b], lay, room, y)
                cells.backward(grid[b], lay, room, y, until, labels[b], log_p[b], sums[b], slopes, factors, out[b])
            elif kind < 0 or same:
                for r in range(y, until):
                    by_maps = row_of(slopes[0], r), row_of(slopes[1], r)
                    rows.backward(grid[b], lay, room, same, r, labels[b, r], log_p[b, r], sums[b, r], by_maps, factors,
                                  out[b])  # fmt: skip


@compiled
def _kind(sums: np.ndarray) -> int:
    """1 for rows that were read by cells, -1 for rows that were not, 0 where all is void."""
    for y in range(len(sums)):
        for x in range(sums.shape[1]):
            if sums[y, x] != 0:
                return 1 if sums[y, x] > 0 else -1
    return 0
