"""COCO instances (Lin et al. 2014, 1405.0312): JSON of polygons and run-length codes beside the images.

    annotations/instances_train2017.json, annotations/instances_val2017.json   train2017/, val2017/ (or below images/)
    train.json, val.json, or one annotations.json with splits/*.txt            images/
    train/_annotations.coco.json, valid/_annotations.coco.json                 in the same folders

Polygons are drawn by COCO's rule; several parts of one object are joined. An image without annotation shows no object:
in this format that is told, not missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pixelwise.data.coco.assemble import data_set, find
from pixelwise.data.coco.classes import instance_classes, joined
from pixelwise.data.coco.files import find_parts
from pixelwise.data.coco.readers import Instances
from pixelwise.data.dataset import DataSet
from pixelwise.data.formats import coco_panoptic
from pixelwise.data.io import MAX_PIXELS

DESCRIPTION = "COCO instances: annotations/instances_SPLIT.json with SPLIT/ images, or a JSON beside images/"


def recognise(root: Path) -> bool:
    """Where panoptic maps lie beside, those are the truth, since they hold the objects as well."""
    return root.is_dir() and bool(find_parts(root, panoptic=False)) and not coco_panoptic.recognise(root)


def open(
    root: Path,
    *,
    annotations: str | None = None,
    seed: int = 0,
    missing: Literal["refuse", "skip"] = "refuse",
    max_pixels: int = MAX_PIXELS,
) -> DataSet:
    """Opens COCO instances.

    annotations  one JSON file below the root, where it is not found by its name; all images are then split by lists,
                 else by name
    seed         of the split by name, where there is no other
    missing      what to do with a listed image that is not there: "refuse" it, or "skip" it and say so
    Raises DataError for files that are not COCO's, naming the place.
    """
    root = Path(root)
    found = find(root, panoptic=False, annotations=annotations, missing=missing)
    path = found.indexes[0].path
    used = found.used()
    classes = instance_classes(path, joined([(i.path, i.categories) for i in found.indexes]), used, found.notes)
    reader = Instances(tables=found.tables, classes=classes, max_pixels=max_pixels)
    return data_set(root, "coco", found, reader, seed=seed, task="instance")
