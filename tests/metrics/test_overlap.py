"""Confusion matrix: counted pixel by pixel, and against torchmetrics' frozen numbers."""

from __future__ import annotations

import math
import pickle
import time

import numpy as np
import pytest
import torch

from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics import ConfusionMatrix

NAN = math.nan
SIGNED = [np.int8, np.int16, np.int32, np.int64]
UNSIGNED = [np.uint8, np.uint16, np.uint32, np.uint64]


def counted(prediction: np.ndarray, truth: np.ndarray, k: int, void: int) -> np.ndarray:
    """[K + 1, K + 1] by looking at one pixel after another; truth -1 is NOTHING."""
    table = np.zeros((k + 1, k + 1), np.int64)
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist()):
        if t != void:
            table[k if t == -1 else t, p if 0 <= p < k and p != void else k] += 1
    return table


def scores_by_sets(table: np.ndarray) -> dict[str, np.ndarray]:
    """IoU, Dice and accuracy of each class, class by class."""
    k = len(table) - 1
    out = {"iou": np.full(k, NAN), "dice": np.full(k, NAN), "accuracy": np.full(k, NAN)}
    for c in range(k):
        tp = int(table[c, c])
        fn, fp = int(table[c].sum()) - tp, int(table[:, c].sum()) - tp
        if tp + fp + fn:
            out["iou"][c], out["dice"][c] = tp / (tp + fp + fn), 2 * tp / (2 * tp + fp + fn)
        if tp + fn:
            out["accuracy"][c] = tp / (tp + fn)
    return out


@pytest.mark.parametrize("dtype", SIGNED + UNSIGNED)
@pytest.mark.parametrize("k", [1, 2, 19])
def test_equals_counting_pixel_by_pixel(dtype: type, k: int) -> None:
    rng = np.random.default_rng(k)
    void = 100
    truth = rng.integers(0, k, (3, 11, 13))
    prediction = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, k + 3, truth.shape))
    truth[rng.random(truth.shape) < 0.2] = void
    prediction[rng.random(truth.shape) < 0.1] = void
    metric = ConfusionMatrix(k, ignore_index=void)
    for p, t in zip(prediction.astype(dtype), truth.astype(dtype)):
        metric.update(p, t)
    expected = counted(prediction, truth, k, void)
    scores = metric.compute()
    np.testing.assert_array_equal(scores["confusion"], expected)
    for key, values in scores_by_sets(expected).items():
        np.testing.assert_array_equal(scores[key], values, err_msg=key)
    true = expected[:k].sum(1)
    assert scores["pixel_accuracy"] == pytest.approx(np.trace(expected) / expected.sum())
    assert scores["fwiou"] == pytest.approx(np.nansum(true * scores["iou"]) / true.sum())


def test_kinds_of_input_agree() -> None:
    rng = np.random.default_rng(1)
    truth, prediction = rng.integers(0, 4, (2, 20, 30)).astype(np.uint8)
    truth[:3] = 255
    sides = [
        (prediction, truth),
        (torch.from_numpy(prediction), torch.from_numpy(truth)),
        (torch.from_numpy(prediction).long(), truth.astype(np.int16)),
        (torch.from_numpy(prediction.astype(np.uint16)), torch.from_numpy(truth)),
        (prediction.astype(">i4"), np.asfortranarray(truth)),
        (prediction[None], truth[None]),
        (prediction.T[::-1], truth.T[::-1]),
        (Segments.from_class_map(prediction), Segments.from_class_map(truth)),
        (Segments.from_class_map(prediction), truth),
        (prediction, Segments.from_class_map(truth, num_classes=4)),
    ]
    tables = []
    for side in sides:
        metric = ConfusionMatrix(4)
        metric.update(*side)
        tables.append(metric.compute()["confusion"])
    assert tables[0].sum() == 17 * 30
    for table in tables[1:]:
        np.testing.assert_array_equal(table, tables[0])


def test_reading_only_and_bool_maps() -> None:
    truth = np.array([[0, 1, 1]], np.uint8)
    truth.flags.writeable = False
    metric = ConfusionMatrix(2)
    metric.update(np.array([[False, True, False]]), truth)
    np.testing.assert_array_equal(metric.compute()["iou"], [0.5, 0.5])
    assert truth.tolist() == [[0, 1, 1]]


def test_inputs_are_left_as_they_were() -> None:
    prediction, truth = torch.randint(0, 3, (5, 6)), torch.randint(0, 3, (5, 6)).int()
    before = prediction.clone(), truth.clone()
    ConfusionMatrix(3).update(prediction, truth)
    assert prediction.equal(before[0])
    assert truth.equal(before[1])


