"""Joint histograms of two maps: every metric of regions here is read from how often id a meets id b.

No metric holds one mask per class or segment: a map of N segments against one of M costs N*M counts and one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.segments import Segments
from pixelwise.errors import DataError

MARKS = 2  # UNKNOWN and NOTHING stand before the rows in a histogram of rows: index = row + MARKS


def as_integers(values: Any, what: str) -> Tensor:
    """An integer array or tensor of any dtype as a tensor torch can count. Raises DataError for floats."""
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "iub":
            raise DataError(f"{what} must be a map of integers, got dtype {array.dtype}.")
        # torch counts no unsigned types above 8 bits
        wide = {("u", 2): np.int32, ("u", 4): np.int64, ("u", 8): np.int64}.get((array.dtype.kind, array.dtype.itemsize))
        array = np.ascontiguousarray(array if wide is None else array.astype(wide))
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        values = torch.from_numpy(array if array.flags.writeable else array.copy())
    if values.is_floating_point() or values.is_complex():
        raise DataError(f"{what} must be a map of integers, got dtype {values.dtype}.")
    if values.dtype == torch.bool:
        return values.to(torch.uint8)
    if values.dtype == torch.uint16:
        return values.to(torch.int32)
    return values.to(torch.int64) if values.dtype in (torch.uint32, torch.uint64) else values


def joint(a: Tensor, count_a: int, b: Tensor, count_b: int) -> np.ndarray:
    """[count_a, count_b] int64: at how many places a holds i while b holds j. a is in 0..count_a-1, b likewise."""
    kind = torch.int32 if count_a * count_b < 2**31 else torch.int64
    index = a.to(kind).mul_(count_b) if a.dtype != kind else a * count_b
    index = index.add_(b.to(index.device))
    return torch.bincount(index.flatten(), minlength=count_a * count_b).reshape(count_a, count_b).cpu().numpy()


def same_size(prediction: Segments, truth: Segments) -> None:
    """Raises DataError when the two are not of one image size."""
    if prediction.size != truth.size:
        raise DataError(
            f"The prediction is {list(prediction.size)} pixels (height, width), the truth {list(truth.size)}; "
            "metrics compare them at the image's original size."
        )
