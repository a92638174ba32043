"""Polygons to masks and back: COCO's rasterising rule to the pixel, and rings on pixel edges that lose nothing.

Coordinates are (x, y) in pixel edges: pixel (row 0, column 0) covers 0..1 in both. A *ring* is a closed line [P, 2]
whose first point is not repeated. A *polygon* is a list of rings, the outer one first and then its holes, as in
GeoJSON. A *shape* is a list of polygons; it is one segment.

Two rules say which pixels a shape covers. `fill` takes a pixel when its centre lies inside; it is the inverse of
`trace`, whose rings run along pixel edges, so masks with any holes and islands come back exactly. `coco_mask` is COCO's
rule: for rings from `trace` it gives the same pixels, but COCO's lists have no holes (such a mask must be written as
run lengths), and rings through pixel centres, as contour finders give them, lose their right and lower border under it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from pixelwise.core import rle
from pixelwise.core.bands import Bands
from pixelwise.core.outlines import Outlines
from pixelwise.core.segments import Segments
from pixelwise.errors import DataError

FINE = 5  # COCO draws boundaries on a grid five times finer than the pixels
BLOCK = 256  # edges that are compared with all others at a time
MOST_POINTS = 1 << 25  # of one boundary on a grid; more means that the coordinates are no pixels

Window = tuple[tuple[int, int, int, int], np.ndarray]  # box x0 y0 x1 y1 and the bool crop in it


def trace(mask: np.ndarray) -> list[list[np.ndarray]]:
    """[H, W] bool -> the shape whose `fill` is that mask: polygons of integer rings [P, 2] along pixel edges.

    Every polygon is valid as OGC's Simple Features have it: its pixels hang together by their sides (4 neighbours), no
    ring visits a point twice, and pixels or holes that touch at a corner alone are of two polygons or are two holes.
    Rings begin at their upper left corner and turn at every point; outer ones are counterclockwise where y grows up,
    holes clockwise. Polygons and holes come in the order of where they begin, from the top.
    """
    rows = np.where(mask, np.int8(0), np.int8(-1))
    one = np.zeros(1, np.int64)
    return list(Outlines.of(Bands(rows.shape, one, one, lambda top, bottom: rows[top:bottom])).polygons(0))


def join(shape: Sequence[Sequence[Any]]) -> np.ndarray:
    """One ring [P, 2] whose `fill` is that of all rings of a shape from `trace`: for formats of one ring per segment.

    Pieces and holes hang one on the next by bridges along pixel edges, each run there and back: an edge that is crossed
    twice changes nothing, wherever it runs.
    """
    rings = sorted((_ring(points) for polygon in shape for points in polygon), key=_snake)
    there, back = [], []
    for at, ring in enumerate(rings):
        if at + 1 == len(rings):
            there += [ring, ring[:1]]
            break
        distance, nearest = cKDTree(ring).query(rings[at + 1])
        entry = int(distance.argmin())
        rings[at + 1] = np.roll(rings[at + 1], -entry, 0)
        leave = int(nearest[entry])
        corner = np.array([[rings[at + 1][0, 0], ring[leave, 1]]])
        there += [ring[: leave + 1], corner]
        back += [ring[:1], ring[leave:], corner]
    path = np.concatenate(there + back[::-1])
    return path[(path != np.roll(path, 1, 0)).any(1)]


def _snake(ring: np.ndarray) -> tuple[int, float]:
    """Sorts rings along bands of 16 rows, to and fro, so that bridges are short."""
    x, y = ring[0]
    band = int(y // 16)
    return band, x if band % 2 == 0 else -x


def fill(shape: Sequence[Sequence[Any]], size: Sequence[int]) -> np.ndarray:
    """The mask [H, W] bool of a shape: pixels whose centre lies inside a polygon and in none of its holes.

    A ring is inside where a line from outside crosses it an odd number of times; a centre on the line itself belongs to
    the pixel at its right or below. Raises DataError for rings of fewer than three points or without numbers.
    """
    mask = np.zeros((int(size[0]), int(size[1])), bool)
    for polygon in shape:
        outer, *holes = [_inside(_ring(points), mask.shape) for points in polygon]
        for hole in holes:
            outer &= ~hole
        mask |= outer
    return mask


def _inside(ring: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """[H, W] bool of one ring: each edge flips all pixels right of where it crosses the middle of their row."""
    height, width = size
    (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, 0).T
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    first = np.ceil(low - 0.5).clip(0, height).astype(np.int64)  # rows whose middle is in low..high, high excluded
    count = np.ceil(high - 0.5).clip(0, height).astype(np.int64) - first
    edge = np.repeat(np.arange(len(ring)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    along = (row + 0.5 - y0[edge]) / (y1 - y0)[edge]
    column = np.ceil(x0[edge] + along * (x1 - x0)[edge] - 0.5).clip(0, width).astype(np.int64)
    flips = np.bincount(row * (width + 1) + column, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.cumsum(flips, 1)[:, :width] % 2 == 1


def coco_mask(parts: Sequence[Any], size: Sequence[int]) -> np.ndarray:
    """[H, W] bool of COCO's `segmentation`, a list of rings [x, y, x, y, ...]: their union by COCO's rule.

    Raises DataError for rings of fewer than three points or without numbers.
    """
    mask = np.zeros((int(size[0]), int(size[1])), bool)
    for part in parts:
        (x0, y0, x1, y1), crop = _coco_window(_ring(part), mask.shape)
        mask[y0:y1, x0:x1] |= crop
    return mask


def _coco_window(ring: np.ndarray, size: tuple[int, ...]) -> Window:
    """One ring by COCO's rule.

    The boundary is drawn as a line of points on the fine grid. Where it steps sideways over the middle of a pixel
    column, the column changes between outside and inside, from the pixel whose middle lies below that point downwards.
    """
    height, width = size
    u, v = _fine_line(ring)
    step = np.flatnonzero(u[1:] != u[:-1])
    cell = np.minimum(u[step], u[step + 1])  # the fine column that is stepped over
    y = (np.minimum(v[step], v[step + 1]) + 0.5) / FINE - 0.5
    x, middle = np.divmod(cell, FINE)
    seen = (middle == FINE // 2) & (x >= 0) & (x < width)
    x, y = x[seen], np.ceil(y[seen].clip(0, height)).astype(np.int64)
    if not len(x):
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    left, right, top, bottom = int(x.min()), int(x.max()) + 1, int(y.min()), int(y.max())
    # column after column in one vector; the line is closed, so that each column ends outside
    high = bottom - top
    changes = np.bincount((x - left) * high + y - top, minlength=(right - left) * high + 1)
    inside = np.cumsum(changes[:-1]) % 2 == 1
    return (left, top, right, bottom), inside.reshape(right - left, high).T


def _fine_line(ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fine-grid points along a closed ring: from vertex to vertex a point for each step of the longer axis."""
    start = (ring * FINE + 0.5).astype(np.int64)  # towards zero, as a C cast
    end = np.roll(start, -1, 0)
    moves = (start != end).any(1)
    start, end = start[moves], end[moves]
    if not len(start):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    span = np.abs(end - start)
    count = span.max(1) + 1
    flat = span[:, 0] >= span[:, 1]
    main, side = np.where(flat, 0, 1), np.where(flat, 1, 0)  # the axis that counts, the axis that follows
    edges = np.arange(len(start))
    turned = start[edges, main] > end[edges, main]  # always computed from the lower end, so that rounding is the same
    low, high = np.where(turned[:, None], end, start), np.where(turned[:, None], start, end)
    slope = (high - low)[edges, side] / (high - low)[edges, main]
    edge = np.repeat(edges, count)
    along = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    along = np.where(turned[edge], count[edge] - 1 - along, along)
    first = low[edge, main[edge]] + along
    second = (low[edge, side[edge]] + slope[edge] * along + 0.5).astype(np.int64)
    return np.where(flat[edge], first, second), np.where(flat[edge], second, first)


