"""COCO panoptic: maps with their tables, layouts, PQ of truth against itself, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.core.segments import UNKNOWN
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.doctor import examine
from pixelwise.errors import DataError
from pixelwise.tasks import make_task

DATA = os.environ.get("PIXELWISE_DATA")
IDS = np.array([[5, 5, 70000, 0], [5, 300, 70000, 0], [9, 9, 9, 0]])
CATEGORIES = [{"id": 1, "name": "person", "isthing": 1, "color": [1, 2, 3]},
              {"id": 90, "name": "book", "isthing": 1, "color": [4, 5, 6]},
              {"id": 184, "name": "tree", "isthing": 0, "color": [7, 8, 9]}]  # fmt: skip
KINDS = {5: (1, 0), 300: (90, 0), 70000: (1, 1), 9: (184, 0)}  # id: category, crowd


def table(number: int, ids: np.ndarray = IDS) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of image and annotation."""
    segments = [{"id": k, "category_id": c, "iscrowd": crowd, "area": int((ids == k).sum()), "bbox": [0, 0, 4, 3]}
                for k, (c, crowd) in KINDS.items()]  # fmt: skip
    image = {"id": number, "file_name": f"{number}.jpg", "height": ids.shape[0], "width": ids.shape[1]}
    return image, {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}


def write(root: Path, name: str = "panoptic.json", images: str = "images", numbers: tuple[int, ...] = (1, 2)) -> Path:
    path = root / name
    maps = path.with_suffix("")
    maps.mkdir(parents=True)
    (root / images).mkdir(parents=True)
    for number in numbers:
        shown = np.stack([IDS % 256, IDS // 256 % 256, IDS // 65536], -1).astype(np.uint8)
        Image.fromarray(shown).save(maps / f"{number}.png")
        Image.fromarray(np.full((*IDS.shape, 3), number, np.uint8)).save(root / images / f"{number}.jpg")
    listed, annotations = zip(*(table(number) for number in numbers))
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": CATEGORIES}))
    return path


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def first(data: DataSet) -> Any:
    (record,) = [record for record in data if record.name == "1"]
    return data.read(record).truth


def test_truth_is_what_map_and_table_say(tmp_path: Path) -> None:
    write(tmp_path)
    data = pickle.loads(pickle.dumps(open_data(tmp_path)))
    assert (data.format, data.default_task, len(data)) == ("coco_panoptic", "panoptic", 2)
    assert (data.classes.names, data.classes.things) == (("person", "book", "tree"), ("person", "book"))
    assert data.classes.colours == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    truth = first(data)
    assert truth.keys.tolist() == [5, 300, 70000, 9]
    assert truth.labels.tolist() == [0, 1, 0, 2]
    assert truth.crowd.tolist() == [False, False, True, False]
    assert truth.boxes.tolist() == [[0, 0, 4, 3]] * 4
    expected = np.select([IDS == 5, IDS == 300, IDS == 70000, IDS == 9], [0, 1, 2, 3], UNKNOWN)
    np.testing.assert_array_equal(truth.ids[0], expected)


@pytest.mark.parametrize(("name", "images"), [("annotations/panoptic_{}2017.json", "{}2017"),
                                              ("annotations/panoptic_{}2017.json", "images/{}2017"),
                                              ("panoptic_{}.json", "{}")])  # fmt: skip
def test_layouts(tmp_path: Path, name: str, images: str) -> None:
    write(tmp_path, name.format("train"), images.format("train"), (1, 2))
    write(tmp_path, name.format("val"), images.format("val"), (3,))
    data = open_data(tmp_path)
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 2, "val": 1}
    assert examine(tmp_path).ok


def test_panoptic_comes_before_the_instances_beside_it(tmp_path: Path) -> None:
    write(tmp_path)
    image, _ = table(1)
    note = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2]], "bbox": [0, 0, 2, 2]}
    instances = {"images": [image], "annotations": [note], "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "instances_all.json").write_text(json.dumps(instances))
    assert open_data(tmp_path).format == "coco_panoptic"
    assert len(open_data(tmp_path, "coco")) == 1


def test_an_image_without_annotation_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path)
    change(path, lambda content: content["annotations"].pop())
    with pytest.raises(DataError, match=r"2\.jpg: has no annotation; a panoptic file has one for each"):
        open_data(tmp_path)
    assert [record.name for record in open_data(tmp_path, missing="skip")] == ["1"]
    findings = examine(tmp_path)
    errors = {f.code: f.files for f in findings.findings if f.severity == "error"}
    assert errors["image-without-mask"] == ("images/2.jpg",)


