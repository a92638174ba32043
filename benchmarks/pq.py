"""Panoptic quality of two maps in memory, beside the COCO panoptic evaluator's own arithmetic.

    git clone https://github.com/cocodataset/panopticapi
    python benchmarks/pq.py --panopticapi panopticapi [--repeats 31] [--out benchmarks/results/pq.md]

The maps are 1024 x 2048 with 170 true and 200 predicted segments of 19 classes. That evaluator's own function runs
unchanged, with its PNG files replaced by arrays in memory, so that only the counting is timed on both sides; the two
run in turn, on one thread. Both must give the same PQ. Prints the medians and their ratio, and writes them with --out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from pixelwise.core.machine import describe
from pixelwise.core.segments import Segments
from pixelwise.metrics import PanopticQuality

SIZE, CLASSES, TRUE, CALLED = (1024, 2048), 19, 170, 200
Map = tuple[np.ndarray, np.ndarray]  # rows [H, W], -1 for none, and labels [N]


def cells(centres: np.ndarray) -> np.ndarray:
    """[H, W] int64: the nearest of the centres [N, 2]."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return cKDTree(centres).query(np.stack([y.ravel(), x.ravel()], 1))[1].reshape(SIZE)


def draw(seed: int) -> tuple[Map, Map]:
    """Truth and prediction, each rows [H, W] (-1: void, or nothing) and labels [N]: cells, moved and added to."""
    rng = np.random.default_rng(seed)
    at, labels = rng.random((TRUE, 2)) * SIZE, rng.integers(0, CLASSES, TRUE)
    moved = np.concatenate([at + rng.normal(0, 12, at.shape), rng.random((CALLED - TRUE, 2)) * SIZE])
    called = np.concatenate([labels, rng.integers(0, CLASSES, CALLED - TRUE)])
    truth, prediction = cells(at), cells(moved)
    truth[:40], prediction[-25:, :300] = -1, -1
    return (truth, labels), (prediction, called)


class Theirs:
    """panopticapi's pq_compute_single_core on two arrays of ids."""

    def __init__(self, path: Path, truth: Map, prediction: Map) -> None:
        sys.path.insert(0, str(path))
        self.module: Any = importlib.import_module("panopticapi.evaluation")
        self.maps, self.tables = {}, []
        rng = np.random.default_rng(0)
        for name, (rows, labels) in (("truth", truth), ("prediction", prediction)):
            ids = rng.choice(2**24 - 1, len(labels), replace=False) + 1  # any three bytes, as PNG files hold them
            self.maps[name] = np.append(ids, 0)[rows].astype(np.uint32)
            areas = np.bincount(rows[rows >= 0], minlength=len(labels))
            columns = zip(ids.tolist(), labels.tolist(), areas.tolist())
            table = [{"id": i, "category_id": k, "iscrowd": 0, "area": area} for i, k, area in columns]
            self.tables.append({"file_name": name, "image_id": 0, "segments_info": table})
        self.module.Image = self
        self.module.rgb2id = lambda ids: ids

    def open(self, path: str) -> np.ndarray:
        """Stands for Image.open."""
        return self.maps[Path(path).name]

    def __call__(self) -> float:
        categories = {k: {"isthing": k % 2} for k in range(CLASSES)}
        with contextlib.redirect_stdout(io.StringIO()):
            found = self.module.pq_compute_single_core(0, [self.tables], "", "", categories)
        return float(found.pq_average(categories, isthing=None)[0]["pq"])


class Ours:
    """PanopticQuality on two Segments."""

    def __init__(self, truth: Map, prediction: Map) -> None:
        rows, labels = truth
        self.truth = Segments(np.where(rows < 0, -2, rows).astype(np.int16), labels)  # void is what nobody knows
        self.prediction = Segments(prediction[0].astype(np.int16), prediction[1])

    def __call__(self) -> float:
        metric = PanopticQuality(CLASSES)
        metric.update(self.prediction, self.truth)
        return float(metric.compute()["pq"])


def milliseconds(run: Callable[[], float]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panopticapi", type=Path, required=True, help="folder that holds the package panopticapi")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--out", type=Path, help="file for the result")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    truth, prediction = draw(0)
    theirs, ours = Theirs(asked.panopticapi, truth, prediction), Ours(truth, prediction)
    if abs(theirs() - ours()) > 1e-12:
        sys.exit(f"The two disagree: {theirs()} and {ours()}.")
    times = np.array([(milliseconds(theirs), milliseconds(ours)) for _ in range(asked.repeats)])
    (slow, fast), ratio = np.median(times, 0), np.median(times[:, 0] / times[:, 1])
    text = f"""# Panoptic quality of two maps in memory

`python benchmarks/pq.py --panopticapi PATH`: {SIZE[0]} x {SIZE[1]} pixels, {TRUE} true and {CALLED} predicted segments,
both PQ {ours():.6f}; medians of {asked.repeats} runs in turn.

| | ms |
|---|---:|
| panopticapi, pq_compute_single_core | {slow:.1f} |
| PanopticQuality | {fast:.1f} |
| ratio | {ratio:.1f} |

{date.today()}, {describe(torch.device("cpu"))}, Python {platform.python_version()}, NumPy {np.__version__},
torch {torch.__version__}.
"""
    print(text)
    if asked.out is not None:
        asked.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
