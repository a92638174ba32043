"""Triton's form of `upsample_argmax`, for NVIDIA GPUs. Only to be imported where Triton is.

A program takes a stretch of a row of pixels and reads it class by class, each value rounded as `sample_window` rounds.
"""
# Triton's functions take pointers, which have no type of their own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from pixelwise.kernels.resample import Taps

BLOCK = 256  # pixels of a program


def upsample_argmax_triton(maps: Tensor, rows: Taps, columns: Taps, kind: torch.dtype, first: np.float32,
                           nothing: np.int32) -> Tensor:  # fmt: skip
    """[K, h, w] -> [H, W] labels of type `kind`: `nothing` where no class exceeds `first`."""
    height, width = len(rows[0]), len(columns[0])
    labels = torch.empty((height, width), dtype=kind, device=maps.device)
    _label[(height, -(-width // BLOCK))](
        maps, *rows, *columns, labels, len(maps), width, *maps.stride(), float(first), int(nothing),
        BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return labels


@triton.jit
def _label(maps, top, bottom, down, left, right, across, labels, classes, width, stride_k, stride_y, stride_x, first,
           nothing, BLOCK: tl.constexpr):  # fmt: skip
    y = tl.program_id(0)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = x < width
    above, below = maps + tl.load(top + y) * stride_y, maps + tl.load(bottom + y) * stride_y
    wy = tl.load(down + y)
    at = tl.load(left + x, mask=inside, other=0) * stride_x
    behind = tl.load(right + x, mask=inside, other=0) * stride_x
    wx = tl.load(across + x, mask=inside, other=0.0)
    best = tl.full((BLOCK,), first, tl.float32)
    label = tl.full((BLOCK,), nothing, tl.int32)
    for k in range(classes):
        a = tl.load(above + at, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(below + at, mask=inside, other=0.0).to(tl.float32)
        c = tl.load(above + behind, mask=inside, other=0.0).to(tl.float32)
        d = tl.load(below + behind, mask=inside, other=0.0).to(tl.float32)
        p, q = a + (b - a) * wy, c + (d - c) * wy
        value = p + (q - p) * wx
        take = (value > best) | ((value != value) & (best == best))
        best = tl.where(take, value, best)
        label = tl.where(take, k, label)
        above += stride_k
        below += stride_k
    tl.store(labels + y.to(tl.int64) * width + x, label.to(labels.dtype.element_ty), mask=inside)
