"""Boundary IoU against its own code's frozen numbers and SciPy's erosion; boundary F against all pairs of pixels."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from scipy import ndimage

from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics import BoundaryF, BoundaryIoU

NAN = math.nan


def blobs(rng: np.random.Generator, k: int, size: tuple[int, int]) -> np.ndarray:
    values = ndimage.gaussian_filter(rng.random((k, *size)), (0, 3, 3))
    return values.argmax(0)


def band(mask: np.ndarray, ratio: float) -> np.ndarray:
    """What d erosions take away, with SciPy; outside the image nothing belongs to the mask."""
    steps = max(1, round(ratio * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))
    return mask & ~ndimage.binary_erosion(mask, np.ones((3, 3), bool), iterations=steps, border_value=0)


@pytest.mark.parametrize("ratio", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("k", [1, 3, 300])
def test_boundary_iou_equals_erosion_of_each_mask(k: int, ratio: float) -> None:
    rng = np.random.default_rng(k)
    metric = BoundaryIoU(k, ratio=ratio, ignore_index=-1)
    both, either = np.zeros(k), np.zeros(k)
    for size in ((40, 60), (1, 1), (7, 90)):
        truth = blobs(rng, k, size)
        prediction = np.where(rng.random(size) < 0.97, np.roll(truth, 1, 0), rng.integers(0, k, size))
        metric.update(prediction, truth)
        for c in range(k):
            a, b = band(prediction == c, ratio), band(truth == c, ratio)
            both[c] += (a & b).sum()
            either[c] += (a | b).sum()
    expected = np.divide(both, either, out=np.full(k, NAN), where=either > 0)
    scores = metric.compute()
    np.testing.assert_array_equal(scores["boundary_iou_per_class"], expected)
    assert scores["boundary_iou"] == pytest.approx(np.nanmean(expected))


# Frozen from bowenc0221/boundary-iou-api, boundary_utils.mask_to_boundary, on the masks below:
# intersection and union of the two boundaries at dilation_ratio 0.02, 0.05, 0.2
OFFICIAL = {0.02: (338, 1000), 0.05: (1260, 1982), 0.2: (2677, 3094)}


@pytest.mark.parametrize("ratio", OFFICIAL)
def test_boundary_iou_equals_its_own_code(ratio: float) -> None:
    prediction, truth = discs()
    metric = BoundaryIoU(2, ratio=ratio)
    metric.update(prediction, truth)
    both, either = OFFICIAL[ratio]
    assert metric.counts[0, 1] == both
    assert metric.compute()["boundary_iou_per_class"][1] == both / either


def discs() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:90, :120]
    truth = (y - 40) ** 2 + (x - 95) ** 2 < 32**2  # cut by the image's right edge
    prediction = (y - 43) ** 2 + (x - 92) ** 2 < 30**2
    return prediction.astype(np.uint8), truth.astype(np.uint8)


def test_the_image_border_is_contour_for_boundary_iou_only() -> None:
    full = np.zeros((10, 12), int)
    iou, f = BoundaryIoU(1), BoundaryF(1)
    iou.update(full, full)
    f.update(full, full)
    assert iou.counts[0, 0] == 10 * 12 - 8 * 10
    assert iou.compute()["boundary_iou"] == 1.0
    assert math.isnan(f.compute()["boundary_f"])


def test_void_counts_in_neither_band() -> None:
    truth = np.zeros((20, 20), int)
    truth[:, 10:] = 1
    truth[:, 8:12] = 255
    prediction = np.where(np.arange(20)[None] < 9, 0, 1).repeat(20, 0)
    metric = BoundaryIoU(2)
    metric.update(prediction, truth)
    known = truth != 255
    a, b = band(prediction == 0, 0.02) & known, band(truth == 0, 0.02)
    assert metric.counts[:, 0].tolist() == [(a & b).sum(), a.sum(), b.sum()]
    void = BoundaryIoU(2)
    void.update(prediction, np.full_like(truth, 255))
    assert not void.counts.any()


def contour(labels: np.ndarray, c: int, unknown: np.ndarray) -> np.ndarray:
    """[P, 2] pixels of class c beside another known label, found by looking at each pixel's neighbours."""
    found = []
    for y, x in np.argwhere((labels == c) & ~unknown):
        around = (slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2))
        if ((labels[around] != c) & ~unknown[around]).any():
            found.append((y, x))
    return np.array(found, float).reshape(-1, 2)


def counts_of_all_pairs(prediction: np.ndarray, truth: np.ndarray, k: int, reach: float, void: int) -> np.ndarray:
    unknown = truth == void
    dark = np.argwhere(unknown).astype(float)
    out = np.zeros((4, k), int)
    for c in range(k):
        mine = contour(prediction, c, np.zeros_like(unknown))
        theirs = contour(truth, c, unknown)
        for p in mine:
            hit = len(theirs) > 0 and np.hypot(*(theirs - p).T).min() <= reach
            to_dark = np.hypot(*(dark - p).T).min() if len(dark) else math.inf
            counts = to_dark > 0 if hit else to_dark > reach
            out[0, c] += hit and counts
            out[1, c] += counts
        for t in theirs:
            out[2, c] += len(mine) > 0 and np.hypot(*(mine - t).T).min() <= reach
            out[3, c] += 1
    return out


