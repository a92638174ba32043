"""Folders of instance maps: with class maps, alone, with ids that carry their class; VOC's objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pixelwise.core.segments import NOTHING, UNKNOWN
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.doctor import examine
from pixelwise.data.io import write_png
from pixelwise.errors import DataError
from pixelwise.metrics.panoptic import PanopticQuality

SIZE = (4, 6)
OBJECTS = np.array([[0, 0, 1, 1, 0, 2], [0, 0, 1, 1, 0, 2], [0, 0, 0, 0, 0, 2], [0] * 6], np.uint16)
STREET = np.where(OBJECTS == 1, 26001, np.where(OBJECTS == 2, 24001, 7)).astype(np.uint16)  # road around car and person
TABLE = "7 road\n24 person\n26 car\n0 unlabelled void\n"


def write(root: Path, instances: np.ndarray, *, masks: np.ndarray | None = None, table: str | None = None) -> Path:
    for name in ("a", "b"):
        write_png(root / f"images/{name}.png", np.full((*SIZE, 3), ord(name), np.uint8))
        write_png(root / f"instances/{name}.png", instances)
        if masks is not None:
            write_png(root / f"masks/{name}.png", masks)
    if table is not None:
        (root / "classes.txt").write_text(table)
    (root / "train.txt").write_text("a\nb\n")
    return root


def truth(data: DataSet) -> dict[int, tuple[str, bool, int]]:
    """{id on disk: (class, crowd, pixels)} of the first image."""
    found = data.read(data.records("train")[0]).truth
    assert found is not None
    assert found.keys is not None
    names = [data.classes.names[label] for label in found.labels.tolist()]
    return dict(zip(found.keys.tolist(), zip(names, found.crowd.tolist(), found.pixel_counts.tolist())))


def test_objects_alone_are_instances(tmp_path: Path) -> None:
    data = open_data(write(tmp_path, OBJECTS))
    assert data.default_task == "instance"
    assert truth(data) == {1: ("object", False, 4), 2: ("object", False, 3)}
    found = data.read(data.records("train")[0]).truth
    assert int((found.ids == NOTHING).sum()) == 17


def test_ids_below_1000_are_classes_where_the_table_knows_them_all(tmp_path: Path) -> None:
    street = STREET.copy()
    street[3, :3], street[3, 3] = 0, 26  # void, and cars that nobody told apart
    data = open_data(write(tmp_path, street, table=TABLE))
    assert data.default_task == "panoptic"
    assert data.classes.things == ("person", "car")
    assert any("those below 1000 as a class without a number" in note for note in data.notes)
    expected = {7: ("road", False, 13), 26: ("car", True, 1), 24001: ("person", False, 3), 26001: ("car", False, 4)}
    assert truth(data) == expected
    found = data.read(data.records("train")[0]).truth
    assert int((found.ids == UNKNOWN).sum()) == 3


def test_things_that_the_table_names_stay_things(tmp_path: Path) -> None:
    data = open_data(
        write(tmp_path, STREET, table="7 road\n24 person thing\n26 car thing\n33 bicycle thing\n0 x void\n")
    )
    assert data.classes.things == ("person", "car", "bicycle")


def test_many_objects_of_one_class_carry_none(tmp_path: Path) -> None:
    ids = OBJECTS.copy()
    ids[3, :2] = 1001, 1500  # as 1,500 nuclei have them
    data = open_data(write(tmp_path, ids, table="1 nucleus thing\n"))
    assert data.default_task == "instance"
    assert truth(data)[1500] == ("nucleus", False, 1)


def test_ids_of_a_class_that_the_table_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not say the class"):
        open_data(write(tmp_path, STREET, table="7 road\n26 car\n0 unlabelled void\n"))


def test_both_maps_are_panoptic_and_the_doctor_says_what_was_decided(tmp_path: Path) -> None:
    masks = np.where(OBJECTS > 0, 1, 0).astype(np.uint8)
    masks[3, 5] = 1  # a plant without an object
    masks[0, 2] = 255
    root = write(tmp_path, OBJECTS, masks=masks, table="0 soil\n1 plant thing\n255 unsure void\n")
    data = open_data(root)
    assert data.default_task == "panoptic"
    found = data.read(data.records("train")[0]).truth
    rows = list(zip(found.keys.tolist(), found.labels.tolist(), found.crowd.tolist(), found.pixel_counts.tolist()))
    assert rows == [(0, 0, False, 16), (1, 1, True, 1), (1, 1, False, 3), (2, 1, False, 3)]
    (finding,) = [f for f in examine(root).findings if f.code == "joined"]
    assert "pixels of a thing class in no object, a crowd of that class: 2" in finding.message  # one in each image
    assert "pixels of an object, unknown by the map, left unknown: 2" in finding.message


def test_voc_objects(tmp_path: Path) -> None:
    """Background, objects with void boundaries, in both maps as VOC has them."""
    labels = np.where(OBJECTS == 1, 7, np.where(OBJECTS == 2, 15, 0)).astype(np.uint8)
    objects = OBJECTS.astype(np.uint8)
    labels[2, 2:4] = objects[2, 2:4] = 255
    for folder, pixels in (("SegmentationClass", labels), ("SegmentationObject", objects)):
        write_png(tmp_path / folder / "2007_1.png", pixels)
    write_png(tmp_path / "JPEGImages/2007_1.png", np.zeros((*SIZE, 3), np.uint8))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("2007_1\n")
    data = open_data(tmp_path)
    assert (data.format, data.default_task) == ("voc", "panoptic")
    found = data.read(data.records("train")[0]).truth
    names = [data.classes.names[label] for label in found.labels.tolist()]
    assert list(zip(names, found.pixel_counts.tolist())) == [("background", 15), ("car", 4), ("person", 3)]
    assert int((found.ids == UNKNOWN).sum()) == 2
    metric = PanopticQuality(data.classes)
    metric.update(found, found)
    assert metric.compute()["pq"] == 1.0
