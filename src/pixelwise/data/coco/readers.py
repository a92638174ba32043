"""Truth from COCO's tables: instances (polygons, run-length codes, boxes) and panoptic maps with their segments."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.core.classes import Classes
from pixelwise.core.panoptic_map import from_panoptic
from pixelwise.core.segments import BOX, MASK, Segments
from pixelwise.data.coco.index import Table
from pixelwise.data.coco.objects import Drawn, draw, odd_polygons
from pixelwise.data.dataset import Fault, Record
from pixelwise.data.io import MAX_PIXELS, read_header, read_image
from pixelwise.errors import DataError

NAMED = 3  # annotations that a fault names


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoReader:
    """What both readers share: a record's `entry` counts the images of all files, one file after the other."""

    tables: tuple[Table, ...]
    classes: Classes
    max_pixels: int = MAX_PIXELS

    def place(self, record: Record) -> tuple[Table, int]:
        """The record's file and its image there."""
        assert isinstance(record.entry, int)
        starts = [0, *accumulate(len(table.sizes) for table in self.tables)]
        at = bisect_right(starts, record.entry) - 1
        return self.tables[at], record.entry - starts[at]

    def file(self, record: Record) -> Path:
        return self.place(record)[0].slices.path

    def size(self, record: Record) -> tuple[int, int]:
        """(H, W) as the file says, else the image's own."""
        table, image = self.place(record)
        height, width = (int(v) for v in table.sizes[image])
        return (height, width) if height and width else read_header(record.image, max_pixels=self.max_pixels).size


class Instances(CocoReader):
    """Objects in the file's order, crowds last; pixels outside all of them are NOTHING.

    `areas` and `boxes` are as annotated, where an annotation lacks one those of its pixels. An object without outline
    is a row of kind BOX; the pixels in its box that no object covers are UNKNOWN.
    """

    def __call__(self, record: Record) -> Segments:
        size = self.size(record)
        if size[0] * size[1] > self.max_pixels:
            raise DataError(
                f"{self.file(record)}: image '{record.name}' has {size[0]} x {size[1]} pixels, the limit is "
                f"{self.max_pixels}; set max_pixels."
            )
        rows, drawn = [], []
        for annotation, found in self._drawn(record, size):
            if isinstance(found, DataError):
                raise DataError(f"{self.file(record)}: {_where(record, annotation)}: {found}")
            rows.append(annotation)
            drawn.append(found)
        order = np.argsort([bool(row.get("iscrowd")) for row in rows], kind="stable")
        return self._segments([rows[i] for i in order], [drawn[i] for i in order], size)

    def _drawn(self, record: Record, size: tuple[int, int]) -> Iterator[tuple[dict[str, Any], Drawn | DataError]]:
        table, image = self.place(record)
        for annotation in table.annotations(image):
            try:
                yield annotation, draw(annotation, size)
            except DataError as error:
                yield annotation, error

    def _segments(self, rows: list[dict[str, Any]], drawn: list[Drawn], size: tuple[int, int]) -> Segments:
        label_of = {category: label for label, category in enumerate(self.classes.ids)}
        boxes = np.array([d.window[0] for d in drawn], np.int64).reshape(-1, 4)
        crops = [d.window[1] for d in drawn]
        areas = [float(crop.sum()) if d.area is None else d.area for d, crop in zip(drawn, crops)]
        given = [box if d.box is None else d.box for d, box in zip(drawn, boxes)]
        kinds = np.array([d.kind for d in drawn], np.uint8)
        return Segments.from_windows(
            boxes,
            crops,
            np.array([label_of[row["category_id"]] for row in rows], np.int64),
            size,
            void=_inside(drawn, size),
            crowd=np.array([bool(row.get("iscrowd")) for row in rows], bool),
            keys=np.array([row["id"] for row in rows], np.int64),
            kind=kinds if (kinds != MASK).any() else None,
            given_areas=np.array(areas, np.float32),
            given_boxes=np.array(given, np.float32).reshape(-1, 4),
        )

    def faults(self, record: Record) -> Sequence[Fault]:
        size, found = self.size(record), defaultdict(list)
        faults = []
        for annotation, drawn in self._drawn(record, size):
            if isinstance(drawn, DataError):
                faults.append(Fault("annotation", self.file(record), f"{_where(record, annotation)}: {drawn}"))
                continue
            for code in (*drawn.complaints, *odd_polygons(annotation, size)):
                found[code].append(str(annotation["id"]))
        for code, ids in found.items():
            more = ", ..." if len(ids) > NAMED else ""
            faults.append(Fault(code, record.image, f"annotation {', '.join(ids[:NAMED])}{more}"))
        return faults


def _where(record: Record, annotation: dict[str, Any]) -> str:
    return f"annotation {annotation['id']} of image '{record.name}'"


def _inside(drawn: list[Drawn], size: tuple[int, int]) -> np.ndarray | None:
    """[H, W] bool: pixels in the boxes of objects without outline, None where there are no such objects."""
    boxes = [d.box for d in drawn if d.kind == BOX and d.box is not None]
    if not boxes:
        return None
    inside = np.zeros(size, bool)
    for x0, y0, x1, y1 in boxes:
        corner = np.floor([max(x0, 0), max(y0, 0)]).astype(int)
        end = np.ceil([max(x1, 0), max(y1, 0)]).astype(int)
        inside[corner[1] : end[1], corner[0] : end[0]] = True
    return inside


class PanopticMaps(CocoReader):
    """A PNG of ids R + 256 G + 65536 B, `record.instances`, and the table of its segments; 0 is UNKNOWN."""

    def __call__(self, record: Record) -> Segments:
        table, image = self.place(record)
        assert record.instances is not None
        (annotation,) = table.annotations(image)
        colours = read_image(record.instances, max_pixels=self.max_pixels)
        try:
            return from_panoptic(colours, annotation["segments_info"], self.classes)
        except DataError as error:
            raise DataError(f"{record.instances}: {error} (table: {table.slices.path})") from None

    def faults(self, record: Record) -> Sequence[Fault]:
        """Segments whose annotated area is not that of the map: one of the two is of another export."""
        try:
            truth = self(record)
        except DataError as error:
            path = record.instances or record.image
            return [Fault("truth", path, str(error).removeprefix(f"{path}: "))]
        if truth.given_areas is None or truth.keys is None:
            return []
        differ = np.flatnonzero(truth.given_areas.numpy() != truth.pixel_counts.numpy())
        if not len(differ):
            return []
        key, told, there = (v[int(differ[0])].item() for v in (truth.keys, truth.given_areas, truth.pixel_counts))
        detail = f"{len(differ)} segments, the first {key}: area {told:.0f}, pixels {there}"
        return [Fault("area-differs", record.instances or record.image, detail)]
