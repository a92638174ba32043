"""Segments: makers and readings against plain numpy, on drawn cases and on cases that hypothesis finds."""

from __future__ import annotations

import pickle
import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelwise.core import rle
from pixelwise.core.segments import BOX, NOTHING, UNKNOWN, Segments, smallest_int
from pixelwise.errors import DataError

few = settings(max_examples=40, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def mask_sets(draw):
    """Masks [N, H, W] that may overlap or be empty, labels [N] and a void mask [H, W]."""
    size, n = draw(sizes), draw(st.integers(0, 6))
    masks = draw(hnp.arrays(bool, (n, *size)))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 5)))
    return masks, labels, draw(hnp.arrays(bool, size))


@few
@given(mask_sets())
def test_masks_come_back_exactly(case):
    masks, labels, void = case
    segments = Segments.from_masks(masks, labels, void=void)
    assert np.array_equal(segments.masks.numpy(), masks)
    assert segments.labels.tolist() == labels.tolist()
    assert np.array_equal(segments.unknown.numpy(), void & ~masks.any(0))


@few
@given(mask_sets())
def test_the_first_row_shows_where_segments_overlap(case):
    masks, labels, void = case
    segments = Segments.from_masks(masks, labels, void=void)
    expected = np.where(void, UNKNOWN, NOTHING)
    for row in reversed(range(len(masks))):
        expected[masks[row]] = row
    assert np.array_equal(segments.row_map().numpy(), expected)


@few
@given(mask_sets())
def test_windows_and_rle_come_back_exactly(case):
    masks, labels, void = case
    segments = Segments.from_masks(masks, labels, void=void)
    boxes, crops = segments.windows()
    again = Segments.from_windows(boxes, crops, labels, segments.size, void=void)
    assert np.array_equal(again.masks.numpy(), masks)
    coded = rle.from_rle(rle.to_rle(segments), labels, segments.size)
    assert np.array_equal(coded.masks.numpy(), masks)


