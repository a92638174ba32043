"""Regions: masks pasted as torchvision pastes them, readings that paint by score, windows that cost their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import clip_boxes_to_image

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Dense, Frame, Merge
from pixelwise.core.regions import Regions, Sampled, object_boxes, paste_at_centres, paste_whole_pixels
from pixelwise.core.segments import BOX, MASK, Segments
from pixelwise.tasks import Instance, Panoptic, Semantic

SIZE = (40, 60)


def full(box: tuple[int, int, int, int], crop: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    image = np.zeros(size, bool)
    x0, y0, x1, y1 = box
    assert crop.shape == (y1 - y0, x1 - x0)
    image[y0:y1, x0:x1] = crop
    return image


def regions(boxes, scores, labels, masks=None, *, channels=3, things=(0, 1), frame=None, **options) -> Regions:
    """One image; masks are full unless given."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    masks = torch.ones(len(boxes), 8, 8) if masks is None else masks
    frame = frame or Frame.whole(*SIZE)
    return Regions((boxes,), (torch.tensor(scores),), (torch.tensor(labels, dtype=torch.int64),), (masks,), (frame,),
                   things, channels, **options)  # fmt: skip


# -- pasting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [14, 28])
def test_whole_pixels_are_torchvisions(cells):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(60, cells, cells, generator=generator)
    corners = torch.rand(60, 2, generator=generator) * torch.tensor([70.0, 50.0]) - 10
    boxes = torch.cat([corners, corners + torch.rand(60, 2, generator=generator) ** 3 * 60], 1)
    boxes = clip_boxes_to_image(boxes, SIZE)  # as every detection is
    want = paste_masks_in_image(masks[:, None], boxes, SIZE)[:, 0] >= 0.5
    for mask, box, expected in zip(masks, boxes, want):
        window, crop = paste_whole_pixels(mask, box, SIZE)
        assert (full(window, crop) == expected.numpy()).all()
    assert want.any((1, 2)).sum() > 20


