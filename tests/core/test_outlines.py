"""Outlines of a map: valid polygons whose filling is the map, whatever the bands, and codes and crops made of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from pixelwise.core import bands as module
from pixelwise.core import outlines as making
from pixelwise.core import rle
from pixelwise.core.bands import Bands
from pixelwise.core.outlines import Outlines
from pixelwise.core.polygons import fill
from pixelwise.core.segments import Segments
from pixelwise.errors import DataError
from pixelwise.kernels import outline

few = settings(max_examples=80, deadline=None, derandomize=True)
maps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: hnp.arrays(np.int32, size, elements=st.integers(-2, 3))
)


def outlined(ids):
    labels = np.zeros(4, np.int64)
    return Outlines.of(Bands(ids.shape, labels, labels.astype(np.float32), lambda top, bottom: ids[top:bottom]))


def same(one, other):
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("points", "rings", "outer", "first"))


@few
@given(maps)
def test_polygons_are_the_pieces_of_each_row_and_fill_to_it(ids):
    """Pieces hang together by sides, as SciPy labels them."""
    found = outlined(ids)
    for row in range(4):
        shape, mask = list(found.polygons(row)), ids == row
        assert np.array_equal(fill(shape, ids.shape), mask)
        assert len(shape) == found.counts[row] == ndimage.label(mask)[1]
        assert found.has_holes(row) == any(len(polygon) > 1 for polygon in shape)
        assert all(ndimage.label(fill([polygon], ids.shape))[1] == 1 for polygon in shape)


@few
@given(maps)
def test_rings_are_simple_and_outer_ones_run_counterclockwise(ids):
    found = outlined(ids)
    for row in range(4):
        for polygon in found.polygons(row):
            for number, ring in enumerate(polygon):
                assert len(np.unique(ring, axis=0)) == len(ring)  # what visits no point twice does not cross itself
                x, y = ring.T
                area = int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
                assert area > 0 if number == 0 else area < 0
                assert tuple(ring[0]) == min(map(tuple, ring.tolist()), key=lambda point: point[::-1])


@few
@given(maps)
def test_crops_and_codes_need_no_mask(ids):
    found = outlined(ids)
    for row in range(4):
        mask = ids == row
        (x0, y0, x1, y1), crop = found.window(row)
        whole = np.zeros(ids.shape, bool)
        whole[y0:y1, x0:x1] = crop
        assert np.array_equal(whole, mask)
        assert not crop.size or (crop.any(0).all() | crop.any(1).all() | crop[[0, -1]].any(1).all())
        assert rle.encode_sides(*found.sides(row, upright=False), ids.shape) == rle.encode(mask)


@few
@given(maps, st.integers(1, 30))
def test_the_height_of_a_band_does_not_matter(ids, pixels):
    whole, before = outlined(ids), module.PIXELS
    module.PIXELS = pixels
    try:
        assert same(outlined(ids), whole)
    finally:
        module.PIXELS = before


def test_without_numba_it_is_the_same(monkeypatch):
    ids = np.random.default_rng(0).integers(-2, 4, (40, 30)).astype(np.int32)
    expected = outlined(ids)
    if not hasattr(outline.add_line, "py_func"):
        pytest.skip("Numba is not installed")
    for name in ("root", "join", "follow", "_new", "add_line", "part", "walk", "gather"):
        monkeypatch.setattr(outline, name, getattr(outline, name).py_func)
    assert same(outlined(ids), expected)


def test_pixels_that_touch_at_a_corner_are_two_polygons_unless_joined_elsewhere():
    ids = np.array([[0, -1, 1, 1, 1], [-1, 0, 1, -1, 1], [2, 2, 1, 1, -1]])
    found = outlined(ids.astype(np.int32))
    assert found.counts.tolist() == [2, 1, 1, 0]
    ((outer, hole),) = found.polygons(1)  # the hole touches the outer ring at a corner
    assert hole.tolist() == [[3, 1], [3, 2], [4, 2], [4, 1]]
    assert [4, 2] in outer.tolist()


def test_layers_that_overlap():
    stack = np.zeros((2, 6, 6), bool)
    stack[0, :4, :4], stack[1, 2:, 2:] = True, True
    found = Outlines.of(Bands.of(Segments.from_masks(stack, [0, 0])))
    for row, mask in enumerate(stack):
        assert np.array_equal(fill(list(found.polygons(row)), (6, 6)), mask)


def test_many_corners_and_none(monkeypatch):
    ids = (np.indices((90, 90)).sum(0) % 2).astype(np.int32)  # a chess board: more corners than there is room for
    found = outlined(ids)
    assert found.counts.tolist() == [4050, 4050, 0, 0]
    assert len(found.points) == 4 * 8100
    assert not len(outlined(np.full((3, 3), -1, np.int32)).points)
    assert not len(Outlines.of(Bands.of(Segments(torch.full((4, 4), -2), []))).first) - 1
    monkeypatch.setattr(making, "LIMIT", 9000)
    with pytest.raises(DataError, match="more corners than can be numbered"):
        outlined(ids)
