"""Crops of 512 x 512 from the decoded cache, beside torchvision v2 that decodes; see `speed_data`."""

from __future__ import annotations

import numpy as np
import speed_data
from speed_side import Row

ROW = Row(
    what="24 x the crop of a 2048x1024 image from the decoded cache",
    sides={
        "pixelwise": lambda: speed_data.ours(masks=False, kept=True),
        "torchvision": lambda: speed_data.torchvision(masks=False),
    },
    digest=lambda means: np.asarray(means).tolist(),
    compare=speed_data.compare,
    target={"torchvision": 10},
)
