"""PNG's filters undone (ISO/IEC 15948, section 9), for one byte a pixel: the maps that masks are."""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelwise.kernels.compiled import compiled

NONE, SUB, UP, AVERAGE, PAETH = range(5)


@compiled
def unfilter(rows: Any, out: Any) -> bool:
    """[H, 1 + W] uint8, each row behind the number of its filter -> out [H, W] uint8. False for a number that is none.

    Without Numba it is too slow to be used: see `data.scanlines`.
    """
    height, width = out.shape
    above = np.zeros(width, np.uint8)
    for y in range(height):
        kind, row, into = rows[y, 0], rows[y, 1:], out[y]
        if kind == NONE:
            into[:] = row
        elif kind == SUB:
            left = np.uint8(0)
            for x in range(width):
                left = np.uint8(row[x] + left)
                into[x] = left
        elif kind == UP:
            for x in range(width):
                into[x] = row[x] + above[x]
        elif kind == AVERAGE:
            left = np.uint8(0)
            for x in range(width):
                left = np.uint8(row[x] + ((np.int32(left) + np.int32(above[x])) >> 1))
                into[x] = left
        elif kind == PAETH:
            _paeth(row, above, into)
        else:
            return False
        above = into
    return True


@compiled
def _paeth(row: Any, above: Any, into: Any) -> None:
    """The neighbour nearest to left + above - upper left is added."""
    a, c = np.int32(0), np.int32(0)
    for x in range(len(into)):
        b = np.int32(above[x])
        if a == c and row[x] == 0 and b == c:  # an even area, the commonest case in maps
            into[x] = a
            continue
        to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - c - c)
        near = a if to_a <= to_b and to_a <= to_c else b if to_b <= to_c else c
        a = np.int32(np.uint8(row[x] + near))
        into[x] = a
        c = b
