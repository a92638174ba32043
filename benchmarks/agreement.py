"""How far each fast way to predict is from the net itself in float32: equal pixels, and the score of both.

    python benchmarks/agreement.py MODEL [MODEL ...] DATA [--split test] [--every 1] [--ways "eager bf16" ...]
        [--out benchmarks/results/agreement.md]

A way is an engine and a precision; by default all that run here. Pixels are equal that get the same class in the
answers; an object's pixels too must belong to the object that it mostly meets. Wanted are 99.8 % of the pixels and a
score within 0.1 percent points ("within both"). `predict` and `evaluate` look at the pixels of one image when they
choose, and take no way by themselves that falls below 99.8 % there.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.core.choice import LEAST_AGREEMENT, REFERENCE
from pixelwise.core.machine import describe, here
from pixelwise.core.modelfile import current_versions
from pixelwise.core.segments import Segments
from pixelwise.data.dataset import open_data
from pixelwise.engines import engines, obstacle
from pixelwise.errors import PixelwiseError
from pixelwise.evaluation.model import adapt
from pixelwise.prediction import Predictor, load

CLOSE = 0.001  # of the score, in 0..1
COLUMNS = ("net", "way", "equal pixels", "score", "in float32", "difference", "within both")
HEAD = [
    "# Agreement of the fast ways with the net itself in float32",
    "",
    __doc__.split("\n\n")[2].replace("\n", " "),
    "",
    f"| {' | '.join(COLUMNS)} |",
    "|---" * len(COLUMNS) + "|",
]


@dataclass
class Count:
    """What one way has answered so far."""

    metric: Any
    equal: int = 0
    pixels: int = 0
    worst: list[float] = field(default_factory=list)

    def add(self, answer: Segments, exact: Segments, truth: Segments, index: int) -> None:
        self.metric.update(answer, truth, index)
        same = equal_pixels(answer, exact)
        self.equal, self.pixels = self.equal + same, self.pixels + answer.size[0] * answer.size[1]


def equal_pixels(one: Segments, other: Segments) -> int:
    """Pixels of one class in both, and of rows that meet each other most; or without class in both."""
    rows, others = (segments.row_map().long().numpy().ravel() for segments in (one, other))
    void = int(((rows < 0) & (rows == others)).sum())
    both = (rows >= 0) & (others >= 0)
    pairs, shared = np.unique(rows[both] * len(other) + others[both], return_counts=True)
    row, met = np.divmod(pairs, max(1, len(other)))
    alike = one.labels.numpy()[row] == other.labels.numpy()[met]
    table = np.zeros((len(one), len(other)), np.int64)
    table[row[alike], met[alike]] = shared[alike]
    if not table.size:
        return void
    mutual = (table == table.max(1, keepdims=True)) & (table == table.max(0, keepdims=True))
    return void + int(table[mutual].sum())


def predictors(model: Path, wanted: list[str] | None) -> dict[str, Predictor]:
    """One for each way that runs here, the exact one first. Says which do not."""
    net = load(model, "cpu", exact=True)
    found = {REFERENCE: net}
    precisions = ["fp32", "bf16"] if here().bf16_units("cpu") else ["fp32"]
    for way in wanted or [f"{engine} {precision}" for engine in engines() for precision in precisions]:
        engine, precision = way.split()
        try:
            why = obstacle(engine, net.net)
            found |= {} if why or way == REFERENCE else {way: load(model, "cpu", engine=engine, precision=precision)}
        except PixelwiseError as error:
            why = str(error)
        if why:
            print(f"{model.parent.name}: no {way}: {why}", flush=True)
    return found


def measure(model: Path, data: Path, split: str, every: int, wanted: list[str] | None) -> list[str]:
    """Lines of the table."""
    ways = predictors(model, wanted)
    exact = ways[REFERENCE]
    source = adapt(open_data(data), exact)
    counts = {way: Count(exact.task.metric()) for way in ways}
    records = [record for record in source.dataset.records(split) if record.labelled][::every]
    for index, record in enumerate(records):
        sample = source.read(record)
        assert sample.truth is not None
        answers = {way: predictor.decode(predictor.forward(sample.image)) for way, predictor in ways.items()}
        truth = exact.task.view(sample.truth)
        for way, answer in answers.items():
            counts[way].add(answer, answers[REFERENCE], truth, index)
    key = exact.task.primary
    scores = {way: float(count.metric.compute()[key]) for way, count in counts.items()}
    lines = []
    for way in list(ways)[1:]:
        share, difference = counts[way].equal / counts[way].pixels, scores[way] - scores[REFERENCE]
        within = "yes" if share >= LEAST_AGREEMENT and abs(difference) <= CLOSE else "no"
        lines.append(f"| {model.parent.name}, {key} of {len(records)} | {way} | {share:.3%} | {scores[way]:.2%} "
                     f"| {scores[REFERENCE]:.2%} | {difference * 100:+.2f} | {within} |")  # fmt: skip
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--ways", nargs="+")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [line for model in options.models
             for line in measure(model, options.data, options.split, options.every, options.ways)]  # fmt: skip
    machine, versions = here(), current_versions() | dict(here().packages)
    installed = ", ".join(f"{name} {number}" for name, number in versions.items())
    where = f"{describe(torch.device('cpu'))}, {' '.join(machine.flags)}"
    said = f"{where}; every {options.every} of split {options.split}; {installed}; {date.today().isoformat()}"
    print(said)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join([*HEAD, *lines, "", said, ""]))


if __name__ == "__main__":
    main()
