"""Which objects of two tiles are the same."""

from __future__ import annotations

import time

import numpy as np

from pixelwise.prediction.neighbours import agreeing, torn


def strip(*objects: tuple[int, slice, slice], size: tuple[int, int] = (20, 60), layers: int = 1) -> np.ndarray:
    rows = np.full((layers, *size), -1, np.int32)
    for k, (row, y, x) in enumerate(objects):
        rows[k % layers, y, x] = row
    return rows


LABELS = np.array([0, 1, 1, 1, 2, 1, 1])  # rows 0 and 1 are no objects


def s(a: int, b: int) -> slice:
    return slice(a, b)


def test_more_than_half_of_what_either_covers():
    one = strip((2, s(0, 10), s(0, 20)))
    for right, same in ((20, True), (39, True), (40, False), (60, False), (11, True), (10, False)):
        other = strip((3, s(0, 10), s(0, right)))
        assert agreeing(one, other, LABELS, 2) == ([(2, 3)] if same else [])


def test_labels_and_what_is_no_object_keep_apart():
    one = strip((2, s(0, 10), s(0, 20)))
    assert agreeing(one, strip((4, s(0, 10), s(0, 20))), LABELS, 2) == []
    assert agreeing(one, strip((1, s(0, 10), s(0, 20))), LABELS, 2) == []
    assert agreeing(one, strip(), LABELS, 2) == []


def test_a_sliver_does_not_join_what_lies_beside_it():
    one = strip((2, s(0, 10), s(0, 2)), (3, s(0, 10), s(2, 30)))
    other = strip((5, s(0, 10), s(0, 30)))  # sees only one object, of which the sliver is a part
    assert agreeing(one, other, LABELS, 2) == [(3, 5)]
    assert agreeing(strip((2, s(0, 10), s(0, 2))), other, LABELS, 2) == []


def test_arms_are_compared_one_by_one():
    one = strip((2, s(0, 10), s(0, 10)), (3, s(0, 10), s(20, 24)))
    other = np.where(np.maximum(one, -1) >= 0, 5, -1).astype(np.int32)  # joined beyond the strip
    assert sorted(agreeing(one, other, LABELS, 2)) == [(2, 5), (3, 5)]
    assert sorted(agreeing(other, one, LABELS, 2)) == [(5, 2), (5, 3)]


def test_objects_that_lie_on_each_other_have_one_partner():
    one = strip((2, s(0, 10), s(0, 30)), (3, s(2, 12), s(0, 30)), layers=2)
    other = strip((5, s(0, 10), s(0, 30)), (6, s(2, 12), s(0, 30)), layers=2)
    assert sorted(agreeing(one, other, LABELS, 2)) == [(2, 5), (3, 6)]


def test_what_only_the_outside_holds_together_is_told_apart():
    inner = strip((0, s(0, 5), s(0, 5)), (1, s(0, 5), s(8, 9)), (0, s(7, 9), s(7, 9)), (2, s(15, 16), s(0, 60)))
    found, sources = torn(inner, np.array([0, 1, 2]), np.array([-1, 0, 2]), 3)
    assert sources.tolist() == [0]
    assert (found[0, 7:9, 7:9] == 3).all()
    assert (found != inner).sum() == 4
    same, none = torn(inner, np.array([0, 1, 2]), np.array([1]), 3)
    assert (same == inner).all()
    assert len(none) == 0


def test_a_crowd_of_small_objects_is_quick():
    y, x = np.mgrid[:64, :8000]
    cells = np.where((y % 8 < 6) & (x % 8 < 6), 2 + (y // 8) * 1000 + x // 8, -1).astype(np.int32)[None]
    begin = time.process_time()
    pairs = agreeing(cells, cells.copy(), np.ones(8002, int), 2)
    assert len(pairs) == 8000
    assert all(a == b for a, b in pairs)
    assert time.process_time() - begin < 3
