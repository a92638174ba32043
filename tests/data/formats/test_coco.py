"""COCO instances: truth against pycocotools, the layouts people have, and what is wrong with annotations."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pixelwise.core import rle
from pixelwise.core.segments import BOX, NOTHING, UNKNOWN
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.doctor import examine
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics.precision import AveragePrecision

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
SIZE = (40, 60)
DATA = os.environ.get("PIXELWISE_DATA")
SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]
BLOB = np.zeros(SIZE, bool)
BLOB[5:30, 8:33] = True
BLOB[12:20, 14:22] = False  # a hole


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(str(path))).integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(path)


def note(number: int, image: int = 1, segmentation: Any = SQUARE, **more: Any) -> dict[str, Any]:
    given = {"id": number, "image_id": image, "category_id": 3, "segmentation": segmentation, "iscrowd": 0}
    return {**given, "area": 100.0, "bbox": [10, 10, 10, 10], **more}


def table(annotations: list[Any], images: int = 1, **more: Any) -> dict[str, Any]:
    listed = [{"id": i + 1, "file_name": f"{i + 1}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(images)]
    categories = [{"id": 3, "name": "cat"}, {"id": 17, "name": "dog"}, {"id": 90, "name": "cow"}]
    return {"images": listed, "annotations": annotations, "categories": categories, **more}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """make(table, images=, name=): a root with train.json and images/1.png, ..."""

    def made(content: Any, images: int = 1, name: str = "train.json") -> Path:
        for i in range(images):
            picture(tmp_path / f"images/{i + 1}.png")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return made


def only(data: DataSet) -> Any:
    """The truth of the only image of the training split."""
    (record,) = data.records("train")
    return data.read(record).truth


def loose_runs(mask: np.ndarray) -> dict[str, Any]:
    code = rle.encode(mask)
    return {"size": code["size"], "counts": rle.unpack(code["counts"])}


RNG = np.random.default_rng(5)
KINDS = {
    "one part": SQUARE,
    "several parts": [[1, 1, 9, 2, 8, 9], [30.5, 20.25, 50.75, 22, 41, 38.5]],
    "a part within another": [[5, 5, 35, 5, 35, 35, 5, 35], [10, 10, 20, 10, 20, 20, 10, 20]],
    "self-crossing": [[5, 5, 35, 35, 35, 5, 5, 35]],
    "leaves the image": [[-20, -20, 90, 5, 30, 70]],
    "many points": [RNG.uniform(0, 40, 400).round(2).tolist()],
    "packed code with a hole": rle.encode(BLOB),
    "plain code with a hole": loose_runs(BLOB),
    "empty code": {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_pycocotools(make: Callable[..., Path], kind: str) -> None:
    root = make(table([note(1, segmentation=KINDS[kind])]))
    truth = only(open_data(root))
    reference = COCO(root / "train.json")
    np.testing.assert_array_equal(truth.masks[0].numpy(), reference.annToMask(reference.anns[1]).astype(bool))


def test_columns_are_as_annotated(make: Callable[..., Path]) -> None:
    notes = [note(7, area=12.5, bbox=[1.5, 2, 3, 4]), note(5, iscrowd=1, segmentation=loose_runs(BLOB), category_id=90),
             note(6, segmentation=[[30, 1, 40, 1, 40, 9, 30, 9]], category_id=17)]  # fmt: skip
    data = open_data(make(table(notes)))
    truth = only(data)
    assert (data.format, data.default_task) == ("coco", "instance")
    assert (data.classes.names, data.classes.ids) == (("cat", "dog", "cow"), (3, 17, 90))
    assert data.classes.things == data.classes.names
    assert data.classes.nothing
    assert any("leave gaps" in said for said in data.notes)
    assert truth.keys.tolist() == [7, 6, 5]  # crowds come last, as COCO's evaluation takes them
    assert truth.crowd.tolist() == [False, False, True]
    assert truth.labels.tolist() == [0, 1, 2]
    assert truth.areas.tolist() == [12.5, 100, 100]
    assert truth.boxes[0].tolist() == [1.5, 2, 4.5, 6]
    assert len(truth.ids) == 2  # the crowd overlaps the first object
    assert int(truth.ids[0, 0, 0]) == NOTHING


def test_what_is_not_given_comes_from_the_pixels(make: Callable[..., Path]) -> None:
    notes = [note(1), note(2, bbox=[0, 0, 0, 0])]
    del notes[0]["area"], notes[0]["bbox"]
    truth = only(open_data(make(table(notes))))
    assert truth.areas.tolist() == [float(truth.masks[0].sum()), 100]
    assert truth.boxes.tolist() == [[10, 10, 20, 20]] * 2


def test_a_box_alone_is_a_row_of_its_kind_and_its_pixels_are_unknown(make: Callable[..., Path]) -> None:
    boxed = note(2, segmentation=[], bbox=[30, 20, 10.5, 5])
    truth = only(open_data(make(table([note(1), boxed]))))
    assert truth.kind.tolist() == [0, BOX]
    assert truth.pixel_counts.tolist() == [100, 0]
    assert truth.boxes[1].tolist() == [30, 20, 40.5, 25]
    assert (truth.ids[0, 20:25, 30:41] == UNKNOWN).all()
    assert int((truth.ids == UNKNOWN).sum()) == 5 * 11


def test_an_image_without_annotation_shows_no_object(make: Callable[..., Path]) -> None:
    data = open_data(make(table([note(1)], images=2), images=2))
    truth = data.read(data.records("train")[1]).truth
    assert truth is not None
    assert (len(truth), int(truth.ids.max())) == (0, NOTHING)


def test_a_file_without_annotations_is_for_prediction(make: Callable[..., Path]) -> None:
    make(table([note(1)]))
    other = table([])
    other["images"][0]["file_name"] = "2.png"
    data = open_data(make(other, images=2, name="test.json"))
    assert [record.labelled for record in data.records("test")] == [False]
    assert data.read(data.records("test")[0]).truth is None
    assert any("can be predicted, not scored" in said for said in data.notes)


@pytest.mark.parametrize(
    "layout",
    ["official", "below images", "roboflow", "beside", "folders of the files' names", "lists", "foldered names"],
)
def test_layouts(tmp_path: Path, layout: str) -> None:
    files = {
        "official": ("annotations/instances_{}2017.json", "{}2017/{}.png"),
        "below images": ("annotations/instances_{}2017.json", "images/{}2017/{}.png"),
        "roboflow": ("{}/_annotations.coco.json", "{}/{}.png"),
        "beside": ("{}.json", "images/{1}.png"),
        "folders of the files' names": ("{}.json", "{}/{}.png"),
        "foldered names": ("annotations/{}.json", "JPEGImages/{1}.png"),
    }
    if layout == "lists":
        content = table([note(1), note(2, image=2)], images=3)
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        for i in (1, 2, 3):
            picture(tmp_path / f"images/{i}.png")
        (tmp_path / "splits").mkdir()
        (tmp_path / "splits/train.txt").write_text("1\n3.png\n")
        (tmp_path / "splits/val.txt").write_text("2\n")
    else:
        names, images = files[layout]
        for at, split in enumerate(("train", "val")):
            content = table([note(1, image=5)])
            word = "valid" if layout == "roboflow" and split == "val" else split
            name = f"{'JPEGImages/' if layout == 'foldered names' else ''}{at}.png"
            content["images"] = [{"id": 5, "file_name": name, "height": SIZE[0], "width": SIZE[1]}]
            path = tmp_path / names.format(word)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(tmp_path / images.format(word, at))
            path.write_text(json.dumps(content))
    data = open_data(tmp_path)
    assert data.format == "coco"
    assert list(data.splits) == ["train", "val"]
    assert not [fault for fault in data.faults if fault.fatal]
    assert len(data.read(data.records("val")[0]).truth or ()) == 1


@pytest.mark.parametrize(
    "text", ['{"info": {"a": 1}}', '{"version": "5", "images": []}', "[]", "", "{", '{"names": []}']
)
def test_other_json_does_not_make_a_folder_coco(tmp_path: Path, text: str) -> None:
    for name in "ab":
        picture(tmp_path / f"images/{name}.png")
        Image.fromarray(np.eye(*SIZE, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "masks").mkdir()
    for name in "ab":
        (tmp_path / f"{name}.png").rename(tmp_path / f"masks/{name}.png")
    (tmp_path / "about.json").write_text(text)
    assert open_data(tmp_path).format == "folder"


def test_categories_that_are_no_class_are_left_out(make: Callable[..., Path]) -> None:
    content = table([note(1)])
    content["categories"] = [{"id": 0, "name": "_background_"}, {"id": 3, "name": "cat"}]
    assert open_data(make(content)).classes.names == ("cat",)
    content["categories"] = [{"id": 0, "name": "pets", "supercategory": "none"},
                             {"id": 3, "name": "cat", "supercategory": "pets"}]  # fmt: skip
    assert open_data(make(content)).classes.names == ("cat",)


def test_workers_get_places_and_not_annotations(make: Callable[..., Path]) -> None:
    big = [RNG.uniform(5, 35, 2000).round(2).tolist()]
    root, sizes = make(table([])), []
    for count in (10, 20):
        make(table([note(i, segmentation=big) for i in range(count)]))
        sizes.append(len(pickle.dumps(open_data(root).reader)))
    assert sizes[1] - sizes[0] <= 10 * 40
    data = pickle.loads(pickle.dumps(open_data(root)))
    assert len(only(data)) == 20


def test_a_file_that_changed_is_refused(make: Callable[..., Path]) -> None:
    root = make(table([note(1)]))
    data = open_data(root)
    make(table([note(1), note(2)]))
    with pytest.raises(DataError, match="has changed since"):
        only(data)


def test_names_that_are_not_ascii(make: Callable[..., Path]) -> None:
    content = table([note(1, remark="größer")])
    content["categories"] = [{"id": 3, "name": "Möwe 鷗"}]
    text = "\ufeff" + json.dumps(content, ensure_ascii=False)
    data = open_data(make(text))
    assert data.classes.names == ("Möwe 鷗",)
    assert len(only(data)) == 1


def test_two_thousand_objects_in_one_image(make: Callable[..., Path]) -> None:
    notes = []
    for i in range(2000):
        x, y = i % 58, (i // 58) % 38
        notes.append(note(i, segmentation=[[x, y, x + 2, y, x + 2, y + 2, x, y + 2]]))
    root = make(table(notes))
    truth = only(open_data(root))
    assert len(truth) == 2000
    assert (truth.pixel_counts == 4).all()
    assert len(truth.ids) < 40  # each overlaps the one before it: a layer each would be 2,000


def test_fifty_polygons_are_read_within_a_tenth_of_a_second(make: Callable[..., Path]) -> None:
    """A few hundredths on a slow machine; the bound leaves room for a busy one."""
    notes = [note(i, segmentation=[RNG.uniform(5, 35, 48).round(2).tolist()]) for i in range(50)]
    data = open_data(make(table(notes)))
    (record,) = data.records("train")
    times = []
    for _ in range(5):
        start = time.process_time()
        data.reader(record)
        times.append(time.process_time() - start)
    assert min(times) < 0.1


FAULTY: dict[str, tuple[Any, str]] = {
    "cut off": (json.dumps(table([note(1)]))[:-40], "is no whole JSON file"),
    "no number": ('{"images": [nul', "is no whole JSON file"),
    "more behind": (json.dumps(table([note(1)])) + "x", "something behind the end"),
    "no images": ({"annotations": [], "categories": []}, "has no 'images'"),
    "images are no list": ({"images": {"a": 1}, "categories": []}, "'images' is an object, expected a list"),
    "no image at all": ({"images": [], "categories": []}, "lists no image"),
    "image without name": ({"images": [{"id": 1}], "categories": []}, r"images\[0\] \(id 1\): has no 'file_name'"),
    "size of text": (
        table([], images=1) | {"images": [{"id": 1, "file_name": "1.png", "height": "4"}]},
        "whole numbers",
    ),
    "no category": (table([note(1)]) | {"categories": []}, "lists no category"),
    "category twice": (table([]) | {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "stands 2 times"),
    "name twice": (table([]) | {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "must differ"),
    "category unknown": (table([note(1, category_id=4)]), "categories that are not listed: 4"),
    "no image id": (table([{"id": 1, "category_id": 3}]), r"annotations\[0\] \(id 1\): has no 'image_id'"),
    "a list for an annotation": (table([[1]]), r"annotations\[0\]: is a list, expected an object"),
    "id of text": (table([note("a")]), r"'id' is 'a', expected a whole number"),  # type: ignore[arg-type]
    "image twice": (
        table([note(1)]) | {"images": table([])["images"] * 2},
        r"images\[1\] \(id 1\): the id is there already",
    ),
    "image not there": (table([note(1)], images=2), "image '2.png' is listed and is not there"),
    "all are orphans": (table([note(1, image=9)]), "the first of image 9"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_files_that_are_refused(make: Callable[..., Path], fault: str) -> None:
    content, message = FAULTY[fault]
    root = make(content)
    with pytest.raises(DataError, match=message) as caught:
        open_data(root, "coco", annotations="train.json")
    assert str(root / "train.json") in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", '"text"', "", "  ", "\x00\x01\x02"])
def test_what_is_no_object_is_no_coco(make: Callable[..., Path], text: str) -> None:
    root = make(text)
    with pytest.raises(DataError, match=r"train\.json"):
        open_data(root, "coco", annotations="train.json")


WRONG: dict[str, tuple[Any, str]] = {
    "code of another size": (rle.encode(np.ones((9, 9), bool)), r"is for \[9, 9\], the image has \[40, 60\]"),
    "code that does not fill": ({"size": list(SIZE), "counts": [5, 7]}, "covers 12 pixels"),
    "code without counts": ({"size": list(SIZE)}, "malformed"),
    "counts of fractions": ({"size": list(SIZE), "counts": [0.5, 2399.5]}, "malformed"),
    "text that is no code": ({"size": list(SIZE), "counts": "\u00ff\u00ff"}, "COCO's alphabet"),
    "not a number": ([[float("nan"), 1, 2, 3, 4, 5]], "not finite"),
    "infinite": ([[1e400, 1, 2, 3, 4, 5]], "not finite"),
    "odd": ([[1, 2, 3, 4, 5, 6, 7]], "even number"),
    "text": ("polygon", "is a text, expected polygons"),
    "flat list": ([1, 2, 3, 4, 5, 6], "holds a number"),
    "words": ([["a", "b", "c", "d", "e", "f"]], "must be numbers"),
    "in other units": ([[0, 0, 1e9, 0, 1e9, 1e9]], "in pixels"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_segmentations_that_are_refused(make: Callable[..., Path], fault: str) -> None:
    segmentation, message = WRONG[fault]
    data = open_data(make(table([note(1), note(41, segmentation=segmentation)])))
    with pytest.raises(DataError, match=message) as caught:
        only(data)
    assert "annotation 41 of image '1'" in str(caught.value)
    assert "train.json" in str(caught.value)


@pytest.mark.parametrize("more", [{"area": float("nan")}, {"area": "big"}, {"bbox": [1, 2, 3]},
                                  {"bbox": [1, 2, None, 4]}, {"segmentation": None, "bbox": None}])  # fmt: skip
def test_numbers_that_are_refused(make: Callable[..., Path], more: dict[str, Any]) -> None:
    data = open_data(make(table([note(41, **more)])))
    with pytest.raises(DataError, match="annotation 41 of image '1'"):
        only(data)


def test_images_of_two_splits_may_have_one_name(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / split / "1.png")
        (tmp_path / f"{split}.json").write_text(json.dumps(table([note(1)])))
    data = open_data(tmp_path)
    assert [record.name for record in data] == ["train/1", "val/1"]
    assert [data.read(record).truth.pixel_counts.tolist() for record in data] == [[100], [100]]


def test_one_image_listed_twice_is_refused(make: Callable[..., Path]) -> None:
    content = table([note(1)], images=2)
    content["images"][1]["file_name"] = "1.png"
    with pytest.raises(DataError, match="have the same name '1' in the split 'train'; list each image once"):
        open_data(make(content))


def test_images_may_be_named_from_the_root_of_the_disk(make: Callable[..., Path], tmp_path: Path) -> None:
    content = table([note(1)], images=2)
    content["images"][0]["file_name"] = str(tmp_path / "images/1.png")
    data = open_data(make(content, images=2))
    assert [(record.name, record.image) for record in data] == [
        ("1", tmp_path / "images/1.png"), ("2", tmp_path / "images/2.png")]  # fmt: skip


def test_nobody_is_told_to_remove_files_of_others(make: Callable[..., Path], tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_text("no image")
    content = table([note(1)], images=2)
    content["images"][0]["file_name"] = str(other)
    root = make(content, images=2).rename(tmp_path.with_name(f"{tmp_path.name}-set"))
    (tmp_path / "other.png").parent.mkdir()
    other.write_text("no image")
    told = {finding.code: finding.command for finding in examine(root).findings}
    assert told["unreadable"] == ""


def test_missing_images_can_be_skipped(make: Callable[..., Path]) -> None:
    data = open_data(make(table([note(1)], images=2)), missing="skip")
    assert [record.name for record in data] == ["1"]
    assert any("are left out" in said for said in data.notes)
    with pytest.raises(ConfigError, match="refuse"):
        open_data(data.root, missing="perhaps")


def test_splits_with_other_categories_are_refused(make: Callable[..., Path]) -> None:
    make(table([note(1)]))
    other = table([note(1)]) | {"categories": [{"id": 3, "name": "horse"}]}
    other["images"][0]["file_name"] = "2.png"
    root = make(other, images=2, name="val.json")
    with pytest.raises(DataError, match=r"val.json: the category 3 is 'horse', in .*train.json it is 'cat'"):
        open_data(root)


def test_names_do_not_lead_out_of_the_folder(make: Callable[..., Path], tmp_path: Path) -> None:
    picture(tmp_path / "outside.png")
    content = table([note(1)])
    content["images"][0]["file_name"] = "../outside.png"
    assert open_data(make(content)).records("train")[0].name == "outside"


@pytest.mark.skipif(DATA is None, reason="PIXELWISE_DATA is not set: it names the folder of real data sets")
@pytest.mark.parametrize("name", ["coco_panoptic_sample/instances_39769.json",
                                  "format_samples/labelme_voc2011/data_dataset_coco/annotations.json"])  # fmt: skip
def test_real_files_against_pycocotools(name: str) -> None:
    path = Path(DATA or "") / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    reference, data = COCO(path), open_data(path.parent, "coco")
    by_name = {Path(image["file_name"]).stem: image["id"] for image in reference.imgs.values()}
    metric, seen = AveragePrecision(data.classes), 0
    for at, record in enumerate(data):
        truth = data.read(record).truth
        assert truth is not None
        for key, mask, area, label in zip(
            truth.keys.tolist(), truth.masks, truth.areas.tolist(), truth.labels.tolist()
        ):
            annotation = reference.anns[key]
            np.testing.assert_array_equal(mask.numpy(), reference.annToMask(annotation).astype(bool))
            assert float(coco_mask.area(reference.annToRLE(annotation))) == float(mask.sum())
            assert area == np.float32(annotation["area"])
            assert data.classes.ids[label] == annotation["category_id"]
            assert annotation["image_id"] == by_name[Path(record.name).stem]
        metric.update(truth, truth, index=at)
        seen += len(truth)
    assert seen == len(reference.anns)
    assert metric.compute()["ap"] == 1.0


@pytest.fixture
def with_maps(make: Callable[..., Path]) -> Path:
    """A square of a cat and one of a dog that overlaps it, over soil; a part of the map is void, a part is a cat's."""
    dog = note(2, segmentation=[[15, 15, 30, 15, 30, 30, 15, 30]], category_id=17)
    root = make(table([note(1), dog]))
    ids = np.full(SIZE, 7, np.uint8)
    ids[10:20, 10:20], ids[20:30, 15:30], ids[0, :], ids[35, :4] = 3, 17, 255, 3
    (root / "masks").mkdir()
    Image.fromarray(ids).save(root / "masks/1.png")
    (root / "classes.txt").write_text("7 soil\n3 cat\n17 dog\n90 cow\n255 void\n")
    return root


