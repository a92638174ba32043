"""Star-convex polygons (Schmidt et al. 2018, 1806.03535): how much two overlap, which survive, which pixels they cover.

Vertices are (row, column) pairs around a centre, one per ray of `kernels.stars`. All is NumPy on the CPU, many polygons
at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import cKDTree


def vertices(points: np.ndarray, distances: np.ndarray, scale: Any = (1.0, 1.0)) -> np.ndarray:
    """[N, 2, R] float32 rows and columns of the vertices around centres [N, 2] at distances [N, R], stretched by
    `scale` (down, across)."""
    rays = distances.shape[1]
    angles = np.linspace(0, 2 * np.pi, rays, endpoint=False)
    reach = (distances[:, None] * np.stack([np.sin(angles), np.cos(angles)])).astype(np.float32)
    return (reach * np.reshape(scale, (1, 2, 1)) + points[..., None]).astype(np.float32)


# -- overlap ----------------------------------------------------------------------------------------------------------


class Edges:
    """The edges of N polygons as functions of the column: [N, R] each, vertical ones are empty.

    left, right  where they begin and end; `at`, `slope` the row at column 0 and its rise; `sign` 1 for edges that run
    to the right along the polygon, -1 for those that run back
    """

    def __init__(self, polygons: np.ndarray) -> None:
        """polygons [N, 2, R]"""
        y0, x0 = polygons[:, 0].astype(np.float64), polygons[:, 1].astype(np.float64)
        y1, x1 = np.roll(y0, -1, 1), np.roll(x0, -1, 1)
        self.left, self.right, self.sign = np.minimum(x0, x1), np.maximum(x0, x1), np.sign(x1 - x0)
        self.slope = np.divide(y1 - y0, x1 - x0, out=np.zeros_like(x0), where=x0 != x1)
        self.at = y0 - self.slope * x0
        self.areas = np.abs((x0 * y1 - x1 * y0).sum(1)) / 2


def overlaps(edges: Edges, one: int, others: np.ndarray) -> np.ndarray:
    """[M] areas that polygon `one` shares with `others` [M], exactly.

    A polygon is the signed sum of what lies above its edges. So what two share is the sum over pairs of their edges of
    what lies above both; and since the signs of either polygon cancel at each column, that is minus half the signed sum
    of the area between the two edges. Nothing is clipped and no case is special. Where a polygon winds around a place
    twice, that place counts twice.
    """
    left = np.maximum(edges.left[one][:, None], edges.left[others][:, None, :])  # [M, R, R]
    width = np.minimum(edges.right[one][:, None], edges.right[others][:, None, :]) - left
    pair, e, f = np.nonzero(width > 0)  # an eighth of them
    left, width, other = left[pair, e, f], width[pair, e, f], others[pair]
    rise = edges.slope[one][e] - edges.slope[other, f]
    begin = edges.at[one][e] - edges.at[other, f] + rise * left
    end = begin + rise * width
    total = np.abs(begin) + np.abs(end)
    crossing = np.divide(begin * begin + end * end, total, out=np.zeros_like(total), where=total > 0)
    between = 0.5 * width * np.where(begin * end >= 0, total, crossing)  # the integral of |difference|
    signed = edges.sign[one][e] * edges.sign[other, f] * between
    return np.abs(np.bincount(pair, signed, len(others))) / 2


def suppress(points: np.ndarray, distances: np.ndarray, threshold: float) -> np.ndarray:
    """[N] bool: which polygons stay when each, from the first on, removes later ones that it overlaps too much.

    points [N, 2] centres and distances [N, R], by falling score. Of two polygons the later goes when what they share is
    more than `threshold` of the smaller one's area. Vertices are cut to whole pixels first, as the authors' code does.
    (That code also rounds the corners of what two polygons share, so decisions may differ where the overlap comes
    within a few hundredths of the threshold; here it is exact.)
    """
    count = len(points)
    alive = np.ones(count, bool)
    if count < 2:
        return alive
    shapes = vertices(points.astype(np.float32), distances.astype(np.float32))
    low, high = shapes.min(2), shapes.max(2)  # [N, 2]
    cut = np.trunc(shapes).astype(np.float64)
    edges, discs = Edges(cut), _discs(points.astype(np.float64), cut)  # what discs inside share decides most pairs
    reach = distances.max(1).clip(0)
    tree = cKDTree(points)
    for i in range(count - 1):
        if not alive[i]:
            continue
        near = np.array(tree.query_ball_point(points[i], reach[i] + reach.max()), dtype=np.int64)
        near = np.sort(near[(near > i) & alive[near]])
        near = near[((low[near] <= high[i]) & (low[i] <= high[near])).all(1)]
        limit = threshold * (np.minimum(edges.areas[i], edges.areas[near]) + 1e-10)
        sure = _lens(points[i] - points[near], float(discs[i]), discs[near]) > 1.001 * limit
        alive[near[sure]] = False
        near, limit = near[~sure], limit[~sure]
        if len(near):
            alive[near[overlaps(edges, i, near) > limit]] = False
    return alive


def _discs(centres: np.ndarray, polygons: np.ndarray) -> np.ndarray:
    """[N] radius of the largest disc about each centre [N, 2] inside its polygon [N, 2, R]; 0 if in doubt."""
    y, x = polygons[:, 0] - centres[:, :1], polygons[:, 1] - centres[:, 1:]
    dy, dx = np.roll(y, -1, 1) - y, np.roll(x, -1, 1) - x
    length = np.hypot(dy, dx)
    beside = np.divide(x * dy - y * dx, length, out=np.full_like(length, np.inf), where=length > 0)  # signed
    return np.where(np.isfinite(beside).sum(1) > 2, beside.min(1), 0.0).clip(0)


def _lens(apart: np.ndarray, one: float, others: np.ndarray) -> np.ndarray:
    """[M] area that a disc of radius `one` shares with discs [M], their centres `apart` [M, 2] from it."""
    d = np.hypot(apart[:, 0], apart[:, 1]).clip(1e-9)
    r, s = one, others
    cut = d < r + s
    a = np.arccos(((d * d + r * r - s * s) / (2 * d * max(r, 1e-9))).clip(-1, 1))  # half angles of the two caps
    b = np.arccos(((d * d + s * s - r * r) / (2 * d * s.clip(1e-9))).clip(-1, 1))
    return np.where(cut, r * r * (a - np.sin(2 * a) / 2) + s * s * (b - np.sin(2 * b) / 2), 0.0)


# -- pixels -----------------------------------------------------------------------------------------------------------

SNAP = 1e-9  # a crossing so near to a pixel's centre goes through it


def rasterise(polygons: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The pixels of polygons [N, 2, R] in an image (height, width): those whose centre lies inside or on the edge.

    Returns integer boxes [N, 4] x0 y0 x1 y1 and a bool crop [y1-y0, x1-x0] each, empty for polygons outside the image.
    By rows: an odd number of edges on the left, or on the right, is inside; the two differ on the edge only.
    """
    polygons = polygons.astype(np.float64)
    limit = np.array(size)
    low = np.floor(polygons.min(2)).clip(0, limit).astype(np.int64)  # [N, 2] row, column
    high = (np.ceil(polygons.max(2)) + 1).clip(low, limit).astype(np.int64)
    shape = high - low
    start = np.concatenate([[0], np.cumsum(shape[:, 0] * (shape[:, 1] + 1))])  # a column more, for what ends a row
    polygon, row, column = _crossings(polygons, low[:, 0], high[:, 0], upper=True)
    reached = _fill(polygon, row, np.ceil(column), low, shape, start)
    polygon, row, column = _crossings(polygons, low[:, 0], high[:, 0], upper=False)
    passed = _fill(polygon, row, np.floor(column) + 1, low, shape, start)
    inside = reached | passed
    _add_vertices(inside, polygons, low, shape, start)
    boxes = np.concatenate([low[:, ::-1], high[:, ::-1]], 1)
    crops = [inside[a:b].reshape(h, w + 1)[:, :w] for a, b, (h, w) in zip(start, start[1:], shape.tolist())]
    return boxes, crops


