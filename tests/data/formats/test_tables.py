"""CamVid, PASCAL VOC and ADE20K: tables over the folder reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pixelwise.core import registry
from pixelwise.core.segments import UNKNOWN
from pixelwise.data.dataset import open_data
from pixelwise.data.formats import ade20k, camvid, voc
from pixelwise.data.io import write_png
from pixelwise.errors import DataError

SIZE = (6, 8)


def picture(path: Path) -> None:
    write_png(path, np.zeros((*SIZE, 3), np.uint8))


def test_every_format_has_the_four_names() -> None:
    names = registry.modules("formats")
    assert {"ade20k", "camvid", "cityscapes", "folder", "voc"} <= set(names)
    for name in names:
        module = registry.load("formats", name)
        assert callable(module.recognise)
        assert callable(module.open)
        assert module.DESCRIPTION
        assert "\n" not in module.DESCRIPTION


@pytest.mark.parametrize("lists", [True, False])
def test_camvid_in_segnets_folders(tmp_path: Path, lists: bool) -> None:
    ids = np.arange(48, dtype=np.uint8).reshape(SIZE) % 12
    for split, name in (("train", "0001TP_1"), ("val", "0016E5_1"), ("test", "Seq05VD_1")):
        picture(tmp_path / split / f"{name}.png")
        write_png(tmp_path / f"{split}annot" / f"{name}.png", ids)
        if lists:
            line = f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n"
            (tmp_path / f"{split}.txt").write_text(line)
    data = open_data(tmp_path)
    assert data.format == "camvid"
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 1, "val": 1, "test": 1}
    truth = data.read(data.records("test")[0]).truth
    assert truth is not None
    np.testing.assert_array_equal(truth.ids[0], np.where(ids == 11, UNKNOWN, ids.astype(int)))
    assert data.classes == camvid.CLASSES


def voc_root(root: Path) -> None:
    for name in ("2007_000001", "2007_000002", "2007_000003"):
        picture(root / "JPEGImages" / f"{name}.png")
    classes = np.zeros(SIZE, np.uint8)
    classes[1:3, 1:3], classes[1:3, 4:6], classes[1:3, 3] = 15, 15, 255
    objects = np.zeros(SIZE, np.uint8)
    objects[1:3, 1:3], objects[1:3, 4:6], objects[1:3, 3] = 1, 2, 255
    for name in ("2007_000001", "2007_000002"):
        write_png(root / "SegmentationClass" / f"{name}.png", classes)
        write_png(root / "SegmentationObject" / f"{name}.png", objects)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000001\n")
    (lists / "val.txt").write_text("2007_000002\n")
    (lists / "trainval.txt").write_text("2007_000001\n2007_000002\n")


def test_voc(tmp_path: Path) -> None:
    """Most of JPEGImages has no mask: the lists say which images count; 255 between objects is void in both maps."""
    voc_root(tmp_path)
    data = open_data(tmp_path)
    assert (data.format, data.default_task) == ("voc", "panoptic")
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 1, "val": 1}
    truth = data.read(data.records("train")[0]).truth
    assert truth is not None
    assert truth.keys is not None
    assert [data.classes.names[k] for k in truth.labels.tolist()] == ["background", "person", "person"]
    assert truth.keys.tolist() == [0, 1, 2]
    assert truth.pixel_counts.tolist() == [48 - 10, 4, 4]
    assert int(truth.unknown.sum()) == 2


def test_voc_colours_follow_the_kits_rule() -> None:
    """The development kit spreads the bits of the id over the three colours, highest first."""
    for k, colour in enumerate(voc.CLASSES.colours):
        expected = [0, 0, 0]
        for bit in range(8):
            for c in range(3):
                expected[c] |= (k >> (3 * bit + c) & 1) << (7 - bit)
        assert list(colour) == expected
    assert len(voc.CLASSES) == 21


def test_voc_with_foreign_names_knows_its_things(tmp_path: Path) -> None:
    voc_root(tmp_path)
    names = ["_background_", *(f"thing {i}" for i in range(1, 21))]
    (tmp_path / "class_names.txt").write_text("\n".join(names))
    data = open_data(tmp_path)
    assert data.classes.things == tuple(names[1:])


def test_ade20k(tmp_path: Path) -> None:
    ids = np.arange(48, dtype=np.uint8).reshape(SIZE) * 3
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        picture(tmp_path / "images" / split / f"{name}.png")
        write_png(tmp_path / "annotations" / split / f"{name}.png", ids)
    data = open_data(tmp_path)
    assert data.format == "ade20k"
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 1, "val": 1}
    truth = data.read(data.records("val")[0]).truth
    assert truth is not None
    np.testing.assert_array_equal(truth.ids[0], np.where(ids == 0, UNKNOWN, ids.astype(int) - 1))
    assert len(ade20k.CLASSES) == 150
    assert (ade20k.CLASSES.names[0], ade20k.CLASSES.names[12], ade20k.CLASSES.names[149]) == ("wall", "person", "flag")


def test_two_formats_that_claim_a_folder(tmp_path: Path) -> None:
    for name in ("JPEGImages", "SegmentationClass", "leftImg8bit", "gtFine"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="looks like cityscapes and like voc; say which"):
        open_data(tmp_path)
