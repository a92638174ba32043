"""What joint histograms are made of: every metric of regions here is read from how often id a meets id b.

No metric holds one mask per class or segment: N segments against M cost one pass and the pairs that meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import DataError
from pixelwise.kernels.joint import Codes

MARKS = 2  # UNKNOWN and NOTHING stand before the rows in a histogram of rows: code = row + MARKS


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


def row_codes(segments: Segments) -> Codes:
    """The map [H, W] of what shows: code 0 UNKNOWN, 1 NOTHING, else MARKS + the row."""
    return layer_codes(segments.row_map(), len(segments))


def layer_codes(layer: Tensor, rows: int) -> Codes:
    """A layer [H, W] of so many rows, coded likewise."""
    return Codes(layer, UNKNOWN, rows + MARKS)


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
