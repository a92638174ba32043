"""The readers on real sets, against the counts in each set's own README (PIXELWISE_DATA)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.statistics import statistics

ROOT = os.environ.get("PIXELWISE_DATA")
pytestmark = pytest.mark.skipif(ROOT is None, reason="PIXELWISE_DATA is not set: it names the folder of real data sets")


def data(name: str, **options: object) -> DataSet:
    folder = Path(ROOT or "") / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return open_data(folder, **options)


def sizes(found: DataSet) -> dict[str, int]:
    return {split: len(records) for split, records in found.splits.items()}


@pytest.mark.slow
def test_camvid() -> None:
    found = data("camvid")
    assert sizes(found) == {"train": 367, "val": 101, "test": 233}
    assert len(found.classes) == 11
    counts = statistics(found)
    assert counts.sizes == {(360, 480): 367}
    share = 100 * np.append(counts.pixel_counts, counts.void) / (367 * 360 * 480)
    known = [16.85, 23.26, 0.98, 31.66, 4.49, 9.72, 1.17, 1.13, 5.87, 0.64, 0.29, 3.95]
    np.testing.assert_allclose(share, known, atol=0.006)


def test_camvid_opens_by_its_table() -> None:
    found, table = data("camvid"), data("camvid", format="camvid")
    assert table.classes == found.classes
    assert table.read(table.records("val")[0]).image.shape == (3, 360, 480)


def test_isbi2012_em() -> None:
    found = data("isbi2012_em")
    assert sizes(found) == {"train": 24, "val": 6}
    assert (found.channels, found.default_task) == (1, "semantic")
    counts = statistics(found)
    assert counts.sizes == {(512, 512): 24}
    assert 0.21 < counts.pixel_counts[1] / counts.pixel_counts.sum() < 0.23


def test_cwfid_cropweed() -> None:
    found = data("cwfid_cropweed")
    assert sizes(found) == {"train": 39, "test": 21}
    assert (found.default_task, found.classes.things) == ("panoptic", ("crop", "weed"))
    both = [statistics(found, split) for split in found.splits]
    assert sum(sum(s.objects) for s in both) == 492
    pixels = sum(s.pixel_counts for s in both)
    np.testing.assert_allclose(100 * pixels / pixels.sum(), [92.6, 1.6, 5.8], atol=0.05)
    truth = found.read(found.records("train")[0]).truth
    assert truth is not None
    assert truth.keys is not None
    objects = truth.keys >= 1000
    np.testing.assert_array_equal(truth.keys[objects] // 1000, truth.labels[objects])  # the ids carry the class as well


@pytest.mark.slow
def test_dsb2018_nuclei() -> None:
    found = data("dsb2018_nuclei")
    assert sizes(found) == {"train": 498, "val": 66, "test": 100}
    assert (found.channels, found.default_task) == (3, "instance")
    assert any("differ in channels" in note for note in found.notes)
    all_splits = [statistics(found, split) for split in found.splits]
    assert sum(sum(s.objects) for s in all_splits) == 28986
    assert len(set().union(*(s.sizes for s in all_splits))) == 9


def test_dsb2018_nuclei_in_part() -> None:
    found = data("dsb2018_nuclei")
    counts = statistics(found, "val", limit=10)
    assert counts.images == 10
    assert sum(counts.objects) > 100
    assert counts.nothing > 0


@pytest.mark.slow
def test_pennfudan() -> None:
    found = data("pennfudan")
    assert sizes(found) == {"train": 128, "val": 42}
    assert found.default_task == "instance"
    assert sum(sum(statistics(found, split).objects) for split in found.splits) == 423


def test_acdc_scribble() -> None:
    found = data("acdc_scribble")
    assert sizes(found) == {"train": 191, "val": 44, "test": 53}
    assert (found.channels, found.classes.void) == (1, (255,))
    counts = [statistics(found, split) for split in found.splits]
    assert len(set().union(*(s.sizes for s in counts))) == 14
    pixels = sum(s.pixel_counts for s in counts)
    assert 0.953 < pixels[0] / pixels.sum() < 0.959


def test_voc_sample() -> None:
    found = data("format_samples/labelme_voc2011/data_dataset_voc")
    assert (found.format, len(found), len(found.classes)) == ("voc", 3, 21)
    for record in found:
        sample = found.read(record)
        assert sample.truth is not None
        assert record.semantic is not None
        with Image.open(record.semantic) as image:
            np.testing.assert_array_equal(sample.truth.class_map(), np.asarray(image))  # ids are the labels, 255 void
        assert len(sample.truth) > 1


@pytest.mark.parametrize(
    ("name", "images", "classes"), [("aerial_loveda", 3, 6), ("aerial_potsdam", 1, 6), ("aerial_vaihingen", 1, 6)]
)
def test_aerial_samples(name: str, images: int, classes: int) -> None:
    found = data(f"format_samples/{name}")
    assert (len(found), len(found.classes)) == (images, classes)
    assert any("No class table" in note for note in found.notes)
    assert any("divided by a hash" in note for note in found.notes)
    for record in found:
        assert found.read(record).truth is not None
