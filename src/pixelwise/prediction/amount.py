"""How many different sizes images have, by their headers: engines prepare for each size."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.io import read_header
from pixelwise.errors import ImageError

LOOKED_AT = 200  # headers; of more images so many are drawn evenly, and the share stands for the rest


def different_sizes(paths: Sequence[Path]) -> int:
    """Different sizes among the images, at least 1. What cannot be opened is passed over: reading it will say why."""
    step = max(1, len(paths) // LOOKED_AT)
    looked, found = 0, set()
    for path in paths[::step]:
        try:
            found.add(read_header(path, max_pixels=sys.maxsize).size)
        except ImageError:
            continue
        looked += 1
    if len(found) < 0.5 * looked:  # few sizes that come again: others would have shown
        return max(1, len(found))
    return max(1, round(len(found) / max(1, looked) * len(paths)))
