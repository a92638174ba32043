"""AJI, AJI+ and object Dice against hover_net's functions (frozen), and against the formulas on one mask at a time."""

from __future__ import annotations

import itertools
import math
import pickle
import time

import numpy as np
import pytest

from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics import AggregatedJaccard, ObjectDice

SIZE = (48, 64)
# frozen from vqdang/hover_net, metrics/stats_utils.py on `draw(seed)`: get_fast_aji, get_fast_aji_plus
FROZEN: dict[int, tuple[float, float]] = {
    0: (0.2996661101836394, 0.2996661101836394),
    1: (0.23684210526315788, 0.23209169054441262),
    2: (0.2730560578661845, 0.2730560578661845),
    3: (0.2827763496143959, 0.2827763496143959),
    4: (0.4392898052691867, 0.4392898052691867),
    5: (0.3005405405405405, 0.3005405405405405),
    6: (0.3105110896817743, 0.33195449844881075),
    7: (0.2766990291262136, 0.2766990291262136),
    8: (0.38961038961038963, 0.38961038961038963),
    9: (0.31447963800904977, 0.3205574912891986),
}  # fmt: skip
# frozen from DIAGNijmegen/neural-odes-segmentation, metrics.py, a translation of the contest's own code, on
# `draw(seed, full=True)`: ObjectDice. Every pixel has an object there: it takes the background for one.
GLAS: dict[int, float] = {
    0: 0.6685282711401789,
    1: 0.6167932866077122,
    2: 0.707700568560167,
    3: 0.6173047371526078,
    4: 0.805199316509117,
    5: 0.5800142466447022,
}  # fmt: skip


