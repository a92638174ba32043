"""Joint histograms of two maps: every metric of regions here is read from how often id a meets id b.

No metric holds one mask per class or segment: N segments against M cost one pass and the pairs that meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import DataError

MARKS = 2  # UNKNOWN and NOTHING stand before the rows in a histogram of rows: code = row + MARKS
DENSE = 1 << 22  # a table of more cells is counted by sorting the pairs that occur


def as_integers(values: Any, what: str) -> Tensor:
    """An integer array or tensor of any dtype as a tensor that torch can count. Raises DataError for floats."""
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "iub":
            raise DataError(f"{what} must be a map of integers, got dtype {array.dtype}.")
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch counts no unsigned types above 8 bits
            array = array.astype(np.int32 if array.dtype.itemsize == 2 else np.int64)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        values = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if values.is_floating_point() or values.is_complex():
        raise DataError(f"{what} must be a map of integers, got dtype {values.dtype}.")
    if values.dtype == torch.bool:
        return values.to(torch.uint8)
    if values.dtype == torch.uint16:
        return values.to(torch.int32)
    return values.to(torch.int64) if values.dtype in (torch.uint32, torch.uint64) else values


def joint(a: Tensor, count_a: int, b: Tensor, count_b: int) -> np.ndarray:
    """[count_a, count_b] int64: at how many places a holds i while b holds j. a is in 0..count_a-1, b likewise."""
    index = _pair(a, b, count_a, count_b)
    return torch.bincount(index, minlength=count_a * count_b).reshape(count_a, count_b).cpu().numpy()


def pairs(a: Tensor, count_a: int, b: Tensor, count_b: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """i, j and their count, each [P] int64, for the pairs that occur, in rising order."""
    if count_a * count_b <= DENSE:
        table = joint(a, count_a, b, count_b)
        i, j = np.nonzero(table)
        return i, j, table[i, j]
    found, counts = torch.unique(_pair(a, b, count_a, count_b), return_counts=True)
    i, j = np.divmod(found.cpu().numpy(), count_b)
    return i, j, counts.cpu().numpy()


def _pair(a: Tensor, b: Tensor, count_a: int, count_b: int) -> Tensor:
    kind = torch.int32 if count_a * count_b < 2**31 else torch.int64
    return (a.to(kind, copy=True).mul_(count_b)).add_(b.to(a.device)).flatten()


def row_codes(segments: Segments) -> Tensor:
    """[H, W] int16 or int32: 0 UNKNOWN, 1 NOTHING, else MARKS + the row that shows."""
    fits = len(segments) < 2**15 - MARKS  # half the memory to go through
    return segments.row_map().to(torch.int16 if fits else torch.int32) - UNKNOWN


def check_size(prediction: Segments, truth: Segments) -> None:
    """Raises DataError when the two are not of one image size."""
    if prediction.size != truth.size:
        raise DataError(
            f"The prediction is {list(prediction.size)} pixels (height, width), the truth {list(truth.size)}; "
            "metrics compare them at the image's original size."
        )


def checked_labels(segments: Segments, num_classes: int, what: str) -> np.ndarray:
    """The labels [N] int64. Raises DataError when one is not in 0..num_classes-1."""
    labels = segments.labels.cpu().numpy()
    if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        raise DataError(
            f"The {what} holds labels {labels.min()}..{labels.max()}; there are {num_classes} classes, "
            f"0..{num_classes - 1}."
        )
    return labels


def divide(above: Any, below: Any) -> np.ndarray:
    """above / below in float64, NaN where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)


def nan_mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN when nothing is."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")
