"""Class maps and instance maps become Segments: who owns each pixel, of which class, with which id on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.io import write_png
from pixelwise.data.truth import _ranges
from pixelwise.errors import DataError
from pixelwise.tasks.semantic import Semantic


def write(
    root: Path, *, semantic: np.ndarray | None = None, instances: np.ndarray | None = None, table: str | None = None
) -> None:
    size = (semantic if semantic is not None else instances).shape  # type: ignore[union-attr]
    write_png(root / "images" / "a.png", np.zeros((*size, 3), np.uint8))
    if semantic is not None:
        write_png(root / "masks" / "a.png", semantic.astype(np.uint8))
    if instances is not None:
        write_png(root / "instances" / "a.png", instances)
    if table is not None:
        (root / "classes.txt").write_text(table)


def read(root: Path) -> tuple[DataSet, Segments]:
    data = open_data(root, format="folder")
    truth = data.read(next(iter(data))).truth
    assert truth is not None
    return data, truth


def objects(truth: Segments) -> dict[int, tuple[int, int, bool]]:
    """{id on disk: (label, pixels, crowd)} of rows that own pixels."""
    assert truth.keys is not None
    rows = zip(truth.keys.tolist(), truth.labels.tolist(), truth.pixel_counts.tolist(), truth.crowd.tolist())
    return {key: (label, area, crowd) for key, label, area, crowd in rows if area}


INSTANCES = np.array([[0, 0, 1, 1], [0, 300, 300, 1], [7, 7, 0, 0]], np.uint16)


def test_plain_ids_are_one_thing(tmp_path: Path) -> None:
    write(tmp_path, instances=INSTANCES)
    data, truth = read(tmp_path)
    assert data.classes.names == data.classes.things == ("object",)
    assert data.classes.nothing
    assert data.default_task == "instance"
    assert objects(truth) == {1: (0, 3, False), 7: (0, 2, False), 300: (0, 2, False)}
    np.testing.assert_array_equal(truth.ids[0] == NOTHING, INSTANCES == 0)
    assert any("all objects are of one class, 'object'" in note for note in data.notes)


def test_plain_ids_named_by_the_table(tmp_path: Path) -> None:
    write(tmp_path, instances=INSTANCES, table="0 ground\n1 cell\n")
    data, truth = read(tmp_path)
    assert data.classes.things == ("cell",)
    assert not data.classes.nothing
    assert objects(truth) == {0: (0, 5, False), 1: (1, 3, False), 7: (1, 2, False), 300: (1, 2, False)}


def test_plain_ids_and_two_things_cannot_be_told_apart(tmp_path: Path) -> None:
    write(tmp_path, instances=INSTANCES, table="1 cat thing\n2 dog thing\n")
    with pytest.raises(DataError, match=r"do not say the class, .* 2 things \(cat, dog\); add class maps"):
        read(tmp_path)


def test_ids_that_carry_the_class(tmp_path: Path) -> None:
    ids = np.array([[0, 1001, 1002], [2001, 2001, 0]], np.uint16)
    write(tmp_path, instances=ids)
    data, truth = read(tmp_path)
    assert data.classes.names == ("class 1", "class 2")
    assert data.classes.ids == (1, 2)
    assert objects(truth) == {1001: (0, 1, False), 1002: (0, 1, False), 2001: (1, 2, False)}
    assert any("class * 1000 + number: 2 classes, 1, 2" in note for note in data.notes)
    write(tmp_path, instances=ids, table="0 soil\n1 crop thing\n2 weed thing\n")
    data, truth = read(tmp_path)
    assert objects(truth) == {0: (0, 2, False), 1001: (1, 1, False), 1002: (1, 1, False), 2001: (2, 2, False)}


def test_a_thousand_plain_objects_do_not_carry_a_class(tmp_path: Path) -> None:
    write(tmp_path, instances=np.arange(2500, dtype=np.uint16).reshape(50, 50))
    data, truth = read(tmp_path)
    assert data.classes.names == ("object",)
    assert len(objects(truth)) == 2499


def test_void_of_instance_maps(tmp_path: Path) -> None:
    write(tmp_path, instances=np.array([[0, 1, 255], [2, 2, 255]], np.uint8))
    data, truth = read(tmp_path)
    assert int(truth.unknown.sum()) == 2
    assert set(objects(truth)) == {1, 2}
    assert any("255 is taken for void" in note for note in data.notes)
    write(tmp_path, instances=np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert len(objects(read(tmp_path)[1])) == 255  # here 255 is the last of 255 objects


CLASSES = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [1, 1, 0, 255]], np.uint8)
TABLE = "0 soil\n1 crop thing\n2 weed thing\n"


def test_stuff_from_classes_things_from_instances(tmp_path: Path) -> None:
    write(tmp_path, semantic=CLASSES, instances=INSTANCES, table=TABLE)
    data, truth = read(tmp_path)
    assert data.default_task == "panoptic"
    assert objects(truth) == {0: (0, 4, False), 1: (1, 3, False), 7: (1, 2, False), 300: (2, 2, False)}
    np.testing.assert_array_equal(truth.class_map(), CLASSES)
    assert int(truth.unknown.sum()) == 1


def test_things_are_found_under_instances(tmp_path: Path) -> None:
    write(tmp_path, semantic=CLASSES, instances=INSTANCES, table="0 soil\n1 crop\n2 weed\n")
    data, _ = read(tmp_path)
    assert data.classes.things == ("crop", "weed")
    assert any("crop, weed lie under instances" in note for note in data.notes)


def test_thing_pixels_without_an_instance_are_a_crowd(tmp_path: Path) -> None:
    ids = np.where(INSTANCES == 1, 0, INSTANCES)
    write(tmp_path, semantic=CLASSES, instances=ids, table=TABLE)
    _, truth = read(tmp_path)
    assert objects(truth) == {0: (0, 4, False), 1: (1, 3, True), 7: (1, 2, False), 300: (2, 2, False)}


def test_things_of_a_class_map_alone_are_crowds(tmp_path: Path) -> None:
    write(tmp_path, semantic=CLASSES, table=TABLE)
    data, truth = read(tmp_path)
    assert data.default_task == "semantic"
    assert truth.labels.tolist() == [0, 1, 2]
    assert truth.crowd.tolist() == [False, True, True]
    assert not Semantic(data.classes).view(truth).crowd.any()  # for classes alone it does not matter


def test_instance_on_several_classes(tmp_path: Path) -> None:
    write(tmp_path, semantic=CLASSES, instances=np.where(INSTANCES == 300, 1, INSTANCES), table=TABLE)
    with pytest.raises(DataError, match=r"instances.a\.png: the instance 1 lies on several classes .*crop 3, weed 2"):
        read(tmp_path)


def test_few_strange_pixels_follow_the_majority(tmp_path: Path) -> None:
    classes, ids = np.ones((4, 10), np.uint8), np.full((4, 10), 5, np.uint8)
    classes[0, :4] = 2
    write(tmp_path, semantic=classes, instances=ids, table=TABLE)
    assert objects(read(tmp_path)[1]) == {5: (1, 40, False)}


def test_instance_on_stuff(tmp_path: Path) -> None:
    write(tmp_path, semantic=CLASSES, instances=INSTANCES, table="0 soil\n1 crop thing\n2 weed stuff\n")
    with pytest.raises(DataError, match=r"the instance 300 \(2 pixels\) lies on 'weed', which is no thing"):
        read(tmp_path)


def test_maps_of_two_sizes(tmp_path: Path) -> None:
    write(tmp_path, semantic=CLASSES, instances=INSTANCES[:2], table=TABLE)
    with pytest.raises(DataError, match=r"a\.png is 4 x 2 pixels, .*a\.png is 4 x 3"):
        read(tmp_path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1))
def test_panoptic_equals_the_rule_pixel_by_pixel(tmp_path: Path, seed: int) -> None:
    """Against a slow reading of the rule: random blocks, each instance on one thing class, void anywhere."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 6, (4, 5)).repeat(3, 0).repeat(3, 1).astype(np.uint16)
    of_id = rng.integers(1, 3, 6)
    classes = np.where(ids == 0, rng.integers(0, 3, ids.shape), of_id[ids]).astype(np.uint8)
    classes[rng.random(ids.shape) < 0.1] = 255
    write(tmp_path, semantic=classes, instances=ids, table=TABLE)
    _, truth = read(tmp_path)
    assert truth.keys is not None
    for (y, x), row in np.ndenumerate(truth.ids[0].numpy()):
        if classes[y, x] == 255:
            assert row == UNKNOWN
            continue
        assert truth.labels[row] == classes[y, x]
        assert truth.keys[row] == (ids[y, x] or classes[y, x])
        assert bool(truth.crowd[row]) == (ids[y, x] == 0 and classes[y, x] > 0)