def _ring(points: Any) -> np.ndarray:
    """[P, 2] float64 from pairs or from COCO's flat list x, y, x, y, ..."""
    try:
        ring = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a ring must be numbers x, y, x, y, ..., got {str(points)[:60]}.") from error
    if ring.ndim == 1 and len(ring) % 2 == 0:
        ring = ring.reshape(-1, 2)
    if ring.ndim != 2 or ring.shape[1:] != (2,) or len(ring) < 3:
        raise DataError(f"a ring needs x and y of at least three points, got an array {list(ring.shape)}.")
    if not np.isfinite(ring).all():
        raise DataError("a ring holds coordinates that are not finite.")
    length = np.abs(ring - np.roll(ring, 1, 0)).max(1).sum()
    if length * FINE > MOST_POINTS:
        raise DataError(f"a ring is {length:.0f} pixels long: are its coordinates in pixels?")
    return ring


def to_shapes(segments: Segments) -> list[list[list[np.ndarray]]]:
    """The shape of each row as by `trace`; rows without pixels have an empty one."""
    outlines = Outlines.of(Bands.of(segments))
    return [list(outlines.polygons(row)) for row in range(len(segments))]


def shape_window(shape: Sequence[Sequence[Any]], size: Sequence[int]) -> Window:
    """The part of a shape inside an image of `size` (H, W), by `fill`; only the box around it is looked at.

    Raises DataError for rings of fewer than three points or without numbers.
    """
    corners = np.concatenate([_ring(polygon[0]) for polygon in shape] or [np.zeros((1, 2))])
    x0, y0 = np.floor(corners.min(0)).clip(0, (size[1], size[0])).astype(int).tolist()
    x1, y1 = np.ceil(corners.max(0)).clip(0, (size[1], size[0])).astype(int).tolist()
    near = [[_ring(points) - (x0, y0) for points in polygon] for polygon in shape]
    return (x0, y0, x1, y1), fill(near, (y1 - y0, x1 - x0))


