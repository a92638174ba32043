"""Bands read what Segments hold, and count it as they do, whatever the height of a band."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.core import bands as module
from pixelwise.core.bands import Bands
from pixelwise.core.segments import Segments
from pixelwise.kernels import extent

RNG = np.random.default_rng(0)


def drawn(height, width, rows, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(-2, rows, (-(-height // 3), -(-width // 4))), np.ones((3, 4), int))[:height, :width]
    return Segments(torch.from_numpy(ids.astype(np.int32)), np.arange(rows) % 3, scores=rng.random(rows))


def from_file(segments):
    """The same without the Segments behind them."""
    ids = segments.ids[0].numpy()
    return Bands(segments.size, segments.labels.numpy(), segments.scores.numpy(), lambda a, b: ids[a:b])


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.integers(0, 9), st.integers(1, 99))
def test_counts_boxes_and_middles(height, width, rows, seed, pixels):
    segments = drawn(height, width, rows, seed)
    bands, before = from_file(segments), module.PIXELS
    module.PIXELS = pixels
    try:
        assert np.array_equal(np.concatenate(list(bands)), segments.ids[0].numpy())
        assert np.array_equal(bands.counts, segments.pixel_counts.numpy())
        assert np.array_equal(bands.boxes, segments.boxes.numpy())
    finally:
        module.PIXELS = before
    for row in np.flatnonzero(bands.counts):
        ys, xs = np.nonzero(segments.ids[0].numpy() == row)
        assert bands.middles[row] == pytest.approx([xs.mean() + 0.5, ys.mean() + 0.5])
    assert bands.unclaimed == (int((segments.ids == -2).sum()), int((segments.ids == -1).sum()))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9), st.integers(0, 9), st.integers(0, 1 << 40))
def test_the_two_forms_of_the_kernel_agree(height, width, rows, seed, top):
    ids = drawn(height, width, rows, seed).ids[0].numpy()
    one, other = extent.blank(rows), extent.blank(rows)
    for line in (0, 1):
        extent.add_extent(ids, top + line * height, one)
        extent.reference(ids, top + line * height, other)
    assert np.array_equal(one[:, : extent.SUM_Y], other[:, : extent.SUM_Y])
    assert one[:, extent.SUM_Y] == pytest.approx(other[:, extent.SUM_Y])


def test_values_and_new_rows():
    segments = drawn(11, 13, 6)
    bands, ids = from_file(segments), segments.ids[0].numpy()
    values = np.array([7, 1, 2, 3, 4, 5, 200, 100], np.uint8)
    assert np.array_equal(np.concatenate(list(bands.through(values))), values[ids])
    turned = np.array([1, 0, -1, 0, -2, 2])
    found = bands.renumbered(turned)
    assert np.array_equal(np.concatenate(list(found)), np.append(turned, [-2, -1])[ids])
    assert found.labels.tolist() == bands.labels[[1, 0, 5]].tolist()
    assert found.scores.tolist() == bands.scores[[1, 0, 5]].tolist()


def test_of_segments_that_overlap_what_shows_is_read_and_all_is_counted():
    masks = np.zeros((2, 2, 3), bool)
    masks[0, :, :2], masks[1, :, 1:] = True, True
    bands = Bands.of(Segments.from_masks(masks, [0, 0]))
    assert np.concatenate(list(bands)).tolist() == [[0, 0, 1]] * 2
    assert bands.counts.tolist() == [4, 4]
    assert bands.boxes.tolist() == [[0, 0, 2, 2], [1, 0, 3, 2]]
