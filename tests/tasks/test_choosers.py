"""Chosen thresholds, against decoding and scoring the images anew at every setting."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Candidates, Merge
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError
from pixelwise.metrics import InstanceF1, PanopticQuality
from pixelwise.tasks import Instance, Panoptic, Semantic
from pixelwise.tasks.thresholds import AREAS, COARSE, SCORES, choose

CLASSES = Classes(names=["sky", "car", "road", "person"], things=["car", "person"])
SIZE = (24, 32)


class Given:
    """An output that holds its candidates."""

    def __init__(self, found: Candidates) -> None:
        self.found = found

    def candidates(self, i: int) -> Candidates:
        return self.found


def discs(rng: np.random.Generator, count: int) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    at, radius = rng.random((count, 2)) * SIZE, rng.uniform(1, 6, count)
    return np.hypot(y - at[:, 0, None, None], x - at[:, 1, None, None]) < radius[:, None, None]


def instances(seed: int) -> tuple[Given, Segments]:
    """Objects, some unknown pixels and a crowd; each is found up to three times, or not at all, at any score."""
    rng = np.random.default_rng(seed)
    true = discs(rng, 6)
    found = np.repeat(true, rng.integers(0, 4, 6), axis=0)
    found = np.array([np.roll(m, rng.integers(-1, 2, 2), (0, 1)) for m in found], bool).reshape(-1, *SIZE)
    found = np.concatenate([found, discs(rng, 4)])
    labels = rng.integers(0, 2, 6)
    truth = Segments.from_masks(true, labels, crowd=rng.random(6) < 0.2, void=discs(rng, 1)[0])
    scores = np.zeros((len(found), 2), np.float32)
    scores[np.arange(len(found)), rng.integers(0, 2, len(found))] = rng.integers(1, 101, len(found)) / 100
    boxes = np.tile([0, 0, SIZE[1], SIZE[0]], (len(found), 1))
    return Given(Candidates(scores, boxes, list(found), SIZE, Merge("partition"))), truth


def panoptic(seed: int, rule: str) -> tuple[Given, Segments]:
    rng = np.random.default_rng(seed)
    ground = np.zeros(SIZE, bool)
    ground[: int(rng.integers(5, 20))] = True
    true = discs(rng, 5)
    masks = np.concatenate([true, ground[None], ~ground[None]])
    labels = np.concatenate([rng.choice([1, 3], 5), [0, 2]])
    truth = Segments.from_masks(masks, labels, crowd=[*(rng.random(5) < 0.2), False, False])
    shifted = np.array([np.roll(m, rng.integers(-1, 2, 2), (0, 1)) for m in masks])
    found = np.concatenate([shifted[:5], discs(rng, 3), shifted[5:]])
    if rule == "partition":
        owner = np.argmax(found, 0)
        found = np.array([(owner == q) & found.any(0) for q in range(len(found))])
    guess = np.concatenate([labels[:5], rng.choice([1, 3], 3), [0, 2]])
    scores = np.zeros((len(found), 4), np.float32)
    scores[np.arange(len(found)), guess] = np.append(rng.integers(1, 101, len(found) - 2) / 100, [0.51, 0.52])
    boxes = np.tile([0, 0, SIZE[1], SIZE[0]], (len(found), 1))
    crops = [m.astype(np.float32) * 0.9 for m in found] if rule == "argmax" else list(found)
    return Given(Candidates(scores, boxes, crops, SIZE, Merge(rule, 0.4, 0.5))), truth


def test_every_setting_counts_as_the_answer_it_gives() -> None:
    task = Instance(Classes(names=["cell", "dish"], things=["cell", "dish"]))
    images = [instances(seed) for seed in range(5)]
    chooser = task.chooser()
    for output, truth in images:
        chooser.update(task.read(output, 0), truth)
    for s, score in enumerate(SCORES):
        for a, area in enumerate(AREAS):
            asked, metric = replace(task, score=float(score), min_area=int(area)), InstanceF1(2)
            for output, truth in images:
                metric.update(asked.decode(output, 0), truth)
            np.testing.assert_array_equal(chooser.counts[..., s, a], metric.counts, err_msg=f"{score} {area}")
    choice = chooser.compute()
    best = InstanceF1(2)
    for output, truth in images:
        best.update(replace(task, **choice.thresholds).decode(output, 0), truth)
    assert best.compute()["accuracy"] == pytest.approx(choice.score, abs=1e-12)
    assert choice.score >= choice.default > 0
    assert choice.images == 5


@pytest.mark.parametrize("rule", ["partition", "paint", "argmax"])
def test_every_setting_of_a_panoptic_map_counts_as_the_answer_it_gives(rule: str) -> None:
    task = Panoptic(CLASSES)
    images = [(output, task.view(truth)) for output, truth in (panoptic(seed, rule) for seed in range(5))]
    chooser = task.chooser()
    for output, truth in images:
        chooser.update(task.read(output, 0), truth)
    for s, score in enumerate(COARSE):
        for a, area in enumerate(AREAS):
            asked, metric = replace(task, score=float(score), min_area=int(area)), PanopticQuality(CLASSES)
            for output, truth in images:
                metric.update(asked.decode(output, 0), truth)
            counted = np.array([metric.tp, metric.fp, metric.fn])
            np.testing.assert_array_equal(chooser.counts[:3, :, s, a], counted, err_msg=f"{score} {area}")
    choice, best, plain = chooser.compute(), PanopticQuality(CLASSES), PanopticQuality(CLASSES)
    for output, truth in images:
        best.update(replace(task, **choice.thresholds).decode(output, 0), truth)
        plain.update(task.decode(output, 0), truth)
    assert best.compute()["pq"] == pytest.approx(choice.score, abs=1e-8)
    assert plain.compute()["pq"] == pytest.approx(choice.default, abs=1e-8)
    assert choice.score > choice.default


@pytest.mark.parametrize("name", ["instance", "partition", "paint"])
def test_any_sharding_chooses_the_same(name: str) -> None:
    task = Instance(CLASSES) if name == "instance" else Panoptic(CLASSES)
    images = [instances(i) if name == "instance" else panoptic(i, name) for i in range(9)]
    whole, parts = task.chooser(), [task.chooser() for _ in range(4)]  # the last one sees no image
    for i, (output, truth) in enumerate(images):
        for one in (whole, parts[i % 3]):
            one.update(task.read(output, 0), task.view(truth) if name != "instance" else truth)
    joined = task.chooser()
    for part in parts[::-1]:
        joined.merge(pickle.loads(pickle.dumps(part)))
    assert joined.compute() == whole.compute()
    with pytest.raises(ConfigError, match="cannot take in"):
        joined.merge(Instance(Classes(names=["a"], things=["a"])).chooser())


def test_the_score_is_in_the_middle_of_its_plateau_and_an_area_must_pay() -> None:
    values = np.zeros((len(SCORES), len(AREAS)))
    values[4:9] = 0.5
    assert choose(values, SCORES) == (6, 0)
    values[10, 3] = 0.501
    assert choose(values, SCORES) == (6, 0)
    values[10, 3] = 0.503
    assert choose(values, SCORES) == (10, 3)


def test_without_objects_nothing_is_chosen() -> None:
    task = Instance(CLASSES)
    assert task.chooser().compute().thresholds == {}
    assert Semantic(CLASSES).chooser() is None
    chooser = task.chooser()
    chooser.update(Segments.empty(SIZE), Segments.empty(SIZE))
    choice = chooser.compute()
    assert choice.thresholds == {}
    assert math.isnan(choice.score)
    assert choice.images == 1
    assert Panoptic(CLASSES).chooser().compute().thresholds == {}


def test_a_perfect_net_keeps_a_score_in_the_middle() -> None:
    task = Instance(Classes(names=["cell"], things=["cell"]))
    chooser = task.chooser()
    mask = np.zeros((1, *SIZE), bool)
    mask[:, 2:12, 2:12] = True
    truth = Segments.from_masks(mask, [0], scores=[0.97])
    chooser.update(truth, truth)
    choice = chooser.compute()
    assert choice.thresholds == {"score": 0.5, "min_area": 0}
    assert (choice.score, choice.default) == (1.0, 1.0)


@pytest.mark.parametrize("task", [Instance, Panoptic])
@pytest.mark.parametrize("options", [{"score": 1.5}, {"score": -0.1}, {"min_area": -1}])
def test_thresholds_that_cannot_be_are_refused(task: type, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="least"):
        task(CLASSES, **options)
