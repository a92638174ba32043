"""Crops of 512 x 512 from JPEGs and their masks, beside torchvision v2 and albumentations; see `speed_data`."""

from __future__ import annotations

import numpy as np
import speed_data
from speed_side import Row

ROW = Row(
    what="the same with an 8-bit PNG mask",
    sides={
        "pixelwise": lambda: speed_data.ours(masks=True),
        "torchvision": lambda: speed_data.torchvision(masks=True),
        "albumentations": lambda: speed_data.albumentations(masks=True),
    },
    digest=lambda means: np.asarray(means).tolist(),
    compare=speed_data.compare,
    target={"torchvision": 2.2},
)