def _crossings(polygons: np.ndarray, first: np.ndarray, end: np.ndarray, *,
               upper: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Polygon, row and column of all places where an edge crosses a row of pixels, from rows `first` to `end`.

    upper  whether an edge counts at its upper end and not at its lower one, or the other way round; so each row is
           crossed an even number of times
    """
    y0, x0 = polygons[:, 0], polygons[:, 1]
    y1, x1 = np.roll(y0, -1, 1), np.roll(x0, -1, 1)
    top, bottom = np.minimum(y0, y1), np.maximum(y0, y1)
    begin, stop = (np.ceil(top), np.ceil(bottom)) if upper else (np.floor(top) + 1, np.floor(bottom) + 1)
    begin, stop = (np.clip(side, first[:, None], end[:, None]).astype(np.int64) for side in (begin, stop))
    counts = (stop - begin).ravel()  # [N R]
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + begin.ravel()[edge]
    y0, x0, y1, x1 = (side.ravel()[edge] for side in (y0, x0, y1, x1))
    column = x0 + (row - y0) * (x1 - x0) / (y1 - y0)
    near = np.rint(column)
    return edge // polygons.shape[2], row, np.where(np.abs(column - near) < SNAP, near, column)


def _fill(polygon: np.ndarray, row: np.ndarray, column: np.ndarray, low: np.ndarray, shape: np.ndarray,
          start: np.ndarray) -> np.ndarray:  # fmt: skip
    """[sum of h (w + 1)] bool, all crops in one line: which pixels have an odd number of marks up to them in their row.

    Rows hold an even number of marks, so the count need not begin anew with each.
    """
    place = (column - low[polygon, 1]).clip(0, shape[polygon, 1]).astype(np.int64)
    at = start[polygon] + (row - low[polygon, 0]) * (shape[polygon, 1] + 1) + place
    marks = np.bincount(at, minlength=int(start[-1]))
    return np.cumsum(marks) % 2 == 1


def _add_vertices(inside: np.ndarray, polygons: np.ndarray, low: np.ndarray, shape: np.ndarray,
                  start: np.ndarray) -> None:  # fmt: skip
    """A vertex on a pixel's centre belongs to the polygon even where that is a line or a point."""
    n, r = np.nonzero((np.abs(polygons - np.rint(polygons)) < 1e-12).all(1))
    y, x = np.rint(polygons[n, :, r]).astype(np.int64).T - low[n].T
    fits = (y >= 0) & (x >= 0) & (y < shape[n, 0]) & (x < shape[n, 1])
    n, y, x = n[fits], y[fits], x[fits]
    inside[start[n] + y * (shape[n, 1] + 1) + x] = True