def from_shapes(
    shapes: Sequence[Sequence[Sequence[Any]]], labels: Any, size: Sequence[int], **columns: Any
) -> Segments:
    """Segments from one shape per row, by `fill`; only the box around each is looked at."""
    windows = [shape_window(shape, size) for shape in shapes]
    return Segments.from_windows([w[0] for w in windows], [w[1] for w in windows], labels, size, **columns)


def from_coco(segmentations: Sequence[Any], labels: Any, size: Sequence[int], **columns: Any) -> Segments:
    """Segments from the `segmentation` of each of COCO's annotations: a list of rings, or a run-length code.

    Raises DataError for malformed rings or codes and for codes of another size than (H, W).
    """
    boxes, crops = [], []
    for segmentation in segmentations:
        box, crop = coco_window(segmentation, size)
        boxes.append(box)
        crops.append(crop)
    return Segments.from_windows(boxes, crops, labels, size, **columns)


def coco_window(segmentation: Any, size: Sequence[int]) -> Window:
    """One annotation's `segmentation` as the box around its pixels and the bool crop in it. Raises as `from_coco`."""
    if isinstance(segmentation, Mapping):
        return _code_window(segmentation, size)
    return _union(segmentation, size)


def crosses_itself(ring: Any) -> bool:
    """Whether two edges of a ring cross, each strictly between the ends of the other."""
    start = _ring(ring)
    end = np.roll(start, -1, 0)
    low, high = np.minimum(start, end), np.maximum(start, end)
    for at in range(0, len(start), BLOCK):  # [BLOCK, P] pairs of edges at a time
        some = slice(at, at + BLOCK)
        meet = ((low[some, None] < high[None]) & (high[some, None] > low[None])).all(2)
        i, j = np.nonzero(meet)
        i += at
        i, j = i[i < j], j[i < j]
        apart = _side(start[i], end[i], start[j]) * _side(start[i], end[i], end[j]) < 0
        if (apart & (_side(start[j], end[j], start[i]) * _side(start[j], end[j], end[i]) < 0)).any():
            return True
    return False


def _side(a: np.ndarray, b: np.ndarray, point: np.ndarray) -> np.ndarray:
    """[E] -1, 0 or 1: on which side of the line a-b the point lies, all [E, 2]."""
    (x, y), (u, v) = (b - a).T, (point - a).T
    return np.sign(x * v - y * u)


def _union(parts: Sequence[Any], size: Sequence[int]) -> Window:
    windows = [_coco_window(_ring(part), tuple(size)) for part in parts]
    windows = [w for w in windows if w[1].any()]
    if not windows:
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    left, top = (min(box[i] for box, _ in windows) for i in (0, 1))
    right, bottom = (max(box[i] for box, _ in windows) for i in (2, 3))
    whole = np.zeros((bottom - top, right - left), bool)
    for (x0, y0, x1, y1), crop in windows:
        whole[y0 - top : y1 - top, x0 - left : x1 - left] |= crop
    ys, xs = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))  # lines that close upon themselves own no pixel
    box = (left + int(xs[0]), top + int(ys[0]), left + int(xs[-1]) + 1, top + int(ys[-1]) + 1)
    return box, whole[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def _code_window(code: Mapping[str, Any], size: Sequence[int]) -> Window:
    if "size" in code and code["size"] != list(size):
        raise DataError(f"run-length code is for {code['size']}, the image has {list(size)} (height, width).")
    return rle.decode_window(code)
