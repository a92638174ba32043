"""COCO's run-length code for masks: column-major runs, first of zeros, packed into text as COCO does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pixelwise.core.outlines import spread
from pixelwise.core.segments import Segments
from pixelwise.errors import DataError

LARGEST = 1 << np.arange(4, 60, 5, dtype=np.int64)  # what 1, 2, ... groups of 5 bits with a sign cannot hold any more
PACKED = 1 << 16  # runs that are turned into text at once


def encode(mask: np.ndarray) -> dict[str, Any]:
    """[H, W] bool -> {"size": [H, W], "counts": text}."""
    return {"size": list(mask.shape), "counts": pack(_runs(mask.ravel(order="F")))}


def encode_window(crop: np.ndarray, box: Sequence[int], size: Sequence[int]) -> dict[str, Any]:
    """The code of a mask of `size` (H, W): `crop` inside the box x0 y0 x1 y1, nothing elsewhere. Looks only inside."""
    height, width = int(size[0]), int(size[1])
    x0, y0, x1, y1 = (int(v) for v in box)
    if crop.size == 0 or not crop.any():
        return {"size": [height, width], "counts": pack([height * width])}
    columns = np.zeros((x1 - x0, height), bool)  # only the columns of the box, at full height
    columns[:, y0:y1] = crop.T
    runs = _runs(columns.ravel())
    runs[0] += x0 * height
    rest = (width - x1) * height
    if len(runs) % 2:
        runs[-1] += rest
    elif rest:
        runs.append(rest)
    return {"size": [height, width], "counts": pack(runs)}


def encode_sides(y: np.ndarray, x0: np.ndarray, x1: np.ndarray, size: Sequence[int]) -> dict[str, Any]:
    """The code of a mask of `size` (H, W) from the level sides [S] of its outline, without the mask."""
    height, width = int(size[0]), int(size[1])
    which, column = spread(x0, x1)
    place = np.sort(column * height + y[which])  # where a run ends, column by column
    again = np.zeros(len(place) + 1, bool)
    again[1:-1] = place[1:] == place[:-1]  # one column ends inside and the next begins so
    place = place[~(again[1:] | again[:-1])]
    rest = [] if len(place) and place[-1] == height * width else [height * width]
    return {"size": [height, width], "counts": pack(np.diff(np.concatenate([[0], place, rest])))}


def _runs(flat: np.ndarray) -> list[int]:
    """Lengths of the runs of a bool vector, the first of zeros (perhaps 0 long)."""
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(flat)]]))
    return ([0] if len(flat) and flat[0] else []) + lengths.tolist()


def pack(runs: Sequence[int] | np.ndarray) -> str:
    """Runs -> COCO's text: from the third on the difference to the run two before, in groups of 5 bits from '0' on."""
    lengths = np.asarray(runs, np.int64)
    values = lengths.copy()
    values[3:] -= lengths[1:-2]
    return "".join(_text(values[at : at + PACKED]) for at in range(0, len(values), PACKED))


def _text(values: np.ndarray) -> str:
    groups = np.searchsorted(LARGEST, np.where(values < 0, ~values, values), side="right") + 1  # the last has the sign
    place = np.arange(groups.max(initial=0))
    bits = (values[:, None] >> 5 * place) & 0x1F  # [runs, groups]
    bits |= np.where(place < groups[:, None] - 1, 0x20, 0)  # more follow
    return (bits[place < groups[:, None]] + 48).astype(np.uint8).tobytes().decode("ascii")


def unpack(counts: str | bytes) -> list[int]:
    """COCO's text -> runs. Raises DataError when the text ends in the middle of a number."""
    data = counts.encode() if isinstance(counts, str) else counts
    runs: list[int] = []
    x = shift = 0
    for byte in data:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise DataError(f"run-length code holds the byte {byte}, which COCO's alphabet lacks.")
        x |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                x |= -1 << shift
            runs.append(x + (runs[-2] if len(runs) > 2 else 0))
            x = shift = 0
    if shift:
        raise DataError("run-length code is cut off in the middle of a number.")
    return runs


def decode(rle: Mapping[str, Any]) -> np.ndarray:
    """{"size": [H, W], "counts": text or list of runs} -> [H, W] bool. Raises DataError if the runs do not fill it."""
    runs, height, width = _read(rle)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def decode_window(rle: Mapping[str, Any]) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """The box x0 y0 x1 y1 around the mask (0 0 0 0 for none) and the bool crop in it. Looks only at its columns."""
    runs, height, _ = _read(rle)
    ends = np.cumsum(runs)
    ones = np.flatnonzero(runs[1::2]) * 2 + 1
    if not len(ones):
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    starts, stops = ends[ones - 1], ends[ones]
    x0, x1 = int(starts[0]) // height, int(stops[-1] - 1) // height + 1
    steps = np.zeros((x1 - x0) * height + 1, np.int8)
    np.add.at(steps, starts - x0 * height, 1)  # runs of ones may touch where a run of zeros is 0 long
    np.add.at(steps, stops - x0 * height, -1)
    columns = np.cumsum(steps[:-1], dtype=np.int8).view(bool).reshape(x1 - x0, height)
    ys = np.flatnonzero(columns.any(0))
    y0, y1 = int(ys[0]), int(ys[-1]) + 1
    return (x0, y0, x1, y1), np.ascontiguousarray(columns[:, y0:y1].T)


def _read(rle: Mapping[str, Any]) -> tuple[np.ndarray, int, int]:
    """Runs int64, height, width, checked against each other."""
    try:
        height, width = (int(v) for v in rle["size"])
        counts = rle["counts"]
        found = np.array(unpack(counts) if isinstance(counts, (str, bytes)) else counts)
        runs = (found if found.size else found.astype(np.int64)).astype(np.int64, casting="safe").reshape(-1)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"run-length code {dict(rle)!s:.60} is malformed ({error}); expected 'size' [height, width] and 'counts', "
            "a text or a list of whole numbers."
        ) from None
    if (runs < 0).any():
        raise DataError(f"run-length code holds {runs.min()}; expected lengths of runs, 0 and up.")
    if runs.sum() != height * width:
        got, expected = runs.sum(), height * width
        raise DataError(f"run-length code covers {got} pixels, its size {height}x{width} has {expected}.")
    return runs, height, width


def to_rle(segments: Segments) -> list[dict[str, Any]]:
    """One code per row, without ever holding all masks."""
    return [encode_window(crop, box, segments.size) for box, crop in zip(*segments.windows())]


def from_rle(rles: Sequence[Mapping[str, Any]], labels: Any, size: Sequence[int], **columns: Any) -> Segments:
    """Segments from one code per row. Raises DataError when a code has another size than (H, W)."""
    boxes, crops = [], []
    for rle in rles:
        if list(rle["size"]) != list(size):
            raise DataError(f"run-length code is for {rle['size']}, the image has {list(size)} (height, width).")
        box, crop = decode_window(rle)
        boxes.append(box)
        crops.append(crop)
    return Segments.from_windows(boxes, crops, labels, size, **columns)
