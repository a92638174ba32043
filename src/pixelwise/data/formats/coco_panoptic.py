"""COCO panoptic (Kirillov et al. 2018, 1801.00868): PNGs of segment ids with a JSON that gives each its category.

    annotations/panoptic_train2017.json, annotations/panoptic_train2017/*.png   train2017/ (or below images/)
    panoptic.json, panoptic/*.png, splits/*.txt                                images/

Ids are R + 256 G + 65536 B; 0 is unknown and never counts. An image without annotation is an error: in this format
every image has one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pixelwise.data.coco.assemble import data_set, find
from pixelwise.data.coco.classes import joined, panoptic_classes
from pixelwise.data.coco.files import find_parts
from pixelwise.data.coco.readers import PanopticMaps
from pixelwise.data.dataset import DataSet
from pixelwise.data.io import MAX_PIXELS

DESCRIPTION = "COCO panoptic: annotations/panoptic_SPLIT.json with panoptic_SPLIT/ maps, or panoptic.json and panoptic/"


def recognise(root: Path) -> bool:
    return root.is_dir() and bool(find_parts(root, panoptic=True))


def open(
    root: Path,
    *,
    annotations: str | None = None,
    seed: int = 0,
    missing: Literal["refuse", "skip"] = "refuse",
    max_pixels: int = MAX_PIXELS,
) -> DataSet:
    """Opens COCO panoptic.

    annotations  one JSON file below the root, beside a folder of its name; all images are then split by lists, else by
                 name
    seed         of the split by name, where there is no other
    missing      what to do with an image that is not there or has no annotation: "refuse" it, or "skip" it and say so
    Raises DataError for files that are not COCO's, naming the place.
    """
    root = Path(root)
    found = find(root, panoptic=True, annotations=annotations, missing=missing)
    categories = joined([(i.path, i.categories) for i in found.indexes])
    classes = panoptic_classes(found.indexes[0].path, categories, found.notes)
    reader = PanopticMaps(tables=found.tables, classes=classes, max_pixels=max_pixels)
    return data_set(root, "coco_panoptic", found, reader, seed=seed, task="panoptic", missing=missing)
