"""Instance F1 against trying every matching, on masks taken one at a time."""

from __future__ import annotations

import math
import pickle
import time

import numpy as np
import pytest

from pixelwise.core.classes import Classes
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics import InstanceF1

NAN = math.nan


def most_pairs(close: np.ndarray) -> int:
    """The size of the largest one-to-one matching, by trying every choice. close [N, M] bool."""
    if not len(close):
        return 0
    rest = close[1:]
    choices = [1 + most_pairs(np.delete(rest, j, 1)) for j in np.flatnonzero(close[0])]
    return max([most_pairs(rest), *choices])


def by_masks(prediction: Segments, truth: Segments, k: int, threshold: float, strict: bool) -> tuple[int, int, int]:
    """TP, FP, FN of class k in one image."""
    void = truth.unknown.numpy()
    own = [r for r in range(len(truth)) if truth.labels[r] == k]
    true = [m for r in own if not truth.crowd[r] and (m := truth.masks[r].numpy()).any()]
    crowd = np.any([truth.masks[r].numpy() for r in own if truth.crowd[r]] or [np.zeros_like(void)], axis=0)
    found = [m.numpy() for m, c in zip(prediction.masks, prediction.labels) if c == k and m.any()]
    iou = np.array([[(a & b & ~void).sum() / max(1, (a | (b & ~void)).sum()) for b in found] for a in true])
    iou = iou.reshape(len(true), len(found))
    close = iou > threshold if strict else iou >= threshold
    tp = most_pairs(close)
    # an excused prediction that could be matched would make the count of false positives depend on the matching
    excused = [(m & (void | crowd)).sum() > 0.5 * m.sum() for m in found]
    assert not any(e and close[:, j].any() for j, e in enumerate(excused))
    return tp, len(found) - tp - sum(excused), len(true) - tp


def random_image(rng: np.random.Generator, k: int) -> tuple[Segments, Segments]:
    height, width = 16, 22
    n = int(rng.integers(0, 6))
    y, x = np.mgrid[:height, :width]
    at, radius = rng.random((n, 2)) * (height, width), rng.uniform(2, 6, n)
    true = np.hypot(y - at[:, 0, None, None], x - at[:, 1, None, None]) < radius[:, None, None]
    found = np.repeat(true, rng.integers(0, 3, n), axis=0)
    found = np.array([np.roll(m, rng.integers(-1, 2, 2), (0, 1)) for m in found], bool).reshape(-1, height, width)
    labels, guess = rng.integers(0, k, n), rng.integers(0, k, len(found))
    return Segments.from_masks(found, guess), Segments.from_masks(true, labels)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_equals_trying_every_matching(seed: int, strict: bool) -> None:
    rng = np.random.default_rng(seed)
    k = 1 + seed % 2
    images = [random_image(rng, k) for _ in range(4)]
    metric = InstanceF1(k, strict=strict)
    for prediction, truth in images:
        metric.update(prediction, truth)
    scores = metric.compute()
    for i, threshold in enumerate(metric.thresholds):
        for c in range(k):
            expected = np.sum([by_masks(p, t, c, threshold, strict) for p, t in images], axis=0)
            assert (scores["tp"][i, c], scores["fp"][i, c], scores["fn"][i, c]) == tuple(expected)
    tp, fp, fn = scores["tp"], scores["fp"], scores["fn"]
    np.testing.assert_allclose(scores["accuracy_per_threshold"], (tp / (tp + fp + fn)).mean(1))
    np.testing.assert_allclose(scores["f1_per_class"], (2 * tp / (2 * tp + fp + fn)).mean(0))
    assert scores["f1"] == pytest.approx((2 * tp / (2 * tp + fp + fn)).mean())
    assert scores["f1_50"] == scores["f1_per_threshold"][0]
    assert scores["accuracy_75"] == scores["accuracy_per_threshold"][5]