FAULTY: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no isthing": (lambda c: c["categories"][0].pop("isthing"), "isthing=None; a panoptic file says 1 or 0"),
    "two annotations": (lambda c: c["annotations"].append(c["annotations"][0]), "has 2 annotations"),
    "no segments": (lambda c: c["annotations"][0].pop("segments_info"), "has no 'segments_info'"),
    "segments of another kind": (lambda c: c["annotations"][0].update(segments_info=5), "expected a list"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_files_that_are_refused(tmp_path: Path, fault: str) -> None:
    edit, message = FAULTY[fault]
    path = write(tmp_path)
    change(path, edit)
    with pytest.raises(DataError, match=message) as caught:
        open_data(tmp_path)
    assert str(path) in str(caught.value)
    assert not examine(tmp_path).ok


WRONG: dict[str, tuple[Callable[[list[Any]], object], str]] = {
    "an id that the table lacks": (lambda s: s.pop(), r"ids that are in no table: 9 \(3 pixels\)"),
    "a segment that the map lacks": (lambda s: s.append({"id": 8, "category_id": 1}), r"the ids \[8\] own no pixel"),
    "an id twice": (lambda s: s.append(s[0]), "the id 5 is there twice"),
    "an unknown category": (lambda s: s[0].update(category_id=2), "category 2, neither a class nor void"),
    "a row that is a number": (lambda s: s.append(5), "the row 5 lacks"),
    "an id of text": (lambda s: s[0].update(id="5"), "must be whole numbers"),
    "an area that is no number": (lambda s: s[0].update(area="big"), "'area' of some segment"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_tables_that_contradict_the_map_are_refused(tmp_path: Path, fault: str) -> None:
    edit, message = WRONG[fault]
    path = write(tmp_path)
    change(path, lambda content: edit(content["annotations"][0]["segments_info"]))
    with pytest.raises(DataError, match=message) as caught:
        first(open_data(tmp_path))
    assert str(tmp_path / "panoptic/1.png") in str(caught.value)
    (finding,) = [f for f in examine(tmp_path).findings if f.severity == "error" and f.code == "truth"]
    assert finding.files == ("panoptic/1.png",)


def test_maps_that_are_missing_grey_or_of_another_size(tmp_path: Path) -> None:
    write(tmp_path, numbers=(1, 2, 3))
    (tmp_path / "panoptic/1.png").unlink()
    Image.fromarray(IDS.astype(np.uint8)).save(tmp_path / "panoptic/2.png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "panoptic/3.png")
    data = open_data(tmp_path)
    for record, words in zip(sorted(data, key=lambda r: r.name), ("no such file", "RGB", "own no pixel")):
        with pytest.raises(DataError, match=words):
            data.read(record)
    found = {(f.code, name) for f in examine(tmp_path).findings for name in f.files if f.severity == "error"}
    assert {("unreadable", "panoptic/1.png"), ("truth", "panoptic/2.png"), ("size-differs", "panoptic/3.png")} <= found


def test_areas_that_differ_from_the_pixels_are_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path)
    change(path, lambda content: content["annotations"][0]["segments_info"][0].update(area=7))
    (finding,) = [f for f in examine(tmp_path).findings if f.code == "area-differs"]
    assert finding.details == ("1 segments, the first 5: area 7, pixels 3",)
    assert first(open_data(tmp_path)).areas[0] == 7


@pytest.mark.skipif(DATA is None, reason="PIXELWISE_DATA is not set: it names the folder of real data sets")
def test_cocos_own_sample() -> None:
    """Three images of val2017; the facts are those of its JSON, read here without the package."""
    root = Path(DATA or "") / "coco_panoptic_sample"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    content = json.loads((root / "panoptic.json").read_text())
    data = open_data(root)
    assert (data.format, data.default_task, len(data), len(data.classes)) == ("coco_panoptic", "panoptic", 3, 133)
    assert len(data.classes.things) == 80
    task = make_task("panoptic", data.classes)
    metric = task.metric()
    for record in data:
        truth = data.read(record).truth
        assert truth is not None
        (told,) = [a for a in content["annotations"] if a["file_name"] == f"{record.name}.png"]
        with Image.open(root / "panoptic" / told["file_name"]) as image:
            red, green, blue = np.moveaxis(np.asarray(image).astype(int), -1, 0)
        ids = red + 256 * green + 65536 * blue
        for row, info in enumerate(told["segments_info"]):
            np.testing.assert_array_equal(truth.ids[0] == row, ids == info["id"])
            assert data.classes.ids[int(truth.labels[row])] == info["category_id"]
        assert truth.areas.tolist() == truth.pixel_counts.tolist()
        seen = task.view(truth)
        metric.update(seen, seen)
    scores = metric.compute()
    assert (scores["pq"], scores["pq_things"], scores["pq_stuff"]) == (1.0, 1.0, 1.0)
    findings = examine(root)
    assert [f.code for f in findings.of("error")] == ["no-train"]
