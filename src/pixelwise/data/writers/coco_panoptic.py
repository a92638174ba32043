"""COCO panoptic (Kirillov et al., CVPR 2019, 1801.00868): annotations/panoptic_SPLIT.json beside a folder of PNGs.

The segment at a pixel has the id R + 256 G + 65536 B; 0 is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.core.bands import Bands, firsts
from pixelwise.core.classes import Classes
from pixelwise.core.panoptic_map import colours_of_ids, panoptic_keys, segments_info
from pixelwise.core.segments import NOTHING
from pixelwise.data import writer
from pixelwise.data.maps import write_map
from pixelwise.data.writer import Item, LargeItem
from pixelwise.data.writers.coco import Tables

DESCRIPTION = "COCO panoptic: annotations/panoptic_SPLIT.json with panoptic_SPLIT/*.png, images in SPLIT/"
BESIDE = True  # whether answers stand beside those of other kinds, rather than in a folder of this name


class Writer(writer.Entering):
    """Writes COCO panoptic. Without splits the files are panoptic.json and panoptic/*.png; answers have a `score`.

    Several stuff segments of one class are one segment, as COCO's rules ask. Ids are `keys` where these fit.
    """

    HOLDS = frozenset({"crowd", "unknown", "scores"})

    def __init__(self, out: Path, classes: Classes) -> None:
        super().__init__(out, classes)
        self.tables = Tables()

    def place(self, item: Item) -> Path:
        return self.out / (item.split or "images") / f"{self.inner(item)}{item.ending}"

    def make(self, item: Item | LargeItem) -> tuple[tuple[Path, ...], dict[str, Any]]:
        bands, keys, crowd = self._held(item)
        rows = self._joined(bands)
        first, bands = firsts(rows), bands.renumbered(rows)
        keys = panoptic_keys(bands.labels, self.classes, None if keys is None else keys[first])
        name = self.inner(item)
        path = self.out / (f"annotations/panoptic_{item.split}" if item.split else "panoptic") / f"{name}.png"
        colours = colours_of_ids(np.append(keys, [0, 0])[None])[0]
        write_map(path, item.size, bands.through(colours), np.uint8)
        table = segments_info(keys, bands, self.classes, crowd[first])
        scores = dict(zip(keys.tolist(), bands.scores.tolist()))
        for info in table:
            if scores[info["id"]] != 1:
                info["score"] = round(scores[info["id"]], 6)
        return (path,), {"split": item.split, "size": item.size, "file": f"{name}{item.ending}", "map": f"{name}.png",
                         "table": table}  # fmt: skip

    def enter(self, entry: Mapping[str, Any]) -> None:
        image_id = self.tables.image(entry["split"], entry["size"], entry["file"])
        row = {"image_id": image_id, "file_name": entry["map"], "segments_info": entry["table"]}
        self.tables.annotations[entry["split"]].append(json.dumps(row))

    def _held(self, item: Item | LargeItem) -> tuple[Bands, np.ndarray | None, np.ndarray]:
        """What the format can hold, the keys and which rows are crowds; counts what it cannot."""
        if isinstance(item, LargeItem):
            self.lose("Pixels known to be nothing, now unknown", item.bands.unclaimed[1])
            return item.bands, None, np.zeros(len(item.bands), bool)
        segments = self.held(item.segments)
        keys = None if segments.keys is None else segments.keys.numpy()
        return Bands.of(segments), keys, segments.crowd.numpy()

    def _joined(self, bands: Bands) -> np.ndarray:
        """[N] the row that each becomes: one for all stuff of a class, none for what owns no pixel."""
        owns, stuff = bands.counts > 0, ~self.classes.is_thing[bands.labels]
        self.lose("Objects without a pixel, left out", int((~owns).sum()))
        meets = np.where(stuff, bands.labels - len(self.classes), np.arange(len(bands)))  # stuff by class, below 0
        _, first, inverse = np.unique(meets[owns], return_index=True, return_inverse=True)
        self.lose("Segments of stuff joined with another of their class", int(owns.sum()) - len(first))
        place = np.argsort(np.argsort(first))  # the groups in the order in which they begin
        rows = np.full(len(bands), NOTHING, np.int32)
        rows[owns] = place[inverse]
        return rows

    def finish(self) -> tuple[str, ...]:
        self.tables.write(self.out, "panoptic", self.classes)
        return super().finish()
