"""How many different sizes images have, by their headers: engines prepare for each size."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

LOOKED_AT = 200  # headers; of more images so many are drawn evenly, and the share stands for the rest


def different_sizes(paths: Sequence[Path]) -> int:
    """Different sizes among the images, at least 1. What cannot be opened is passed over: reading it will say why."""
    step = max(1, len(paths) // LOOKED_AT)
    looked, found = 0, set()
    for path in paths[::step]:
        try:
            with warnings.catch_warnings(), Image.open(path) as image:
                warnings.simplefilter("ignore")  # of sizes that may be bombs: nothing is decoded here
                found.add(image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        looked += 1
    if len(found) < 0.5 * looked:  # few sizes that come again: others would have shown
        return max(1, len(found))
    return max(1, round(len(found) / max(1, looked) * len(paths)))
