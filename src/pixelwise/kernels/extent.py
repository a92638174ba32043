"""Pixel count, box and sum of coordinates of every row of a map, a band of the map at a time.

ids [h, W] int32 rows, NOTHING (-1) or UNKNOWN (-2); the band begins at the line `top` of the map. `found` [N + 2, 7]
int64 is added to: pixels, x0, y0, x1, y1 (edges; x0, y0 begin at FAR), sum of x, sum of y; the rows N and N + 1 are
those of UNKNOWN and NOTHING, as negative indices have it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pixelwise.kernels import compiled as forms
from pixelwise.kernels.compiled import compiled

COUNT, X0, Y0, X1, Y1, SUM_X, SUM_Y = range(7)
FAR = np.iinfo(np.int64).max


def blank(rows: int) -> np.ndarray:
    """[rows + 2, 7] of a map of which nothing was seen yet."""
    found = np.zeros((rows + 2, 7), np.int64)
    found[:, X0 : Y0 + 1] = FAR
    return found


def add_extent(ids: np.ndarray, top: int, found: np.ndarray) -> None:
    """Adds a band to `found`, in place."""
    if forms.numba is None:
        reference(ids, top, found)
    else:
        _walk(np.ascontiguousarray(ids, np.int32), top, found)


def reference(ids: np.ndarray, top: int, found: np.ndarray) -> None:
    """The same by NumPy and SciPy."""
    count, (height, width) = len(found), ids.shape
    rows = np.where(ids < 0, count + ids, ids).astype(np.int64)
    flat = rows.ravel()
    ys, xs = np.divmod(np.arange(height * width), width)
    found[:, COUNT] += np.bincount(flat, minlength=count)
    found[:, SUM_X] += np.bincount(flat, xs, minlength=count).astype(np.int64)
    found[:, SUM_Y] += np.bincount(flat, ys + top, minlength=count).astype(np.int64)
    for row, window in enumerate(ndimage.find_objects(rows + 1, max_label=count)):
        if window is not None:
            y, x = window
            found[row, X0], found[row, Y0] = min(found[row, X0], x.start), min(found[row, Y0], y.start + top)
            found[row, X1], found[row, Y1] = max(found[row, X1], x.stop), max(found[row, Y1], y.stop + top)


@compiled
def _walk(ids: np.ndarray, top: int, found: np.ndarray) -> None:
    count = len(found)
    height, width = ids.shape
    for y in range(height):
        at = 0
        while at < width:  # run by run: segments are smooth
            row, start = ids[y, at], at
            while at < width and ids[y, at] == row:
                at += 1
            own = found[row if row >= 0 else count + row]
            own[0] += at - start
            own[1] = min(own[1], start)
            own[2] = min(own[2], top + y)
            own[3] = max(own[3], at)
            own[4] = max(own[4], top + y + 1)
            own[5] += (start + at - 1) * (at - start) // 2
            own[6] += (top + y) * (at - start)