def test_equals_torchmetrics() -> None:
    # frozen from torchmetrics 1.9.0 (float32): MulticlassJaccardIndex(4, ignore_index=255), averages "macro" and
    # "none", and MulticlassAccuracy, average "micro"; class 3 is absent on both sides, which "none" there calls 0
    y, x = np.mgrid[:40, :50]
    truth, prediction = (x * 2 + y * 3) // 40 % 3, (x * 2 + y * 4) // 43 % 3
    truth[(x + y) % 11 == 0] = 255
    metric = ConfusionMatrix(4)
    metric.update(prediction, truth)
    scores = metric.compute()
    assert scores["miou"] == pytest.approx(0.5602477192878723, abs=1e-6)
    assert scores["pixel_accuracy"] == pytest.approx(0.7181318402290344, abs=1e-6)
    np.testing.assert_allclose(scores["iou"], [0.5453367829, 0.5621079206, 0.5732984543, NAN], atol=1e-6)


def test_absent_classes_are_nan_and_left_out_but_false_alarms_count() -> None:
    metric = ConfusionMatrix(4)
    metric.update(np.array([0, 0, 2]), np.array([0, 0, 0]))
    scores = metric.compute()
    np.testing.assert_array_equal(scores["iou"], [2 / 3, NAN, 0, NAN])
    np.testing.assert_array_equal(scores["accuracy"], [2 / 3, NAN, NAN, NAN])
    assert scores["miou"] == pytest.approx(1 / 3)
    assert scores["mean_accuracy"] == pytest.approx(2 / 3)
    assert scores["iou"].dtype == scores["dice"].dtype == np.float64


@pytest.mark.parametrize("guess", [255, 2, -1, -100, 90000])
def test_a_prediction_that_is_no_class_is_missed_and_nobodys_false_alarm(guess: int) -> None:
    metric = ConfusionMatrix(2)
    metric.update(np.array([0, 1, guess]), np.array([0, 1, 1]))
    scores = metric.compute()
    np.testing.assert_array_equal(scores["iou"], [1.0, 0.5])
    np.testing.assert_array_equal(scores["confusion"], [[1, 0, 0], [0, 1, 1], [0, 0, 0]])


def test_predicted_segments_may_leave_pixels_out() -> None:
    metric = ConfusionMatrix(2)
    metric.update(Segments(np.array([[0, NOTHING, UNKNOWN]], np.int8), [1]), np.array([[1, 1, 1]]))
    np.testing.assert_array_equal(metric.compute()["confusion"], [[0, 0, 0], [0, 1, 2], [0, 0, 0]])


def test_truth_nothing_is_a_negative_and_unknown_never_counts() -> None:
    truth = Segments(np.array([[0, NOTHING, NOTHING, UNKNOWN]], np.int8), [1])
    metric = ConfusionMatrix(2)
    metric.update(np.array([[1, 1, 255, 1]]), truth)
    scores = metric.compute()
    np.testing.assert_array_equal(scores["confusion"], [[0, 0, 0], [0, 1, 0], [0, 1, 1]])
    np.testing.assert_array_equal(scores["iou"], [NAN, 0.5])
    assert scores["pixel_accuracy"] == pytest.approx(2 / 3)
    assert scores["accuracy"][1] == 1.0


def test_segments_of_one_class_are_one_region() -> None:
    truth = Segments(np.array([[0, 1, 2, 2]], np.int8), [1, 1, 0])
    metric = ConfusionMatrix(2)
    metric.update(np.array([[1, 1, 0, 0]]), truth)
    assert metric.compute()["miou"] == 1.0


def test_where_segments_overlap_the_lower_layer_counts() -> None:
    masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], bool)
    metric = ConfusionMatrix(2)
    metric.update(np.array([[0, 0, 1]]), Segments.from_masks(masks, [0, 1]))
    assert metric.compute()["miou"] == 1.0


def test_all_void_changes_nothing_and_nothing_at_all_is_nan() -> None:
    metric = ConfusionMatrix(3)
    for _ in range(2):
        scores = metric.compute()
        assert all(math.isnan(scores[k]) for k in ("miou", "mdice", "mean_accuracy", "pixel_accuracy", "fwiou"))
        assert all(type(scores[k]) is float for k in ("miou", "mdice", "mean_accuracy", "pixel_accuracy", "fwiou"))
        assert np.isnan(scores["iou"]).all()
        metric.update(np.zeros((2, 2), int), np.full((2, 2), 255))
        metric.update(np.zeros((0, 4), int), np.zeros((0, 4), int))
        metric.update(np.zeros((2, 2), int), Segments.empty((2, 2), fill=UNKNOWN))


