"""Triton's form of `upsample_loss`, for NVIDIA GPUs.

Forward, a program reads a stretch of a row of pixels, class by class, with a running maximum. Backward, its lanes are
cells of the grid (see `upsample_geometry`) within a band of rows: all pixels of a cell are added up in registers before
four numbers per class go to the grid, by atomic additions, whose order is not the same every time, as in PyTorch's own
enlargement. Where PyTorch is told to be deterministic the reference runs instead. Only to be imported where Triton is.
"""
# Triton's functions take pointers, which have no type of their own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from pixelwise.kernels.upsample_geometry import geometry

BLOCK = 128  # pixels, or cells, of a program


class Lines(NamedTuple):
    """`Geometry` on the device, and the cells' pixels: the first one and how many, [C]."""

    upper: Tensor
    lower: Tensor
    share: Tensor
    left: Tensor
    right: Tensor
    weight: Tensor
    bands: Tensor
    start: Tensor
    pixels: Tensor
    most: int  # pixels of a cell


@lru_cache(maxsize=64)
def _lines(grid: tuple[int, int], size: tuple[int, int], align_corners: bool, device: torch.device) -> Lines:
    lay = geometry(grid, size, align_corners)
    start = np.searchsorted(lay.lane, np.arange(grid[1] + 1))
    count = np.bincount(lay.lane, minlength=grid[1] + 1)
    arrays = (lay.upper, lay.lower, lay.share, lay.left, lay.right, lay.weight, lay.bands.astype(np.int32),
              np.minimum(start, size[1] - 1).astype(np.int32), count.astype(np.int32))  # fmt: skip
    moved: Any = [torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays]
    return Lines._make([*moved, int(count.max())])


def _of(logits: Tensor, labels: Tensor, align_corners: bool) -> Lines:
    return _lines((logits.shape[2], logits.shape[3]), (labels.shape[1], labels.shape[2]), align_corners, logits.device)


