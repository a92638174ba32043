"""Crops of 512 x 512 from JPEGs, image alone, beside torchvision v2 and albumentations; see `speed_data`."""

from __future__ import annotations

import numpy as np
import speed_data
from speed_side import Row

ROW = Row(
    what="24 x read, scale 0.5 to 2, crop 512, flip, jitter, normalise a 2048x1024 JPEG",
    sides={
        "pixelwise": lambda: speed_data.ours(masks=False),
        "torchvision": lambda: speed_data.torchvision(masks=False),
        "albumentations": lambda: speed_data.albumentations(masks=False),
    },
    digest=lambda means: np.asarray(means).tolist(),
    compare=speed_data.compare,
    target={"torchvision": 2.2},
)
