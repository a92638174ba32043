"""Panoptic from 39 images of a field (CWFID: soil is stuff, crop and weed are things), scored on the 21 test images.

    python benchmarks/cropweed.py DATA --model panoptic_deeplab-small --minutes 20
    python benchmarks/cropweed.py DATA --model unet-folded --minutes 20           connected components
    python benchmarks/cropweed.py DATA --model NAME --name own -- --lr 0.001      one ingredient changed
    python benchmarks/cropweed.py --table                                        results/cropweed.md

Every sixth training image is held out to choose the best weights and thresholds; the test images are seen once, at the
end. From scratch: no pretrained weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import measuring

RECIPE = {"--task": "panoptic", "--seed": "0", "--transforms.vertical-flip": "0.5", "--transforms.max-class-share": "1",
          "--transforms.rare-focus": "0.5"}  # fmt: skip
TITLE = "CWFID, panoptic: 39 training images (6 of them to choose by), 21 test images, in percent"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="CWFID in the plain layout")
    parser.add_argument("--model", default="panoptic_deeplab-small")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--name", help="of the result's file; the model's by default")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the run")
    parser.add_argument("--table", action="store_true", help="only write results/cropweed.md")
    words, extra = measuring.split_words(sys.argv[1:])
    options = parser.parse_args(words)
    if not options.table:
        if options.data is None:
            parser.error("DATA is missing: the folder of CWFID")
        name = f"cropweed-{options.name or options.model}"
        data = measuring.hold_out(options.data, options.runs / f"{name}-data", every=6, test="test")
        recipe = [part for key, value in RECIPE.items() if key not in extra for part in (key, *value.split())]
        recipe = ["--model", options.model, *recipe, *extra]
        out = options.runs / name
        minutes = measuring.train(data, out, options.minutes, recipe)
        found = measuring.scores(out / "model.safetensors", data, out / "test", "--split", "test")
        command = " ".join(["pixelwise train DATA --minutes", f"{options.minutes:g}", *recipe])
        measuring.write(name, out, minutes, command, found)
    columns = {"PQ": "pq", "SQ": "sq", "RQ": "rq", "PQ things": "pq_things", "PQ stuff": "pq_stuff", "mIoU": "miou"}
    readers = {title: (lambda scores, key=key: scores["metrics"].get(key)) for title, key in columns.items()}
    for k, label in enumerate(("soil", "crop", "weed")):
        readers[f"PQ {label}"] = lambda scores, k=k: scores["metrics"]["pq_per_class"][k]
    measuring.table("cropweed", TITLE, readers)


if __name__ == "__main__":
    main()
