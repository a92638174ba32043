"""A view there and back: the eight symmetries of the square against plain index arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.core.outputs import Frame
from pixelwise.errors import ConfigError
from pixelwise.views import NAMED, View

LIES = NAMED["dihedral"]
view = st.sampled_from(LIES)
size = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def sizes_with_windows(draw):
    height, width = draw(size)
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return (height, width), (top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left)))


def numbered(size):
    return torch.arange(size[0] * size[1]).view(1, *size)


def cut(maps, window):
    top, left, height, width = window
    return maps[..., top : top + height, left : left + width]


@given(view, size)
def test_turning_is_numpys(view, size):
    image = numbered(size)
    expected = np.rot90(image[0].numpy()[:, ::-1] if view.mirrored else image[0].numpy(), view.turns)
    assert np.array_equal(view.turn(image)[0].numpy(), expected)
    assert tuple(view.turn(image).shape[1:]) == view.size(size)
    assert torch.equal(view.put(view.turn(image)), image)
    assert torch.equal(view.inverse.inverse.turn(image), view.turn(image))


@given(view, sizes_with_windows())
def test_a_window_is_seen_where_its_pixels_are(view, drawn):
    size, window = drawn
    seen = cut(view.turn(numbered(size)), view.window(window, size))
    assert torch.equal(view.put(seen), cut(numbered(size), window))
    assert view.inverse.window(view.window(window, size), view.size(size)) == window


@given(view, view, size)
def test_one_view_of_another(one, other, size):
    image = numbered(size)
    assert torch.equal(one.then(other).turn(image), other.turn(one.turn(image)))


def test_the_eight_are_eight_and_scales_multiply():
    image = numbered((3, 5))
    assert len({tuple(v.turn(image).flatten().tolist()) for v in LIES}) == 8
    assert View(scale=0.5).then(View(scale=3, turns=1)) == View(scale=1.5, turns=1)


@given(view, sizes_with_windows())
def test_a_frame_comes_back_as_the_image_lies(view, drawn):
    padded, window = drawn
    original = (7, 4)
    shown = Frame(view.size(original), view.size(padded), view.window(window, padded))
    assert view.frame(shown) == Frame(original, padded, window)


@given(view, st.tuples(st.integers(2, 9), st.integers(2, 9)))
def test_directions_to_a_pixel_still_lead_there(view, size):
    """Each pixel's way to one pixel, as the view shows it, put back: the way to that pixel in the image."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    goal = torch.zeros(1, *size)
    goal[0, 1, 0] = 1
    shown = view.turn(goal)[0]
    gy, gx = divmod(int(shown.argmax()), shown.shape[1])
    v, u = torch.meshgrid(torch.arange(shown.shape[0]), torch.arange(shown.shape[1]), indexing="ij")
    ways = view.put_vectors(torch.stack([gy - v, gx - u]).float())
    assert torch.equal(ways, torch.stack([1 - y, -x]).float())


@pytest.mark.parametrize(("turns", "scale"), list(itertools.product((0, 1, 3), (0.5, 1.0, 1.4))))
def test_what_the_net_sees_has_the_turned_and_scaled_size(turns, scale):
    seen = View(scale=scale, turns=turns).take(torch.randn(2, 3, 20, 31))
    expected = round(20 * scale), round(31 * scale)
    assert tuple(seen.shape[2:]) == (expected[::-1] if turns % 2 else expected)


@pytest.mark.parametrize("turns", [4, -1, 0.5, True])
def test_absurd_turns(turns):
    with pytest.raises(ConfigError, match="0, 1, 2 or 3"):
        View(turns=turns)


def test_a_view_says_what_it_is():
    said = [str(v) for v in (View(), View(True), View(scale=0.75, turns=1), View(True, 1.25, 2))]
    assert said == ["1", "1 mirrored", "0.75 turned 90", "1.25 mirrored turned 180"]
