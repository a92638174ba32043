"""`Outlines`: the polygons of all segments of a map that is read band by band, in one pass.

What is held is the corners, not the pixels: some 70 bytes for each at most, 8 when the map has been read. How rings run
and which are one polygon says `polygons.trace`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pixelwise.core.bands import Bands
from pixelwise.errors import DataError
from pixelwise.kernels import outline
from pixelwise.kernels.outline import ABOVE, MOST, ROW

Polygon = list[np.ndarray]  # its rings [P, 2] int32 (x, y), the outer one first
ROOM = 1 << 12  # corners for which there is room at first
LIMIT = np.iinfo(np.int32).max  # corners that can be numbered


@dataclass(frozen=True, eq=False)
class Outlines:
    """The polygons of N segments.

    points  [P, 2] int32 x, y in pixel edges, ring after ring
    rings   [R + 1] int64 where each begins in `points`, segment after segment, polygon after polygon, outer ones first
    outer   [R] bool: which are outer rings; those after one are its holes
    first   [N + 1] int64 where each segment begins among the rings
    """

    points: np.ndarray
    rings: np.ndarray
    outer: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, bands: Bands) -> Outlines:
        """Of all segments; in layers where they overlap. Raises DataError for more corners than can be numbered."""
        tracing = _Tracing(bands.size[1])
        if bands.whole is None:
            tracing.add(bands)
        else:
            for layer in bands.whole.ids.cpu().numpy():
                tracing.add([layer])
        return tracing.outlines(len(bands))

    def polygons(self, row: int) -> Iterator[Polygon]:
        """Of one segment, in the order of their upper left corners; integer rings that begin there."""
        polygon: Polygon = []
        for ring in range(int(self.first[row]), int(self.first[row + 1])):
            if self.outer[ring] and polygon:
                yield polygon
                polygon = []
            polygon.append(self.points[self.rings[ring] : self.rings[ring + 1]])
        if polygon:
            yield polygon

    def has_holes(self, row: int) -> bool:
        """Whether a polygon of the segment has any."""
        return not self.outer[self.first[row] : self.first[row + 1]].all()

    @cached_property
    def counts(self) -> np.ndarray:
        """[N] how many polygons each segment has."""
        return np.diff(np.concatenate([[0], np.cumsum(self.outer)])[self.first])

    def sides(self, row: int, *, upright: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A segment's sides, level or upright: where each lies, its lower and its higher end, [S] int32 each.

        Level sides are y, x0, x1; upright ones x, y0, y1.
        """
        begin, end = self.first[row], self.first[row + 1]
        points, ends = self.points[self.rings[begin] : self.rings[end]], self.rings[begin : end + 1] - self.rings[begin]
        onward = np.roll(points, -1, 0)
        onward[ends[1:] - 1] = points[ends[:-1]]
        across, along = (0, 1) if upright else (1, 0)
        own = points[:, across] == onward[:, across]
        one, other = points[own, along], onward[own, along]
        return points[own, across], np.minimum(one, other), np.maximum(one, other)

    def window(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The box x0 y0 x1 y1 around a segment and the bool crop [h, w] in it: a byte for each pixel of the box."""
        points = self.points[self.rings[self.first[row]] : self.rings[self.first[row + 1]]]
        if not len(points):
            return np.zeros(4, np.int64), np.zeros((0, 0), bool)
        box = np.concatenate([points.min(0), points.max(0)]).astype(np.int64)
        crop = np.zeros((box[3] - box[1], box[2] - box[0]), bool)
        x, low, high = self.sides(row, upright=True)
        inner = x < box[2]
        which, y = spread(low[inner], high[inner])
        crop[y - box[1], x[inner][which] - box[0]] = True
        for line in crop:  # what lies right of an odd number of sides is inside
            np.logical_xor.accumulate(line, out=line)
        return box, crop


def spread(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All whole numbers of the spans low..high, high excluded: which span each is of, and the numbers."""
    length = (high - low).astype(np.int64)
    which = np.repeat(np.arange(len(low)), length)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(length) - length - low, length)


class _Tracing:
    """Outlines in the making: see `kernels.outline`."""

    def __init__(self, width: int) -> None:
        self.width, self.count = width, 0
        self.nodes, self.meets = np.empty((5, ROOM), np.int32), np.empty(ROOM, np.uint8)

    def add(self, bands: Iterable[np.ndarray]) -> None:
        """All of one map, from the top."""
        empty = np.full(self.width + 2, -1, np.int32)
        left, right = np.zeros(self.width + 1, np.int32), np.zeros(self.width + 1, np.int32)
        above, y = empty, 0
        for band in bands:
            for line in band:
                below = empty.copy()
                np.maximum(line, -1, out=below[1:-1], casting="same_kind")
                self._line(above, below, y, left, right)
                above, y = below, y + 1
        self._line(above, empty, y, left, right)

    def _line(self, above: np.ndarray, below: np.ndarray, y: int, left: np.ndarray, right: np.ndarray) -> None:
        points = np.flatnonzero((above[:-1] != above[1:]) | (below[:-1] != below[1:]))
        if self.count + MOST * len(points) > len(self.meets):
            self._grow(MOST * len(points))
        self.count = outline.add_line(points, above, below, y, left, right, self.nodes, self.meets, self.count)

    def _grow(self, more: int) -> None:
        if self.count + more > LIMIT:
            raise DataError(f"the map has more corners than can be numbered ({LIMIT}): it is noise, not segments.")
        room = min(max(2 * len(self.meets), self.count + more), LIMIT)
        nodes, meets = np.empty((5, room), np.int32), np.empty(room, np.uint8)
        nodes[:, : self.count], meets[: self.count] = self.nodes[:, : self.count], self.meets[: self.count]
        self.nodes, self.meets = nodes, meets

    def outlines(self, rows: int) -> Outlines:
        """The end of it, for segments 0..rows-1."""
        nodes, count = self.nodes, self.count
        outline.part(nodes, self.meets, count)
        order, starts = np.empty(count, np.int32), np.empty(count // 4 + 1, np.int64)
        found = outline.walk(nodes, count, order, starts)
        starts[found] = count
        oldest = order[starts[:found]]
        stands, row = nodes[ABOVE, oldest], nodes[ROW, oldest]
        sorted_ = np.lexsort((stands, row))  # stable: an outer ring comes first, as its oldest node stands for all
        lengths = np.diff(starts[: found + 1])[sorted_]
        rings = np.concatenate([[0], np.cumsum(lengths)])
        points = np.empty((count, 2), np.int32)
        outline.gather(nodes, order, starts, sorted_, points)
        first = np.searchsorted(row[sorted_], np.arange(rows + 1))
        return Outlines(points, rings, (stands == oldest)[sorted_], first)
