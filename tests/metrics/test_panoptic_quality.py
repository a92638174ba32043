"""Panoptic quality: numbers of the COCO panoptic evaluator, and the definition written out mask by mask."""

from __future__ import annotations

import math
import pickle
import time

import numpy as np
import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics import PanopticQuality

FOUR = Classes(names=("car", "person", "road", "sky"), things=("car", "person"))
NAN = math.nan
BLOCKS = np.kron(np.arange(-2, 10).reshape(3, 4), np.ones((12, 12), np.int32)).astype(np.int32)  # with void and nothing


def stripes(down: int, right: int, width: int, rows: int, low: int) -> np.ndarray:
    y, x = np.mgrid[:36, :48]
    return ((((y * down + x * right) // width) % (rows - low)) + low).astype(np.int32)


def moved(down: int, right: int) -> np.ndarray:
    return np.roll(BLOCKS, (down, right), (0, 1))


def segments(ids: np.ndarray, labels: str, crowd: str = "") -> Segments:
    flags = [c == "c" for c in crowd.ljust(len(labels), ".")]
    return Segments(ids, [int(c) for c in labels], crowd=flags)


# Frozen from cocodataset/panopticapi, evaluation.py (pq_compute_single_core and pq_average); truth NOTHING was written
# as an id that its table of segments lacks. Each entry: images (prediction, truth); (pq, sq, rq) of all, things, stuff;
# (tp, fp, fn) of each class.
FROZEN = {
    "shifted": (
        [(segments(moved(1, 2), "0120120120"), segments(BLOCKS, "0120120120"))],
        (0.631311507365, 0.631311507365, 1.0),
        (0.637978497002, 0.637978497002, 1.0),
        (0.617977528090, 0.617977528090, 1.0),
        [(4, 0, 0), (3, 0, 0), (3, 0, 0), (0, 0, 0)],
    ),
    "crowds": (
        [(segments(moved(2, -1), "0000111222"), segments(BLOCKS, "0000111222", ".c..cc.c"))],
        (0.568680175422, 0.647027753769, 0.888888888889),
        (0.544031499088, 0.661552866609, 0.833333333333),
        (0.617977528090, 0.617977528090, 1.0),
        [(3, 0, 0), (1, 1, 0), (2, 0, 0), (0, 0, 0)],
    ),
    "stripes": (
        [(segments(stripes(2, 5, 36, 7, -2), "0120123"), segments(stripes(2, 5, 37, 7, -2), "0120123", ".....c"))],
        (0.589087124321, 0.589087124321, 0.75),
        (0.788343740167, 0.788343740167, 1.0),
        (0.389830508475, 0.389830508475, 0.5),
        [(2, 0, 0), (2, 0, 0), (1, 0, 0), (0, 1, 1)],
    ),
    "two images": (
        [
            (segments(moved(1, 1), "3120120120"), segments(BLOCKS, "0120120123")),
            (segments(stripes(1, 0, 6, 5, -1), "01233"), segments(stripes(1, 0, 7, 4, -2), "0123", "..c")),
        ],
        (0.388069328376, 0.554056950202, 0.526785714286),
        (0.465616843237, 0.745838451303, 0.625),
        (0.310521813516, 0.362275449102, 0.428571428571),
        [(2, 2, 2), (3, 1, 1), (3, 1, 0), (0, 3, 2)],
    ),
}


@pytest.mark.parametrize("name", FROZEN)
def test_equals_the_official_evaluator(name: str) -> None:
    images, every, things, stuff, counts = FROZEN[name]
    metric = PanopticQuality(FOUR)
    for prediction, truth in images:
        metric.update(prediction, truth)
    scores = metric.compute()
    for suffix, expected in (("", every), ("_things", things), ("_stuff", stuff)):
        got = [scores[key + suffix] for key in ("pq", "sq", "rq")]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)
    assert list(zip(scores["tp"].tolist(), scores["fp"].tolist(), scores["fn"].tolist())) == counts


def by_masks(prediction: Segments, truth: Segments, k: int) -> tuple[float, int, int, int]:
    """Sum of IoU, TP, FP, FN of class k in one image, from the paper's definition, one mask at a time."""
    void = truth.row_map().numpy() == UNKNOWN
    shown_t, shown_p = truth.row_map().numpy(), prediction.row_map().numpy()
    true = [r for r in range(len(truth)) if truth.labels[r] == k and (shown_t == r).any()]
    found = [r for r in range(len(prediction)) if prediction.labels[r] == k and (shown_p == r).any()]
    crowd = [r for r in true if truth.crowd[r]]
    true = [r for r in true if not truth.crowd[r]]
    total, matched_t, matched_p = 0.0, set(), set()
    for r in true:
        for q in found:
            a, b = shown_t == r, (shown_p == q) & ~void
            if (a & b).sum() > 0.5 * (a | b).sum():
                total += (a & b).sum() / (a | b).sum()
                matched_t.add(r)
                matched_p.add(q)
    false = 0
    for q in set(found) - matched_p:
        mask = shown_p == q
        excused = void | (shown_t == crowd[-1]) if crowd else void
        false += int((mask & excused).sum() <= 0.5 * mask.sum())
    return total, len(matched_t), false, len(true) - len(matched_t)


def random_image(rng: np.random.Generator, k: int) -> tuple[Segments, Segments]:
    height, width = rng.integers(2, 30, 2)
    n = int(rng.integers(0, 8))
    coarse = rng.integers(-2, n, (5, 5)) if n else rng.integers(-2, 0, (5, 5))
    true = np.kron(coarse, np.ones((6, 6), int))[:height, :width].astype(np.int32)
    found = np.roll(true, rng.integers(-2, 3, 2), (0, 1))
    noise = rng.random((height, width)) < rng.random() * 0.5
    found[noise] = rng.integers(-2, n, int(noise.sum())) if n else NOTHING
    labels = rng.integers(0, k, n)
    guess = np.where(rng.random(n) < 0.85, labels, rng.integers(0, k, n))
    return Segments(found, guess), Segments(true, labels, crowd=rng.random(n) < rng.choice([0, 0.3]))


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_definition_on_random_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = int(rng.choice([1, 2, 4]))
    images = [random_image(rng, k) for _ in range(3)]
    metric = PanopticQuality(k)
    for prediction, truth in images:
        metric.update(prediction, truth)
    scores = metric.compute()
    for label in range(k):
        total, tp, fp, fn = np.sum([by_masks(p, t, label) for p, t in images], axis=0)
        assert (scores["tp"][label], scores["fp"][label], scores["fn"][label]) == (tp, fp, fn)
        expected = total / (tp + fp / 2 + fn / 2) if tp + fp + fn else NAN
        np.testing.assert_allclose(scores["pq_per_class"][label], expected, atol=1e-12)


def test_any_sharding_gives_the_same_bits() -> None:
    rng = np.random.default_rng(3)
    images = [random_image(rng, 3) for _ in range(40)]
    whole = PanopticQuality(3)
    for image in images:
        whole.update(*image)
    for count in (2, 7):
        parts = [PanopticQuality(3) for _ in range(count)]
        for i in rng.permutation(40):
            parts[i % count].update(*images[i], index=int(i))
        joined = PanopticQuality(3)
        for part in parts[::-1]:
            joined.merge(pickle.loads(pickle.dumps(part)))
        for key, value in whole.compute().items():
            np.testing.assert_array_equal(joined.compute()[key], value, err_msg=key)


def row(*ids: int) -> np.ndarray:
    return np.array([ids], np.int8)


def counts(prediction: Segments, truth: Segments, k: int = 1) -> tuple[list[int], ...]:
    metric = PanopticQuality(k)
    metric.update(prediction, truth)
    return metric.tp.tolist(), metric.fp.tolist(), metric.fn.tolist()


def test_an_iou_of_exactly_one_half_is_no_match() -> None:
    truth = Segments(row(0, 0, -1, -1), [0])
    assert counts(Segments(row(0, -1, -1, -1), [0]), truth) == ([0], [1], [1])
    assert counts(Segments(row(0, 0, -1, -1), [0]), truth) == ([1], [0], [0])


def test_void_leaves_the_union_and_nothing_stays_in_it() -> None:
    prediction = Segments(row(0, 0, 0, 0), [0])
    assert counts(prediction, Segments(row(0, 0, UNKNOWN, UNKNOWN), [0])) == ([1], [0], [0])
    assert counts(prediction, Segments(row(0, 0, NOTHING, NOTHING), [0])) == ([0], [1], [1])


@pytest.mark.parametrize(("void", "alarms"), [(1, 1), (2, 1), (3, 0), (4, 0)])
def test_a_prediction_is_excused_when_more_than_half_of_it_is_void(void: int, alarms: int) -> None:
    truth = Segments(row(*[UNKNOWN] * void, *[NOTHING] * (4 - void)), [])
    assert counts(Segments(row(0, 0, 0, 0), [0]), truth) == ([0], [alarms], [0])


def test_crowd_excuses_its_own_class_only() -> None:
    truth = Segments(row(0, 0, 0, 1), [0, 0], crowd=[True, False])
    assert counts(Segments(row(0, 0, 0, 1), [0, 0]), truth, 2) == ([1, 0], [0, 0], [0, 0])
    assert counts(Segments(row(0, 0, 0, 1), [1, 0]), truth, 2) == ([1, 0], [0, 1], [0, 0])


def test_of_several_crowds_of_a_class_the_last_counts() -> None:
    truth = Segments(row(0, 0, 1), [0, 0], crowd=[True, True])
    assert counts(Segments(row(0, 0, -1), [0]), truth) == ([0], [1], [0])
    assert counts(Segments(row(-1, -1, 0), [0]), truth) == ([0], [0], [0])


def test_several_stuff_segments_of_a_class_are_not_joined() -> None:
    truth = Segments(row(0, 0, 0, 0), [2])
    halves = Segments(row(0, 0, 1, 1), [2, 2])
    metric = PanopticQuality(FOUR)
    metric.update(halves, truth)
    assert (metric.tp[2], metric.fp[2], metric.fn[2]) == (0, 2, 1)


def test_rows_without_pixels_are_no_segments() -> None:
    assert counts(Segments(row(0, 0), [0, 0]), Segments(row(1, 1), [0, 0])) == ([1], [0], [0])


def test_where_truth_overlaps_the_lower_layer_shows() -> None:
    masks = np.array([[[1, 1, 1, 0]], [[0, 0, 1, 1]]], bool)
    truth = Segments.from_masks(masks, [0, 0])
    assert len(truth.ids) == 2
    assert counts(Segments(row(0, 0, 0, 1), [0, 0]), truth) == ([2], [0], [0])
    hidden = Segments.from_masks(np.array([[[1, 1]], [[0, 1]]], bool), [0, 1])
    assert counts(Segments(row(0, 0), [0]), hidden, 2) == ([1, 0], [0, 0], [0, 0])


def test_nothing_counted_is_nan() -> None:
    metric = PanopticQuality(FOUR)
    for _ in range(2):
        scores = metric.compute()
        assert all(math.isnan(scores[k + s]) for k in ("pq", "sq", "rq") for s in ("", "_things", "_stuff"))
        assert np.isnan(scores["pq_per_class"]).all()
        metric.update(Segments.empty((3, 4)), Segments.empty((3, 4), fill=UNKNOWN))
    metric.update(Segments(row(0, 0), [1]), Segments(row(UNKNOWN, UNKNOWN), []))  # all void: nothing can be wrong
    assert math.isnan(metric.compute()["pq"])


def test_absent_classes_are_left_out_and_missed_ones_are_not() -> None:
    metric = PanopticQuality(FOUR)
    metric.update(Segments(row(0, 0, -1), [0]), Segments(row(0, 0, 1), [0, 2]))
    scores = metric.compute()
    np.testing.assert_array_equal(scores["pq_per_class"], [1.0, NAN, 0.0, NAN])
    np.testing.assert_array_equal(scores["sq_per_class"], [1.0, NAN, 0.0, NAN])
    assert (scores["pq"], scores["pq_things"], scores["pq_stuff"]) == (0.5, 1.0, 0.0)
    assert type(scores["pq"]) is float


def test_without_names_there_are_neither_things_nor_stuff() -> None:
    metric = PanopticQuality(2)
    metric.update(Segments(row(0, 0), [0]), Segments(row(0, 0), [0]))
    scores = metric.compute()
    assert scores["pq"] == 1.0
    assert math.isnan(scores["pq_things"])
    assert math.isnan(scores["pq_stuff"])


def test_a_thousand_classes_and_thousands_of_segments() -> None:
    ids = np.arange(64 * 128, dtype=np.int32).reshape(64, 128).repeat(8, 0).repeat(8, 1)  # 8192 segments
    labels = np.arange(8192) % 1000
    truth, prediction = Segments(ids, labels), Segments(ids[::-1, ::-1].copy(), labels[::-1].copy())
    metric = PanopticQuality(1000)
    start = time.process_time()
    metric.update(prediction, truth)
    assert time.process_time() - start < 2.0
    assert metric.compute()["tp"].sum() == 8192
    assert metric.compute()["pq"] == 1.0


def test_what_cannot_be_is_refused() -> None:
    metric = PanopticQuality(FOUR)
    with pytest.raises(DataError, match=r"labels 4\.\.4"):
        metric.update(Segments(row(0), [4]), Segments(row(0), [0]))
    with pytest.raises(DataError, match=r"\[1, 2\].*\[1, 1\]"):
        metric.update(Segments(row(0, 0), [0]), Segments(row(0), [0]))
    with pytest.raises(ConfigError, match="cannot take in"):
        metric.merge(PanopticQuality(4))
    with pytest.raises(ConfigError):
        PanopticQuality(0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_segments_may_lie_on_a_gpu() -> None:
    prediction, truth = segments(moved(1, 2), "0120120120"), segments(BLOCKS, "0120120120")
    here, there = PanopticQuality(3), PanopticQuality(3)
    here.update(prediction, truth)
    there.update(prediction.to("cuda"), truth.to("cuda"))
    assert here.compute()["pq"] == there.compute()["pq"]
