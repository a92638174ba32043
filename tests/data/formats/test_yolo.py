"""YOLO segmentation: Ultralytics' layouts, polygons, boxes, true negatives, and what is refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from pixelwise.core.segments import BOX
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.io import write_png
from pixelwise.errors import DataError

SIZE = (10, 20)
SQUARE = "0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6"  # columns 2 to 9, rows 2 to 5
TABLE = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: person\n  2: 'car, red'\n"


def make(root: Path, labels: dict[str, str | None], table: str = TABLE) -> Path:
    """{name below images/: text of the label file, None for none}."""
    for number, (name, text) in enumerate(labels.items()):
        pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        write_png(root / "images" / f"{name}.png", pixels)
        if text is not None:
            path = root / "labels" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (root / "data.yaml").write_text(table)
    return root


def truth(data: DataSet, at: int = 0):
    segments = data.read(list(data)[at]).truth
    assert segments is not None
    return segments


def test_polygons_boxes_and_true_negatives(tmp_path: Path) -> None:
    root = make(tmp_path, {"train/a": f"{SQUARE}\n2 0 0 1 0 0 1\n", "train/empty": "", "train/none": None,
                           "val/deep/b": "2 0.5 0.5 0.2 0.4"})  # fmt: skip
    data = open_data(root)
    assert (data.format, data.default_task) == ("yolo", "instance")
    assert (data.classes.names, data.classes.ids, data.classes.things) == (
        ("person", "car, red"),
        (0, 2),
        data.classes.names,
    )
    assert {r.name: r.split for r in data} == {"train/a": "train", "train/empty": "train", "train/none": "train",
                                               "val/deep/b": "val"}  # fmt: skip
    segments = truth(data)
    assert segments.labels.tolist() == [0, 1]
    mask = np.zeros(SIZE, bool)
    mask[2:6, 2:10] = True
    np.testing.assert_array_equal(segments.masks[0].numpy(), mask)
    assert len(truth(data, 1)) == len(truth(data, 2)) == 0
    assert not truth(data, 1).unknown.any()
    assert any("1 images have no label file" in note for note in data.notes)
    box = truth(data, 3)
    assert box.kind is not None
    assert box.kind.tolist() == [BOX]
    np.testing.assert_allclose(box.boxes.numpy(), [[8, 3, 12, 7]])
    assert int(box.unknown.sum()) == 16  # nobody said which pixels of the box are the object's


def test_the_reader_pickles(tmp_path: Path) -> None:
    data = open_data(make(tmp_path, {"train/a": SQUARE}))
    assert len(truth(pickle.loads(pickle.dumps(data)))) == 1


@pytest.mark.parametrize("table", [
    "train: images/train\nval: images/val\nnames: [person, dog]\n",
    "path: /elsewhere/coco8\ntrain: images/train\nval: [images/val]\nnames: {0: person}\nnc: 1\n",
    "train: ../images/train\nval: ../images/val\nnames: [person]\n",
    "train: train.txt\nval: val.txt\nnames: [person]\n",
], ids=["no path", "path of another machine", "Roboflow's ../", "lists"])  # fmt: skip
def test_the_ways_to_name_a_split(tmp_path: Path, table: str) -> None:
    root = make(tmp_path, {"train/a": SQUARE, "val/b": SQUARE}, table)
    (root / "train.txt").write_text("./images/train/a.png\n")
    (root / "val.txt").write_text("images/val/b.png\n\n")
    data = open_data(root)
    assert {split: [r.name for r in group] for split, group in data.splits.items()} == {
        "train": ["train/a"],
        "val": ["val/b"],
    }
    assert len(truth(data, 1)) == 1


def test_folders_of_splits_above_images(tmp_path: Path) -> None:
    make(tmp_path / "train", {"a": SQUARE})
    (tmp_path / "train" / "data.yaml").unlink()
    (tmp_path / "data.yaml").write_text("train: train/images\nnames: [person]\n")
    data = open_data(tmp_path)
    assert [r.name for r in data] == ["train/a"]
    assert len(truth(data)) == 1


BAD = {
    "an even number of values": ("0 0.1 0.2 0.5 0.2 0.5", "a.txt, line 1: 5 numbers behind the class"),
    "two points": (
        f"{SQUARE}\n0 0.1 0.2 0.5 0.2",
        "a.txt, line 2: 4 numbers behind the class.*polygons or boxes, not both",
    ),
    "one point": ("0 0.1 0.2", "a.txt, line 1: 2 numbers"),
    "an unknown class": (SQUARE.replace("0", "1", 1), "line 1: the class 1 is not in data.yaml, which names 2 classes"),
    "a class that is no number": ("car 0.1 0.2 0.5 0.2 0.5 0.6", "line 1: 'car 0.1.*not all numbers"),
    "pixels": ("0 1 2 5 2 5 6", "coordinates from 1 to 6; expected shares of width and height, 0 to 1"),
    "negative": ("0 -0.2 0.2 0.5 0.2 0.5 0.6", "coordinates from -0.2 to 0.6"),
    "nan": ("0 nan 0.2 0.5 0.2 0.5 0.6", "coordinates from nan"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_named(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    data = open_data(make(tmp_path, {"train/a": text}))
    with pytest.raises(DataError, match=message):
        truth(data)
    (fault,) = data.reader.faults(next(iter(data)))  # type: ignore[attr-defined]
    assert (fault.code, fault.path) == ("annotation", tmp_path / "labels/train/a.txt")


def test_a_little_outside_is_cut_off(tmp_path: Path) -> None:
    """Exporters round; what lies further outside is refused."""
    data = open_data(make(tmp_path, {"train/a": "0 -0.004 0 1.004 0 1.004 1 -0.004 1"}))
    assert bool((truth(data).ids == 0).all())


TABLES = {
    "no names": ("train: images/train\nnames:\n", "names must be"),
    "broken": ("train: [images\nnames: x", "cannot be read as YAML"),
    "an object": ("train: !!python/object/apply:os.getcwd []\nnames: [a]\n", "cannot be read as YAML"),
    "no images": ("train: images/no\nnames: [a]\n", "none of its splits"),
    "keypoints": ("train: images/train\nnames: [a]\nkpt_shape: [17, 3]\n", "is a set of keypoints"),
    "names twice": ("train: images/train\nnames: [a, a]\n", "Class names must differ"),
    "a list with a missing image": ("train: list.txt\nnames: [a]\n", r"list.txt, line 1: there is no image"),
}


@pytest.mark.parametrize("name", TABLES)
def test_bad_tables_are_named(tmp_path: Path, name: str) -> None:
    table, message = TABLES[name]
    root = make(tmp_path, {"train/a": SQUARE}, table)
    (root / "list.txt").write_text("images/gone.png\n")
    with pytest.raises(DataError, match=message):
        open_data(root, "yolo")


def test_two_tables_must_be_told_apart(tmp_path: Path) -> None:
    root = make(tmp_path, {"train/a": SQUARE})
    (root / "other.yaml").write_text(TABLE)
    with pytest.raises(DataError, match="table=NAME"):
        open_data(root)
    assert len(open_data(root, table="other.yaml")) == 1
