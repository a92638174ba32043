"""YOLO segmentation as Ultralytics reads it: images/SPLIT, labels/SPLIT/NAME.txt and data.yaml.

A line is `class x1 y1 x2 y2 ...`, in shares of width and height. It holds one ring, so pieces and holes hang together
by bridges of no width, which run there and back; this is how Ultralytics' own converter joins pieces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.polygons import join
from pixelwise.data import writer
from pixelwise.data.writer import Item, LargeItem

DESCRIPTION = "YOLO segmentation (Ultralytics): images/SPLIT, labels/SPLIT/*.txt, data.yaml"
BESIDE = False  # whether answers stand beside those of other kinds, rather than in a folder of this name


class Writer(writer.Entering):
    """Writes YOLO polygons; an image without any object gets an empty file.

    Labels are 0, 1, ... in the order of the classes. Every segment is an object, of stuff too, which is said. Answers
    have the same lines; their scores are lost.
    """

    HOLDS = frozenset({"overlaps", "nothing"})

    def __init__(self, out: Path, classes: Classes) -> None:
        super().__init__(out, classes)
        self.splits: list[str] = []

    def place(self, item: Item) -> Path:
        return self.out / "images" / item.split / f"{self.inner(item)}{item.ending}"

    def make(self, item: Item | LargeItem) -> tuple[tuple[Path, ...], dict[str, Any]]:
        found = self.outlined(item)
        height, width = item.size
        labels = found.bands.labels
        self.lose("Segments of stuff, now objects", int(np.count_nonzero(~self.classes.is_thing[labels])))
        path = self._labels(item)
        with atomic(path) as part, part.open("w", encoding="utf-8") as file:
            for row, label in enumerate(labels.tolist()):
                values = (join(list(found.outlines.polygons(row))) / (width, height)).ravel()
                file.write(f"{label} {' '.join(np.char.mod('%.9g', values))}\n")
        return (path,), {"split": item.split}

    def enter(self, entry: Mapping[str, Any]) -> None:
        if entry["split"] not in self.splits:
            self.splits.append(entry["split"])

    def _labels(self, item: Item | LargeItem) -> Path:
        """The label file: as Ultralytics finds it, where the last folder `images` of the image's path is `labels`."""
        parts = ["images", item.split, *self.inner(item).split("/")]
        parts[max(at for at, part in enumerate(parts[:-1]) if part == "images")] = "labels"
        return self.out.joinpath(*parts[:-1], f"{parts[-1]}.txt")

    def finish(self) -> tuple[str, ...]:
        lines = ["path: .\n"]
        lines += [f"{split or 'val'}: {f'images/{split}'.rstrip('/')}\n" for split in self.splits]
        lines += ["names:\n", *(f"  {k}: {json.dumps(name)}\n" for k, name in enumerate(self.classes.names))]
        with atomic(self.out / "data.yaml") as part:
            part.write_text("".join(lines), encoding="utf-8")
        if self.classes.ids != tuple(range(len(self.classes))):
            self.lose("Class ids on disk, now 0 and up in the same order", len(self.classes))
        return super().finish()
