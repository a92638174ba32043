"""Drawing: what each pixel becomes, at any depth, size and number of channels."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest
import torch

from pixelwise.core import drawing
from pixelwise.core.classes import Classes
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.errors import DataError

CLASSES = Classes(names=("road", "car"), things=("car",), colours=((200, 30, 30), (40, 120, 220)))


def streets(height: int = 40, width: int = 60) -> Segments:
    """Road below, two touching cars, nothing above, an unknown row at the bottom."""
    ids = np.full((height, width), NOTHING, np.int16)
    ids[height // 2 :] = 0
    ids[height // 2 - 5 : height // 2 + 5, 10:20] = 1
    ids[height // 2 - 5 : height // 2 + 5, 20:30] = 2
    ids[-1] = UNKNOWN
    return Segments(torch.from_numpy(ids), torch.tensor([0, 1, 1]))


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 2), (8, 9, 3), (8, 9, 4), (8, 9, 7), (1, 1, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_displayable_makes_every_image_rgb(shape: tuple[int, ...], dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    shown = drawing.displayable(image)
    assert shown.shape == (*shape[:2], 3)
    assert shown.dtype == np.uint8
    if len(shape) == 3:
        as_tensor = torch.from_numpy(image).permute(2, 0, 1)
        np.testing.assert_array_equal(drawing.displayable(as_tensor), shown)


def test_eight_bit_rgb_stays_and_sixteen_bit_is_stretched() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    np.testing.assert_array_equal(drawing.displayable(rgb), rgb)
    ramp = np.linspace(1000, 3000, 4000).reshape(40, 100).astype(np.uint16)
    shown = drawing.displayable(ramp)
    assert shown.min() == 0
    assert shown.max() == 255
    assert (np.diff(shown[:, 50, 0].astype(int)) > 0).all()


def test_stretch_survives_flat_and_infinite_images() -> None:
    assert (drawing.displayable(np.full((5, 5), 7, np.uint16)) == 0).all()
    image = np.array([[0.0, 1.0], [np.nan, np.inf]], np.float32)
    shown = drawing.displayable(image)[:, :, 0]
    assert shown[0, 1] == 255
    assert shown[1, 0] == 0
    assert (drawing.displayable(np.full((3, 3), np.nan, np.float32)) == 0).all()


@pytest.mark.parametrize("shape", [(3,), (0, 4, 3), (2, 3, 4, 5)])
def test_displayable_refuses_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="must be"):
        drawing.displayable(np.zeros(shape, np.uint8))


def test_colour_map_has_the_palette_and_tells_instances_apart() -> None:
    drawn = drawing.colour_map(streets(), CLASSES)
    assert tuple(drawn[30, 50]) == CLASSES.colours[0]
    assert tuple(drawn[0, 0]) == drawing.NOTHING_COLOUR
    assert tuple(drawn[-1, 0]) == drawing.UNKNOWN_COLOUR
    first, second = drawn[20, 15].astype(int), drawn[20, 25].astype(int)
    assert tuple(first) == CLASSES.colours[1]
    assert np.abs(first - second).sum() > 40


def test_overlapping_objects_differ_and_hidden_borders_show() -> None:
    masks = np.zeros((2, 30, 30), bool)
    masks[0, 5:25, 5:25] = True
    masks[1, 10:20, 10:20] = True
    segments = Segments.from_masks(masks, [1, 1])
    colours = drawing.instance_colours(segments, CLASSES)
    assert (colours[0] != colours[1]).any()
    with_lines = drawing.overlay(np.zeros((30, 30, 3), np.uint8), segments, CLASSES)
    without = drawing.overlay(np.zeros((30, 30, 3), np.uint8), segments, CLASSES, outlines=False)
    assert (with_lines[10, 12] != without[10, 12]).any()


def test_overlay_blends_by_alpha_and_leaves_nothing_alone() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    drawn = drawing.overlay(image, streets(), CLASSES, alpha=0.25, outlines=False)
    expected = 0.75 * 100 + 0.25 * np.array(CLASSES.colours[0])
    np.testing.assert_allclose(drawn[30, 50], expected, atol=1)
    assert (drawn[0, 0] == 100).all()
    np.testing.assert_array_equal(image, 100)


@pytest.mark.parametrize(("width", "thick"), [(300, 1), (4000, 4)])
def test_outlines_grow_with_the_image(width: int, thick: int) -> None:
    assert drawing.line_width(width // 2, width) == thick
    ids = torch.zeros(1, 32, width, dtype=torch.int8)
    ids[:, :, width // 2 :] = 1
    segments = Segments(ids, torch.tensor([0, 1]))
    image = np.zeros((32, width, 3), np.uint8)
    line = drawing.overlay(image, segments, CLASSES) != drawing.overlay(image, segments, CLASSES, outlines=False)
    assert line.any(2)[16].sum() == 2 * thick


def test_outlines_are_dark_on_light_ground_and_light_on_dark() -> None:
    ids = np.full((30, 30), NOTHING, np.int8)
    ids[10:20, 10:20] = 0
    segments = Segments(torch.from_numpy(ids), torch.tensor([1]))
    inner, rim = [], []
    for brightness in (20, 230):
        image = np.full((30, 30, 3), brightness, np.uint8)
        drawn = drawing.overlay(image, segments, CLASSES, captions=False).astype(int)
        inner.append(drawn[15, 15].sum())
        rim.append(drawn[10, 15].sum())
    assert rim[0] > inner[0] + 100
    assert rim[1] < inner[1] - 100


def test_sizes_that_differ_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"\(41, 60\).*\(40, 60\)"):
        drawing.overlay(np.zeros((41, 60, 3), np.uint8), streets(), CLASSES)


@pytest.mark.parametrize("draw", [drawing.colour_map, lambda s, c: drawing.overlay(np.zeros((*s.size, 3)), s, c)])
def test_empty_segments_can_be_drawn(draw) -> None:  # type: ignore[no-untyped-def]
    assert draw(Segments.empty((6, 7)), CLASSES).shape == (6, 7, 3)


def test_legend_shows_every_colour_and_grows_with_the_image() -> None:
    small, large = drawing.legend(CLASSES, height=300), drawing.legend(CLASSES, height=4000)
    assert large.shape[0] > 4 * small.shape[0]
    for colour in CLASSES.colours:
        assert (small == colour).all(2).any()


def test_legend_of_an_image_names_what_is_in_it_and_fills_its_width() -> None:
    classes = Classes(names=tuple(f"class number {k}" for k in range(30)))
    few = Segments(torch.tensor([[3, 3, 7]], dtype=torch.int8), torch.arange(30))
    whole, part = drawing.legend(classes), drawing.legend(classes, only=few)
    for k in range(30):
        assert (whole == classes.colours[k]).all(2).any()
        assert (part == classes.colours[k]).all(2).any() == (k in (3, 7))
    wide = drawing.legend(classes, width=1500)
    assert wide.shape[1] == 1500
    assert wide.shape[0] < drawing.legend(classes, width=700).shape[0]
    assert drawing.legend(classes, only=Segments.empty((4, 4))).shape == whole.shape  # an empty one would help nobody


@pytest.mark.slow
def test_two_thousand_objects_on_four_thousand_pixels_take_seconds() -> None:
    ids = torch.arange(2000, dtype=torch.int16).reshape(40, 50).repeat_interleave(50, 0).repeat_interleave(80, 1)
    segments = Segments(ids, torch.zeros(2000, dtype=torch.int64), scores=torch.rand(2000))
    start = perf_counter()
    drawn = drawing.overlay(np.zeros((2000, 4000, 3), np.uint8), segments, Classes(names=("cell",), things=("cell",)))
    assert perf_counter() - start < 6  # half a second on a free core
    assert drawn.shape == (2000, 4000, 3)
