"""What every metric promises, whichever it is."""

from __future__ import annotations

import doctest
import importlib
import inspect
import math
import pickle
import pkgutil

import numpy as np
import pytest

from pixelwise import metrics
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import DataError

ALL = [getattr(metrics, name) for name in metrics.__all__]
MAIN = {
    "AggregatedJaccard": "aji",
    "AveragePrecision": "ap",
    "BoundaryF": "boundary_f",
    "BoundaryIoU": "boundary_iou",
    "CityscapesAP": "cityscapes_ap",
    "ConfusionMatrix": "miou",
    "InstanceF1": "f1",
    "ObjectDice": "object_dice",
    "PanopticQuality": "pq",
}
MODULES = [f"pixelwise.metrics.{found.name}" for found in pkgutil.iter_modules(metrics.__path__)]


def image(seed: int, size: tuple[int, int] = (24, 32)) -> tuple[Segments, Segments]:
    rng = np.random.default_rng(seed)
    true = np.kron(rng.integers(-2, 6, (6, 8)), np.ones((4, 4), int)).astype(np.int8)[: size[0], : size[1]]
    found = np.roll(true, 1, rng.integers(0, 2)).clip(-1)
    labels = rng.integers(0, 3, 6)
    return Segments(found, labels, scores=rng.integers(0, 3, 6) / 2), Segments(true, labels)


def assert_equal(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_all_are_exported() -> None:
    assert sorted(metrics.__all__) == metrics.__all__
    classes = {
        name
        for module in MODULES
        for name, kind in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        if hasattr(kind, "update") and not name.startswith("_") and kind.__module__ == module
    }
    assert classes == set(metrics.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("kind", ALL)
def test_scores_are_floats_in_0_to_1_and_nan_without_images(kind: type) -> None:
    metric = kind(3)
    empty = metric.compute()
    for i in range(3):
        metric.update(*image(i), index=i)
    scores = metric.compute()
    assert empty.keys() == scores.keys()
    counts = {"confusion", "tp", "fp", "fn"}
    for key in scores.keys() - counts:
        values = np.asarray(scores[key])
        assert values.dtype == np.float64
        assert values.ndim > 0 or type(scores[key]) is float
        known = values[~np.isnan(values)]
        assert ((known >= 0) & (known <= 1)).all()
        assert np.isnan(empty[key]).all()
    assert 0 < scores[MAIN[kind.__name__]] < 1
    assert math.isnan(empty[MAIN[kind.__name__]])


@pytest.mark.parametrize("kind", ALL)
def test_merging_pickled_shards_in_any_order_gives_the_same_bits(kind: type) -> None:
    whole, parts = kind(3), [kind(3) for _ in range(4)]  # the last one sees no image
    for i in range(9):
        whole.update(*image(i), index=i)
        parts[i % 3].update(*image(i), index=i)
    for order in ((0, 1, 2, 3), (3, 2, 0, 1)):
        joined = kind(3)
        for j in order:
            joined.merge(pickle.loads(pickle.dumps(parts[j])))
        assert_equal(joined.compute(), whole.compute())


@pytest.mark.parametrize("kind", ALL)
def test_merging_leaves_the_other_as_it_was_and_apart(kind: type) -> None:
    one, other = kind(3), kind(3)
    other.update(*image(1), index=1)
    before = other.compute()
    one.merge(other)
    one.update(*image(2), index=2)
    assert_equal(other.compute(), before)


@pytest.mark.parametrize("kind", ALL)
def test_an_image_that_is_all_unknown_changes_nothing(kind: type) -> None:
    metric = kind(3)
    metric.update(*image(1))
    before = metric.compute()
    prediction, _ = image(2)
    metric.update(prediction, Segments.empty(prediction.size, fill=UNKNOWN))
    assert_equal(metric.compute(), before)


@pytest.mark.parametrize("kind", ALL)
def test_a_perfect_prediction_scores_1_and_an_empty_one_0(kind: type) -> None:
    ids = np.kron(np.arange(6).reshape(2, 3), np.ones((12, 12), int)).astype(np.int8)
    truth = Segments(ids, [0, 1, 2, 0, 1, 2])
    perfect, empty = kind(3), kind(3)
    perfect.update(truth, truth)
    empty.update(Segments.empty(truth.size), truth)
    main = MAIN[kind.__name__]
    assert perfect.compute()[main] == pytest.approx(1.0)
    assert empty.compute()[main] == 0.0


@pytest.mark.parametrize("kind", ALL)
def test_sizes_must_agree(kind: type) -> None:
    with pytest.raises(DataError, match=r"\[24, 32\].*\[20, 32\]"):
        kind(3).update(image(0)[0], image(0, (20, 32))[1])
