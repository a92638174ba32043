"""Candidates of several views: which become one, with what score and shape, and how much is held."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pixelwise.core.outputs import Candidates, Merge
from pixelwise.views.fusion import Fusion

SIZE = (60, 80)


def seen(*objects, rule="paint", size=SIZE) -> Candidates:
    """Objects (label, score, x0, y0, x1, y1) as full boxes, of two classes."""
    scores = np.zeros((len(objects), 2), np.float32)
    for row, (label, score, *_) in enumerate(objects):
        scores[row, label] = score
    boxes = np.array([o[2:] for o in objects], np.int64).reshape(-1, 4)
    crops = [np.ones((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in boxes.tolist()]
    return Candidates(scores, boxes, crops, size, Merge(rule))


def joined(*views, size=SIZE) -> Candidates:
    fusion = Fusion(size)
    for view in views:
        fusion.add(view)
    return fusion.candidates()


def test_what_agrees_is_one_with_the_mean_score():
    found = joined(seen((0, 0.9, 10, 10, 20, 20)), seen((0, 0.5, 10, 10, 20, 20)))
    np.testing.assert_allclose(found.scores, [[0.7, 0]])
    assert found.boxes.tolist() == [[10, 10, 20, 20]]
    assert found.crops[0].all()
    assert found.merge == Merge("paint")


@pytest.mark.parametrize(("shift", "count"), [(0, 1), (3, 1), (4, 2)])
def test_half_of_the_union_must_be_shared(shift, count):
    """Squares of 10 pixels shifted by 3 share 7/13 of their union, by 4 only 6/14."""
    found = joined(seen((0, 0.8, 10, 10, 20, 20)), seen((0, 0.8, 10 + shift, 10, 20 + shift, 20)))
    assert len(found.crops) == count
    assert found.scores.max(1).tolist() == pytest.approx([0.8] if count == 1 else [0.4, 0.4])


def test_another_class_is_another_object():
    found = joined(seen((0, 0.9, 10, 10, 20, 20)), seen((1, 0.7, 10, 10, 20, 20)))
    np.testing.assert_allclose(found.scores, [[0.45, 0], [0, 0.35]])


def test_each_takes_its_best_partner():
    first = seen((0, 0.9, 10, 10, 30, 20), (0, 0.8, 14, 10, 34, 20))
    second = seen((0, 0.7, 13, 10, 33, 20), (0, 0.6, 10, 10, 30, 20))
    found = joined(first, second)
    assert sorted(found.scores.max(1).tolist()) == pytest.approx([0.75, 0.75])  # 0.9 with 0.6, 0.8 with 0.7


def test_the_surer_views_outweigh_the_others():
    """Three masks, one beside: the shape is what more than half of the weight covers."""
    views = [seen((0, s, 10 + d, 10, 20 + d, 20)) for s, d in ((0.9, 0), (0.8, 2), (0.5, 2))]
    assert joined(*views).boxes.tolist() == [[12, 10, 22, 20]]
    assert joined(*views[:2]).boxes.tolist() == [[10, 10, 20, 20]]
    assert joined(*views[:2]).scores[0, 0] == pytest.approx(0.85)


def test_a_partition_stays_one_and_the_surest_has_the_pixel():
    one = seen((0, 0.9, 10, 10, 20, 20), (0, 0.6, 20, 10, 30, 20), rule="partition")
    two = seen((0, 0.6, 14, 10, 20, 20), (0, 0.95, 17, 10, 30, 20), rule="partition")
    found = joined(one, two)
    covered = np.zeros(SIZE, int)
    for (x0, y0, x1, y1), crop in zip(found.boxes, found.crops):
        covered[y0:y1, x0:x1] += crop
    assert covered.max() == 1
    assert found.boxes.tolist() == [[17, 10, 30, 20], [10, 10, 17, 20]]
    assert (np.diff(found.scores.max(1)) <= 0).all()


def test_soft_masks_are_averaged():
    views = []
    for top in (0.9, 0.5):
        view = seen((0, 0.8, 10, 10, 20, 20), rule="argmax")
        view.crops[0] = np.full((10, 10), top, np.float32)
        views.append(view)
    views[1].crops[0][:, 0] = 0.7
    found = joined(*views)
    np.testing.assert_allclose(found.crops[0][:, 1:], 0.9)  # what nowhere exceeds one half agrees with nothing
    views[1].crops[0][:] = 0.6
    np.testing.assert_allclose(joined(*views).crops[0], 0.75, rtol=1e-6)


def test_empty_views_count():
    none = Candidates(np.zeros((0, 2), np.float32), np.zeros((0, 4), np.int64), [], SIZE, Merge("paint"))
    found = joined(none, seen((0, 0.9, 10, 10, 20, 20)), none)
    np.testing.assert_allclose(found.scores, [[0.3, 0]])
    assert joined(none, none).scores.shape == (0, 2)
    assert joined(none, none).boxes.shape == (0, 4)


def test_what_views_disagree_about_does_not_pile_up():
    """Twenty views that find three objects each, none of them twice: the six surest stay."""
    views = [seen(*((0, 0.9 - 0.01 * k, 4 * k, 20 * n, 4 * k + 3, 20 * n + 15) for n in range(3))) for k in range(20)]
    found = joined(*views)
    assert len(found.crops) == 6
    assert set(found.boxes[:, 0].tolist()) == {0, 4}


def test_two_thousand_objects_in_eight_views_are_quick():
    size, views = (1000, 1000), []
    for k in range(8):
        places = (
            (0, 0.9, 22 * x + k % 3, 22 * y, 22 * x + k % 3 + 18, 22 * y + 18) for y in range(45) for x in range(45)
        )
        views.append(seen(*places, rule="partition", size=size))
    began = time.process_time()
    found = joined(*views, size=size)
    assert len(found.crops) == 2025
    np.testing.assert_allclose(found.scores.max(1), 0.9, rtol=1e-5)
    assert time.process_time() - began < 20  # far from quadratic work on pixels
