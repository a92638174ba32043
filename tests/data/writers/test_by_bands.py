"""What is written of a map that is read by bands is what is written of it whole, and what a journal brings back."""

import json
import tracemalloc

import numpy as np
import pytest
import torch

from pixelwise.core import bands as module
from pixelwise.core.bands import Bands
from pixelwise.core.classes import Classes
from pixelwise.core.polygons import fill
from pixelwise.core.segments import Segments
from pixelwise.data.writer import Item, LargeItem, open_writer

CLASSES = Classes(names=("road", "car", "person", "sky"), things=("car", "person"), void=(255,))
NAMES = ["coco", "coco_panoptic", "folder", "geojson", "labelme", "objects", "yolo"]
OPTIONS = [(name, {}) for name in NAMES] + [("coco", {"masks": "rle"})]


def answer(seed=0, unknown=True):
    """Rows of all kinds: in pieces, with holes, of no pixel."""
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(-2 if unknown else -1, 7, (9, 8)), np.ones((3, 2), int))
    ids[4:7, 5:9] = 5
    return Segments(
        torch.from_numpy(ids.astype(np.int8)), [0, 1, 1, 2, 3, 1, 2, 2], scores=[1, 1, 0.5, 1 / 3, 1, 1, 1, 1]
    )


def large(item):
    found = item.segments
    ids = found.ids[0].numpy()
    bands = Bands(found.size, found.labels.numpy(), found.scores.numpy(), lambda top, bottom: ids[top:bottom])
    return LargeItem(name=item.name, bands=bands, split=item.split, ending=item.ending)


def items(split):
    return [Item(name=f"{split or 'set'}/{n}", split=split, segments=answer(n, unknown=n > 0)) for n in range(3)]


def written(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "options"), [entry for entry in OPTIONS if entry[0] != "objects"])
@pytest.mark.parametrize("split", ["", "val"])
def test_by_bands_and_whole_the_files_are_the_same(name, options, split, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIXELS", 40)
    lost = []
    for kind in ("whole", "bands", "mixed"):
        writer = open_writer(name, tmp_path / kind, CLASSES, **options)
        for number, item in enumerate(items(split)):
            writer.write(item if kind == "whole" or (kind == "mixed" and number == 1) else large(item))
        lost.append(set(writer.finish()))
    assert written(tmp_path / "whole") == written(tmp_path / "bands") == written(tmp_path / "mixed")
    assert written(tmp_path / "whole")
    assert lost[0] == lost[1] == lost[2]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_what_was_written_before_is_remembered(name, options, tmp_path):
    """Of three images the second is written anew, between two that an interrupted run had written."""
    first, again = (open_writer(name, tmp_path / folder, CLASSES, **options) for folder in ("first", "again"))
    for number, item in enumerate(items("val")):
        first.write(large(item))
        note = json.loads(json.dumps(first.note()))
        if number == 1:
            again.write(large(item))
        else:
            again.recall(note)
    assert first.finish() == again.finish()
    expected, found = written(tmp_path / "first"), written(tmp_path / "again")
    assert found.items() <= expected.items()
    assert {path for path in expected if path not in found} == {
        path for path in expected if path.rpartition("/")[2].split(".")[0] in ("0", "2")}  # fmt: skip


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools with numpy 2
def test_codes_and_polygons_are_those_of_the_map(tmp_path):
    """pycocotools draws from the file what the bands showed."""
    coco = pytest.importorskip("pycocotools.mask")
    item = Item(name="a", segments=answer())
    writer = open_writer("coco", tmp_path, CLASSES)
    writer.write(large(item))
    writer.finish()
    kept = [mask for mask in item.segments.masks.numpy() if mask.any()]
    annotations = json.loads((tmp_path / "instances.json").read_text())["annotations"]
    assert len(annotations) == len(kept)
    for annotation, mask in zip(annotations, kept):
        code = annotation["segmentation"]
        if isinstance(code, list):
            code = coco.merge(coco.frPyObjects(code, *mask.shape))
        assert np.array_equal(coco.decode(code).astype(bool), mask)


def test_features_of_bands_fill_to_the_map(tmp_path):
    item = Item(name="a", segments=answer())
    writer = open_writer("geojson", tmp_path, CLASSES)
    writer.write(large(item))
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    kept = [mask for mask in item.segments.masks.numpy() if mask.any()]
    for feature, mask in zip(features, kept, strict=True):
        shape = feature["geometry"]["coordinates"]
        shape = [shape] if feature["geometry"]["type"] == "Polygon" else shape
        assert np.array_equal(fill([[ring[:-1] for ring in polygon] for polygon in shape], mask.shape), mask)


@pytest.mark.parametrize("name", ["coco", "geojson", "yolo"])
def test_what_is_held_is_corners_not_pixels(name, tmp_path):
    """A frame around the whole of 24 megapixels, and what it frames."""
    size = (6000, 4000)

    def read(top, bottom):
        rows = np.zeros((bottom - top, size[1]), np.int8)
        rows[:, 100:-100] = (np.arange(top, bottom) % 5999 > 0)[:, None]
        return rows

    bands = Bands(size, np.array([0, 1]), np.ones(2, np.float32), read)
    writer = open_writer(name, tmp_path, CLASSES)
    tracemalloc.start()
    try:
        writer.write(LargeItem(name="a", bands=bands))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 << 20  # a band of a megapixel, and what counts its pixels
    assert bands.counts.tolist() == [2 * 100 * 6000 + 2 * 3800, 5998 * 3800]
