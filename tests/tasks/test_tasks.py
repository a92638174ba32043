"""The three tasks: the truth as each sees it, and how each reads an output, against rules written out again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Candidates, Dense, Merge, Queries
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.core.types import Task
from pixelwise.errors import ConfigError
from pixelwise.tasks import TASKS, make_task

CLASSES = Classes(names=["sky", "car", "road", "person"], things=["car", "person"])


def truth() -> Segments:
    """Two cars, a person over the second, road in two parts, a crowd, one pixel unknown and one nothing."""
    ids = np.array(
        [
            [[0, 0, 1, 1, 1, -2], [0, 0, 1, 1, 1, -1], [2, 2, 2, 3, 3, 5]],
            [[-1, -1, -1, 4, 4, -1], [-1, -1, -1, -1, -1, -1], [-1, -1, -1, -1, -1, -1]],
        ],
        np.int8,
    )
    return Segments(ids, [1, 1, 2, 2, 3, 3], crowd=[0, 0, 0, 0, 0, 1], keys=[11, 12, 13, 14, 15, 16])


def test_semantic_sees_one_row_per_class():
    seen = make_task("semantic", CLASSES).view(truth())
    assert seen.labels.tolist() == [0, 1, 2, 3]
    assert seen.ids.tolist() == [[[1, 1, 1, 1, 1, -2], [1, 1, 1, 1, 1, -1], [2, 2, 2, 2, 2, 3]]]
    again = make_task("semantic", CLASSES).view(seen)
    assert again is seen


def test_semantic_sees_no_crowd():
    dense = Segments(np.array([[0, 1, 2, 3]], np.int8), [0, 1, 2, 3], crowd=CLASSES.is_thing)  # a class map of things
    assert not bool(make_task("semantic", CLASSES).view(dense).crowd.any())


def test_instance_sees_things_alone_under_its_own_labels():
    task = make_task("instance", CLASSES)
    assert task.classes.names == ("car", "person")
    assert task.classes.channels == 3
    seen = task.view(truth())
    assert seen.labels.tolist() == [0, 0, 1, 1]
    assert seen.keys.tolist() == [11, 12, 15, 16]
    assert seen.crowd.tolist() == [False, False, False, True]
    assert seen.ids[0].tolist() == [[0, 0, 1, 1, 1, -2], [0, 0, 1, 1, 1, -1], [-1, -1, -1, -1, -1, 3]]
    assert seen.ids[1].tolist() == [[-1, -1, -1, 2, 2, -1], [-1] * 6, [-1] * 6]


def test_panoptic_sees_one_layer_and_one_row_per_stuff_class():
    seen = make_task("panoptic", CLASSES).view(truth())
    assert seen.labels.tolist() == [1, 1, 2, 3, 3]
    assert seen.keys.tolist() == [11, 12, 13, 15, 16]
    assert seen.ids.tolist() == [[[0, 0, 1, 1, 1, -2], [0, 0, 1, 1, 1, -1], [2, 2, 2, 2, 2, 4]]]


@pytest.mark.parametrize("name", TASKS)
def test_tasks_see_truth_without_segments(name):
    task = make_task(name, CLASSES)
    assert {n for n in (*vars(Task), *Task.__annotations__) if not n.startswith("_")} <= set(dir(task))
    seen = task.view(Segments.empty((2, 3), fill=UNKNOWN))
    assert bool(seen.unknown.all())


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'panoptic'"):
        make_task("panoptik", CLASSES)
    with pytest.raises(ConfigError, match="things"):
        make_task("instance", Classes(names=["sky"]))


def one_hot(class_map: np.ndarray, channels: int) -> Dense:
    logits = torch.nn.functional.one_hot(torch.from_numpy(class_map), channels).permute(2, 0, 1)[None] * 20.0
    return Dense(logits.float())


def test_semantic_answers_the_class_map_and_nothing():
    classes = Classes(names=["a", "b"], nothing=True)
    class_map = np.array([[0, 1, 2], [2, 1, 0]])
    found = make_task("semantic", classes).decode(one_hot(class_map, 3), 0)
    assert found.ids.tolist() == [[[0, 1, NOTHING], [NOTHING, 1, 0]]]
    assert found.labels.tolist() == [0, 1]


def test_a_map_becomes_instances_by_connected_components():
    classes = Classes(names=["sky", "car"], things=["car"])
    task = make_task("instance", classes)
    found = task.decode(one_hot(np.array([[0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]), 2), 0)  # 1 is the background
    assert found.labels.tolist() == [0, 0]
    assert sorted(found.areas.tolist()) == [1.0, 6.0]
    large = make_task("instance", classes, min_area=2)
    assert large.decode(one_hot(np.array([[0, 1, 0], [1, 1, 0]]), 2), 0).areas.tolist() == [2.0]
    assert len(make_task("instance", classes, keep=1).decode(one_hot(np.array([[0, 1, 0]]), 2), 0)) == 1


def test_a_map_becomes_panoptic_with_stuff_joined():
    class_map = np.array([[0, 1, 0, 1], [0, 1, 0, 1], [2, 2, 2, 2]])
    found = make_task("panoptic", CLASSES).decode(one_hot(class_map, 4), 0)
    assert sorted(found.labels.tolist()) == [0, 1, 1, 2]
    assert np.array_equal(found.class_map().numpy(), class_map)
    assert int((found.labels == 0).sum()) == 1
    assert torch.allclose(found.scores, torch.ones(4), atol=1e-4)


def test_the_channel_of_nothing_is_known_to_be_nothing():
    classes = Classes(names=["nucleus"], things=["nucleus"], nothing=True)
    found = make_task("panoptic", classes).decode(one_hot(np.array([[0, 1], [1, 1]]), 2), 0)
    assert found.ids.tolist() == [[[0, NOTHING], [NOTHING, NOTHING]]]
    assert found.labels.tolist() == [0]


def test_things_that_are_too_small_become_unknown():
    found = make_task("panoptic", CLASSES, min_area=2).decode(one_hot(np.array([[1, 0, 1, 1]]), 4), 0)
    assert found.class_map(255, nothing=254).tolist() == [[255, 0, 1, 1]]


class Given:
    """An output that holds its candidates, to test the rules alone."""

    def __init__(self, found: Candidates) -> None:
        self.found = found

    def candidates(self, i: int) -> Candidates:
        return self.found


def given(masks, scores, merge) -> Given:
    masks = np.asarray(masks)
    n, h, w = masks.shape
    return Given(Candidates(np.asarray(scores, np.float32), np.array([[0, 0, w, h]] * n), list(masks), (h, w), merge))


def test_a_score_equal_to_the_threshold_is_answered():
    classes = Classes(names=["car"], things=["car"])
    output = given(np.ones((1, 1, 2), bool), [[0.7]], Merge("partition"))
    assert len(make_task("instance", classes, score=0.7).decode(output, 0)) == 1
    assert len(make_task("instance", classes, score=0.71).decode(output, 0)) == 0


def test_average_precision_sees_what_the_answer_leaves_out():
    classes = Classes(names=["car"], things=["car"])
    output = given(np.ones((2, 1, 3), bool), [[0.7], [0.2]], Merge("partition"))
    task = make_task("instance", classes)
    assert task.decode(output, 0).scores.tolist() == pytest.approx([0.7])
    assert task.decode(output, 0).ids.shape[0] == 1
    assert task.ranked(task.read(output, 0)).scores.tolist() == pytest.approx([0.7, 0.2])


@pytest.mark.parametrize("rule", ["partition", "paint", "argmax"])
def test_panoptic_things_below_their_own_threshold_are_not_answered(rule):
    kind = float if rule == "argmax" else bool
    masks = np.array([[[1, 1, 0, 0]], [[0, 0, 1, 0]], [[0, 0, 0, 1]]], kind)
    scores = np.zeros((3, 4))
    scores[0, 1], scores[1, 1], scores[2, 0] = 0.9, 0.6, 0.55  # two cars and sky
    output = given(masks, scores, Merge(rule, 0.5, 0.5))
    assert make_task("panoptic", CLASSES).decode(output, 0).ids.tolist() == [[[0, 0, 1, 2]]]
    found = make_task("panoptic", CLASSES, score=0.7).decode(output, 0)
    assert found.ids.tolist() == [[[0, 0, UNKNOWN, 1]]]
    assert found.labels.tolist() == [1, 0]
    assert len(make_task("panoptic", CLASSES, score=0.6).decode(output, 0)) == 3


def test_an_output_may_limit_its_instances():
    classes = Classes(names=["car", "person"], things=["car", "person"])
    masks, scores = np.ones((3, 1, 2), bool), [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
    task = make_task("instance", classes, score=0.0)
    assert len(task.decode(given(masks, scores, Merge("argmax")), 0)) == 6
    found = task.decode(given(masks, scores, Merge("argmax", best=2)), 0)
    assert found.scores.tolist() == pytest.approx([0.6, 0.5])


def test_soft_masks_scale_an_instances_score():
    classes = Classes(names=["car", "person"], things=["car", "person"])
    output = given([[[0.9, 0.7, 0.2]]], [[0.5, 0.4]], Merge("argmax"))
    found = make_task("instance", classes, score=0.0).decode(output, 0)
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.4, 0.32])
    assert found.areas.tolist() == [2.0, 2.0]


def test_paint_goes_by_score_and_drops_what_is_mostly_hidden():
    masks = np.array([[[1, 1, 1, 0, 0, 0]], [[0, 1, 1, 1, 0, 0]], [[0, 0, 1, 1, 1, 1]], [[0, 0, 0, 0, 0, 1]]], bool)
    scores = np.zeros((4, 4))
    scores[:, 1] = [0.9, 0.8, 0.7, 0.4]
    found = make_task("panoptic", CLASSES).decode(given(masks, scores, Merge("paint", 0.5, 0.5)), 0)
    # the second has 1 of 3 pixels free and falls; the third keeps 3 of 4; the last is below the score
    assert found.ids.tolist() == [[[0, 0, 0, 1, 1, 1]]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_paint_gives_stuff_what_things_leave_whatever_the_scores():
    masks = np.array([[[1, 1, 1, 1, 1, 0]], [[1, 1, 1, 1, 0, 0]], [[0, 0, 0, 0, 0, 1]]], bool)
    scores = np.zeros((3, 4))
    scores[0, 0], scores[1, 1], scores[2, 2] = 0.99, 0.6, 0.2  # sky, a car on most of it, another stuff that is unsure
    found = make_task("panoptic", CLASSES).decode(given(masks, scores, Merge("paint", 0.5, 0.5)), 0)
    assert found.labels[found.ids[0, 0].long()].tolist() == [1, 1, 1, 1, 0, 2]


def test_stuff_below_its_least_area_becomes_unknown():
    masks = np.array([[[1, 0, 0]], [[0, 1, 1]]], bool)
    scores = np.array([[0.9, 0, 0, 0], [0, 0.9, 0, 0]])
    found = make_task("panoptic", CLASSES).decode(given(masks, scores, Merge("paint", 0.5, 0.5, stuff_area=2)), 0)
    assert found.ids.tolist() == [[[UNKNOWN, 0, 0]]]


def plain_argmax(masks, scores, threshold, overlap):
    """Mask2Former's panoptic inference, written out on whole maps: [H, W] row or -1, over queries that are sure."""
    sure = [q for q in range(len(scores)) if scores[q].max() > threshold]
    owner = np.full(masks.shape[1:], -1)
    if not sure:
        return owner
    winner = np.array(sure)[np.argmax([scores[q].max() * masks[q] for q in sure], 0)]
    for q in sure:
        own = masks[q] >= 0.5
        left = (winner == q).sum()
        if own.sum() and left and left / own.sum() >= overlap:
            owner[(winner == q) & own] = q
    return owner


