"""Objects of an answer against those of the truth: found, missed, false, of a wrong class; and how that is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.core.classes import Classes
from pixelwise.core.disagreement import (
    ALONE,
    CONFUSED,
    FALSE,
    FOUND,
    MISSED,
    NOTED,
    RIGHT,
    WRONG,
    error_overlay,
    match_objects,
)
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.errors import DataError

CLASSES = Classes(names=("road", "car"), things=("car",), colours=((200, 30, 30), (40, 120, 220)))
TWO = Classes(names=("cat", "dog"), things=("cat", "dog"), nothing=True)


def streets(height: int = 40, width: int = 60) -> Segments:
    """Road below, two touching cars, nothing above, an unknown row at the bottom."""
    ids = np.full((height, width), NOTHING, np.int16)
    ids[height // 2 :] = 0
    ids[height // 2 - 5 : height // 2 + 5, 10:20] = 1
    ids[height // 2 - 5 : height // 2 + 5, 20:30] = 2
    ids[-1] = UNKNOWN
    return Segments(torch.from_numpy(ids), torch.tensor([0, 1, 1]))


def boxes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, 12, 12] bool and [N] labels 0..1; boxes that may overlap."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, 12, 12), bool)
    for mask in masks:
        y, x = rng.integers(0, 9, 2)
        mask[y : y + rng.integers(2, 6), x : x + rng.integers(2, 6)] = True
    return masks, rng.integers(0, 2, count)


@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(0, 5))
def test_matches_are_those_of_every_pair_of_masks(seed: int, n: int, m: int) -> None:
    masks, labels = boxes(seed, n)
    true_masks, true_labels = boxes(seed + 1, m)
    rng = np.random.default_rng(seed)
    crowd, void = rng.random(m) < 0.2, rng.random((12, 12)) < 0.2
    prediction = Segments.from_masks(masks, labels)
    truth = Segments.from_masks(true_masks, true_labels, crowd=crowd, void=void)
    unknown = truth.unknown.numpy()
    expected, expected_true = np.full(n, ALONE), np.where(crowd, NOTED, ALONE)
    for p in range(n):
        covered = sum((masks[p] & true_masks[t]).sum() for t in range(m) if crowd[t]) + (masks[p] & unknown).sum()
        if 2 * covered > masks[p].sum():
            expected[p] = NOTED
    for kind in (WRONG, RIGHT):
        for p in range(n):
            for t in range(m):
                inside = (masks[p] & true_masks[t]).sum()
                union = ((masks[p] & ~unknown) | true_masks[t]).sum()
                same = RIGHT if labels[p] == true_labels[t] else WRONG
                if inside > 0.5 * union and not crowd[t] and same == kind:
                    expected_true[t] = kind
                    expected[p] = kind if expected[p] != NOTED else NOTED
    found = match_objects(prediction, truth, TWO)
    if len(labels) and not (labels.tolist() == [0, 1] or true_labels.tolist() == [0, 1]):  # those look like class maps
        assert found.predicted.tolist() == expected.tolist()
        assert found.true.tolist() == expected_true.tolist()


def test_class_maps_and_stuff_have_no_objects() -> None:
    segments = Segments(torch.tensor([[0, 0, 1, 1]], dtype=torch.int8), torch.tensor([0, 1]))
    assert match_objects(segments, segments, CLASSES).counts == {"found": 0, "missed": 0, "false": 0, "wrong class": 0}
    truth = streets()
    assert match_objects(truth, truth, CLASSES).predicted.tolist() == [NOTED, RIGHT, RIGHT]
    assert match_objects(Segments.empty((40, 60)), truth, CLASSES).counts["missed"] == 2
    assert match_objects(truth, Segments.empty((40, 60)), CLASSES).counts["false"] == 2
    assert match_objects(truth, Segments.empty((40, 60), fill=UNKNOWN), CLASSES).counts["false"] == 0


def test_error_overlay_names_every_kind_of_error() -> None:
    truth, ids = streets(), streets().ids.clone()
    ids[0, 0, 0] = 0  # false: nothing is there
    ids[0, 30, 50] = NOTHING  # missed
    ids[0, 30, 55] = UNKNOWN  # an unknown answer misses too
    ids[0, 30, 40] = 1  # confused
    prediction = Segments(ids, truth.labels)
    drawn = error_overlay(np.zeros((40, 60, 3), np.uint8), prediction, truth).astype(int)
    nearest = [FALSE, MISSED, MISSED, CONFUSED]
    for (y, x), colour in zip([(0, 0), (30, 50), (30, 55), (30, 40)], nearest):
        distances = [np.abs(drawn[y, x] - np.array(c)).sum() for c in (FALSE, MISSED, CONFUSED)]
        assert (FALSE, MISSED, CONFUSED)[int(np.argmin(distances))] == colour
    grey = np.ones((40, 60), bool)
    grey[[0, 30, 30, 30], [0, 50, 55, 40]] = False
    assert (drawn[grey].max(1) == drawn[grey].min(1)).all()


def test_unknown_truth_is_never_an_error() -> None:
    truth = Segments.empty((20, 20), fill=UNKNOWN)
    prediction = Segments(torch.zeros(1, 20, 20, dtype=torch.int8), torch.tensor([0]))
    drawn = error_overlay(np.full((20, 20, 3), 9, np.uint8), prediction, truth, CLASSES)
    assert (drawn.max(2) == drawn.min(2)).all()


def test_objects_are_drawn_by_what_became_of_them() -> None:
    masks = np.zeros((4, 60, 60), bool)
    masks[0, 5:15, 5:15] = masks[1, 5:15, 30:40] = masks[2, 30:40, 5:15] = masks[3, 30:40, 30:40] = True
    truth = Segments.from_masks(masks[:3], [0, 0, 1])
    prediction = Segments.from_masks(masks[[0, 2, 3]], [0, 0, 1])
    drawn = error_overlay(np.zeros((60, 60, 3), np.uint8), prediction, truth, TWO)
    for (y, x), colour in {(5, 5): FOUND, (5, 30): MISSED, (30, 5): CONFUSED, (30, 30): FALSE}.items():
        assert (drawn[y, x] == colour).all()
    assert (drawn[10, 10] == drawn[0, 0]).all()  # within one that was found nothing is wrong
    assert np.abs(drawn[10, 35].astype(int) - MISSED).sum() < 120
    crowd = Segments(truth.ids, truth.labels, crowd=torch.tensor([False, True, False]))
    shown = error_overlay(np.zeros((60, 60, 3), np.uint8), prediction, crowd, TWO)
    assert (shown[5, 30] != MISSED).any()


def test_two_people_taken_for_one_are_seen_though_every_pixel_has_its_class() -> None:
    ids = torch.full((1, 20, 40), NOTHING, dtype=torch.int8)
    ids[0, :, 4:20], ids[0, :, 20:36] = 0, 1
    truth = Segments(ids, torch.tensor([0, 0]))
    one = Segments(ids.clamp(max=0), torch.tensor([0]))
    assert match_objects(one, truth, TWO).counts == {"found": 0, "missed": 2, "false": 1, "wrong class": 0}
    image = np.zeros((20, 40, 3), np.uint8)
    assert (error_overlay(image, one, truth, TWO) != error_overlay(image, one, truth)).any()


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match="do not fit"):
        error_overlay(np.zeros((40, 60, 3), np.uint8), Segments.empty((39, 60)), streets())
