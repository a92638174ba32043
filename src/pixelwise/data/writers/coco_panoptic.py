"""COCO panoptic (Kirillov et al., CVPR 2019, 1801.00868): annotations/panoptic_SPLIT.json beside a folder of PNGs.

The segment at a pixel has the id R + 256 G + 65536 B; 0 is unknown.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.panoptic_map import to_panoptic
from pixelwise.core.segments import Segments, look_up
from pixelwise.data import writer
from pixelwise.data.io import write_png
from pixelwise.data.writer import Item
from pixelwise.data.writers.coco import Tables

DESCRIPTION = "COCO panoptic: annotations/panoptic_SPLIT.json with panoptic_SPLIT/*.png, images in SPLIT/"
BESIDE = True  # whether answers stand beside those of other kinds, rather than in a folder of this name


class Writer(writer.Writer):
    """Writes COCO panoptic. Without splits the files are panoptic.json and panoptic/*.png; answers have a `score`.

    Several stuff segments of one class are one segment, as COCO's rules ask. Ids are `keys` where these fit.
    """

    HOLDS = frozenset({"crowd", "unknown", "scores"})

    def __init__(self, out: Path, classes: Classes) -> None:
        super().__init__(out, classes)
        self.tables = Tables()

    def place(self, item: Item) -> Path:
        return self.out / (item.split or "images") / f"{self.inner(item)}{item.ending}"

    def write(self, item: Item) -> tuple[Path, ...]:
        segments = self._joined(self.held(item.segments))
        name = self.inner(item)
        base = self.out / (f"annotations/panoptic_{item.split}" if item.split else "panoptic")
        path = base / f"{name}.png"
        colours, table = to_panoptic(segments, self.classes)
        write_png(path, colours)
        image_id = self.tables.image(item, f"{name}{item.ending}")
        scores = segments.scores.tolist()
        for info, score in zip(table, scores, strict=True):
            if score != 1:
                info["score"] = round(score, 6)
        entry = {"image_id": image_id, "file_name": f"{name}.png", "segments_info": table}
        self.tables.annotations[item.split].append(json.dumps(entry))
        return (path,)

    def _joined(self, segments: Segments) -> Segments:
        """One row for all stuff of a class."""
        labels = segments.labels.numpy()
        stuff = ~self.classes.is_thing[labels]
        first = {label: row for row, label in reversed(list(enumerate(labels.tolist()))) if stuff[row]}
        row = np.array([first[label] if stuff[at] else at for at, label in enumerate(labels.tolist())] + [-2, -1])
        self.lose("Segments of stuff joined with another of their class", int(stuff.sum()) - len(first))
        if stuff.sum() == len(first):
            return segments
        ids = look_up(torch.from_numpy(row).to(segments.ids.dtype), segments.ids)
        return replace(segments, ids=ids, given_areas=None, given_boxes=None).compact()

    def finish(self) -> tuple[str, ...]:
        self.tables.write(self.out, "panoptic", self.classes)
        return super().finish()
