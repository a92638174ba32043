"""Instances from 128 photographs (Penn-Fudan pedestrians), from scratch: mask AP on the 42 images of its `val`.

    python benchmarks/pedestrians.py DATA --minutes 30                                 Mask R-CNN on a small encoder
    python benchmarks/pedestrians.py DATA --minutes 30 --name pasted -- --transforms.copy-paste 0.5
    python benchmarks/pedestrians.py --table                                          results/pedestrians.md

The set has no test split: its `val` is scored once, at the end; every eighth training image is held out to choose the
best weights and thresholds. No pretrained weights.
"""

from __future__ import annotations

import measuring
from measuring import metric

RECIPE = {"--task": "instance", "--crop": "256 320", "--batch-size": "4", "--transforms.scale": "0.4 1.2",
          "--seed": "0"}  # fmt: skip
TITLE = (
    "Penn-Fudan, instances from scratch: 128 training images (16 of them to choose by), 42 images scored, in percent"
)
COLUMNS = {"AP": metric("ap"), "AP50": metric("ap50"), "AP75": metric("ap75"), "F1 at 0.5": metric("f1_50")}


if __name__ == "__main__":
    measuring.benchmark(__doc__, "pedestrians", recipe=RECIPE, model="mask_rcnn-small", minutes=30, every=8, test="val",
                        title=TITLE, columns=COLUMNS)  # fmt: skip
