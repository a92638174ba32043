"""Writers against tools that others wrote: pycocotools, panopticapi's rules, Cityscapes' evaluator, GeoJSON's RFC."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools.coco import COCO

from pixelwise.core import registry
from pixelwise.core.classes import Classes
from pixelwise.core.polygons import fill, join, trace
from pixelwise.core.segments import BOX, TAG, Segments
from pixelwise.data.writer import Item, open_writer
from pixelwise.errors import ConfigError, DataError

CLASSES = Classes(names=("road", "car", "person"), things=("car", "person"), ids=(7, 26, 24), void=(0,))
few = settings(max_examples=20, deadline=None, derandomize=True)


def scene() -> Segments:
    """Road below, two cars (one with a hole, one in two pieces), a crowd of people, and unknown pixels."""
    masks = np.zeros((4, 16, 24), bool)
    masks[0, 10:] = True
    masks[1, 2:9, 2:9], masks[1, 4:6, 4:6] = True, False
    masks[2, 1:4, 12:15], masks[2, 6:8, 16:20] = True, True
    masks[3, 8:12, 20:24] = True
    void = np.zeros((16, 24), bool)
    void[:2] = True
    return Segments.from_masks(masks, [0, 1, 1, 2], scores=[1, 0.5, 0.25, 1], crowd=[0, 0, 0, 1], void=void)


def write(name: str, out: Path, items: list[Item], classes: Classes = CLASSES, **options: object) -> tuple[str, ...]:
    writer = open_writer(name, out, classes, **options)
    for item in items:
        for path in writer.write(item):
            assert path.is_file()
    return writer.finish()


def test_every_writer_describes_itself_and_refuses_a_word_it_does_not_know(tmp_path: Path) -> None:
    for name in registry.modules("writers"):
        module = registry.load("writers", name)
        assert module.DESCRIPTION
        assert isinstance(module.BESIDE, bool)
        with pytest.raises(ConfigError, match=f"Writer '{name}' has no option 'nonsense'"):
            open_writer(name, tmp_path, CLASSES, nonsense=1)


# -- COCO -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools with numpy 2
@pytest.mark.parametrize("options", [{}, {"masks": "rle"}, {"crowd": "text"}])
@few
@given(st.data())
def test_pycocotools_reads_equal_masks(tmp_path_factory, options, data) -> None:
    size, n = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12))), data.draw(st.integers(1, 4))
    masks = data.draw(hnp.arrays(bool, (n, *size)))
    crowd = data.draw(hnp.arrays(bool, n))
    out = tmp_path_factory.mktemp("coco")
    write(
        "coco", out, [Item(name="a", split="val", segments=Segments.from_masks(masks, [1] * n, crowd=crowd))], **options
    )
    coco = COCO(out / "annotations/instances_val.json")
    kept = [(mask, c) for mask, c in zip(masks, crowd) if mask.any()]
    found = list(coco.anns.values())
    assert len(found) == len(kept)
    for (mask, many), annotation in zip(kept, found):
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
        assert (annotation["iscrowd"], annotation["area"]) == (int(many), mask.sum())
        ys, xs = np.nonzero(mask)
        assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        if many:
            assert isinstance(annotation["segmentation"]["counts"], list if options.get("crowd") is None else str)


def test_a_hole_makes_a_code_and_pieces_make_polygons(tmp_path: Path) -> None:
    lost = write("coco", tmp_path, [Item(name="sub/a", split="train", segments=scene(), ending=".jpg")])
    coco = COCO(tmp_path / "annotations/instances_train.json")
    kinds = [type(a["segmentation"]).__name__ for a in coco.anns.values()]
    assert kinds == ["list", "dict", "list", "dict"]
    assert len(coco.anns[3]["segmentation"]) == 2
    assert [a.get("score") for a in coco.anns.values()] == [None, 0.5, 0.25, None]
    assert [(c["id"], c["name"], c["isthing"]) for c in coco.cats.values()] == [
        (7, "road", 0), (26, "car", 1), (24, "person", 1)]  # fmt: skip
    assert coco.imgs[1] == {"id": 1, "file_name": "sub/a.jpg", "width": 24, "height": 16}
    assert lost == ("Unknown pixels, now nothing: 45.", "Segments of stuff, now objects: 1.")


def test_annotation_ids_are_keys_where_free(tmp_path: Path) -> None:
    segments = Segments.from_masks(np.eye(3, dtype=bool)[:, None], [1, 1, 1])
    items = [Item(name=str(k), split="train", segments=replace(segments, keys=torch.tensor(keys)))
             for k, keys in enumerate(([2, 9, 4], [9, 0, 1]))]  # fmt: skip
    lost = write("coco", tmp_path, items)
    coco = COCO(tmp_path / "annotations/instances_train.json")
    assert list(coco.anns) == [2, 9, 4, 1, 3, 5]
    assert lost == ("Ids on disk that were taken or below 1, numbered anew: 3.",)


def test_rows_without_a_mask(tmp_path: Path) -> None:
    segments = replace(scene(), kind=torch.tensor([0, 0, BOX, TAG]), given_boxes=torch.ones(4, 4))
    ids = torch.where(segments.ids >= 2, -1, segments.ids)
    segments = replace(segments, ids=ids)
    lost = write("coco", tmp_path, [Item(name="a", split="train", segments=segments)])
    annotations = json.loads((tmp_path / "annotations/instances_train.json").read_text())["annotations"]
    assert [(a["segmentation"] == [], a["bbox"]) for a in annotations][-1] == (True, [1, 1, 0, 0])
    assert "Boxes, scribbles and tags without a mask, left out: 1." in lost
    lost = write("yolo", tmp_path / "yolo", [Item(name="a", split="train", segments=segments)])
    assert "Boxes, scribbles and tags without a mask, left out: 2." in lost


@few
@given(hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_one_ring_holds_every_shape(mask) -> None:
    if mask.any():
        np.testing.assert_array_equal(fill([[join(trace(mask))]], mask.shape), mask)


def test_panoptic_files_keep_panopticapis_rules(tmp_path: Path) -> None:
    """Every id of the PNG stands in the table and the other way round, areas and boxes are those of the pixels."""
    write("coco_panoptic", tmp_path, [Item(name="sub/a", split="val", segments=scene(), ending=".jpg")])
    content = json.loads((tmp_path / "annotations/panoptic_val.json").read_text())
    (annotation,) = content["annotations"]
    pixels = np.asarray(Image.open(tmp_path / "annotations/panoptic_val" / annotation["file_name"])).astype(int)
    ids = pixels @ (1, 256, 65536)
    categories = {c["id"]: c for c in content["categories"]}
    assert set(np.unique(ids)) - {0} == {info["id"] for info in annotation["segments_info"]}
    assert content["images"][0]["file_name"] == "sub/a.jpg"
    for info in annotation["segments_info"]:
        ys, xs = np.nonzero(ids == info["id"])
        assert info["area"] == len(ys)
        assert info["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert info["category_id"] in categories
        assert info["iscrowd"] in (0, 1)
    stuff = [i["category_id"] for i in annotation["segments_info"] if not categories[i["category_id"]]["isthing"]]
    assert len(stuff) == len(set(stuff)) == 1


# -- YOLO -------------------------------------------------------------------------------------------------------------


def test_yolo_files(tmp_path: Path) -> None:
    names = ('gate: "7"', "- a", "true")
    classes = Classes(names=names, things=names)
    items = [
        Item(name="a", split="train", segments=scene()),
        Item(name="b", split="val", segments=Segments.empty((4, 4))),
    ]
    write("yolo", tmp_path, items, classes)
    table = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert table == {"path": ".", "train": "images/train", "val": "images/val", "names": dict(enumerate(names))}
    lines = (tmp_path / "labels/train/a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "1"]  # the crowd is left out
    values = np.array(lines[1].split()[1:], float)
    assert values.min() >= 0
    assert values.max() <= 1
    assert (tmp_path / "labels/val/b.txt").read_text() == ""


# -- Cityscapes -------------------------------------------------------------------------------------------------------


def test_cityscapes_results(tmp_path: Path) -> None:
    classes = Classes(names=("road", "car", "whale"), things=("car", "whale"))
    lost = write("cityscapes", tmp_path, [Item(name="val/town/town_000000_000019", segments=scene())], classes)
    base = tmp_path / "val/town"
    rows = [line.split() for line in (base / "town_000000_000019.txt").read_text().splitlines()]
    assert [(r[1], float(r[2])) for r in rows] == [("26", 0.5), ("26", 0.25)]
    for (name, *_), mask in zip(rows, scene().masks[1:3].numpy()):
        np.testing.assert_array_equal(np.asarray(Image.open(base / name)), mask * 255)
    assert "Segments of stuff, which instance results do not have: 1." in lost
    with pytest.raises(ConfigError, match="None of the classes a is one of Cityscapes'"):
        open_writer("cityscapes", tmp_path, Classes(names=("a",)))
    with pytest.raises(ConfigError, match="kind is 'results', 'labels' or 'truth'"):
        open_writer("cityscapes", tmp_path, CLASSES, kind="x")
    jpeg = Item(name="a", split="val", segments=scene(), image=tmp_path / "a.jpg", ending=".jpg")
    with pytest.raises(DataError, match=r"a\.jpg: Cityscapes' images are PNG"):
        open_writer("cityscapes", tmp_path, CLASSES, kind="truth").place(jpeg)


def test_the_official_evaluators_read_the_results(tmp_path: Path) -> None:
    pytest.importorskip("cityscapesscripts", reason="cityscapesScripts is not installed")
    masks = scene().masks.numpy().repeat(8, 1).repeat(8, 2)  # the evaluator leaves out objects below 100 pixels
    large = Segments.from_masks(masks, [0, 1, 1, 2], crowd=[0, 0, 0, 1])
    items = [Item(name=f"val/town/town_{k:06d}_000019", split="val", segments=large) for k in range(2)]
    for kind in ("truth", "results", "labels"):
        write("cityscapes", tmp_path / kind, items, kind=kind)
    code = (
        "import sys, json, numpy as np; np.in1d = np.isin\n"  # which numpy 2.4 has no longer
        "import cityscapesscripts.evaluation.{module} as e\n"
        "e.args.groundTruthSearch = '{root}/truth/gtFine/val/*/*_gtFine_{word}.png'\n"
        "e.args.gtInstancesFile = '{root}/gt.json'; e.args.exportFile = '{root}/out.json'; e.args.colorized = False\n"
        "e.writeDict2JSON = lambda *a: None\n"  # which numpy's integers break
        "sys.argv = sys.argv[:1]; e.main()"
    )
    for module, word, kind, wanted in (
        (
            "evalInstanceLevelSemanticLabeling",
            "instanceIds",
            "results",
            "average        :          1.000          1.000",
        ),
        ("evalPixelLevelSemanticLabeling", "labelIds", "labels", "Score Average : 1.000"),
    ):
        run = [sys.executable, "-c", code.format(module=module, word=word, root=tmp_path)]
        places = {**os.environ, "CITYSCAPES_DATASET": f"{tmp_path}/truth", "CITYSCAPES_RESULTS": f"{tmp_path}/{kind}"}
        done = subprocess.run(run, env=places, capture_output=True, text=True, check=True)
        assert wanted in done.stdout


# -- polygons and tables ----------------------------------------------------------------------------------------------


def test_geojson_polygons_with_holes(tmp_path: Path) -> None:
    write("geojson", tmp_path, [Item(name="sub/Größe", segments=scene())])
    content = json.loads((tmp_path / "sub/Größe.geojson").read_text("utf-8"))
    assert content["type"] == "FeatureCollection"
    assert content["image"] == {"width": 24, "height": 16}
    kinds = [feature["geometry"]["type"] for feature in content["features"]]
    assert kinds == ["Polygon", "Polygon", "MultiPolygon", "Polygon"]
    for feature, mask in zip(content["features"], scene().masks.numpy()):
        shape = feature["geometry"]["coordinates"]
        shape = [shape] if feature["geometry"]["type"] == "Polygon" else shape
        for polygon in shape:
            for number, ring in enumerate(polygon):
                assert ring[0] == ring[-1]
                x, y = np.array(ring).T
                area = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2
                assert area > 0 if number == 0 else area < 0  # outer rings counterclockwise, holes clockwise
        np.testing.assert_array_equal(fill([[ring[:-1] for ring in p] for p in shape], mask.shape), mask)
        assert feature["properties"]["area"] == mask.sum()
    told = content["features"][1]["properties"]
    assert told == {"class": "car", "thing": True, "score": 0.5, "crowd": False, "area": 45}


def test_tables_of_objects(tmp_path: Path) -> None:
    items = [Item(name="two words, and a comma", split="test", segments=scene()),
             Item(name="empty", split="test", segments=Segments.empty((4, 4)))]  # fmt: skip
    write("objects", tmp_path, items)
    with (tmp_path / "objects.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["class"], r["score"], r["crowd"], r["area"]) for r in rows] == [
        ("two words, and a comma", "road", "1.0", "0", "144"), ("two words, and a comma", "car", "0.5", "0", "45"),
        ("two words, and a comma", "car", "0.25", "0", "17"), ("two words, and a comma", "person", "1.0", "1", "16"),
    ]  # fmt: skip
    assert [row["object"] for row in rows] == ["4", "2", "3", "1"]  # things by falling score, stuff behind them
    for row, mask in zip(rows, scene().masks.numpy()):
        ys, xs = np.nonzero(mask)
        assert (float(row["x"]), float(row["y"])) == (round(xs.mean() + 0.5, 2), round(ys.mean() + 0.5, 2))
        box = [int(row[side]) for side in ("x0", "y0", "x1", "y1")]
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    with (tmp_path / "counts.csv").open(newline="", encoding="utf-8") as file:
        counts = [tuple(row.values()) for row in csv.DictReader(file)]
    assert {row[1] for row in counts[:3]} == {"two words, and a comma"}
    assert [row[2:] for row in counts[:3]] == [
        ("road", "1", "144", "0.375"), ("car", "2", "62", "0.161458"), ("person", "1", "16", "0.041667")]  # fmt: skip
    assert [row[2:] for row in counts[3:]] == [(name, "0", "0", "0.0") for name in CLASSES.names]


def test_objects_of_truth_keep_their_ids(tmp_path: Path) -> None:
    truth = replace(scene(), keys=torch.tensor([0, 26001, 26002, 24]))
    write("objects", tmp_path, [Item(name="a", segments=truth)])
    with (tmp_path / "objects.csv").open(newline="", encoding="utf-8") as file:
        assert [row["object"] for row in csv.DictReader(file)] == ["0", "26001", "26002", "24"]


def test_objects_without_a_pixel_are_said_to_be_left_out(tmp_path: Path) -> None:
    segments = Segments.from_masks(np.array([[[1, 1]], [[0, 0]]], bool), [1, 1])
    for name in ("coco", "yolo", "folder", "objects"):
        lost = write(name, tmp_path / name, [Item(name="a", segments=segments)])
        assert "Objects without a pixel, left out: 1." in lost


def test_names_that_a_format_gives_a_meaning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labelme reads '__ignore__' as no class"):
        open_writer("labelme", tmp_path, Classes(names=("__ignore__",)))
    with pytest.raises(ConfigError, match=r"Class ids must lie in 0\.\.65535"):
        open_writer("folder", tmp_path, Classes(names=("a",), ids=(-3,)))
    writer = open_writer("folder", tmp_path, Classes(names=('5" pipe',)))
    with pytest.raises(ConfigError, match=r"cannot stand in classes\.txt"):
        writer.finish()