@few
@given(mask_sets())
def test_boxes_and_areas_are_those_of_the_masks(case):
    masks, labels, _ = case
    segments = Segments.from_masks(masks, labels)
    assert segments.areas.tolist() == masks.sum((1, 2)).tolist()
    for mask, box in zip(masks, segments.boxes.tolist()):
        ys, xs = np.nonzero(mask)
        assert box == ([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(ys) else [0, 0, 0, 0])


@few
@given(mask_sets(), st.data())
def test_keep_takes_all_columns_and_frees_the_rest(case, data):
    masks, labels, void = case
    n = len(masks)
    scores, keys = np.linspace(0, 1, n), np.arange(n) * 1000 + 7
    segments = Segments.from_windows(*windows_of(masks), labels, masks.shape[1:], void=void, scores=scores, keys=keys)
    rows = data.draw(st.permutations(range(n)))[: data.draw(st.integers(0, n))]
    kept = segments.keep(rows)
    assert np.array_equal(kept.masks.numpy(), masks[rows])
    assert kept.labels.tolist() == labels[rows].tolist()
    assert kept.keys.tolist() == keys[rows].tolist()
    assert np.allclose(kept.scores.numpy(), scores[rows])
    unknown = segments.keep(rows, rest=UNKNOWN).unknown.numpy()
    assert np.array_equal(unknown, (void | masks.any(0)) & ~masks[rows].any(0))


def windows_of(masks):
    return Segments.from_masks(masks, np.zeros(len(masks), int)).windows()


@few
@given(sizes.flatmap(lambda size: hnp.arrays(np.uint8, size, elements=st.sampled_from([0, 1, 2, 5, 255]))))
def test_class_map_comes_back_exactly(class_map):
    segments = Segments.from_class_map(class_map, 255, num_classes=6)
    assert len(segments) == 6
    assert segments.class_map(255).dtype == torch.uint8
    assert np.array_equal(segments.class_map(255).numpy(), class_map)
    assert np.array_equal(segments.unknown.numpy(), class_map == 255)


@few
@given(sizes.flatmap(lambda size: hnp.arrays(np.int32, size, elements=st.sampled_from([0, 7, 900, 26001, 1 << 24]))))
def test_ids_come_back_through_their_keys(ids):
    table = {7: 3, 26001: 1, 900: 3}
    segments = Segments.from_ids(ids, table, void=[0], nothing=[1 << 24])
    assert segments.keys.tolist() == list(table)
    assert segments.labels.tolist() == list(table.values())
    marks = torch.cat([segments.keys, torch.tensor([0, 1 << 24])])
    assert np.array_equal(marks[segments.ids[0].long()].numpy(), ids)


def test_nothing_and_unknown_differ():
    segments = Segments.from_class_map(np.array([[0, 1, -1, 9]]), 9)
    assert segments.ids[0].tolist() == [[0, 1, NOTHING, UNKNOWN]]
    assert segments.class_map(255).tolist() == [[0, 1, 255, 255]]
    assert segments.class_map(255, nothing=2).tolist() == [[0, 1, 2, 255]]
    assert segments.class_map(-1, nothing=-2).tolist() == [[0, 1, -2, -1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, ">u2", "<u4", bool])
def test_maps_of_any_integer_type_are_read(dtype):
    stored = np.array([[0, 1], [1, 0]]).astype(dtype)
    stored.flags.writeable = False  # as PIL and np.frombuffer give them; torch warns about such memory
    assert Segments.from_class_map(stored, 255).class_map().tolist() == [[0, 1], [1, 0]]
    assert Segments.from_ids(stored, {1: 4}, nothing=[0]).class_map(255).tolist() == [[255, 4], [4, 255]]


def test_labels_scaled_to_fractions_are_refused():
    with pytest.raises(DataError, match="integers"):
        Segments.from_class_map(np.array([[0.0, 0.5]]))
    with pytest.raises(DataError, match="integers"):
        Segments.from_ids(np.array([[0.0, 0.5]]), {0: 0})


def test_unknown_ids_are_named_with_their_pixels():
    with pytest.raises(DataError, match=r"34 \(2 pixels\)"):
        Segments.from_ids(np.array([[34, 34, 1]]), {1: 0})
    with pytest.raises(DataError, match=r"7 \(1 pixels\).*0\.\.2"):
        Segments.from_class_map(np.array([[0, 7]]), num_classes=3)
    with pytest.raises(DataError, match=r"-5 \(1 pixels\)"):
        Segments.from_class_map(np.array([[0, -5]]))


def test_columns_and_windows_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="2 labels but 1 scores"):
        Segments(torch.zeros(2, 2, dtype=torch.int8), [0, 0], scores=[1.0])
    with pytest.raises(DataError, match="signed"):
        Segments(torch.zeros(2, 2, dtype=torch.uint8), [0])
    with pytest.raises(DataError, match="1 crops and 2 labels"):
        Segments.from_masks(np.ones((1, 2, 2), bool), [0, 0])
    with pytest.raises(DataError, match="box"):
        Segments.from_windows([[0, 0, 3, 3]], [np.ones((3, 3), bool)], [0], (2, 2))
    with pytest.raises(DataError, match="crop"):
        Segments.from_windows([[0, 0, 2, 2]], [np.ones((1, 2), bool)], [0], (2, 2))
    with pytest.raises(DataError, match=r"\[N, H, W\]"):
        Segments.from_masks(np.ones((2, 2), bool), [0])


def test_integer_crops_are_masks_not_indices():
    made = Segments.from_windows([[0, 0, 2, 2]], [np.array([[0, 1], [1, 1]], np.uint8)], [0], (3, 3))
    assert made.ids[0].tolist() == [[-1, 0, -1], [0, 0, -1], [-1, -1, -1]]


def test_rows_may_own_no_pixel_and_compact_drops_them():
    kind = torch.tensor([0, BOX, 0])
    given_boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 2, 1], [0, 0, 0, 0]])
    segments = Segments(np.array([[0, -2]], np.int8), [4, 5, 6], kind=kind, given_boxes=given_boxes)
    compact = segments.compact()
    assert compact.labels.tolist() == [4, 5]
    assert compact.boxes.tolist() == [[0, 0, 1, 1], [0, 0, 2, 1]]
    assert compact.ids.tolist() == [[[0, -2]]]