def forward(logits: Tensor, labels: Tensor, align_corners: bool, lse: bool,
            masses: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """`log_p`; the log of each pixel's sum of exponentials, for `backward`; `lse`, `predicted`, `true` if asked for."""
    from pixelwise.kernels.upsample_loss import sum_by_label

    logits, labels, lines = logits.contiguous(), labels.contiguous(), _of(logits, labels, align_corners)
    images, classes = logits.shape[:2]
    log_p, logsum = torch.empty(labels.shape, device=logits.device), torch.empty(labels.shape, device=logits.device)
    predicted = torch.zeros(images, classes if masses else 0, device=logits.device, dtype=torch.float64)
    width = labels.shape[2]
    _read[(images * labels.shape[1], -(-width // BLOCK))](
        logits, labels, *lines[:6], log_p, logsum, predicted, classes, *logits.shape[2:], *labels.shape[1:],
        MASSES=masses, BLOCK=BLOCK, enable_fp_fusion=True,
    )  # fmt: skip
    true = sum_by_label(torch.where(labels >= 0, log_p.exp(), 0.0), labels, classes) if masses else None
    return log_p, logsum, logsum.clone() if lse else None, predicted.float() if masses else None, true


def backward(logits: Tensor, labels: Tensor, log_p: Tensor, sums: Tensor, align_corners: bool,
             grads: tuple[Tensor | None, ...]) -> Tensor:  # fmt: skip
    """The gradient by `logits`, from those by `log_p`, `lse`, `predicted` and `true`."""
    logits, labels, lines = logits.contiguous(), labels.contiguous(), _of(logits, labels, align_corners)
    by_log_p, by_lse, by_predicted, by_true = grads
    images, classes, height, width = logits.shape
    own = torch.zeros_like(log_p) if by_log_p is None else by_log_p.contiguous().clone()
    if by_true is not None:
        index = labels.clamp_min(0).flatten(1).long()
        own += by_true.gather(1, index).view_as(own) * log_p.exp()
    own = torch.where(labels >= 0, own, 0.0)
    common = -own if by_lse is None else by_lse - own
    common = common.contiguous()
    factors = torch.zeros(images, classes if by_predicted is not None else 0, device=logits.device)
    if by_predicted is not None:
        factors = by_predicted.float().contiguous()
    out = torch.zeros(logits.shape, device=logits.device)
    rows, columns = labels.shape[1:]
    sizes = (classes, height, width, rows, columns)
    _weigh[(images * rows, -(-columns // BLOCK))](
        logits, labels, *lines[:6], sums, own, common, factors, out, *sizes,
        MASSES=len(factors[0]) > 0, BLOCK=BLOCK, enable_fp_fusion=True,
    )  # fmt: skip
    _spread[(images * len(lines.bands), -(-(width + 1) // BLOCK))](
        logits, labels, *lines[:3], *lines[5:9], sums, common, factors, out, *sizes, len(lines.bands), lines.most,
        MASSES=len(factors[0]) > 0, BLOCK=BLOCK, enable_fp_fusion=True,
    )  # fmt: skip
    return out


@triton.jit
def _point(above, below, first, second, share, weight, inside):
    """Logits of pixels; a neighbour without weight is not looked at, be it infinite."""
    right = inside & (weight != 0)
    lower = inside & (share + 0 * weight != 0)
    a = tl.load(above + first, mask=inside, other=0.0)
    b = tl.load(below + first, mask=lower, other=0.0)
    p = tl.where(lower, a * (1 - share) + b * share, a)
    c = tl.load(above + second, mask=right, other=0.0)
    d = tl.load(below + second, mask=right & lower, other=0.0)
    q = tl.where(lower, c * (1 - share) + d * share, c)
    return tl.where(weight != 0, p * (1 - weight) + q * weight, p)


@triton.jit
def _stretch(labels, left, right, weights, columns, BLOCK: tl.constexpr):
    """A program's pixels of a row: inside?, place in the maps, label, known?, two columns of the grid, weight of the
    second."""
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = x < columns
    at = tl.program_id(0).to(tl.int64) * columns + x
    label = tl.load(labels + at, mask=inside, other=-1)
    first, second = tl.load(left + x, mask=inside, other=0), tl.load(right + x, mask=inside, other=0)
    weight = tl.load(weights + x, mask=inside, other=0.0)
    return inside, at, label, inside & (label >= 0), first, second, weight


@triton.jit
def _read(logits, labels, upper, lower, shares, left, right, weights, log_p, logsum, predicted, classes, height,
          width, rows, columns, MASSES: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    image, y = tl.program_id(0) // rows, tl.program_id(0) % rows
    inside, at, label, known, first, second, weight = _stretch(labels, left, right, weights, columns, BLOCK)
    maps = logits + image.to(tl.int64) * classes * height * width
    above, below = maps + tl.load(upper + y) * width, maps + tl.load(lower + y) * width
    share = tl.load(shares + y)
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    own = tl.zeros((BLOCK,), tl.float32)
    for k in range(classes):
        value = _point(above, below, first, second, share, weight, known)
        own = tl.where(label == k, value, own)
        higher = tl.maximum(highest, value)
        base = tl.where(higher == float("-inf"), 0.0, higher)  # nothing but minus infinity so far
        total = total * tl.exp(highest - base) + tl.exp(value - base)
        highest = higher
        above += height * width
        below += height * width
    tl.store(log_p + at, tl.where(known, own - highest - tl.log(total), 0.0), mask=inside)
    logged = tl.where(known, highest + tl.log(total), 0.0)
    tl.store(logsum + at, logged, mask=inside)
    if MASSES:
        above, below = maps + tl.load(upper + y) * width, maps + tl.load(lower + y) * width
        for k in range(classes):
            value = _point(above, below, first, second, share, weight, known)
            mass = tl.sum(tl.where(known, tl.exp(value - logged), 0.0))
            tl.atomic_add(predicted + image * classes + k, mass.to(tl.float64))
            above += height * width
            below += height * width


@triton.jit
def _weigh(logits, labels, upper, lower, shares, left, right, weights, logsum, owns, common, factors, out, classes,
           height, width, rows, columns, MASSES: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    """Takes the sum of p_k times its factor from `common`, and adds the gradient at pixels' own labels to `out`."""
    image, y = tl.program_id(0) // rows, tl.program_id(0) % rows
    inside, at, label, known, first, second, weight = _stretch(labels, left, right, weights, columns, BLOCK)
    share = tl.load(shares + y)
    begin = image.to(tl.int64) * classes * height * width
    high, low = tl.load(upper + y) * width, tl.load(lower + y) * width
    if MASSES:
        logged = tl.load(logsum + at, mask=inside, other=0.0)
        found = tl.zeros((BLOCK,), tl.float32)
        above, below = logits + begin + high, logits + begin + low
        for k in range(classes):
            value = _point(above, below, first, second, share, weight, known)
            found += tl.load(factors + image * classes + k) * tl.exp(value - logged)
            above += height * width
            below += height * width
        tl.store(common + at, tl.load(common + at, mask=known, other=0.0) - found, mask=known)
    own = tl.load(owns + at, mask=known, other=0.0)
    place = out + begin + tl.where(known, label, 0).to(tl.int64) * height * width
    some = known & (own != 0)
    behind = own * weight
    before = own - behind
    tl.atomic_add(place + high + first, before - before * share, mask=some)
    tl.atomic_add(place + low + first, before * share, mask=some)
    tl.atomic_add(place + high + second, behind - behind * share, mask=some)
    tl.atomic_add(place + low + second, behind * share, mask=some)


@triton.jit
def _spread(logits, labels, upper, lower, shares, weights, bands, starts, counts, logsum, common, factors, out,
            classes, height, width, rows, columns, count_of_bands, most, MASSES: tl.constexpr,
            BLOCK: tl.constexpr):  # fmt: skip
    image, band = tl.program_id(0) // count_of_bands, tl.program_id(0) % count_of_bands
    cell = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cell <= width
    start, count = tl.load(starts + cell, mask=inside, other=0), tl.load(counts + cell, mask=inside, other=0)
    first, second = tl.maximum(cell - 1, 0), tl.minimum(cell, width - 1)
    y0, y1 = tl.load(bands + 2 * band), tl.load(bands + 2 * band + 1)
    high, low = tl.load(upper + y0) * width, tl.load(lower + y0) * width
    for k in range(classes):
        begin = (image.to(tl.int64) * classes + k) * height * width
        factor = 0.0
        if MASSES:
            factor = tl.load(factors + image * classes + k)
        value_high, value_low = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
        line_high, line_low = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
        for y in range(y0, y1):
            share = tl.load(shares + y)
            for i in range(most):
                at = (image * rows + y).to(tl.int64) * columns + start + i
                known = inside & (i < count)
                known &= tl.load(labels + at, mask=known, other=-1) >= 0
                weight = tl.load(weights + start + i, mask=known, other=0.0)
                value = _point(logits + begin + high, logits + begin + low, first, second, share, weight, known)
                slope = tl.exp(value - tl.load(logsum + at, mask=known, other=0.0))
                slope *= factor + tl.load(common + at, mask=known, other=0.0)
                slope = tl.where(known, slope, 0.0)
                value_high += slope - slope * share
                value_low += slope * share
                line_high += (slope - slope * share) * weight
                line_low += slope * share * weight
        tl.atomic_add(out + begin + high + first, value_high - line_high, mask=inside)
        tl.atomic_add(out + begin + low + first, value_low - line_low, mask=inside)
        tl.atomic_add(out + begin + high + second, line_high, mask=inside)
        tl.atomic_add(out + begin + low + second, line_low, mask=inside)
