"""Which objects of two neighbouring tiles are the same, by what both say of the strip that both have seen.

The parts of two objects that lie in the strip agree where they have the same label and more than half of what either
covers is covered by both (IoU above 1/2). Of parts that do not overlap each other, such a part has one partner at most
(Kirillov et al. 2018, 1801.00868, section 4.1), so that two objects of one tile are never made one for touching the
same neighbour. A lower bound, or the share of the smaller part, would not promise that: a sliver of an object at the
strip's edge lies within whatever lies beside it as soon as the two tiles differ by a pixel.

An object may reach into the strip with several arms (a ring, a U) that one tile sees joined and the other does not;
each arm is then compared by itself: parts are connected ones.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

AGREE = 0.5  # IoU
AROUND = np.ones((3, 3), int)  # eight neighbours


def agreeing(one: np.ndarray, other: np.ndarray, labels: np.ndarray, first: int) -> list[tuple[int, int]]:
    """Pairs of rows of `one` [L, h, w] and `other` [M, h, w], int32 maps of the same strip, that are the same object.

    labels  [P] of every row; rows below `first` are no objects
    """
    a, b = (np.unique(m[m >= first], return_counts=True) for m in (one, other))
    if not len(a[0]) or not len(b[0]):
        return []
    i, j, shared = _shared(one, other, a[0], b[0], first)
    same = labels[a[0][i]] == labels[b[0][j]]
    i, j, shared = i[same], j[same], shared[same]
    iou = shared / (a[1][i] + b[1][j] - shared)
    free_a, free_b = np.ones(len(a[0]), bool), np.ones(len(b[0]), bool)
    alone = len(one) == len(other) == 1  # no objects lie on each other
    pairs, open_pairs = [], []
    for n in np.argsort(-iou, kind="stable"):
        if iou[n] > AGREE and free_a[i[n]] and free_b[j[n]]:
            free_a[i[n]] = free_b[j[n]] = False
            pairs.append((int(a[0][i[n]]), int(b[0][j[n]])))
        else:
            open_pairs.append(n)
    for n in open_pairs:  # where objects may lie on each other, only one that has no partner yet
        rows = int(a[0][i[n]]), int(b[0][j[n]])
        if (alone or free_a[i[n]] or free_b[j[n]]) and _arms_agree(one, other, *rows):
            pairs.append(rows)
    return pairs


def _shared(one: np.ndarray, other: np.ndarray, a: np.ndarray, b: np.ndarray,
            first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Places in `a` and `b` of the rows that share pixels, and how many."""
    meetings = []
    for layer in one:
        for beside in other:
            both = (layer >= first) & (beside >= first)
            meetings.append(a.searchsorted(layer[both]) * len(b) + b.searchsorted(beside[both]))
    pair, count = np.unique(np.concatenate(meetings), return_counts=True)
    return pair // len(b), pair % len(b), count


def _arms_agree(one: np.ndarray, other: np.ndarray, row: int, beside: int) -> bool:
    """Whether a connected part of one object agrees with one of the other."""
    a, b = (one == row).any(0), (other == beside).any(0)
    where = ndimage.find_objects((a | b).astype(np.int8))[0]
    (a, m), (b, n) = (ndimage.label(mask[where], AROUND) for mask in (a, b))
    if m == n == 1:
        return False  # compared already
    joint = np.bincount((a * (n + 1) + b).ravel(), minlength=(m + 1) * (n + 1)).reshape(m + 1, n + 1)
    both = joint[1:, 1:]
    either = joint.sum(1)[1:, None] + joint.sum(0)[None, 1:] - both
    return bool((both > AGREE * either).any())


def torn(inner: np.ndarray, rows: np.ndarray, outside: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tells apart what holds together only by pixels outside the trusted part of a window.

    inner    [L, h, w] int32 rows 0..count-1 of the trusted part, or negative marks
    rows     those that may be told apart        outside  rows that were seen outside
    Returns `inner` with rows from `count` on for all connected parts of an object but its first, and the old row of
    each of these.
    """
    found = inner.copy()
    sources: list[int] = []
    suspects = np.intersect1d(rows, outside).tolist()
    for layer in found:
        places = ndimage.find_objects(np.maximum(layer, -1) + 1)
        for row in suspects:
            where = places[row] if row < len(places) else None
            if where is not None:
                parts, many = ndimage.label(layer[where] == row, AROUND)
                for part in range(2, many + 1):
                    layer[where][parts == part] = count + len(sources)
                    sources.append(row)
    return found, np.array(sources, np.int64)