def test_compact_drops_layers_that_say_nothing_and_keeps_unknown_ones():
    ids = np.array([[[-1, -1]], [[0, -1]], [[-1, -1]], [[-1, -2]]], np.int8)
    compact = Segments(ids, [0]).compact()
    assert compact.ids.tolist() == [[[0, -1]], [[-1, -2]]]
    assert Segments.empty((1, 2)).compact().ids.tolist() == [[[-1, -1]]]


def test_areas_as_annotated_come_before_pixels():
    segments = Segments(np.zeros((2, 2), np.int8), [0], given_areas=[2.5])
    assert segments.areas.tolist() == [2.5]
    assert segments.pixel_counts.tolist() == [4]


def test_no_segments_at_all():
    empty = Segments.empty((2, 3), fill=UNKNOWN)
    assert len(empty) == 0
    assert empty.masks.shape == (0, 2, 3)
    assert empty.boxes.shape == (0, 4)
    assert bool(empty.unknown.all())
    assert len(empty.keep([])) == 0
    assert Segments.from_masks(np.zeros((0, 2, 3), bool), []).size == (2, 3)


def test_the_smallest_integer_has_room_for_both_marks():
    assert [smallest_int(n) for n in (0, 127, 128, 32767, 32768)] == [
        torch.int8, torch.int8, torch.int16, torch.int16, torch.int32,
    ]  # fmt: skip
    many = Segments.from_ids(np.arange(300).reshape(15, 20), {i: i % 3 for i in range(300)})
    assert many.ids.dtype == torch.int16
    assert many.class_map().flatten().tolist() == [i % 3 for i in range(300)]


def test_pickle_and_move_keep_everything():
    segments = Segments.from_masks(np.ones((1, 2, 2), bool), [3], scores=[0.5], crowd=[True])
    for other in (pickle.loads(pickle.dumps(segments)), segments.to("cpu")):
        assert other.labels.tolist() == [3]
        assert other.crowd.tolist() == [True]
        assert other.scores.tolist() == [0.5]
        assert torch.equal(other.ids, segments.ids)


def many_objects():
    """2,000 ellipses with a hole on 2 megapixels, many of which overlap others."""
    rng = np.random.default_rng(0)
    n, height, width = 2000, 1250, 1600
    x0, y0 = rng.integers(0, width - 40, n), rng.integers(0, height - 40, n)
    w, h = rng.integers(8, 40, n), rng.integers(8, 40, n)
    crops = []
    for a, b in zip(w, h):
        radius = np.hypot(np.linspace(-1, 1, b)[:, None], np.linspace(-1, 1, a))
        crops.append((radius <= 1) & (radius >= 0.2))
    return np.stack([x0, y0, x0 + w, y0 + h], 1), crops, rng.integers(0, 5, n), (height, width)


def through_everything(boxes, crops, labels, size):
    segments = Segments.from_windows(boxes, crops, labels, size)
    codes = rle.to_rle(segments)
    shown, areas = segments.class_map(), segments.areas
    half = segments.keep(np.arange(0, len(boxes), 2)).compact()
    return segments, codes, shown, areas, half


def test_two_thousand_objects_on_two_megapixels_are_cheap(capsys):
    case = many_objects()
    started = time.process_time()
    segments, codes, shown, areas, half = through_everything(*case)
    seconds = time.process_time() - started  # of this process, whatever else runs
    assert len(codes) == 2000
    assert areas.tolist() == [float(c.sum()) for c in case[1]]
    assert len(half) == 1000
    tracemalloc.start()
    Segments.from_windows(*case).areas  # noqa: B018  # a property that computes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # torch allocates outside of tracemalloc: class_map holds an int64 map and two layers, keep the new layers twice
    torch_peak = segments.ids.nbytes * 3 + shown.numel() * 8 + segments.ids[0].nbytes * 2
    with capsys.disabled():
        print(f"\n2,000 objects on 2 megapixels, {len(segments.ids)} layers: {seconds:.2f} s, "
              f"numpy {peak / 1e6:.0f} MB, torch {torch_peak / 1e6:.0f} MB")  # fmt: skip
    assert seconds < 20  # a loop over full-size masks needs minutes
    assert peak < 200e6
    assert torch_peak < 200e6