def test_objects_and_class_maps_are_panoptic(with_maps: Path) -> None:
    data = pickle.loads(pickle.dumps(open_data(with_maps)))
    assert (data.default_task, data.classes.names, data.classes.things) == (
        "panoptic",
        ("soil", "cat", "dog", "cow"),
        ("cat", "dog", "cow"),
    )
    truth = only(data)
    assert truth.labels.tolist() == [0, 1, 1, 2]
    assert truth.keys.tolist() == [7, 3, 1, 2]
    assert truth.crowd.tolist() == [False, True, False, False]
    assert truth.pixel_counts.tolist() == [2400 - 60 - 300 - 4, 4, 100, 200]  # the smaller one keeps its 25
    assert int(truth.unknown.sum()) == 60
    (said,) = [f.message for f in examine(with_maps).findings if f.code == "joined"]
    assert "pixels of several objects, given to the smaller one: 25" in said
    assert "pixels of a thing class in no object, a crowd of that class: 4" in said
    plain = data.without_instances()
    assert only(plain).labels.tolist() == [0, 1, 2, 3]
    assert open_data(with_maps, class_maps="").default_task == "instance"


def test_class_maps_that_do_not_fit_are_refused(with_maps: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        open_data(with_maps, class_maps="maps")
    (with_maps / "classes.txt").write_text("7 soil\n3 cat\n17 hound\n90 cow\n255 void\n")
    with pytest.raises(DataError, match="the category 'dog' is no class of the table"):
        open_data(with_maps)
    (with_maps / "classes.txt").write_text("7 soil\n3 cat thing\n17 dog\n90 cow\n255 void\n")
    with pytest.raises(DataError, match="the category 'dog' is no thing"):
        open_data(with_maps)
    (with_maps / "masks/1.png").rename(with_maps / "masks/2.png")
    (with_maps / "classes.txt").write_text("7 soil\n3 cat\n17 dog\n90 cow\n255 void\n")
    with pytest.raises(DataError, match="there is no class map of the name '1'"):
        open_data(with_maps)
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(with_maps / "masks/1.png")
    with pytest.raises(DataError, match=r"class map is \[9, 9\], the objects are \[40, 60\]"):
        only(open_data(with_maps))
