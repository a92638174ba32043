"""Does test-time augmentation help? Every net plain, with each set of views, and all nets together, on one split.

    python benchmarks/tta.py MODEL [MODEL ...] DATA [--split test] [--every 1]
    python benchmarks/tta.py MODEL DATA --ways none flip dihedral --name tta-nuclei

Prints a table and writes results/NAME.md. Each view of an image is computed once and joined in all ways that hold it,
by the functions that `--tta` and `--with` use; a way's seconds are the processor's for its own views, joining and
reading, with one thread. The score is the task's own. For class maps the interval is that of the gain over the plain
net: 2.5 % to 97.5 % of 1,000 drawings of the images.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.data.dataset import open_data
from pixelwise.evaluation.model import adapt
from pixelwise.metrics import ConfusionMatrix
from pixelwise.prediction import Predictor, load
from pixelwise.views import View, join, parse, sights

RESULTS = Path(__file__).parent / "results"
Seen = tuple[View, Any, float]  # a view, the net's output for it, seconds


class Way:
    """One row of the table: its score so far, the matrix of each image, and the seconds they took."""

    def __init__(self, nets: str, views: str, task: Any) -> None:
        self.nets, self.views, self.task = nets, views, task
        self.metric = task.metric()
        self.matrices: list[np.ndarray] = []
        self.seconds = 0.0

    def count(self, seen: list[Seen], truth: Any, index: int) -> None:
        """Joins what was seen as this way does, and holds the answer against the truth."""
        began = time.process_time()
        joined = join(((view, output) for view, output, _ in seen), len(seen)) if len(seen) > 1 else seen[0][1]
        reading = self.task.read(joined, 0)
        ranked = getattr(self.metric, "ranked", False)
        answer = self.task.ranked(reading) if ranked else self.task.decide(reading)
        self.seconds += time.process_time() - began + sum(seconds for _, _, seconds in seen)
        self.metric.update(answer, truth, index)
        if isinstance(self.metric, ConfusionMatrix):
            alone = self.task.metric()
            alone.update(answer, truth)
            self.matrices.append(alone.counts)

    @property
    def score(self) -> float:
        """In per cent."""
        return 100 * float(self.metric.compute()[self.task.primary])


def miou(counts: np.ndarray) -> float:
    """In per cent. counts [K + 1, K + 1]"""
    metric = ConfusionMatrix(len(counts) - 1)
    metric.counts = counts
    return 100 * float(metric.compute()["miou"])


def interval(way: Way, plain: Way) -> tuple[float, float]:
    """Of the gain over the plain net, the images drawn anew 1,000 times."""
    one, other = np.stack(way.matrices), np.stack(plain.matrices)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(one), len(one)) for _ in range(1000)]
    gains = [miou(one[rows].sum(0)) - miou(other[rows].sum(0)) for rows in draws]
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)


@torch.no_grad()
def see(model: Predictor, pixels: torch.Tensor, views: list[View]) -> list[Seen]:
    """All views of one image."""
    images = model.card.preprocessing(pixels[None])
    found: list[Seen] = []
    looks = sights(model.net, images, views, model.card.preprocessing.size)
    for _ in views:
        began = time.process_time()
        view, output = next(looks)
        found.append((view, output, time.process_time() - began))
    return found


def measure(models: dict[str, Predictor], args: argparse.Namespace) -> tuple[list[Way], int]:
    """The rows of the table, and how many images were seen."""
    opened = open_data(args.data)
    first = next(iter(models.values()))
    adapted, records = adapt(opened, first), opened.records(args.split)[:: args.every]
    views = list(dict.fromkeys(view for way in args.ways for view in parse(way)))
    ways = [Way(name, way, first.task) for name in models for way in args.ways]
    together = [Way(" + ".join(models), way, first.task) for way in args.ways] if len(models) > 1 else []
    for number, record in enumerate(records, 1):
        sample = adapted.read(record)
        truth = first.task.view(sample.truth)
        seen = {name: see(model, sample.image, views) for name, model in models.items()}
        for way in (*ways, *together):
            nets = seen.values() if way in together else [seen[way.nets]]
            wanted = parse(way.views)
            way.count([look for net in nets for look in net if look[0] in wanted], truth, number)
        print(f"{number}/{len(records)} {sample.name}", flush=True)
    return [*ways, *together], len(records)


def table(ways: list[Way], images: int) -> list[str]:
    """The table in Markdown. Gains are over the same net alone, those of all nets together over the best of them."""
    plain = {way.nets: way for way in ways if way.views == "none"}
    best = max((way for way in plain.values() if " + " not in way.nets), key=lambda way: way.score)
    lines = [
        f"| nets | views | {ways[0].task.primary} | gain | 95 % of it | CPU s / image |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for way in ways:
        base = best if " + " in way.nets else plain[way.nets]
        gain = "" if way is base else f"{way.score - base.score:+.2f}"
        within = "{:+.2f} .. {:+.2f}".format(*interval(way, base)) if way is not base and way.matrices else ""
        seconds = way.seconds / images
        lines.append(f"| {way.nets} | {way.views} | {way.score:.2f} | {gain} | {within} | {seconds:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="model files of the same classes and task")
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=1, help="only each so many-th image")
    parser.add_argument("--ways", nargs="+", default=["none", "flip", "scale", "flip+scale"], help="none among them")
    parser.add_argument("--name", default="tta", help="of the file in results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    loaded = [load(path, "cpu") for path in args.models]
    models = {model.card.architecture: model for model in loaded}
    ways, images = measure(models, args)
    every = f", every {args.every}. image" if args.every > 1 else ""
    lines = [
        "# Does test-time augmentation help?",
        "",
        f"`python benchmarks/tta.py`: {ways[0].task.primary} in per cent of {images} images of {args.data.name}",
        f"(split {args.split}{every}), pooled, at full size. Scales are 0.75 and 1.25. The gain is over the same net",
        "alone (that of all nets together: over the best of them). Float32, one thread, eager.",
        "",
        *table(ways, images),
        "",
        f"{datetime.date.today()}, torch {torch.__version__}. The nets had minutes of training on a few cores: see the",
        "other results here.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / f"{args.name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