def draw(seed: int, full: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth [H, W] of ids, 0 for none (with `full` there is no 0). RandomState's stream is frozen."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    maps = []
    true = rng.rand(rng.randint(2, 14), 2) * SIZE
    for at in (np.concatenate([true + rng.randn(*true.shape) * 2, rng.rand(3, 2) * SIZE])[rng.randint(0, 3) :], true):
        away = np.hypot(y - at[:, 0, None, None], x - at[:, 1, None, None])
        away -= 0 if full else rng.uniform(3, 9, (len(at), 1, 1))
        ids = away.argmin(0) + 1
        maps.append(ids if full else np.where(away.min(0) < 0, ids, 0))
    return tuple(np.unique(ids, return_inverse=True)[1].reshape(SIZE) + full for ids in maps)


def segments(ids: np.ndarray, labels: list[int] | None = None) -> Segments:
    count = int(ids.max())
    return Segments((ids - 1).astype(np.int16), labels or [0] * count)


@pytest.mark.parametrize("seed", FROZEN)
def test_equals_hover_net(seed: int) -> None:
    metric = AggregatedJaccard(1)
    metric.update(*map(segments, draw(seed)))
    scores = metric.compute()
    np.testing.assert_allclose([scores["aji"], scores["aji_plus"]], FROZEN[seed], rtol=0, atol=1e-15)
    assert scores["aji_per_class"].tolist() == [scores["aji"]]


@pytest.mark.parametrize("seed", GLAS)
def test_equals_the_glas_contest(seed: int) -> None:
    metric = ObjectDice(1)
    metric.update(*map(segments, draw(seed, full=True)))
    scores = metric.compute()
    np.testing.assert_allclose([scores["object_dice"], scores["object_dice_per_image"]], GLAS[seed], rtol=0, atol=1e-14)


def overlapping(seed: int, k: int) -> tuple[Segments, Segments]:
    """Objects that overlap, with unknown pixels and a crowd."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]

    def discs(n: int) -> np.ndarray:
        at, radius = rng.random((n, 2)) * SIZE, rng.uniform(3, 12, n)
        return np.hypot(y - at[:, 0, None, None], x - at[:, 1, None, None]) < radius[:, None, None]

    true, found = discs(5), discs(4)
    found = np.concatenate([np.roll(true, (2, 1), (1, 2))[1:], found])
    truth = Segments.from_masks(true, rng.integers(0, k, 5), crowd=[0, 0, 0, 0, 1], void=discs(1)[0])
    return Segments.from_masks(found, rng.integers(0, k, 8)), truth


def by_masks(prediction: Segments, truth: Segments, c: int) -> dict[str, list[float]]:
    """Sums of one image and class: shared and joint pixels of AJI and AJI+, and of object Dice, one mask at a time."""
    void = truth.unknown.numpy()
    own = [r for r in range(len(truth)) if truth.labels[r] == c]
    masks, found_masks = truth.masks.numpy(), prediction.masks.numpy()
    true = [masks[r] for r in own if not truth.crowd[r]]
    crowd = np.any([masks[r] for r in own if truth.crowd[r]] or [np.zeros_like(void)], axis=0)
    raw = [m for m, k in zip(found_masks, prediction.labels) if k == c]
    kept = [(m & (void | crowd)).sum() <= 0.5 * m.sum() for m in raw]
    found = [m & ~void for m in raw]
    shared = np.array([[(a & b).sum() for b in found] for a in true]).reshape(len(true), len(found))
    union = np.array([[(a | b).sum() for b in found] for a in true]).reshape(len(true), len(found))
    iou = shared / np.maximum(union, 1)
    free = [(i, int(row.argmax())) for i, row in enumerate(iou) if row.max(initial=0) > 0]
    width = min(iou.shape)
    plans = [list(zip(a, b)) for a in itertools.permutations(range(len(true)), width)
             for b in itertools.combinations(range(len(found)), width)]  # fmt: skip
    single = max(plans, key=lambda plan: sum(iou[i, j] for i, j in plan), default=[])
    out = {}
    for name, plan in (("aji", free), ("plus", [(i, j) for i, j in single if iou[i, j] > 0])):
        joint = sum(union[i, j] for i, j in plan)
        joint += sum(m.sum() for i, m in enumerate(true) if i not in {a for a, _ in plan})
        joint += sum(m.sum() for j, m in enumerate(found) if kept[j] and j not in {b for _, b in plan})
        out[name] = [sum(shared[i, j] for i, j in plan), joint]
    dice = 2 * shared / np.maximum([[a.sum() + b.sum() for b in found] for a in true] or [[1] * len(found)], 1)
    of_true = [dice[i, shared[i].argmax()] if len(found) else 0.0 for i in range(len(true))]
    of_found = [dice[shared[:, j].argmax(), j] if len(true) else 0.0 for j in range(len(found))]
    out["true"] = [sum(m.sum() * d for m, d in zip(true, of_true)), sum(m.sum() for m in true)]
    out["found"] = [sum(m.sum() * d for m, d, k in zip(found, of_found, kept) if k),
                    sum(m.sum() for m, k in zip(found, kept) if k)]  # fmt: skip
    return out


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_formulas_with_overlaps_void_crowd_and_classes(seed: int) -> None:
    k = 1 + seed % 2
    jaccard, dice = AggregatedJaccard(k), ObjectDice(k)
    images = [overlapping(10 * seed + i, k) for i in range(3)]
    sums = []
    for image in images:
        jaccard.update(*image)
        dice.update(*image)
        sums.append([by_masks(*image, c) for c in range(k)])
    scores = jaccard.compute()
    for key, name in (("aji", "aji"), ("aji_plus", "plus")):
        pooled = [np.sum([of_class[name] for of_class in image], axis=0) for image in sums]
        assert scores[key] == pytest.approx(np.mean([a / b for a, b in pooled]), abs=1e-12)
        alone = [np.nanmean([a / b if b else np.nan for a, b in (image[c][name] for image in sums)]) for c in range(k)]
        np.testing.assert_allclose(scores[f"{key}_per_class"], alone, atol=1e-12)
    per_class = []
    for c in range(k):
        true, found = (np.sum([image[c][side] for image in sums], axis=0) for side in ("true", "found"))
        per_class.append((true[0] / true[1] + found[0] / found[1]) / 2)
    np.testing.assert_allclose(dice.compute()["object_dice_per_class"], per_class, atol=1e-12)
    assert dice.compute()["object_dice"] == pytest.approx(np.mean(per_class), abs=1e-12)


@pytest.mark.parametrize("kind", [AggregatedJaccard, ObjectDice])
def test_any_sharding_and_order_gives_the_same_bits(kind: type) -> None:
    images = [overlapping(seed, 2) for seed in range(12)]
    whole, parts = kind(2), [kind(2) for _ in range(3)]
    for i, image in enumerate(images):
        whole.update(*image)
        parts[i % 3].update(*image, index=i)
    joined = kind(2)
    for part in parts[::-1]:
        joined.merge(pickle.loads(pickle.dumps(part)))
    for key, value in whole.compute().items():
        np.testing.assert_array_equal(joined.compute()[key], value, err_msg=key)


def row(*ids: int) -> np.ndarray:
    return np.array([ids], np.int8)


def test_empty_sides() -> None:
    nothing, one = Segments.empty((1, 4)), Segments(row(0, 0, -1, -1), [0])
    for kind, key in (
        (AggregatedJaccard, "aji"),
        (AggregatedJaccard, "aji_plus"),
        (ObjectDice, "object_dice_per_image"),
    ):
        for pair, expected in (((nothing, nothing), math.nan), ((one, nothing), 0.0), ((nothing, one), 0.0)):
            metric = kind(1)
            metric.update(*pair)
            np.testing.assert_equal(metric.compute()[key], expected)
            metric.update(one, one)
            assert metric.compute()[key] == (1.0 if math.isnan(expected) else 0.5)


def test_one_prediction_may_serve_several_objects_of_aji_but_one_of_aji_plus() -> None:
    metric = AggregatedJaccard(1)
    metric.update(Segments(row(0, 0, 0, 0), [0]), Segments(row(0, 0, 1, 1), [0, 0]))
    scores = metric.compute()
    assert scores["aji"] == (2 + 2) / (4 + 4)
    assert scores["aji_plus"] == 2 / (4 + 2)


def test_what_is_unknown_is_not_counted() -> None:
    truth = Segments(row(0, 0, UNKNOWN, UNKNOWN), [0])
    for kind, key in ((AggregatedJaccard, "aji"), (ObjectDice, "object_dice")):
        metric = kind(1)
        metric.update(Segments(row(0, 0, 0, 1), [0, 0]), truth)
        assert metric.compute()[key] == 1.0


def test_two_thousand_objects_on_both_sides() -> None:
    ids = np.arange(2048, dtype=np.int16).reshape(32, 64).repeat(32, 0).repeat(32, 1)
    truth, prediction = Segments(ids, np.zeros(2048)), Segments(np.roll(ids, (5, 9), (0, 1)), np.zeros(2048))
    for kind, key, expected in ((AggregatedJaccard, "aji_plus", 0.43), (ObjectDice, "object_dice", 0.6)):
        metric = kind(1)
        start = time.process_time()
        metric.update(prediction, truth)
        assert metric.compute()[key] == pytest.approx(expected, abs=0.05)
        assert time.process_time() - start < 2.0


def test_what_cannot_be_is_refused() -> None:
    for kind in (AggregatedJaccard, ObjectDice):
        with pytest.raises(ConfigError, match="at least 1 class"):
            kind(0)
        with pytest.raises(ConfigError, match="cannot take in"):
            kind(1).merge(kind(2))
        with pytest.raises(DataError, match="labels"):
            kind(1).update(Segments(row(0), [1]), Segments(row(0), [0]))
    with pytest.raises(ConfigError, match="cannot take in"):
        AggregatedJaccard(1).merge(ObjectDice(1))
