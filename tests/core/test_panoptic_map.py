"""COCO's panoptic PNG and table, instance maps and class maps: there and back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pixelwise.core.classes import Classes
from pixelwise.core.panoptic_map import (
    colours_of_ids,
    from_panoptic,
    ids_of_colours,
    instance_ids,
    to_maps,
    to_panoptic,
)
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.errors import DataError

few = settings(max_examples=40, deadline=None, derandomize=True)
CLASSES = Classes(names=["sky", "car", "road", "person"], things=["car", "person"], ids=[0, 26, 7, 24])


@few
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_colours_are_ids_in_base_256(colours):
    ids = ids_of_colours(colours)
    wide = colours.astype(int)
    assert np.array_equal(ids, wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2])
    assert np.array_equal(colours_of_ids(ids), colours)


@st.composite
def flat_segments(draw):
    """Segments without overlap, with unknown pixels; every row owns a pixel."""
    n = draw(st.integers(0, 5))
    size = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    ids = draw(hnp.arrays(np.int8, size, elements=st.integers(-2, n - 1)))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)))
    crowd = draw(hnp.arrays(bool, n))
    keys = draw(st.lists(st.integers(1, (1 << 24) - 1), min_size=n, max_size=n, unique=True))
    return Segments(ids, labels, crowd=crowd, keys=np.array(keys, np.int64)).compact()


@few
@given(flat_segments())
def test_segments_come_back_through_the_panoptic_png(segments):
    colours, table = to_panoptic(segments, CLASSES)
    again = from_panoptic(colours, table, CLASSES)
    assert np.array_equal(again.ids[0].numpy(), np.where(segments.ids[0] == NOTHING, UNKNOWN, segments.ids[0]))
    for column in ("labels", "crowd", "keys"):
        assert getattr(again, column).tolist() == getattr(segments, column).tolist()
    assert again.areas.tolist() == segments.pixel_counts.tolist()
    assert again.boxes.tolist() == segments.boxes.tolist()


@few
@given(flat_segments())
def test_instance_and_class_maps_show_what_the_segments_show(segments):
    instances, class_map = to_maps(segments, CLASSES)
    assert class_map.tolist() == segments.class_map(255, nothing=-1).tolist()
    told = CLASSES.is_thing[segments.labels.numpy()] & ~segments.crowd.numpy()
    things = segments.keep(np.flatnonzero(told))
    assert np.array_equal(instances, things.ids[0].numpy().clip(-1) + 1)


def test_ids_carry_class_and_number():
    segments = Segments(np.zeros((1, 1), np.int8), [1, 0, 1, 3])
    assert instance_ids(segments.labels.numpy(), CLASSES).tolist() == [26001, 1, 26002, 24001]
    many = Segments(np.zeros((1, 1), np.int16), np.ones(1000, int))
    with pytest.raises(DataError, match=r"'car'.*1000 segments"):
        instance_ids(many.labels.numpy(), CLASSES)


def test_keys_that_cannot_stand_in_the_file_are_replaced():
    segments = Segments(np.array([[0, 1]], np.int8), [0, 1], keys=np.array([0, 26]))
    colours, table = to_panoptic(segments, CLASSES)
    assert [info["id"] for info in table] == [1, 26001]
    assert ids_of_colours(colours).tolist() == [[1, 26001]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"id": 5, "category_id": 26}, {"id": 5, "category_id": 26}], "5 is there twice"),
        ([{"id": 0, "category_id": 26}], "0, which stands for unknown"),
        ([{"id": 5, "category_id": 99}], "category 99"),
        ([{"id": 5, "category_id": 26}, {"id": 6, "category_id": 26}], r"\[6\] own no pixel"),
        ([], r"in no table: 5 \(2 pixels\)"),
    ],
)
def test_tables_that_do_not_fit_the_map_are_refused(table, message):
    with pytest.raises(DataError, match=message):
        from_panoptic(colours_of_ids(np.array([[5, 5, 0]])), table, CLASSES)


def test_void_categories_are_unknown():
    classes = Classes(names=["car"], things=["car"], ids=[26], void=[99])
    table = [{"id": 5, "category_id": 99}, {"id": 6, "category_id": 26}]
    found = from_panoptic(colours_of_ids(np.array([[5, 6, 0]])), table, classes)
    assert found.ids.tolist() == [[[UNKNOWN, 0, UNKNOWN]]]
    assert found.given_areas is None


def test_arrays_that_are_no_maps_are_refused():
    with pytest.raises(DataError, match=r"\[H, W, 3\] uint8"):
        ids_of_colours(np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match=r"0\.\.16777215"):
        colours_of_ids(np.array([[1 << 24]]))


@pytest.mark.parametrize("row", [5, {"id": 5}, {"id": "5", "category_id": 0}, {"id": 1 << 24, "category_id": 0},
                                 {"id": 5, "category_id": 0, "area": "big"}, {"id": 5, "category_id": 0, "bbox": [1]},
                                 {"id": 5, "category_id": 0, "area": float("nan")}])  # fmt: skip
def test_rows_of_the_table_that_are_malformed_are_refused(row):
    with pytest.raises(DataError, match="segments_info"):
        from_panoptic(colours_of_ids(np.array([[5, 0]])), [row], CLASSES)


@pytest.mark.skipif("PIXELWISE_DATA" not in os.environ, reason="PIXELWISE_DATA is not set")
def test_cocos_own_truth_is_written_as_it_was_read():
    root = Path(os.environ["PIXELWISE_DATA"]) / "coco_panoptic_sample"
    data = json.loads((root / "panoptic.json").read_text())
    categories = data["categories"]
    classes = Classes(
        names=[c["name"] for c in categories],
        things=[c["name"] for c in categories if c["isthing"]],
        ids=[c["id"] for c in categories],
        void=[],
    )
    assert len(data["annotations"]) == 3
    for annotation in data["annotations"]:
        stored = np.asarray(Image.open(root / "panoptic" / annotation["file_name"]).convert("RGB"))
        segments = from_panoptic(stored, annotation["segments_info"], classes)
        colours, table = to_panoptic(segments, classes)
        assert np.array_equal(colours, stored)
        assert table == [{k: info[k] for k in table[0]} for info in annotation["segments_info"]]
