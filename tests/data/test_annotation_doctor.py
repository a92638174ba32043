"""The doctor on annotations in JSON: each fault is handled as the field's tools do, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pixelwise.cli import main
from pixelwise.core import rle
from pixelwise.data.dataset import open_data
from pixelwise.data.doctor import Findings, admit, examine
from pixelwise.data.doctor.kinds import KINDS
from pixelwise.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
SIZE = (48, 64)
SPLITS = {"train": 3, "val": 2}


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def square(x: float, y: float, side: float = 10) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def note(number: int, image: int, kind: int = 1, at: tuple[int, int] = (5, 5), **more: Any) -> dict[str, Any]:
    x, y = at
    given = {"id": number, "image_id": image, "category_id": kind, "segmentation": [square(x, y)], "iscrowd": 0}
    return {**given, "area": 100, "bbox": [x, y, 10, 10], **more}


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Nothing wrong: images 1.. of each split with a cat and a dog each; `write` puts them to disk."""
    made: dict[str, dict[str, Any]] = {}
    number = 0
    for split, count in SPLITS.items():
        images, notes = [], []
        for _ in range(count):
            number += 1
            picture(tmp_path / f"images/{number}.png", number)
            images.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
            notes += [note(10 * number, number), note(10 * number + 1, number, 2, (30, 20))]
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        made[split] = {"images": images, "annotations": notes, "categories": categories}
    return made


@pytest.fixture
def check(tmp_path: Path, tables: dict[str, dict[str, Any]]) -> Callable[..., Findings]:
    """check(quick=): writes the tables and examines."""

    def checked(quick: bool = False, **options: Any) -> Findings:
        for split, table in tables.items():
            (tmp_path / f"{split}.json").write_text(json.dumps(table))
        return examine(tmp_path, quick=quick, options=options)

    return checked


def codes(findings: Findings) -> list[str]:
    return [finding.code for finding in findings.findings]


def told(findings: Findings, code: str) -> str:
    """The lines of the one finding of that code."""
    (finding,) = [f for f in findings.findings if f.code == code]
    return "\n".join(f"{name}: {detail}" for name, detail in zip(finding.files, finding.details))


@pytest.mark.parametrize("quick", [True, False])
def test_nothing_wrong(check: Callable[..., Findings], quick: bool) -> None:
    findings = check(quick)
    assert codes(findings) == []
    assert findings.format == "coco"
    assert findings.splits == SPLITS
    assert findings.censuses["train"].objects.tolist() == [3, 3]


Change = Callable[[dict[str, Any]], None]


def first(**more: Any) -> Change:
    def change(table: dict[str, Any]) -> None:
        table["annotations"][0].update(more)

    return change


def added(*notes: Any) -> Change:
    def change(table: dict[str, Any]) -> None:
        table["annotations"] += notes

    return change


def emptied(table: dict[str, Any]) -> None:
    table["annotations"] = [n for n in table["annotations"] if n["image_id"] != 1]


def unlisted(table: dict[str, Any]) -> None:
    table["images"] = table["images"][1:]
    emptied(table)


