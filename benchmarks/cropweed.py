"""Panoptic from 39 images of a field (CWFID: soil is stuff, crop and weed are things), scored on the 21 test images.

    python benchmarks/cropweed.py DATA --model panoptic_deeplab-small --minutes 20
    python benchmarks/cropweed.py DATA --model unet-folded --minutes 20           connected components
    python benchmarks/cropweed.py DATA --model NAME --name own -- --lr 0.001      one ingredient changed
    python benchmarks/cropweed.py --table                                        results/cropweed.md

Every sixth training image is held out to choose the best weights and thresholds; the test images are seen once, at the
end. From scratch: no pretrained weights.
"""

from __future__ import annotations

import measuring
from measuring import metric

RECIPE = {"--task": "panoptic", "--seed": "0", "--transforms.vertical-flip": "0.5", "--transforms.max-class-share": "1",
          "--transforms.rare-focus": "0.5"}  # fmt: skip
TITLE = "CWFID, panoptic: 39 training images (6 of them to choose by), 21 test images, in percent"
COLUMNS = {"PQ": metric("pq"), "SQ": metric("sq"), "RQ": metric("rq"), "PQ things": metric("pq_things"),
           "PQ stuff": metric("pq_stuff"), "mIoU": metric("miou"), "PQ soil": metric("pq_per_class", 0),
           "PQ crop": metric("pq_per_class", 1), "PQ weed": metric("pq_per_class", 2)}  # fmt: skip


if __name__ == "__main__":
    measuring.benchmark(__doc__, "cropweed", recipe=RECIPE, model="panoptic_deeplab-small", minutes=20, every=6,
                        test="test", title=TITLE, columns=COLUMNS)  # fmt: skip
