"""The run-length code against COCO's own (pycocotools), byte for byte."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pycocotools import mask as coco

from pixelwise.core import rle
from pixelwise.core.segments import Segments
from pixelwise.errors import DataError

# pycocotools itself warns under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPES = [(1, 1), (1, 7), (7, 1), (5, 4), (33, 40), (64, 3), (130, 257)]


def coco_code(mask: np.ndarray) -> dict:
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = []
    for height, width in SHAPES:
        made += [np.zeros((height, width), bool), np.ones((height, width), bool)]
        made += [rng.random((height, width)) < share for share in (0.02, 0.5, 0.97)]
        blob = np.zeros((height, width), bool)
        blob[height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = True
        made += [blob, ~blob]
        for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            one = np.zeros((height, width), bool)
            one[corner] = True
            made += [one, ~one]
    return made


@pytest.mark.parametrize("mask", masks(), ids=lambda m: f"{m.shape[0]}x{m.shape[1]}-{m.sum()}")
def test_code_equals_coco_and_reads_back(mask: np.ndarray) -> None:
    code = rle.encode(mask)
    assert code == coco_code(mask)
    np.testing.assert_array_equal(rle.decode(code), mask)
    np.testing.assert_array_equal(rle.decode(coco_code(mask)), coco.decode(code).astype(bool))
    (x0, y0, x1, y1), crop = rle.decode_window(code)
    rebuilt = np.zeros_like(mask)
    rebuilt[y0:y1, x0:x1] = crop
    np.testing.assert_array_equal(rebuilt, mask)
    if mask.any():  # the box is tight
        assert crop.any(0)[[0, -1]].all()
        assert crop.any(1)[[0, -1]].all()
    else:
        assert (x0, y0, x1, y1) == (0, 0, 0, 0)


def test_window_code_equals_the_code_of_the_whole_mask() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        height, width = rng.integers(1, 40, 2)
        y0, x0 = rng.integers(0, height), rng.integers(0, width)
        y1, x1 = rng.integers(y0, height + 1), rng.integers(x0, width + 1)
        crop = rng.random((y1 - y0, x1 - x0)) < rng.choice([0, 0.1, 0.6, 1])
        mask = np.zeros((height, width), bool)
        mask[y0:y1, x0:x1] = crop
        assert rle.encode_window(crop, (x0, y0, x1, y1), (height, width)) == coco_code(mask)


def test_a_window_of_the_whole_image_and_of_nothing() -> None:
    for size in SHAPES:
        full = np.ones(size, bool)
        assert rle.encode_window(full, (0, 0, size[1], size[0]), size) == coco_code(full)
        assert rle.encode_window(np.zeros((0, 0), bool), (0, 0, 0, 0), size) == coco_code(~full)


def test_runs_may_be_a_list_and_may_be_zero_long() -> None:
    code = {"size": [3, 4], "counts": [0, 2, 0, 1, 6, 3]}
    expected = coco.decode(coco.frPyObjects(code, 3, 4)).astype(bool)
    np.testing.assert_array_equal(rle.decode(code), expected)
    (x0, y0, x1, y1), crop = rle.decode_window(code)
    np.testing.assert_array_equal(crop, expected[y0:y1, x0:x1])
    assert crop.sum() == expected.sum() == 6


def test_long_runs_keep_all_their_bits() -> None:
    runs = [0, 31, 32, 1023, 1024, 2**20, 2**31 + 5, 3]
    assert rle.unpack(rle.pack(runs)) == runs


@pytest.mark.parametrize(("counts", "says"), [([1, 2], "has 12"), ([1, 20], "has 12"), ([-2, 14], "holds -2"),
                                              ("0", "has 12"), ("52203", "has 12")])  # fmt: skip
def test_codes_that_do_not_fill_the_size_are_refused(counts: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        rle.decode({"size": [3, 4], "counts": counts})
    with pytest.raises(DataError, match=says):
        rle.decode_window({"size": [3, 4], "counts": counts})


def test_broken_text_is_refused() -> None:
    with pytest.raises(DataError, match="cut off"):
        rle.unpack("5" + "P")
    with pytest.raises(DataError, match="alphabet"):
        rle.unpack("5!")


def test_segments_come_back_even_where_they_overlap() -> None:
    rng = np.random.default_rng(2)
    masks = rng.random((6, 20, 30)) < 0.3
    masks[4] = False
    segments = rle.from_rle(rle.to_rle(Segments.from_masks(masks, np.arange(6))), np.arange(6), (20, 30))
    np.testing.assert_array_equal(segments.masks.numpy(), masks)


def test_a_code_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"\[20, 30\]"):
        rle.from_rle([rle.encode(np.ones((30, 20), bool))], [0], (20, 30))


def test_two_thousand_windows_on_two_megapixels_cost_well_under_a_second() -> None:
    disc = np.hypot(*np.mgrid[-12:13, -12:13]) < 12
    places = [(x, y) for y in range(0, 1000, 25) for x in range(0, 2000, 40)]
    boxes = [(x, y, x + 25, y + 25) for x, y in places]
    segments = Segments.from_windows(boxes, [disc] * len(boxes), np.zeros(len(boxes)), (1024, 2048))
    assert len(segments) == 2000
    start = time.process_time()
    codes = rle.to_rle(segments)
    middle = time.process_time()
    again = rle.from_rle(codes, segments.labels, segments.size)
    assert middle - start < 1.0
    assert time.process_time() - middle < 1.0
    np.testing.assert_array_equal(again.ids, segments.ids)
    assert codes[777] == coco_code(segments.ids[0].numpy() == 777)


def test_runs_of_less_than_nothing_are_refused_by_their_length():
    with pytest.raises(DataError, match="run-length code holds -30; expected lengths of runs"):
        rle.decode({"size": [64, 80], "counts": [5150, -30]})