@pytest.mark.parametrize("seed", range(8))
def test_argmax_shares_pixels_out_as_mask2former(seed):
    torch.manual_seed(seed)
    logits = torch.nn.functional.interpolate(torch.randn(1, 6, 3, 4) * 3, size=(12, 16), mode="bicubic")
    queries = Queries(logits.clamp_min(-4.0), torch.randn(1, 6, 5) * 4, merge=Merge("argmax", 0.6, 0.5))
    scores = queries.classes[0].softmax(-1)[:, :-1].numpy()
    masks = queries.masks[0].sigmoid().numpy()
    owner = plain_argmax(masks, scores, 0.5, 0.6)
    things = Classes(names=list("abcd"), things=list("abcd"))
    found = make_task("panoptic", things).decode(queries, 0)
    rows = [q for q in range(6) if (owner == q).any()]
    assert found.labels.tolist() == [int(scores[q].argmax()) for q in rows]
    assert np.array_equal(found.masks.numpy(), np.array([owner == q for q in rows]).reshape(len(rows), 12, 16))


@pytest.mark.parametrize("name", TASKS)
def test_no_candidates_at_all_is_an_answer(name):
    queries = Queries(torch.full((1, 2, 4, 5), -50.0), torch.zeros(1, 2, 1 + len(make_task(name, CLASSES).classes)))
    found = make_task(name, CLASSES).decode(queries, 0)
    assert found.size == (4, 5)