def test_equals_stardist() -> None:
    # frozen from stardist/stardist, matching.py, matching(truth, prediction, thresh): tp, fp, fn, accuracy, f1
    frozen = {
        0.1: (20, 3, 1, 0.8333333333333334, 0.9090909090909091),
        0.3: (16, 7, 5, 0.5714285714285714, 0.7272727272727273),
        0.5: (5, 18, 16, 0.1282051282051282, 0.22727272727272727),
        0.7: (1, 22, 20, 0.023255813953488372, 0.045454545454545456),
    }
    y, x = np.mgrid[:40, :60]
    truth = (y // 10) * 6 + x // 10 + 1
    truth[truth % 7 == 0] = 0
    prediction = ((y + 1) // 10 * 6 + (x + 2) // 12) % 25
    prediction[(x * y) % 13 == 0] = 0
    metric = InstanceF1(1, thresholds=tuple(frozen))
    metric.update(*(Segments((ids - 1).astype(np.int8), [0] * 25) for ids in (prediction, truth)))
    scores = metric.compute()
    for i, (tp, fp, fn, accuracy, f1) in enumerate(frozen.values()):
        assert metric.counts[:, i, 0].tolist() == [tp, fp, fn]
        assert scores["accuracy_per_threshold"][i] == pytest.approx(accuracy, abs=1e-15)
        assert scores["f1_per_threshold"][i] == pytest.approx(f1, abs=1e-15)


def test_the_largest_matching_is_found_where_the_best_pair_first_would_miss_it() -> None:
    # the second prediction fits both objects, the first only the first one
    true = np.zeros((2, 1, 30), bool)
    true[0, 0, 0:20] = True
    true[1, 0, 3:24] = True
    found = np.zeros((2, 1, 30), bool)
    found[0, 0, 1:20] = True
    found[1, 0, 0:12] = True
    metric = InstanceF1(1, thresholds=(0.5,))
    metric.update(Segments.from_masks(found, [0, 0]), Segments.from_masks(true, [0, 0]))
    assert metric.counts.ravel().tolist() == [2, 0, 0]


def row(*ids: int) -> np.ndarray:
    return np.array([ids], np.int8)


def counts(prediction: Segments, truth: Segments, **options: object) -> list[int]:
    metric = InstanceF1(2, thresholds=(0.5,), **options)
    metric.update(prediction, truth)
    return metric.counts[:, 0, 0].tolist()


def test_an_iou_of_exactly_the_threshold_matches_unless_strict() -> None:
    sides = Segments(row(0, -1, -1, -1), [0]), Segments(row(0, 0, -1, -1), [0])
    assert counts(*sides) == [1, 0, 0]
    assert counts(*sides, strict=True) == [0, 1, 1]
    for part, whole, threshold in ((11, 20, 0.55), (3, 5, 0.6), (13, 20, 0.65), (7, 10, 0.7), (19, 20, 0.95)):
        metric = InstanceF1(1)
        metric.update(Segments(row(*[0] * part, *[-1] * (whole - part)), [0]), Segments(row(*[0] * whole), [0]))
        last = max(t for t, tp in zip(metric.thresholds, metric.counts[0, :, 0]) if tp)
        assert last == threshold


def test_unknown_truth_never_counts() -> None:
    truth = Segments(row(0, 0, UNKNOWN, UNKNOWN, UNKNOWN), [0])
    assert counts(Segments(row(0, 0, 0, 0, 0), [0]), truth) == [1, 0, 0]
    assert counts(Segments(row(-1, -1, 0, 0, 0), [0]), truth) == [0, 0, 1]
    assert counts(Segments(row(-1, -1, -1, -1, 0), [0]), Segments(row(-1, -1, -1, 0, -1), [0])) == [0, 1, 1]


def test_crowd_is_neither_matched_nor_missed() -> None:
    truth = Segments(row(0, 0, 0, 1), [0, 0], crowd=[True, False])
    assert counts(Segments(row(0, 0, 0, 1), [0, 0]), truth) == [1, 0, 0]
    assert counts(Segments(row(-1, -1, -1, 0), [0]), truth) == [1, 0, 0]
    assert counts(Segments(row(0, 0, -1, 1), [1, 0]), truth) == [1, 0, 0]
    metric = InstanceF1(2, thresholds=(0.5,))
    metric.update(Segments(row(0, 0, -1, 1), [1, 0]), truth)
    assert metric.counts[1, 0].tolist() == [0, 1]  # the crowd of another class does not excuse


def test_empty_images_and_absent_classes() -> None:
    metric = InstanceF1(2)
    for _ in range(2):
        scores = metric.compute()
        assert math.isnan(scores["f1"])
        assert math.isnan(scores["accuracy_50"])
        assert np.isnan(scores["f1_per_class"]).all()
        metric.update(Segments.empty((1, 2)), Segments.empty((1, 2)))
    metric.update(Segments.empty((1, 2)), Segments(row(0, -1), [1]))
    assert metric.compute()["f1"] == 0.0
    metric.update(Segments(row(0, 0), [1]), Segments(row(0, 0), [1]))
    scores = metric.compute()
    np.testing.assert_allclose(scores["f1_per_class"], [NAN, 2 / 3])
    assert scores["accuracy_50"] == 0.5
    assert type(scores["f1"]) is type(scores["f1_50"]) is float


def test_per_image_scores_are_means_over_images() -> None:
    metric = InstanceF1(2, thresholds=(0.5, 0.6), per_image=True)
    assert math.isnan(metric.compute()["f1"])
    perfect, half = Segments(row(0, 1, 2), [0, 0, 1]), Segments(row(0, -1, 1), [0, 0])
    metric.update(perfect, perfect)
    metric.update(half, perfect)
    metric.update(Segments.empty((1, 3)), Segments.empty((1, 3)))  # left out
    metric.update(perfect, Segments.empty((1, 3)))  # all false: 0
    scores = metric.compute()
    assert scores["f1"] == pytest.approx((1 + 2 / (2 + 1 + 2) + 0) / 3)
    assert scores["accuracy_50"] == pytest.approx((1 + 1 / 4 + 0) / 3)
    assert "f1_75" not in scores


@pytest.mark.parametrize("per_image", [False, True])
def test_any_sharding_gives_the_same_bits(per_image: bool) -> None:
    rng = np.random.default_rng(4)
    images = [random_image(rng, 2) for _ in range(20)]
    whole, parts = InstanceF1(2, per_image=per_image), [InstanceF1(2, per_image=per_image) for _ in range(3)]
    for i, image in enumerate(images):
        whole.update(*image)
        parts[i % 3].update(*image, index=i)
    joined = InstanceF1(2, per_image=per_image)
    for part in parts[::-1]:
        joined.merge(pickle.loads(pickle.dumps(part)))
    for key, value in whole.compute().items():
        np.testing.assert_array_equal(joined.compute()[key], value, err_msg=key)


def test_two_thousand_objects_on_two_megapixels() -> None:
    ids = np.arange(2048, dtype=np.int16).reshape(32, 64).repeat(32, 0).repeat(32, 1)
    truth, prediction = Segments(ids, np.zeros(2048)), Segments(np.roll(ids, 3, 1), np.zeros(2048))
    metric = InstanceF1(Classes(names=("nucleus",), things=("nucleus",)))
    start = time.process_time()
    metric.update(prediction, truth)
    assert time.process_time() - start < 1.5
    assert metric.compute()["f1_75"] == 1.0  # 29 / 35 of each object agree
    assert metric.compute()["f1_per_threshold"][-1] == 0.0


def test_what_cannot_be_is_refused() -> None:
    metric = InstanceF1(1)
    with pytest.raises(DataError, match=r"labels 1\.\.1"):
        metric.update(Segments(row(0), [1]), Segments(row(0), [0]))
    with pytest.raises(DataError, match="original size"):
        metric.update(Segments(row(0, 0), [0]), Segments(row(0), [0]))
    with pytest.raises(ConfigError, match="cannot take in"):
        metric.merge(InstanceF1(1, strict=True))
    for options in ({"thresholds": ()}, {"thresholds": (0.0,)}, {"thresholds": (1.5,)}):
        with pytest.raises(ConfigError, match="thresholds"):
            InstanceF1(1, **options)