coordinate = st.floats(-20, 80, allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(st.tuples(coordinate, coordinate, coordinate, coordinate))
def test_at_centres_a_full_mask_shows_the_pixels_whose_centres_the_box_holds(corners):
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    window, crop = paste_at_centres(torch.ones(28, 28), torch.tensor([x0, y0, x1, y1]), SIZE)
    found = full(window, crop)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    edge = min(abs(v - (np.floor(v) + 0.5)) for v in (x0, y0, x1, y1)) < 1e-3  # a centre on the edge may go either way
    if not edge and x1 - x0 > 1e-3 and y1 - y0 > 1e-3:
        # a corner of the box lies half a cell from two borders, where a quarter of the mask is left
        inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
        rim = 0.5 * max(x1 - x0, y1 - y0) / 28
        deep = (x > x0 + rim) & (x < x1 - rim) & (y > y0 + rim) & (y < y1 - rim)
        assert not (found & ~inside).any()
        assert found[deep].all()


@pytest.mark.parametrize("paste", [paste_whole_pixels, paste_at_centres])
def test_boxes_outside_the_image_show_nothing(paste):
    window, crop = paste(torch.ones(28, 28), torch.tensor([100.0, 10.0, 120.0, 30.0]), SIZE)
    assert crop.size == 0
    assert full(window, crop).sum() == 0


@pytest.mark.parametrize("aligned", [False, True])
def test_a_thousand_objects_on_a_large_image_cost_their_own_pixels(aligned):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(1000, 2, generator=generator) * 3960
    found = regions(torch.cat([corners, corners + 40], 1).tolist(), [0.9] * 1000, [0] * 1000,
                    masks=torch.ones(1000, 28, 28), frame=Frame.whole(4000, 4000), aligned=aligned)  # fmt: skip
    candidates = found.candidates(0)
    assert len(candidates.crops) == 1000
    assert sum(crop.nbytes for crop in candidates.crops) < 1000 * 48 * 48
    assert all(crop.base is None or crop.base.nbytes < 1 << 16 for crop in candidates.crops)


# -- frames -----------------------------------------------------------------------------------------------------------


def test_boxes_go_back_through_padding_and_resizing():
    frame = Frame(original=(80, 90), padded=(64, 64), window=(0, 0, 40, 60))
    found = regions([[6.0, 4.0, 60.0, 40.0]], [0.9], [0], frame=frame)
    assert found.original_boxes(0).tolist() == [[9.0, 8.0, 90.0, 80.0]]
    shifted = Frame(original=(80, 90), padded=(64, 64), window=(10, 2, 40, 60))
    found = regions([[8.0, 14.0, 62.0, 50.0]], [0.9], [0], frame=shifted)
    assert found.original_boxes(0).tolist() == [[9.0, 8.0, 90.0, 80.0]]


# -- readings ---------------------------------------------------------------------------------------------------------

TWO = [[10.0, 5.0, 30.0, 25.0], [20.0, 15.0, 50.0, 35.0]]


def test_objects_are_painted_by_score():
    found = regions(TWO, [0.9, 0.7], [0, 1], aligned=True)
    probs = found.probs(0)
    assert probs.shape == (3, *SIZE)
    assert torch.allclose(probs.sum(0), torch.ones(SIZE))
    assert probs[:, 20, 25].tolist() == pytest.approx([0.9, 0, 0.1])  # both are there: the better one shows
    assert probs[:, 30, 40].tolist() == pytest.approx([0, 0.7, 0.3])
    assert probs[:, 0, 0].tolist() == pytest.approx([0, 0, 1])
    labels = found.class_map(0)
    assert [int(labels[y, x]) for y, x in ((20, 25), (30, 40), (0, 0))] == [0, 1, 2]


def test_an_unlikely_object_does_not_show_in_the_class_map():
    found = regions(TWO, [0.4, 0.3], [0, 1])
    assert (found.class_map(0) == 2).all()


def test_windows_are_parts_of_the_whole():
    found = regions(TWO, [0.9, 0.7], [0, 1])
    for window in ((0, 0, 10, 10), (13, 22, 9, 17), (33, 45, 7, 15)):
        top, left, height, width = window
        part = found.probs(0)[:, top : top + height, left : left + width]
        assert torch.equal(found.probs(0, window), part)
        assert torch.equal(found.class_map(0, window), part.argmax(0))


def test_no_object_is_all_nothing():
    found = regions([], [], [])
    assert (found.class_map(0) == 2).all()
    assert len(found.candidates(0).crops) == 0
    assert found.candidates(0).scores.shape == (0, 3)


def test_an_instance_task_reads_scores_boxes_and_masks():
    found = regions(TWO, [0.9, 0.6], [1, 0], aligned=True)
    answer = Instance(Classes(names=["cat", "dog"], things=["cat", "dog"])).decode(found, 0)
    assert answer.labels.tolist() == [1, 0]
    assert answer.scores.tolist() == pytest.approx([0.9, 0.6])
    assert answer.pixel_boxes[0].tolist() == TWO[0]


def semantic(*logits: tuple[int, int, int, int, float]) -> Dense:
    """Three channels (two kinds of stuff, things): (channel, top, bottom, and so on) rectangles of logits."""
    maps = torch.zeros(1, 3, *SIZE)
    for channel, top, bottom, right, value in logits:
        maps[0, channel, top:bottom, :right] = value
    return Dense(maps)


def test_stuff_takes_what_objects_leave():
    # labels: 0 sky, 1 car, 2 road
    branch = semantic((0, 0, 20, 60, 8.0), (1, 20, 40, 60, 8.0), (2, 10, 30, 15, 20.0))
    found = regions([[0.0, 10.0, 15.0, 26.0]], [0.9], [1], things=(1,), channels=3, aligned=True, semantic=branch)
    assert found.stuff == (0, 2)
    classes = Classes(names=["sky", "car", "road"], things=["car"])
    assert Panoptic(classes).decode(found, 0).labels.tolist() == [1]  # stuff below the paper's 4,096 pixels: unknown
    found = regions([[0.0, 10.0, 15.0, 26.0]], [0.9], [1], things=(1,), channels=3, aligned=True, semantic=branch,
                    merge=Merge("paint", overlap=0.5, score=0.5, stuff_area=0))  # fmt: skip
    answer = Panoptic(classes).decode(found, 0)
    labels = answer.class_map(255, 254)
    assert [int(labels[y, x]) for y, x in ((0, 30), (39, 30), (15, 5))] == [0, 2, 1]
    assert int(labels[28, 5]) == 255  # the branch says thing, no object is there
    read = Semantic(classes).decode(found, 0).class_map()
    assert [int(read[y, x]) for y, x in ((0, 30), (39, 30), (15, 5))] == [0, 2, 1]
    assert torch.allclose(found.probs(0).sum(0), torch.ones(SIZE))


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_boxes_of_truth_are_of_pixels_or_as_given():
    ids = torch.full((1, *SIZE), -1, dtype=torch.int8)
    ids[0, 5:9, 10:20] = 0
    given = torch.tensor([[0.0, 0.0, 50.0, 30.0], [1.0, 2.0, 3.0, 4.0]])
    truth = Segments(ids, [0, 0], given_boxes=given, kind=torch.tensor([MASK, BOX]))
    assert object_boxes(truth).tolist() == [[10, 5, 20, 9], [1, 2, 3, 4]]
    assert object_boxes(Segments(ids, [0, 0], given_boxes=given)).tolist() == [[10, 5, 20, 9], [0, 0, 0, 0]]


def test_it_is_a_tree_of_tensors():
    sampled = Sampled(torch.zeros(5, 4), torch.zeros(1, 5, dtype=torch.int64), torch.zeros(1, 5), torch.zeros(1, 5, 4),
                      (torch.zeros(2, 4),), (torch.zeros(2, dtype=torch.int64),), torch.zeros(2, 3),
                      torch.zeros(2, 2, 4), torch.zeros(2, 2, 8, 8))  # fmt: skip
    found = regions(TWO, [0.9, 0.7], [1, 1], things=(1,), semantic=semantic(), sampled=sampled)
    leaves, spec = pytree.tree_flatten(found)
    assert len([leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]) == 4 + 1 + 9
    again = pytree.tree_unflatten(leaves, spec)
    assert torch.equal(again.probs(0), found.probs(0))
    assert again.sampled.rows[0] is sampled.rows[0]