def test_a_class_may_be_void() -> None:
    maps = np.array([[0, 1, 0, 2]]), np.array([[0, 1, 1, 2]])
    for sides in (maps, (Segments.from_class_map(maps[0], num_classes=3), maps[1])):
        metric = ConfusionMatrix(3, ignore_index=0)
        metric.update(*sides)
        scores = metric.compute()
        np.testing.assert_array_equal(scores["confusion"], [[0] * 4, [0, 1, 0, 1], [0, 0, 1, 0], [0] * 4])
        np.testing.assert_array_equal(scores["iou"], [NAN, 0.5, 1.0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_strange_ids_in_the_truth_are_named(dtype: type) -> None:
    truth = np.array([[0, 1, 7, 7, 255]]).astype(dtype)
    metric = ConfusionMatrix(2)
    with pytest.raises(DataError, match=r"7 \(2 pixels\).*0\.\.1 or the void id 255"):
        metric.update(np.zeros((1, 5), dtype), truth)
    assert metric.compute()["confusion"].sum() == 0
    with pytest.raises(DataError, match=r"-1 \(1 pixels\)"):
        metric.update(np.zeros((1, 2), int), np.array([[0, -1]]))


def test_far_apart_ids_do_not_need_room() -> None:
    metric = ConfusionMatrix(2, ignore_index=2**40)
    metric.update(np.array([0, 2**50, -(2**50)]), np.array([0, 1, 2**40]))
    np.testing.assert_array_equal(metric.compute()["confusion"], [[1, 0, 0], [0, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("prediction", "truth", "said"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\[2, 3\].*\[3, 2\]"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), "prediction must be a map of integers.*float64"),
        (torch.zeros(2, 3), torch.zeros(2, 3).int(), "prediction must be a map of integers.*float32"),
        (np.zeros((2, 3), int), torch.zeros(2, 3), "truth must be a map of integers"),
        (np.zeros((1, 1), int), Segments(np.zeros((1, 1), np.int8), [2]), r"labels 2\.\.2"),
    ],
)
def test_what_cannot_be_is_refused(prediction: object, truth: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ConfusionMatrix(2).update(prediction, truth)


def test_no_class_and_other_classes_are_refused() -> None:
    with pytest.raises(ConfigError):
        ConfusionMatrix(0)
    with pytest.raises(ConfigError, match="cannot take in"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))
    with pytest.raises(ConfigError, match="cannot take in"):
        ConfusionMatrix(2).merge(ConfusionMatrix(2, ignore_index=0))


def test_any_sharding_gives_the_same_counts() -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 5, (9, 2, 10, 12))
    whole, parts = ConfusionMatrix(5), [ConfusionMatrix(5) for _ in range(4)]
    for i, (prediction, truth) in enumerate(images):
        whole.update(prediction, truth)
        parts[i % 4].update(prediction, truth, index=i)
    joined = ConfusionMatrix(5)
    for part in parts[::-1]:
        joined.merge(pickle.loads(pickle.dumps(part)))
    for key, value in whole.compute().items():
        np.testing.assert_array_equal(joined.compute()[key], value)


def test_a_thousand_classes() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 1000, (64, 64)).astype(np.int16)
    prediction = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, 1000, truth.shape))
    metric = ConfusionMatrix(1000, ignore_index=None)
    metric.update(prediction, truth)
    np.testing.assert_array_equal(metric.compute()["confusion"], counted(prediction, truth.astype(int), 1000, -9))
    metric = ConfusionMatrix(1000)
    metric.update(prediction, truth)
    np.testing.assert_array_equal(metric.compute()["confusion"], counted(prediction, truth.astype(int), 1000, 255))


def test_void_of_integer_maps_is_no_void_of_segments() -> None:
    truth = np.array([[254, 255, 256, 256]])
    metric = ConfusionMatrix(300)
    metric.update(np.array([[254, 255, 256, 0]]), Segments.from_class_map(truth, void=-2, num_classes=300))
    scores = metric.compute()
    assert scores["iou"][254:257].tolist() == [1.0, 1.0, 0.5]
    assert scores["confusion"].sum() == 4


def test_two_megapixels_are_counted_fast() -> None:
    truth, prediction = np.random.default_rng(0).integers(0, 19, (2, 1024, 2048)).astype(np.uint8)
    metric = ConfusionMatrix(19)
    metric.update(prediction, truth)
    start = time.process_time()
    metric.update(prediction, truth)
    assert time.process_time() - start < 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_maps_may_lie_on_a_gpu() -> None:
    truth, prediction = torch.randint(0, 5, (2, 3, 30, 40))
    here, there = ConfusionMatrix(5), ConfusionMatrix(5)
    here.update(prediction, truth)
    there.update(prediction.cuda(), truth.cuda())
    here.update(prediction, truth)
    there.update(prediction.cuda(), truth)
    np.testing.assert_array_equal(here.counts, there.counts)
