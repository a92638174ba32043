"""Panoptic truth from COCO instances and class maps of the same images, joined by the panoptic builder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.panoptic_truth import Decisions, build
from pixelwise.core.segments import Segments
from pixelwise.data.coco.readers import Instances
from pixelwise.data.dataset import Fault, Record
from pixelwise.data.table import Table
from pixelwise.data.truth import Maps
from pixelwise.errors import DataError, nearest


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """Class map and objects of a record -> one panoptic truth; a record without `entry` has its class map alone.

    label_of  [categories] the label in the class table of each label of `instances`
    """

    instances: Instances
    maps: Maps
    label_of: np.ndarray

    @property
    def classes(self) -> Classes:
        return self.maps.table.classes

    @property
    def max_pixels(self) -> int:
        return self.maps.max_pixels

    def __call__(self, record: Record) -> Segments:
        return self.maps.semantic(record) if record.entry is None else self._build(record)[0]

    def decisions(self, record: Record) -> Decisions:
        """What had to be decided for the record."""
        return Decisions() if record.entry is None else self._build(record)[1]

    def _build(self, record: Record) -> tuple[Segments, Decisions]:
        found = self.instances(record)
        labels = torch.from_numpy(self.label_of)[found.labels]
        ground = self.maps.semantic(record)
        try:
            return build(ground, replace(found, labels=labels), self.classes)
        except DataError as error:
            raise DataError(f"{record.semantic} and {self.file(record)}: {error}") from None

    def file(self, record: Record) -> Path:
        return self.instances.file(record)

    def faults(self, record: Record) -> Sequence[Fault]:
        return self.instances.faults(record)


def join(instances: Instances, table: Table, path: Path, max_pixels: int) -> Joined:
    """Both readers joined: a category is the class of its name in the table.

    Where the table marks no thing, the categories are the things. Raises DataError for a category that is no class of
    the table, or stuff.
    """
    names, classes = instances.classes.names, table.classes
    for name in names:
        if name not in classes.names:
            raise DataError(
                f"{path}: the category '{name}' is no class of the table; {nearest(name, classes.names)} Class "
                "maps and objects are joined by the names of their classes."
            )
        if classes.things and name not in classes.things:
            raise DataError(f"{path}: the category '{name}' is no thing in the class table; write `thing` behind it.")
    told = table if classes.things else replace(table, classes=replace(classes, things=names))
    label_of = np.array([classes.names.index(name) for name in names], np.int64)
    return Joined(instances=instances, maps=Maps(table=told, max_pixels=max_pixels), label_of=label_of)
