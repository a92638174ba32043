"""What people drew on an image, piece by piece, becomes Segments: polygons, ellipses, masks, joined where they belong.

Coordinates are in pixel edges: pixel (row 0, column 0) covers 0..1. A pixel belongs to what is drawn where its middle
lies inside. This is the rule of all formats of drawn shapes but COCO, which has one of its own.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.core.polygons import Window, shape_window
from pixelwise.core.segments import BOX, MASK, Segments
from pixelwise.data.dataset import Fault, Record
from pixelwise.errors import DataError

Box = tuple[float, float, float, float]


@dataclass
class Row:
    """One segment: its pieces, or a box x0 y0 x1 y1 of which nobody said which pixels are the object's."""

    label: int
    pieces: list[Window] = field(default_factory=list)
    box: Box | None = None
    crowd: bool = False


@dataclass
class Drawing:
    """All that is drawn on one image.

    size    (H, W)
    path    the file that is named where something is wrong
    rows    the segments; where they overlap the first shows
    void    what is drawn as unknown
    faults  what was left out, or looks wrong
    """

    size: tuple[int, int]
    path: Path
    rows: list[Row] = field(default_factory=list)
    void: list[Window] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def polygon(self, points: Any, where: str) -> Window | None:
        """The pixels of a ring [P, 2]; None, and a fault, for fewer than three points.

        Raises DataError for what are no numbers, and for rings so long that they cannot be in pixels.
        """
        try:
            ring = np.asarray(points, np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            raise DataError(f"{self.path}: {where}: points must be pairs x y, got {str(points)[:60]}.") from None
        if len(ring) < 3:
            self.faults.append(Fault("short-polygon", self.path, f"{where} has {_points(len(ring))}"))
            return None
        height, width = self.size
        if (ring < -1).any() or (ring > (width + 1, height + 1)).any():
            self.faults.append(Fault("outside", self.path, f"{where} leaves the image of {width} x {height} pixels"))
        try:
            return shape_window([[ring]], self.size)
        except DataError as error:
            raise DataError(f"{self.path}: {where}: {error}") from None

    def ellipse(self, x: float, y: float, rx: float, ry: float, degrees: float = 0) -> Window:
        """An ellipse around (x, y), turned clockwise as seen."""
        height, width = self.size
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        half = np.hypot(rx * cos, ry * sin), np.hypot(rx * sin, ry * cos)
        x0, x1 = np.clip([np.floor(x - half[0]), np.ceil(x + half[0])], 0, width).astype(int).tolist()
        y0, y1 = np.clip([np.floor(y - half[1]), np.ceil(y + half[1])], 0, height).astype(int).tolist()
        dx, dy = np.arange(x0, x1) + 0.5 - x, np.arange(y0, y1)[:, None] + 0.5 - y
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        return (x0, y0, x1, y1), (along * ry) ** 2 + (across * rx) ** 2 < (rx * ry) ** 2

    def mask(self, mask: np.ndarray, x: int, y: int) -> Window:
        """A mask [h, w] whose upper left pixel is at column x, row y; what lies outside is cut off."""
        height, width = self.size
        x0, y0 = min(max(x, 0), width), min(max(y, 0), height)
        x1 = max(min(x + mask.shape[1], width), x0)
        y1 = max(min(y + mask.shape[0], height), y0)
        return (x0, y0, x1, y1), np.array(mask[y0 - y : y1 - y, x0 - x : x1 - x], bool)

    def segments(self) -> Segments:
        """The rows as they are; inside a box of unknown pixels all that no other row covers is UNKNOWN."""
        windows = [union(row.pieces) for row in self.rows]
        boxed = [row.box for row in self.rows if row.box is not None]
        void = np.zeros(self.size, bool)
        for (x0, y0, x1, y1), crop in self.void:
            void[y0:y1, x0:x1] |= crop
        for x, y, right, bottom in boxed:
            void[max(int(y), 0) : int(np.ceil(bottom)), max(int(x), 0) : int(np.ceil(right))] = True
        columns: dict[str, Any] = {"crowd": np.array([row.crowd for row in self.rows], bool)}
        if boxed:
            columns["kind"] = np.array([MASK if row.box is None else BOX for row in self.rows], np.uint8)
            boxes = [window[0] if row.box is None else row.box for row, window in zip(self.rows, windows)]
            columns["given_boxes"] = np.array(boxes, np.float32)
        labels = np.array([row.label for row in self.rows], np.int64)
        return Segments.from_windows([w[0] for w in windows], [w[1] for w in windows], labels, self.size, void=void,
                                     **columns)  # fmt: skip


def _points(count: int) -> str:
    return "1 point" if count == 1 else f"{count} points"


def union(windows: Sequence[Window]) -> Window:
    """All windows as one; the box (0, 0, 0, 0) for none."""
    windows = [w for w in windows if w[1].any()]
    if len(windows) == 1:
        return windows[0]
    if not windows:
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    boxes = np.array([box for box, _ in windows])
    left, top = (int(v) for v in boxes[:, :2].min(0))
    right, bottom = (int(v) for v in boxes[:, 2:].max(0))
    whole = np.zeros((bottom - top, right - left), bool)
    for (x0, y0, x1, y1), crop in windows:
        whole[y0 - top : y1 - top, x0 - left : x1 - left] |= crop
    return (left, top, right, bottom), whole


def erase(piece: Window, above: Window) -> None:
    """Takes the pixels of `above` from a piece, in place."""
    (x0, y0, x1, y1), crop = piece
    (left, top, right, bottom), cover = above
    left, top, right, bottom = max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)
    if left < right and top < bottom:
        dx, dy = above[0][:2]
        crop[top - y0 : bottom - y0, left - x0 : right - x0] &= ~cover[top - dy : bottom - dy, left - dx : right - dx]


def turned(box: Box, degrees: float, pivot: tuple[float, float]) -> np.ndarray:
    """[4, 2] corners of a box x0 y0 x1 y1 turned clockwise as seen around a point."""
    x0, y0, x1, y1 = box
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64) - pivot
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return corners @ np.array([[cos, sin], [-sin, cos]]) + pivot


class ShapeReader(ABC):
    """A `TableReader` of drawn shapes: `draw` is what a format adds."""

    @abstractmethod
    def draw(self, record: Record) -> Drawing:
        """Raises DataError naming the file, the entry and what is wrong with it."""

    @abstractmethod
    def file(self, record: Record) -> Path:
        """The file in which the truth of the record stands."""

    def __call__(self, record: Record) -> Segments:
        return self.draw(record).segments()

    def faults(self, record: Record) -> Sequence[Fault]:
        try:
            return self.draw(record).faults
        except DataError as error:
            path = self.file(record)
            return (Fault("annotation", path, str(error).removeprefix(str(path)).lstrip(":, ")),)


def read_json(path: Path) -> Any:
    """A JSON file of an annotation tool. Raises DataError for one that cannot be read or is cut off."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no whole JSON file ({error}); copy or export it again.") from None
