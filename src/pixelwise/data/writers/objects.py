"""Tables for people who count: objects.csv has a row for each object, counts.csv one for each image and class."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.data import writer
from pixelwise.data.writer import Item, LargeItem

DESCRIPTION = "objects.csv: image, class, score, area, centroid and box of each object; counts.csv: objects per image"
BESIDE = True  # whether answers stand beside those of other kinds, rather than in a folder of this name
COLUMNS = ("split", "image", "object", "class", "score", "crowd", "area", "x", "y", "x0", "y0", "x1", "y1")


def numbers(segments: Segments, is_thing: np.ndarray) -> np.ndarray:
    """[N] the number of each segment of an answer within its image: 1, 2, ... by falling score, stuff behind things."""
    return row_numbers(segments.labels.numpy(), segments.scores.numpy(), is_thing)


def row_numbers(labels: np.ndarray, scores: np.ndarray, is_thing: np.ndarray) -> np.ndarray:
    """[N] the same for segments of these labels and scores [N]."""
    thing = is_thing[labels]
    order = np.lexsort((np.arange(len(thing)), -scores, ~thing))
    found = np.empty(len(order), np.int64)
    found[order] = np.arange(1, len(order) + 1)
    return found


class Writer(writer.Entering):
    """Writes objects.csv and counts.csv.

    objects.csv  one row per segment: its number within the image (of truth: its id on disk; of an answer: its id in the
                 map of instances), class, score 0..1, area in pixels, centroid x y (the mean of its pixels' middles),
                 box x0 y0 x1 y1 in pixel edges from the upper left corner; y grows down
    counts.csv   one row per image and class, 0 too: how many objects, the pixels that they cover (those of several
                 objects once), and the share of the image

    A class of stuff is one segment per image. Masks are not written, so nothing can be read back.
    """

    HOLDS = frozenset({"crowd", "overlaps", "scores", "unknown", "nothing"})

    def __init__(self, out: Path, classes: Classes) -> None:
        super().__init__(out, classes)
        self.rows: list[str] = []
        self.counts: list[str] = []

    def make(self, item: Item | LargeItem) -> tuple[tuple[Path, ...], dict[str, Any]]:
        rows, counts = self._of_bands(item) if isinstance(item, LargeItem) else self._of_segments(item)
        return (), {"rows": rows, "counts": counts}

    def enter(self, entry: Mapping[str, Any]) -> None:
        self.rows += entry["rows"]
        self.counts += entry["counts"]

    def _of_bands(self, item: LargeItem) -> tuple[list[str], list[str]]:
        bands, rows, counts = item.bands, list[str](), list[str]()
        labels, scores, areas = bands.labels.tolist(), bands.scores.tolist(), bands.counts.tolist()
        boxes, middles = bands.boxes.tolist(), bands.middles.round(2).tolist()
        number = row_numbers(bands.labels, bands.scores, self.classes.is_thing).tolist()
        for row in np.flatnonzero(bands.counts).tolist():
            name = self.classes.names[labels[row]]
            rows.append(_line(item.split, item.name, number[row], name, round(scores[row], 4), 0, areas[row],
                              *middles[row], *boxes[row]))  # fmt: skip
        for label, name in enumerate(self.classes.names):
            own = bands.counts[bands.labels == label]
            share = round(int(own.sum()) / (item.size[0] * item.size[1]), 6)
            found = int(np.count_nonzero(own))
            counts.append(_line(item.split, item.name, name, found, int(own.sum()), share))
        return rows, counts

    def _of_segments(self, item: Item) -> tuple[list[str], list[str]]:
        segments, rows, counts = self.held(item.segments), list[str](), list[str]()
        labels, scores = segments.labels.tolist(), segments.scores.tolist()
        areas, crowd = segments.pixel_counts.tolist(), segments.crowd.int().tolist()
        own = numbers(segments, self.classes.is_thing) if segments.keys is None else segments.keys
        number = own.tolist()
        for row, ((x0, y0, x1, y1), crop) in enumerate(zip(*segments.windows())):
            ys, xs = np.nonzero(crop)
            x, y = round(xs.mean() + x0 + 0.5, 2), round(ys.mean() + y0 + 0.5, 2)
            name = self.classes.names[labels[row]]
            rows.append(_line(item.split, item.name, number[row], name, round(scores[row], 4), crowd[row],
                              areas[row], x, y, x0, y0, x1, y1))  # fmt: skip
        height, width = segments.size
        for label, name in enumerate(self.classes.names):
            mine = segments.labels == label
            covered = int((segments.keep(mine).ids >= 0).any(0).sum()) if mine.any() else 0
            share = round(covered / (height * width), 6)
            counts.append(_line(item.split, item.name, name, int(mine.sum()), covered, share))
        return rows, counts

    def finish(self) -> tuple[str, ...]:
        _table(self.out / "objects.csv", COLUMNS, self.rows)
        _table(self.out / "counts.csv", ("split", "image", "class", "objects", "pixels", "share"), self.counts)
        return super().finish()


def _line(*values: object) -> str:
    """One row, quoted where a name needs it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _table(path: Path, head: tuple[str, ...], rows: list[str]) -> None:
    with atomic(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.write(_line(*head))
        file.writelines(rows)