def many(table: dict[str, Any]) -> None:
    table["annotations"] += [note(1000 + i, 1, 1, (i % 50, i // 50)) for i in range(1998)]


CROSSING = [[5, 5, 25, 25, 25, 5, 5, 25]]
HANDLED: dict[str, tuple[Change, str, str]] = {
    "a box of zero area": (first(bbox=[5, 5, 0, 10]), "empty-box", "images/1.png: annotation 10"),
    "a polygon of two points beside a good one": (first(segmentation=[square(5, 5), [1, 1, 9, 9]]), "short-polygon",
                                                  "images/1.png: annotation 10"),
    "a self-crossing polygon": (first(segmentation=CROSSING), "self-crossing", "images/1.png: annotation 10"),
    "a polygon that leaves the image": (first(segmentation=[square(-30, 5, 40)]), "outside", "images/1.png"),
    "an annotation of an image that is not listed": (added(note(99, 77)), "orphans",
                                                     "train.json: 1 annotations, the first of image 77"),
    "an id twice": (added(note(10, 2, 1, (45, 30))), "duplicate-id", "train.json: 1 ids, the first 10 (2 times)"),
    "an image without annotation": (emptied, "no-object", "images/1.png"),
    "an image that is not listed": (unlisted, "image-unlisted", "images/1.png"),
    "an object without pixels": (first(segmentation=[[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]]), "no-pixel",
                                 "images/1.png: 1 object, id 10"),
    "a box alone": (first(segmentation=[]), "boxes-only", "images/1.png: 1 object, id 10"),
    "pieces": (first(segmentation=[square(1, 1, 3), square(10, 10, 3)]), "pieces", "images/1.png: 1 object, id 10"),
    "overlaps": (added(note(99, 1, 2, (8, 8))), "overlaps", "images/1.png: 49 pixels of several objects"),
    "thousands of objects": (many, "many-objects", "images/1.png: 2,000 objects"),
}  # fmt: skip


@pytest.mark.parametrize("fault", HANDLED)
def test_what_is_handled_is_said_and_trains(
    tmp_path: Path, tables: dict[str, dict[str, Any]], check: Callable[..., Findings], fault: str
) -> None:
    change, code, words = HANDLED[fault]
    change(tables["train"])
    findings = check()
    assert findings.ok
    assert words in told(findings, code)
    assert set(codes(findings)) <= {code, "overlaps", "pieces", "no-object", "imbalance"}
    data = open_data(tmp_path)
    assert all(data.read(record).truth is not None for record in data)
    said: list[str] = []
    admit(tmp_path, None, said.append)
    warns = KINDS[code].severity == "warning"
    assert any(KINDS[code].one.split()[-1] in line or "images" in line or "files" in line for line in said) == warns


REFUSED: dict[str, tuple[Change, str]] = {
    "an annotation that is a number": (added(5), "annotations[6]: is a number, expected an object"),
    "an annotation without category": (
        lambda t: t["annotations"][0].pop("category_id"),
        "(id 10): has no 'category_id'",
    ),
    "an unknown category": (first(category_id=3), "categories that are not listed: 3"),
    "an image without a name": (lambda t: t["images"].append({"id": 50}), "has no 'file_name'"),
    "code of another size": (first(segmentation=rle.encode(np.ones((9, 9), bool))), "is for [9, 9]"),
    "not a number": (first(segmentation=[[float("nan"), 1, 2, 3, 4, 5]]), "not finite"),
    "an area that is not a number": (first(area=float("nan")), "its area is nan"),
    "words for numbers": (first(segmentation=[["a"] * 6]), "must be numbers"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused_is_named_and_the_rest_examined(
    tmp_path: Path, tables: dict[str, dict[str, Any]], check: Callable[..., Findings], fault: str
) -> None:
    change, words = REFUSED[fault]
    change(tables["train"])
    tables["val"]["annotations"][0]["bbox"] = [1, 1, 0, 0]
    findings = check()
    assert not findings.ok
    assert words in told(findings, "annotation")
    assert "train.json" in told(findings, "annotation")
    assert "images/4.png" in told(findings, "empty-box")
    with pytest.raises(DataError, match="cannot be trained on"):
        admit(tmp_path, None, lambda line: None)


def test_every_bad_annotation_of_an_image_is_named(
    tables: dict[str, dict[str, Any]], check: Callable[..., Findings]
) -> None:
    for entry in tables["train"]["annotations"][:4]:
        entry["segmentation"] = [[1, 2, 3]]
    found = told(check(), "annotation")
    for key, image in ((10, 1), (11, 1), (20, 2), (21, 2)):
        assert f"annotation {key} of image '{image}'" in found


def test_an_image_that_is_not_there(
    tmp_path: Path, tables: dict[str, dict[str, Any]], check: Callable[..., Findings]
) -> None:
    (tmp_path / "images/2.png").unlink()
    findings = check()
    assert told(findings, "image-missing") == "train.json: image '2.png' is listed and is not there"
    assert not findings.ok
    assert check(missing="skip").ok


def test_an_image_of_another_size_than_listed(
    tables: dict[str, dict[str, Any]], check: Callable[..., Findings]
) -> None:
    tables["train"]["images"][0]["width"] = 63
    findings = check()
    assert "images/1.png" in told(findings, "size-differs")
    assert not findings.ok


def test_gaps_between_category_ids_are_a_note(
    tables: dict[str, dict[str, Any]], check: Callable[..., Findings]
) -> None:
    for table in tables.values():
        table["categories"][1]["id"] = 90
        for entry in table["annotations"]:
            entry["category_id"] = 90 if entry["category_id"] == 2 else 1
    findings = check()
    assert codes(findings) == []
    assert any("Category ids leave gaps: 2 from 1 to 90" in said for said in findings.notes)


@pytest.mark.parametrize("text", ['{"images": [{"id"', "[]", '{"images": []}', '{"images": 3, "annotations": []}'])
def test_files_that_are_no_coco_are_one_finding(
    tmp_path: Path, tables: dict[str, dict[str, Any]], check: Callable[..., Findings], text: str
) -> None:
    check()
    (tmp_path / "train.json").write_text(text)
    findings = examine(tmp_path, format="coco")
    assert not findings.ok or text == "[]"  # a list is no COCO file: the other split is read alone
    assert findings.splits.get("train", 0) == 0


def test_the_command_prints_it_and_exits_with_1(
    tmp_path: Path,
    tables: dict[str, dict[str, Any]],
    check: Callable[..., Findings],
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables["train"]["annotations"][0]["segmentation"] = [[1, 2, 3]]
    check()
    with pytest.raises(SystemExit) as stopped:
        main(["check", str(tmp_path)])
    assert stopped.value.code == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "annotation 10 of image '1'" in printed
    assert "instance segmentation" in printed


def test_two_points_are_not_taken_for_a_box(
    tmp_path: Path, tables: dict[str, dict[str, Any]], check: Callable[..., Findings]
) -> None:
    """pycocotools takes four numbers for x, y, width, height, and fails; detectron2 leaves such polygons out."""
    tables["train"]["annotations"][0]["segmentation"] = [[5, 5, 20, 10]]
    check()
    reference = COCO(tmp_path / "train.json")
    with pytest.raises(TypeError):
        reference.annToMask(reference.anns[10])
    data = open_data(tmp_path)
    truth = data.read(data.records("train")[0]).truth
    assert truth is not None
    assert truth.pixel_counts.tolist() == [0, 100]
