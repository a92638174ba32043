"""COCO instances (Lin et al. 2014, 1405.0312): JSON of polygons and run-length codes beside the images.

    annotations/instances_train2017.json, annotations/instances_val2017.json   train2017/, val2017/ (or below images/)
    train.json, val.json, or one annotations.json with splits/*.txt            images/
    train/_annotations.coco.json, valid/_annotations.coco.json                 in the same folders

Polygons are drawn by COCO's rule; several parts of one object are joined. An image without annotation shows no object:
in this format that is told, not missing. Class maps and a class table beside are joined with them to panoptic truth.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pixelwise.data.coco.assemble import data_set, find
from pixelwise.data.coco.classes import instance_classes, joined
from pixelwise.data.coco.files import find_parts
from pixelwise.data.coco.joined import join
from pixelwise.data.coco.readers import Instances
from pixelwise.data.dataset import DataSet
from pixelwise.data.formats import coco_panoptic
from pixelwise.data.io import MAX_PIXELS
from pixelwise.data.layout import index
from pixelwise.data.table import find_table, read_table
from pixelwise.errors import DataError

DESCRIPTION = "COCO instances: annotations/instances_SPLIT.json with SPLIT/ images, or a JSON beside images/"


def recognise(root: Path) -> bool:
    """Where panoptic maps lie beside, those are the truth, since they hold the objects as well."""
    return root.is_dir() and bool(find_parts(root, panoptic=False)) and not coco_panoptic.recognise(root)


def open(
    root: Path,
    *,
    annotations: str | None = None,
    class_maps: str | None = None,
    seed: int = 0,
    missing: Literal["refuse", "skip"] = "refuse",
    max_pixels: int = MAX_PIXELS,
) -> DataSet:
    """Opens COCO instances.

    annotations  one JSON file below the root, where it is not found by its name; all images are then split by lists,
                 else by name
    class_maps   folder of class maps by the images' names, to be joined with the objects; None takes masks/ where it
                 lies beside a class table, "" none
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
    data = data_set(root, "coco", found, reader, seed=seed, task="instance")
    table = find_table(root)
    if class_maps is None:
        class_maps = "masks" if table is not None and (root / "masks").is_dir() else ""
    return _with_maps(data, reader, path, root / class_maps, table) if class_maps else data


def _with_maps(data: DataSet, reader: Instances, path: Path, folder: Path, table: Path | None) -> DataSet:
    """The same with class maps. Raises DataError where a folder, a class table or a map is missing."""
    if table is None or not folder.is_dir():
        what = f"folder {folder}" if table is not None else f"class table {data.root / 'classes.txt'}"
        raise DataError(f"{data.root}: there is no {what}; class maps need both.")
    joined = join(reader, read_table(table), path, data.max_pixels)
    maps = index(folder)
    bare = [record for record in data if record.entry is not None and record.name not in maps]
    if bare:
        raise DataError(
            f"{folder}: there is no class map of the name '{bare[0].name}' ({len(bare)} such in all); add it, or take "
            "the objects alone by the format's option class_maps=''."
        )
    splits = {split: tuple(replace(record, semantic=maps.get(record.name)) for record in group)
              for split, group in data.splits.items()}  # fmt: skip
    note = f"Objects and the class maps in {folder.name}/ are joined to panoptic truth (class_maps='' leaves the maps)."
    return replace(data, classes=joined.classes, reader=joined, splits=splits, default_task="panoptic",
                   notes=(*data.notes, note))  # fmt: skip
