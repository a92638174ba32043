"""Cityscapes from the folder on disk to scores per class, in a page.

    python examples/cityscapes.py CITYSCAPES                     leftImg8bit/ and gtFine/ as they are unpacked
    python examples/cityscapes.py STREETS --minutes 2            drawn streets have the same layout

Files pair by name and not by their order, the ids on disk become the 19 training ids and all others void, image and map
are transformed together, the map by nearest neighbours and never by colour, and scores are pooled over the split at
full size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pixelwise


def main(words: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with leftImg8bit/ and gtFine/")
    parser.add_argument("--out", type=Path, default=Path("runs/cityscapes"))
    parser.add_argument("--model", default="unet")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--crop", type=int, nargs="*", default=[])
    options = parser.parse_args(words)

    data = pixelwise.open_data(options.data, format="cityscapes")
    for split, records in data.splits.items():
        print(f"{split}: {len(records)} images")

    run = pixelwise.train(
        options.data,
        model=options.model,
        task="semantic",
        out=options.out,
        epochs=options.epochs,
        minutes=options.minutes,
        batch_size=options.batch_size,
        crop=options.crop,
        loss="ce+dice",
        optim={"name": "sgd"},
        schedule={"name": "poly"},
    )

    scores = pixelwise.evaluate(run.model, options.data, split="val", tta="flip")
    for name, iou in zip(scores.classes.names, scores.metrics["iou"]):
        print(f"{name:15} {100 * iou:5.1f}")
    print(f"{'mean':15} {100 * scores.metrics['miou']:5.1f}")

    model = pixelwise.load(run.model)
    first = data.records("val")[0]
    segments = model(first.image)
    print(f"{first.name}: {segments.class_map(255).shape} labels, as large as the photograph")
    return scores.metrics


if __name__ == "__main__":
    main()