def test_wide_class_maps(tmp_path: Path) -> None:
    """Ids of 16 bits and more than 127 classes."""
    ids = (np.arange(300) * 7).reshape(15, 20).astype(np.uint16)
    write_png(tmp_path / "images" / "a.png", np.zeros((15, 20, 3), np.uint8))
    write_png(tmp_path / "masks" / "a.png", ids)
    (tmp_path / "classes.txt").write_text("".join(f"{i * 7} c{i}\n" for i in range(300)))
    data, truth = read(tmp_path)
    np.testing.assert_array_equal(truth.ids[0].numpy().ravel(), np.arange(300))
    assert len(data.classes) == 300


def test_negative_instance_ids(tmp_path: Path) -> None:
    write(tmp_path, instances=INSTANCES)
    (tmp_path / "instances" / "a.png").unlink()
    np.save(tmp_path / "instances" / "a.npy", np.where(INSTANCES == 7, -1, INSTANCES.astype(np.int64)))
    with pytest.raises(DataError, match=r"a\.npy: the instance id -1 \(2 pixels below 0\)"):
        read(tmp_path)


def test_instance_ids_beyond_16_bits(tmp_path: Path) -> None:
    write(tmp_path, semantic=CLASSES, instances=INSTANCES, table=TABLE)
    _, narrow = read(tmp_path)
    (tmp_path / "instances" / "a.png").unlink()
    np.save(tmp_path / "instances" / "a.npy", INSTANCES.astype(np.int64) * 1_000_003)
    _, wide = read(tmp_path)
    np.testing.assert_array_equal(wide.ids, narrow.ids)
    assert wide.keys is not None
    assert wide.keys.tolist() == [0, 1_000_003, 7 * 1_000_003, 300 * 1_000_003]


def test_ranges() -> None:
    assert _ranges((0, 1, 2, 3, 7, 9, 10)) == "0 to 3, 7, 9, 10"
    assert _ranges(()) == ""
