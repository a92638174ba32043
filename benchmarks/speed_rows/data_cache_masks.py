"""Crops of 512 x 512 with their masks from the decoded cache, beside torchvision v2 that decodes; see `speed_data`."""

from __future__ import annotations

import numpy as np
import speed_data
from speed_side import Row

ROW = Row(
    what="the same with its mask",
    sides={
        "pixelwise": lambda: speed_data.ours(masks=True, kept=True),
        "torchvision": lambda: speed_data.torchvision(masks=True),
    },
    digest=lambda means: np.asarray(means).tolist(),
    compare=speed_data.compare,
    target={"torchvision": 10},
)
