"""Panoptic quality of two 1024 x 2048 maps in memory, 170 true and 200 predicted segments, beside the usual ways.

"panopticapi's arithmetic" is that evaluator's way of counting, written anew: both id maps joined into one of 64-bit
numbers, its sorted distinct values and their counts, then a loop over the pairs. `benchmarks/pq.py` runs the original.
Nearly all of its time is NumPy's sorting, whose form for AVX-512 is slow on AMD's Zen 4: so it runs with that form and
without, and the quicker one counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from speed_side import Row, Work

SIZE, CLASSES, TRUE, CALLED = (1024, 2048), 19, 170, 200
WITHOUT_AVX512 = "X86_V4 AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"  # as NumPy 2.4 and older call it
Map = tuple[np.ndarray, np.ndarray]  # rows [H, W], -1 for none, and labels [N]


def draw(size: tuple[int, int] = SIZE, true: int = TRUE, called: int = CALLED) -> tuple[Map, Map]:
    """Truth and prediction: cells around points, moved and added to; some void, some ground."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([y.ravel(), x.ravel()], 1)
    at, labels = rng.random((true, 2)) * size, rng.integers(0, CLASSES, true)
    moved = np.concatenate([at + rng.normal(0, 12, at.shape), rng.random((called - true, 2)) * size])
    truth, prediction = (cKDTree(centres).query(pixels)[1].reshape(size) for centres in (at, moved))
    truth[: size[0] // 25], prediction[-(size[0] // 40) :, : size[1] // 7] = -1, -1
    return (truth, labels), (prediction, np.concatenate([labels, rng.integers(0, CLASSES, called - true)]))


def ours() -> Work:
    from pixelwise.core.segments import Segments
    from pixelwise.metrics import PanopticQuality

    def prepare(truth: Map, prediction: Map) -> Work:
        true = Segments(np.where(truth[0] < 0, -2, truth[0]).astype(np.int16), truth[1])
        called = Segments(prediction[0].astype(np.int16), prediction[1])

        def count() -> float:
            metric = PanopticQuality(CLASSES)
            metric.update(called, true)
            return float(metric.compute()["pq"])

        return count

    prepare(*draw((64, 64), 5, 6))()
    return prepare(*draw())


def panopticapi() -> Work:
    truth, prediction = draw()
    rng = np.random.default_rng(1)

    def coded(side: Map) -> tuple[np.ndarray, dict[int, int]]:
        ids = rng.choice(2**24 - 1, len(side[1]), replace=False) + 1  # any three bytes, as PNG files hold them
        return np.append(ids, 0)[side[0]].astype(np.uint32), dict(zip(ids.tolist(), side[1].tolist()))

    (true, true_class), (called, called_class) = coded(truth), coded(prediction)
    true_area = _areas(true)  # stands in the file of the truth
    return lambda: float(_by_unique(true, true_class, true_area, called, called_class))


def _areas(ids: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist()))


def _by_unique(true: np.ndarray, true_class: dict[int, int], true_area: dict[int, int], called: np.ndarray,
               called_class: dict[int, int]) -> Any:  # fmt: skip
    """Mean PQ over the classes that occur; there is no crowd here."""
    base = 1 << 24
    found, counts = np.unique(true.astype(np.uint64) * base + called.astype(np.uint64), return_counts=True)
    met = {(int(pair) // base, int(pair) % base): int(count) for pair, count in zip(found, counts)}
    true_area, called_area = (
        dict(zip(*(v.tolist() for v in np.unique(m, return_counts=True)))) for m in (true, called)
    )
    tp, fp, fn, iou = np.zeros((4, CLASSES))
    matched = set()
    for (t, c), shared in met.items():
        if t and c and true_class[t] == called_class[c]:
            value = shared / (true_area[t] + called_area[c] - shared - met.get((0, c), 0))
            if value > 0.5:
                tp[true_class[t]] += 1
                iou[true_class[t]] += value
                matched |= {(0, t), (1, c)}
    for t, label in true_class.items():
        fn[label] += t in true_area and (0, t) not in matched
    for c, label in called_class.items():
        if c in called_area and (1, c) not in matched:
            fp[label] += met.get((0, c), 0) <= 0.5 * called_area[c]
    weight = tp + fp / 2 + fn / 2
    return (iou[weight > 0] / weight[weight > 0]).mean()


def torchmetrics() -> Work:
    """Every class a thing, instances numbered as the rows; void is a class of its own, left out of the mean."""
    import torch
    from torchmetrics.functional.detection import panoptic_quality

    def pixels(side: Map) -> Any:
        labels = np.append(side[1], CLASSES)[side[0]]
        return torch.from_numpy(np.stack([labels, np.where(side[0] < 0, 0, side[0])], -1))[None]

    truth, prediction = (pixels(side) for side in draw())
    return lambda: float(panoptic_quality(prediction, truth, set(range(CLASSES)), {CLASSES}, return_per_class=True)
                         [0, :CLASSES].mean())  # fmt: skip


def compare(answers: Mapping[str, Any]) -> str:
    ours, same = answers["pixelwise"], abs(answers["pixelwise"] - answers["panopticapi's arithmetic"]) < 1e-12
    other = f"PQ {100 * ours:.3f}, torchmetrics {100 * answers['torchmetrics']:.3f}"
    return ("equal" if same else "DIFFERENT") + f" to panopticapi's; {other} (void counts as a segment there)"


ROW = Row(
    what="panoptic quality, 1024x2048, 170 and 200 segments",
    sides={
        "pixelwise": ours,
        "panopticapi's arithmetic": panopticapi,
        "panopticapi's arithmetic, NumPy without AVX-512": panopticapi,
        "torchmetrics": torchmetrics,
    },
    compare=compare,
    target={"panopticapi's arithmetic": 4, "panopticapi's arithmetic, NumPy without AVX-512": 4},
    environment={"panopticapi's arithmetic, NumPy without AVX-512": {"NPY_DISABLE_CPU_FEATURES": WITHOUT_AVX512}},
)
