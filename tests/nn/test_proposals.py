"""Proposals: matched as torchvision matches, with bounded memory, and neither positive nor negative on the unknown."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from pixelwise.core.regions import BACKGROUND, UNSAMPLED
from pixelwise.core.segments import BOX, MASK, NOTHING, SCRIBBLE, TAG, UNKNOWN, Segments
from pixelwise.nn import proposals
from pixelwise.nn.proposals import IGNORED, Anchors, draw, match, objects

SIZE = (60, 80)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=g) * torch.tensor([60.0, 40.0])
    return torch.cat([corners, corners + 4 + torch.rand(count, 2, generator=g) * 20], 1)


def truth(**columns) -> Segments:
    ids = torch.full((1, *SIZE), NOTHING, dtype=torch.int8)
    ids[0, 5:25, 10:30], ids[0, 30:50, 10:30], ids[0, 5:25, 50:70] = 0, 1, 2
    return Segments(ids, columns.pop("labels", [0, 1, 0]), **columns)


@pytest.mark.parametrize("best_too", [False, True])
@pytest.mark.parametrize("pairs", [1 << 24, 700])
def test_matches_are_torchvisions(best_too, pairs, monkeypatch):
    monkeypatch.setattr(proposals, "PAIRS", pairs)  # in parts, where not all overlaps may be held
    found = objects(truth(), (0, 1))
    boxes = random_boxes(900, 1)
    want = Matcher(0.7, 0.3, allow_low_quality_matches=best_too)(box_iou(found.boxes, boxes))
    assert torch.equal(match(boxes, found, 0.7, 0.3, best_too=best_too), want)
    assert Matcher.BELOW_LOW_THRESHOLD == BACKGROUND
    assert Matcher.BETWEEN_THRESHOLDS == IGNORED


def test_without_objects_all_is_background():
    found = objects(Segments.empty(SIZE), (0, 1))
    assert (match(random_boxes(50, 0), found, 0.7, 0.3, best_too=True) == BACKGROUND).all()


def test_objects_are_rows_of_things_with_pixels():
    seen = truth(labels=[0, 1, 2], crowd=[False, True, False])
    assert objects(seen, (0, 1)).rows.tolist() == [0]
    assert objects(seen, (1, 2)).rows.tolist() == [2]
    seen = Segments(truth().ids, [0, 1, 0, 1])  # the fourth owns no pixel, after a crop say
    assert objects(seen, (0, 1)).rows.tolist() == [0, 1, 2]


def test_boxes_without_masks_are_objects_scribbles_and_tags_are_not():
    given = torch.tensor([[10.0, 5, 30, 25], [40, 40, 60, 60], [50, 5, 70, 25], [0, 0, 5, 5]])
    kinds = torch.tensor([MASK, BOX, SCRIBBLE, TAG])
    ids = truth().ids.masked_fill(truth().ids == 1, UNKNOWN)
    found = objects(Segments(ids, [0, 0, 0, 0], kind=kinds, given_boxes=given), (0,))
    assert found.rows.tolist() == [0, 1]
    assert found.hollow.tolist() == [False, True]
    assert found.boxes.tolist() == given[:2].tolist()
    on_scribble = match(torch.tensor([[50.0, 5, 70, 25]]), found, 0.7, 0.3)
    assert on_scribble.tolist() == [IGNORED]


def test_boxes_mostly_on_a_crowd_or_on_unknown_pixels_do_not_count():
    ids = truth().ids.clone()
    ids[0, 50:] = UNKNOWN
    found = objects(Segments(ids, [0, 1, 0], crowd=[False, False, True]), (0, 1))
    boxes = torch.tensor([
        [10.0, 5, 30, 25],   # on an object
        [50, 5, 70, 25],     # on the crowd
        [40, 50, 60, 60],    # on unknown pixels
        [40, 42, 60, 58],    # half on them: not mostly
        [40, 45, 60, 60],    # two thirds
        [72, 0, 80, 20],     # on nothing
        [-20, 30, 0, 55],    # outside, where all is known to be nothing
    ])  # fmt: skip
    assert match(boxes, found, 0.5, 0.5).tolist() == [0, IGNORED, IGNORED, BACKGROUND, IGNORED, BACKGROUND, BACKGROUND]


def test_what_lies_outside_the_image_makes_no_pixel_of_a_box_known():
    found = objects(Segments(torch.full((1, *SIZE), UNKNOWN, dtype=torch.int8), []), (0, 1))
    boxes = torch.tensor([[-200.0, -100, 20, 10], [10, 10, 500, 500]])
    assert match(boxes, found, 0.7, 0.3).tolist() == [IGNORED, IGNORED]


def test_an_object_below_a_crowd_stays_an_object():
    ids = torch.full((2, *SIZE), NOTHING, dtype=torch.int8)
    ids[0, 5:25, 10:30], ids[1, 0:40, 0:60] = 0, 1
    found = objects(Segments(ids, [0, 0], crowd=[False, True]), (0,))
    assert match(torch.tensor([[10.0, 5, 30, 25], [32, 5, 52, 25]]), found, 0.5, 0.5).tolist() == [0, IGNORED]


def test_a_box_row_on_unknown_pixels_is_positive():
    ids = torch.full((1, *SIZE), UNKNOWN, dtype=torch.int8)
    given = torch.tensor([[10.0, 5, 30, 25]])
    found = objects(Segments(ids, [0], kind=torch.tensor([BOX]), given_boxes=given), (0,))
    assert match(torch.tensor([[10.0, 5, 30, 25], [40, 5, 60, 25]]), found, 0.5, 0.5).tolist() == [0, IGNORED]


def test_draws_as_many_as_asked_and_names_rows_of_the_truth():
    seen = truth(crowd=[True, False, False])
    found = objects(seen, (0, 1))
    boxes = torch.cat([random_boxes(500, 2), seen.pixel_boxes[1:]])
    rows = draw(boxes, found, Matcher(0.5, 0.5), BalancedPositiveNegativeSampler(64, 0.25))
    assert (rows != UNSAMPLED).sum() == 64
    assert 2 <= (rows >= 0).sum() <= 16
    assert set(rows.unique().tolist()) <= {1, 2, BACKGROUND, UNSAMPLED}
    best = box_iou(boxes, seen.pixel_boxes).max(1)
    assert torch.equal(rows[rows >= 0], best.indices[rows >= 0])
    assert (best.values[rows >= 0] >= 0.5).all()


def test_anchors_lie_around_the_corners_of_cells_at_exact_strides():
    anchors = Anchors((32, 64), (0.5, 1.0, 2.0), (4, 8))
    maps = [torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)]
    found = anchors(ImageList(torch.zeros(1, 3, 30, 46), [(30, 46)]), maps)
    assert len(found) == 1
    assert found[0].shape == (3 * (8 * 12 + 4 * 6), 4)
    sizes = found[0][:, 2:] - found[0][:, :2]
    torch.testing.assert_close(sizes[:3], torch.tensor([[45.2548, 22.6274], [32.0, 32.0], [22.6274, 45.2548]]))
    centres = (found[0][:, 2:] + found[0][:, :2]) / 2
    torch.testing.assert_close(centres[3 * 13], torch.tensor([4.0, 4.0]))
    torch.testing.assert_close(centres[-1], torch.tensor([40.0, 24.0]))
