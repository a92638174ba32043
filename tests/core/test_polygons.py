"""Polygons: COCO's rule against pycocotools to the pixel; masks with holes and islands come back exactly."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from pixelwise.core import rle
from pixelwise.core.polygons import coco_mask, crosses_itself, fill, from_coco, from_shapes, to_shapes, trace
from pixelwise.core.segments import Segments
from pixelwise.errors import DataError

# pycocotools' own arrays have not followed numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

few = settings(max_examples=60, deadline=None, derandomize=True)
masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: hnp.arrays(bool, size))


def coords(low: float, high: float):
    return st.one_of(st.floats(low, high, width=32), st.integers(int(low), int(high)).map(float),
                     st.integers(int(low) * 10, int(high) * 10).map(lambda v: v / 10))  # fmt: skip


rings = st.lists(st.tuples(coords(-8, 30), coords(-8, 30)), min_size=3, max_size=9)


def oracle(parts, size):
    return coco.decode(coco.merge(coco.frPyObjects(parts, *size))).astype(bool)


@few
@given(st.lists(rings, min_size=1, max_size=3), st.integers(1, 24), st.integers(1, 24))
def test_rings_are_filled_by_cocos_rule_to_the_pixel(shape, height, width):
    parts = [[float(v) for point in ring for v in point] for ring in shape]
    expected = oracle(parts, (height, width))
    assert np.array_equal(coco_mask(parts, (height, width)), expected)
    found = from_coco([parts], [3], (height, width))
    assert np.array_equal(found.masks[0].numpy(), expected)


@pytest.mark.parametrize("seed", range(5))
def test_large_ragged_rings_are_filled_by_cocos_rule_to_the_pixel(seed):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.random(200)) * 2 * np.pi
    radius = rng.uniform(40, 160, 200)
    ring = np.stack([150 + radius * np.cos(angle), 120 + radius * np.sin(angle)], 1).round(2).ravel().tolist()
    assert np.array_equal(coco_mask([ring], (240, 320)), oracle([ring], (240, 320)))


@few
@given(masks)
def test_masks_with_holes_and_islands_come_back_exactly(mask):
    assert np.array_equal(fill(trace(mask), mask.shape), mask)


@few
@given(masks)
def test_traced_rings_turn_at_every_point_and_run_along_pixel_edges(mask):
    for polygon in trace(mask):
        for ring in polygon:
            step = np.roll(ring, -1, 0) - ring
            assert ((step == 0).sum(1) == 1).all()
            assert ((step[:, 0] == 0) != (np.roll(step, 1, 0)[:, 0] == 0)).all()


@few
@given(masks)
def test_cocos_rule_agrees_on_traced_rings_but_has_no_holes(mask):
    shape = trace(mask)
    outer = [polygon[0].ravel().tolist() for polygon in shape]
    filled = fill([[polygon[0]] for polygon in shape], mask.shape)
    assert np.array_equal(coco_mask(outer, mask.shape), filled)
    assert (filled >= mask).all()


def test_a_ring_and_an_island_in_its_hole():
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    shape = trace(mask)
    assert sorted(len(polygon) for polygon in shape) == [1, 2]
    assert np.array_equal(fill(shape, mask.shape), mask)


def test_rings_through_pixel_centres_lose_their_border_under_cocos_rule():
    ring = [1, 1, 4, 1, 4, 4, 1, 4]  # a contour finder's answer for the 4 x 4 pixels 1..4
    assert coco_mask([ring], (6, 6)).sum() == 9
    mask = np.zeros((6, 6), bool)
    mask[1:5, 1:5] = True
    assert trace(mask)[0][0].tolist() in ([[1, 1], [1, 5], [5, 5], [5, 1]], [[1, 1], [5, 1], [5, 5], [1, 5]])


def test_a_pixel_belongs_where_its_centre_is_inside():
    assert fill([[[(0.6, 0.0), (2.5, 0.0), (2.5, 1.0), (0.6, 1.0)]]], (1, 4)).tolist() == [[False, True, False, False]]
    square, hole = [(0, 0), (3, 0), (3, 3), (0, 3)], [(1, 1), (2, 1), (2, 2), (1, 2)]
    assert fill([[square, hole]], (3, 3)).astype(int).tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]


def test_rings_may_leave_the_image():
    ring = [(-5, -5), (2, -5), (2, 9), (-5, 9)]
    assert fill([[ring]], (3, 4)).astype(int).tolist() == [[1, 1, 0, 0]] * 3
    found = from_shapes([[[ring]], [[[(9, 9), (12, 9), (12, 12)]]]], [0, 1], (3, 4))
    assert found.areas.tolist() == [6.0, 0.0]


@few
@given(st.integers(0, 4).flatmap(lambda n: hnp.arrays(bool, (n, 7, 9))))
def test_segments_come_back_through_shapes_and_codes(stack):
    labels = np.arange(len(stack))
    segments = Segments.from_masks(stack, labels)
    again = from_shapes(to_shapes(segments), labels, segments.size, scores=np.full(len(stack), 0.5))
    assert np.array_equal(again.masks.numpy(), stack)
    assert again.scores.tolist() == [0.5] * len(stack)
    coded = from_coco(rle.to_rle(segments), labels, segments.size)
    assert np.array_equal(coded.masks.numpy(), stack)


@pytest.mark.parametrize(
    ("ring", "message"),
    [
        ([1, 2, 3, 4], "at least three points"),
        ([1, 2, 3, 4, 5, 6, 7], "at least three points"),
        ([1, 2, 3, 4, 5, float("nan")], "not finite"),
        ([1, 2, 3, 4, 5, "six"], "must be numbers"),
        ([0, 0, 1e9, 0, 1e9, 1e9], "in pixels"),
    ],
)
def test_malformed_rings_are_refused(ring, message):
    with pytest.raises(DataError, match=message):
        coco_mask([ring], (4, 4))
    with pytest.raises(DataError, match=message):
        from_coco([[ring]], [0], (4, 4))


def test_codes_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"\[2, 2\]"):
        from_coco([rle.encode(np.ones((2, 2), bool))], [0], (3, 3))


@pytest.mark.skipif("PIXELWISE_DATA" not in os.environ, reason="PIXELWISE_DATA is not set")
def test_cocos_own_annotations_are_read_as_pycocotools_reads_them():
    path = Path(os.environ["PIXELWISE_DATA"]) / "coco_panoptic_sample" / "instances_39769.json"
    data = json.loads(path.read_text())
    image = data["images"][0]
    size = (image["height"], image["width"])
    parts = [a["segmentation"] for a in data["annotations"]]
    found = from_coco(parts, list(range(len(parts))), size)
    for mask, part in zip(found.masks.numpy(), parts):
        expected = oracle(part, size) if isinstance(part, list) else coco.decode(coco.frPyObjects(part, *size)) > 0
        assert np.array_equal(mask, expected)
    assert np.array_equal(from_shapes(to_shapes(found), found.labels, size).masks.numpy(), found.masks.numpy())


@few
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=9))
def test_rings_cross_where_some_pair_of_edges_does(points):
    def side(a, b, c):
        return int(np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])))

    edges = list(zip(points, [*points[1:], points[0]]))
    expected = any(
        side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        for i, (a, b) in enumerate(edges)
        for c, d in edges[i + 1 :]
    )
    assert crosses_itself(points) == expected
