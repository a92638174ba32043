"""labelme (github.com/wkentaro/labelme): NAME.json beside NAME.png, for corrections by hand.

A segment without holes is a polygon along pixel edges, or several of one group_id; one with holes is a mask. Unknown
pixels are a mask named `__ignore__`; a crowd has the flag `crowd`. The segment that shows comes last.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.jsonfile import write_json
from pixelwise.core.outlines import Outlines
from pixelwise.data import writer
from pixelwise.data.table import write_table
from pixelwise.data.writer import Item, LargeItem
from pixelwise.data.writers.folder import write_lists
from pixelwise.errors import ConfigError

DESCRIPTION = "labelme: NAME.json of polygons and masks beside each image, classes.txt, splits/*.txt"
BESIDE = False  # whether answers stand beside those of other kinds, rather than in a folder of this name
RESERVED = ("__ignore__", "_background_")


class Writer(writer.Entering):
    """Writes labelme files. Raises ConfigError for classes of a name that labelme gives a meaning of its own."""

    HOLDS = frozenset({"crowd", "unknown", "nothing", "overlaps"})

    def __init__(self, out: Path, classes: Classes) -> None:
        super().__init__(out, classes)
        for name in RESERVED:
            if name in classes.names:
                raise ConfigError(f"labelme reads '{name}' as no class; rename the class.")
        self.lists: dict[str, list[str]] = {}

    def place(self, item: Item) -> Path:
        return self.out / f"{item.name}{item.ending}"

    def make(self, item: Item | LargeItem) -> tuple[tuple[Path, ...], dict[str, Any]]:
        found = self.outlined(item)
        shapes: list[dict[str, Any]] = []
        for row, label in enumerate(found.bands.labels.tolist()):
            shapes[:0] = _shapes(self.classes.names[label], found.outlines, row, crowd=bool(found.crowd[row]))
        box, unknown = found.unknown()
        if unknown.size:
            shapes.insert(0, _mask(RESERVED[0], box[:2], unknown, {}))
        height, width = item.size
        path = self.out / f"{item.name}.json"
        image = f"{path.stem}{item.ending}"
        if item.image and not item.split:  # an answer, whose image stays where it is
            image = os.path.relpath(item.image, path.parent)
        content: dict[str, Any] = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image,
                                   "imageData": None, "imageHeight": height, "imageWidth": width}  # fmt: skip
        write_json(path, content, indent=1)
        return (path,), {"split": item.split, "name": item.name}

    def enter(self, entry: Mapping[str, Any]) -> None:
        self.lists.setdefault(entry["split"], []).append(entry["name"])

    def finish(self) -> tuple[str, ...]:
        write_table(self.out / "classes.txt", self.classes, unknown=None, nothing=None)
        with atomic(self.out / "labels.txt") as part:  # what `labelme --labels` takes
            part.write_text("".join(f"{name}\n" for name in (*RESERVED, *self.classes.names)), encoding="utf-8")
        write_lists(self.out / "splits", self.lists)
        return super().finish()


def _shapes(name: str, outlines: Outlines, row: int, *, crowd: bool) -> list[dict[str, Any]]:
    """The shapes of one segment."""
    flags = {"crowd": True} if crowd else {}
    if outlines.has_holes(row):
        box, crop = outlines.window(row)
        return [_mask(name, box[:2], crop, flags)]
    group = row + 1 if outlines.counts[row] > 1 else None
    return [
        {"label": name, "points": ring.astype(float).tolist(), "group_id": group, "description": "",
         "shape_type": "polygon", "flags": flags, "mask": None}
        for (ring,) in outlines.polygons(row)
    ]  # fmt: skip


def _mask(name: str, corner: np.ndarray, mask: np.ndarray, flags: dict[str, bool]) -> dict[str, Any]:
    """A mask and its corner pixels, the last one included."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, format="PNG")
    last = corner + np.array(mask.shape)[::-1] - 1
    return {"label": name, "points": [corner.astype(float).tolist(), last.astype(float).tolist()], "group_id": None,
            "description": "", "shape_type": "mask", "flags": flags,
            "mask": base64.b64encode(file.getvalue()).decode()}  # fmt: skip
