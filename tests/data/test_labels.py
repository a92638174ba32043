"""The published label sets, against the tables of others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from torchvision.models._meta import _COCO_CATEGORIES

from pixelwise.data.labels import SETS, label_set
from pixelwise.errors import ConfigError


def test_coco_is_torchvisions_table():
    used = [(k, name) for k, name in enumerate(_COCO_CATEGORIES) if k and name != "N/A"]
    coco, slots = label_set("coco"), label_set("coco-90")
    assert list(zip(coco.ids, coco.names)) == used
    assert coco.things == coco.names
    assert len(slots) == 90
    assert [(k + 1, slots.names[k]) for k in range(90) if not slots.names[k].startswith("unused")] == used


def test_coco_panoptic_is_the_files_own_table():
    root = os.environ.get("PIXELWISE_DATA")
    if root is None:
        pytest.skip("PIXELWISE_DATA is not set")
    categories = json.loads((Path(root) / "coco_panoptic_sample" / "panoptic.json").read_text())["categories"]
    table = label_set("coco-panoptic")
    assert {c["id"]: c["name"] for c in categories} == dict(zip(table.ids, table.names))
    assert {c["name"] for c in categories if c["isthing"]} == set(table.things)
    assert list(table.ids) == sorted(table.ids)


COUNTS = [
    ("coco", 80, 80),
    ("coco-90", 90, 90),
    ("coco-panoptic", 133, 80),
    ("cityscapes", 19, 8),
    ("cityscapes-things", 8, 8),
    ("voc", 21, 20),
    ("ade20k", 150, 0),
    ("camvid", 11, 0),
    ("camvid-nothing", 11, 0),
]


@pytest.mark.parametrize(("name", "classes", "things"), COUNTS)
def test_counts(name, classes, things):
    table = label_set(name)
    assert (len(table), len(table.things)) == (classes, things)
    assert set(SETS) == {name for name, _, _ in COUNTS}


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'coco'"):
        label_set("cocoo")