@pytest.mark.parametrize("tolerance", [0.0075, 0.05, 0.1])
@pytest.mark.parametrize("void", [False, True])
def test_boundary_f_equals_comparing_all_pairs(tolerance: float, void: bool) -> None:
    rng = np.random.default_rng(int(1000 * tolerance))
    metric = BoundaryF(4, tolerance=tolerance)
    expected = np.zeros((4, 4), int)
    for size in ((24, 32), (30, 40), (1, 9)):
        truth = blobs(rng, 3, size)
        prediction = np.where(rng.random(size) < 0.98, np.roll(truth, 2, 1), 0)
        if void:
            truth[ndimage.gaussian_filter(rng.random(size), 2) > 0.55] = 255
        metric.update(prediction, truth)
        expected += counts_of_all_pairs(prediction, truth, 4, max(1.0, tolerance * math.hypot(*size)), 255)
    np.testing.assert_array_equal(metric.counts, expected)
    scores = metric.compute()
    precision, recall = expected[0, :3] / expected[1, :3], expected[2, :3] / expected[3, :3]
    f = 2 * precision * recall / (precision + recall)
    np.testing.assert_allclose(scores["boundary_f_per_class"], [*f, NAN], atol=1e-15)
    assert scores["boundary_f"] == pytest.approx(f.mean())


@pytest.mark.parametrize(("shift", "score"), [(0, 1.0), (3, 1.0), (4, 0.0)])
def test_a_shift_is_forgiven_up_to_the_tolerance_exactly(shift: int, score: float) -> None:
    x = np.arange(40)[None].repeat(30, 0)  # the diagonal is 50 pixels: a tolerance of 0.06 is 3
    metric = BoundaryF(2, tolerance=0.06)
    metric.update((x >= 20 + shift).astype(int), (x >= 20).astype(int))
    assert metric.compute()["boundary_f"] == score


def test_a_class_without_contour_on_one_side_scores_zero_and_without_any_is_left_out() -> None:
    truth = np.zeros((20, 20), int)
    truth[5:15, 5:15] = 1
    metric = BoundaryF(3)
    metric.update(np.zeros_like(truth), truth)
    scores = metric.compute()
    np.testing.assert_array_equal(scores["boundary_f_per_class"], [0, 0, NAN])
    np.testing.assert_array_equal(scores["boundary_recall_per_class"], [0, 0, NAN])
    assert np.isnan(scores["boundary_precision_per_class"]).all()
    assert scores["boundary_f"] == 0.0


@pytest.mark.parametrize("kind", [BoundaryIoU, BoundaryF])
def test_kinds_of_input_agree_and_any_sharding_counts_the_same(kind: type) -> None:
    rng = np.random.default_rng(3)
    truth = np.stack([blobs(rng, 3, (24, 30)) for _ in range(5)])
    prediction = np.roll(truth, 1, 2)
    truth[:, 3:6, 3:9] = 255
    whole = kind(3)
    whole.update(torch.from_numpy(prediction), truth.astype(np.uint8))
    parts = [kind(3) for _ in range(2)]
    for i in range(5):
        parts[i % 2].update(Segments.from_class_map(prediction[i]), Segments.from_class_map(truth[i]), index=i)
    joined = kind(3)
    for part in parts:
        joined.merge(pickle.loads(pickle.dumps(part)))
    assert whole.counts.any()
    np.testing.assert_array_equal(joined.counts, whole.counts)


@pytest.mark.parametrize("kind", [BoundaryIoU, BoundaryF])
def test_nothing_known_is_nan_and_nothing_is_a_neighbour(kind: type) -> None:
    metric = kind(2)
    key = "boundary_iou" if kind is BoundaryIoU else "boundary_f"
    assert math.isnan(metric.compute()[key])
    assert type(metric.compute()[key]) is float
    ids = np.full((20, 20), NOTHING, np.int8)
    ids[5:15, 5:15] = 0
    metric.update(Segments(ids, [1]), Segments(ids, [1]))
    assert metric.compute()[key] == 1.0
    assert metric.counts[:, 1].tolist() == [36] * len(metric.counts)
    metric.update(Segments(ids, [1]), Segments.empty((20, 20), fill=UNKNOWN))
    assert metric.counts[:, 1].tolist() == [36] * len(metric.counts)


@pytest.mark.parametrize("kind", [BoundaryIoU, BoundaryF])
def test_what_cannot_be_is_refused(kind: type) -> None:
    metric = kind(2)
    with pytest.raises(DataError, match=r"7 \(1 pixels\)"):
        metric.update(np.zeros((1, 2), int), np.array([[0, 7]]))
    with pytest.raises(DataError, match=r"\[1, 2\].*\[2, 1\]"):
        metric.update(np.zeros((1, 2), int), np.zeros((2, 1), int))
    with pytest.raises(DataError, match="two maps"):
        metric.update(np.zeros(2, int), np.zeros(2, int))
    with pytest.raises(ConfigError, match="cannot take in"):
        metric.merge(kind(3))
    with pytest.raises(ConfigError, match="cannot take in"):
        metric.merge((BoundaryF if kind is BoundaryIoU else BoundaryIoU)(2, 255, **{OTHER[kind]: 0.05}))
    for share in (0, 1, -0.5):
        with pytest.raises(ConfigError, match="share of the image diagonal"):
            kind(2, **{OWN[kind]: share})


OWN = {BoundaryIoU: "ratio", BoundaryF: "tolerance"}
OTHER = {BoundaryIoU: "tolerance", BoundaryF: "ratio"}
