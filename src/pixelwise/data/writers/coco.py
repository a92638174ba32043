"""COCO instances (Lin et al., ECCV 2014, 1405.0312): annotations/instances_SPLIT.json with images in SPLIT/.

A mask without holes is written as polygons along pixel edges, which COCO's rule gives back to the pixel; any other as a
compressed run-length code. Crowd regions are run-length codes, plain lists of runs as COCO itself has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pixelwise.core import rle
from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.outlines import Outlines
from pixelwise.data import writer
from pixelwise.data.writer import Item, LargeItem
from pixelwise.errors import ConfigError

DESCRIPTION = "COCO instances: annotations/instances_SPLIT.json (polygons, RLE, crowd), images in SPLIT/"
BESIDE = False  # whether answers stand beside those of other kinds, rather than in a folder of this name


class Tables:
    """Images and annotations of each split as JSON text, which takes a quarter of the memory of dicts."""

    def __init__(self) -> None:
        self.images: dict[str, list[str]] = {}
        self.annotations: dict[str, list[str]] = {}

    def image(self, split: str, size: Sequence[int], file_name: str) -> int:
        """Enters an image (H, W) and returns its id, unique over all splits."""
        height, width = size
        image_id = sum(map(len, self.images.values())) + 1
        entry = {"id": image_id, "file_name": file_name, "width": width, "height": height}
        self.images.setdefault(split, []).append(json.dumps(entry))
        self.annotations.setdefault(split, [])
        return image_id

    def write(self, out: Path, kind: str, classes: Classes) -> None:
        """annotations/KIND_SPLIT.json for each split, or KIND.json where there are none."""
        rows = zip(classes.ids, classes.names, classes.is_thing, classes.colours)
        categories = [{"id": i, "name": n, "isthing": int(t), "color": list(c)} for i, n, t, c in rows]
        for split, images in self.images.items():
            name = f"annotations/{kind}_{split}.json" if split else f"{kind}.json"
            with atomic(out / name) as part, part.open("w", encoding="utf-8") as file:
                file.write('{"images": [\n' + ",\n".join(images) + '\n],\n"annotations": [\n')
                for number, text in enumerate(self.annotations[split]):  # one by one: some hold a million polygons
                    file.write(",\n" if number else "")
                    file.write(text)
                file.write('\n],\n"categories": ' + json.dumps(categories) + "}\n")


class Writer(writer.Entering):
    """Writes COCO instances.

    masks  "auto": polygons where a mask has no holes, else RLE. "rle": RLE for all
    crowd  "runs": a plain list of runs, as COCO's own files. "text": compressed

    Every class is a category, stuff too (`isthing` tells them apart). Annotation ids are `keys` where these are above 0
    and free; others are numbered anew. Without splits the file is instances.json. Scores below 1 stand as `score`.
    """

    HOLDS = frozenset({"crowd", "overlaps", "nothing", "scores", "boxes"})

    def __init__(self, out: Path, classes: Classes, *, masks: Literal["auto", "rle"] = "auto",
                 crowd: Literal["runs", "text"] = "runs") -> None:  # fmt: skip
        super().__init__(out, classes)
        if masks not in ("auto", "rle"):
            raise ConfigError(f"masks is 'auto' or 'rle', got {masks!r}.")
        if crowd not in ("runs", "text"):
            raise ConfigError(f"crowd is 'runs' or 'text', got {crowd!r}.")
        self.masks, self.crowd = masks, crowd
        self.tables = Tables()
        self._ids: set[int] = set()
        self._next = 1

    def place(self, item: Item) -> Path:
        return self.out / (item.split or "images") / f"{self.inner(item)}{item.ending}"

    def make(self, item: Item | LargeItem) -> tuple[tuple[Path, ...], dict[str, Any]]:
        found = self.outlined(item)
        labels, scores = found.bands.labels.tolist(), found.bands.scores.tolist()
        areas, boxes = found.areas.tolist(), found.boxes.tolist()
        self.lose("Segments of stuff, now objects", int(np.count_nonzero(~self.classes.is_thing[labels])))
        rows = list[str]()
        for row, (x0, y0, x1, y1) in enumerate(boxes):
            annotation = {
                "category_id": self.classes.ids[labels[row]],
                "segmentation": self._mask(found.outlines, row, item.size, bool(found.crowd[row])),
                "area": _short(areas[row]),
                "bbox": [_short(v) for v in (x0, y0, x1 - x0, y1 - y0)],
                "iscrowd": int(found.crowd[row]),
            }
            rows.append(json.dumps(annotation if scores[row] == 1 else {**annotation, "score": round(scores[row], 6)}))
        keys = None if found.keys is None else found.keys.tolist()
        name = f"{self.inner(item)}{item.ending}"
        return (), {"split": item.split, "size": item.size, "file": name, "keys": keys, "annotations": rows}

    def enter(self, entry: Mapping[str, Any]) -> None:
        image_id = self.tables.image(entry["split"], entry["size"], entry["file"])
        keys, rows = entry["keys"], self.tables.annotations[entry["split"]]
        for row, text in enumerate(entry["annotations"]):
            own = self._id(None if keys is None else keys[row])
            rows.append(f'{{"id": {own}, "image_id": {image_id}, {text[1:]}')

    def _id(self, key: int | None) -> int:
        """The key where it is free, else the next free number; an annotation id stands once in the whole set."""
        if key is None or key < 1 or key in self._ids:
            self.lose("Ids on disk that were taken or below 1, numbered anew", key is not None)
            while self._next in self._ids:
                self._next += 1
            key = self._next
        self._ids.add(key)
        return key

    def _mask(self, outlines: Outlines, row: int, size: tuple[int, int], crowd: bool) -> Any:
        if not outlines.counts[row]:  # a box without a mask
            return []
        if self.masks == "auto" and not crowd and not outlines.has_holes(row):
            return [ring.ravel().tolist() for (ring,) in outlines.polygons(row)]
        code = rle.encode_sides(*outlines.sides(row, upright=False), size)
        if crowd and self.crowd == "runs":
            return {"size": code["size"], "counts": rle.unpack(code["counts"])}
        return code

    def finish(self) -> tuple[str, ...]:
        empty = [split for split, rows in self.tables.annotations.items() if split and not rows]
        self.lose("Splits without any object, which COCO cannot tell from splits that nobody annotated", len(empty))
        self.tables.write(self.out, "instances", self.classes)
        return super().finish()


def _short(value: float) -> float:
    return int(value) if value == int(value) else value
