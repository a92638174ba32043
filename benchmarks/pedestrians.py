"""Instances from 128 photographs (Penn-Fudan pedestrians), from scratch: mask AP on the 42 images of its `val`.

    python benchmarks/pedestrians.py DATA --minutes 30                                 Mask R-CNN on a small encoder
    python benchmarks/pedestrians.py DATA --minutes 30 --name pasted -- --transforms.copy-paste 0.5
    python benchmarks/pedestrians.py --table                                          results/pedestrians.md

The set has no test split: its `val` is scored once, at the end; every eighth training image is held out to choose the
best weights and thresholds. No pretrained weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import measuring

RECIPE = {"--task": "instance", "--crop": "256 320", "--batch-size": "4", "--transforms.scale": "0.4 1.2",
          "--seed": "0"}  # fmt: skip
TITLE = (
    "Penn-Fudan, instances from scratch: 128 training images (16 of them to choose by), 42 images scored, in percent"
)
COLUMNS = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "F1 at 0.5": "f1_50"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="Penn-Fudan in the plain layout")
    parser.add_argument("--model", default="mask_rcnn-small")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--name", help="of the result's file; the model's by default")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the run")
    parser.add_argument("--table", action="store_true", help="only write results/pedestrians.md")
    words, extra = measuring.split_words(sys.argv[1:])
    options = parser.parse_args(words)
    if not options.table:
        if options.data is None:
            parser.error("DATA is missing: the folder of Penn-Fudan")
        name = f"pedestrians-{options.name or options.model}"
        data = measuring.hold_out(options.data, options.runs / f"{name}-data", every=8, test="val")
        recipe = [part for key, value in RECIPE.items() if key not in extra for part in (key, *value.split())]
        recipe = ["--model", options.model, *recipe, *extra]
        out = options.runs / name
        minutes = measuring.train(data, out, options.minutes, recipe)
        found = measuring.scores(out / "model.safetensors", data, out / "test", "--split", "test")
        command = " ".join(["pixelwise train DATA --minutes", f"{options.minutes:g}", *recipe])
        measuring.write(name, out, minutes, command, found)
    readers = {title: (lambda scores, key=key: scores["metrics"].get(key)) for title, key in COLUMNS.items()}
    measuring.table("pedestrians", TITLE, readers)


if __name__ == "__main__":
    main()
