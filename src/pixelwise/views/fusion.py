"""Candidates of several views of one image: those that agree become one, one view after the other.

A view's candidate and one that earlier views found agree when they have the same class and their masks' IoU exceeds
one half: then no other of a set without overlaps can agree as well (Kirillov et al. 2018, 1801.00868, section 4.1), so
no assignment has to be solved; where sets do overlap the pairs with the larger IoU go first. As boxes are in weighted
boxes fusion (Solovyev, Wang and Gabruseva 2019, 1910.13302), scores are averaged over all views, 0 where a view found
nothing, and shapes over the views that found it, each weighed by its score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pixelwise.core.outputs import Candidates, Merge

AGREE = 0.5  # IoU above which two masks of one class show one segment
LEAST = 1e-6  # weight of a mask whose score is 0
SEEN = 0.01  # below it a soft mask shows in no answer (`core.outputs.Merge`)
PAIRS = 1 << 20  # boxes held against each other at once


@dataclass
class _Found:
    """What some views agree on.

    scores  [K] float64 summed over the views     weight  sum of the masks' weights
    box     x0 y0 x1 y1                           mask    [y1-y0, x1-x0] float32, the weighted sum
    """

    scores: np.ndarray
    weight: float
    box: tuple[int, int, int, int]
    mask: np.ndarray

    @property
    def label(self) -> int:
        return int(self.scores.argmax())

    @property
    def score(self) -> float:
        return float(self.scores.max(initial=0))

    @cached_property
    def area(self) -> int:
        """Pixels of the mean mask, cut at one half."""
        return int(np.count_nonzero(self.cut(*self.box)))

    def cut(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """The mean mask cut at one half, on a window of the image within the box."""
        left, top = self.box[:2]
        return self.mask[y0 - top : y1 - top, x0 - left : x1 - left] > 0.5 * self.weight

    def join(self, other: _Found) -> None:
        (a, b, c, d), (e, f, g, h) = self.box, other.box
        x0, y0, x1, y1 = min(a, e), min(b, f), max(c, g), max(d, h)
        if (x0, y0, x1, y1) != self.box:
            mask = np.zeros((y1 - y0, x1 - x0), np.float32)
            mask[b - y0 : d - y0, a - x0 : c - x0] = self.mask
            self.box, self.mask = (x0, y0, x1, y1), mask
        self.mask[f - y0 : h - y0, e - x0 : g - x0] += other.mask
        self.scores = self.scores + other.scores
        self.weight += other.weight
        self.__dict__.pop("area", None)  # it is another now


class Fusion:
    """What the views of one image agree on, so far."""

    def __init__(self, size: tuple[int, int]) -> None:
        """size (height, width) of the image"""
        self.size, self.count = size, 0
        self.merge: Merge | None = None  # the rule that the joined candidates bring along: that of the first view
        self._most, self._channels, self._soft = 0, 0, False
        self._found: list[_Found] = []

    def add(self, seen: Candidates, times: int = 1) -> None:
        """The candidates of a further view, in the image's coordinates; `times`: they stand for so many views.

        At most twice as many as the richest view found are kept, the surest: what ten views disagree about takes no
        more room than what two do.
        """
        self.merge = self.merge or seen.merge
        self.count += times
        self._most, self._channels = max(self._most, len(seen.crops)), seen.scores.shape[1]
        self._soft = self._soft or any(crop.dtype != bool for crop in seen.crops)
        new = [_one(seen, q, times) for q in range(len(seen.crops))]
        partners = _partners(new, self._found)
        alone = []
        for q, found in enumerate(new):
            if q in partners:
                self._found[partners[q]].join(found)
            else:
                alone.append(found)
        self._found = sorted(self._found + alone, key=lambda found: -found.score)[: 2 * self._most]

    def candidates(self) -> Candidates:
        """The joined candidates by falling score: masks cut at one half, or soft where the views' are; where the rule
        says that none overlap, the surest has the pixel."""
        assert self.merge is not None
        apart = self.merge.rule == "partition"
        free = np.ones(self.size, bool)
        scores, boxes, crops = [], [], []
        for found in self._found:
            mean = found.mask / np.float32(found.weight)
            x0, y0, x1, y1 = found.box
            crop = mean if self._soft and not apart else mean > 0.5
            if apart:
                crop &= free[y0:y1, x0:x1]
                free[y0:y1, x0:x1][crop] = False
            rows, columns = (np.flatnonzero((crop > SEEN).any(axis)) for axis in (1, 0))
            if not len(rows):
                continue
            top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            scores.append(found.scores / self.count)
            boxes.append((x0 + left, y0 + top, x0 + right, y0 + bottom))
            crops.append(crop[top:bottom, left:right])
        table = np.array(scores, np.float32).reshape(-1, self._channels)
        return Candidates(table, np.array(boxes, np.int64).reshape(-1, 4), crops, self.size, self.merge)


def _one(seen: Candidates, q: int, times: int) -> _Found:
    scores, crop = seen.scores[q].astype(np.float64) * times, seen.crops[q]
    weight = max(float(scores.max(initial=0)), LEAST)
    x0, y0, x1, y1 = seen.boxes[q].tolist()
    return _Found(scores, weight, (x0, y0, x1, y1), crop.astype(np.float32) * np.float32(weight))


def _partners(new: list[_Found], known: list[_Found]) -> dict[int, int]:
    """{row of `new`: row of `known`} of those that agree, one to one, the best pairs first."""
    agreeing = []
    for q, g in _near(new, known):
        overlap = _iou(new[q], known[g])
        if overlap > AGREE:
            agreeing.append((-overlap, q, g))
    partners: dict[int, int] = {}
    taken: set[int] = set()
    for _, q, g in sorted(agreeing):
        if q not in partners and g not in taken:
            partners[q] = g
            taken.add(g)
    return partners


def _near(new: list[_Found], known: list[_Found]) -> Iterator[tuple[int, int]]:
    """Pairs of one class whose boxes share so much that their masks may agree: more than half of the larger mask."""
    if not new or not known:
        return
    (labels, areas, boxes), (labels_too, areas_too, boxes_too) = _columns(new), _columns(known)
    rows = max(1, PAIRS // len(known))
    for start in range(0, len(new), rows):
        part = boxes[start : start + rows, None]
        q, g = np.nonzero((part[..., 1] < boxes_too[:, 3]) & (boxes_too[:, 1] < part[..., 3]))  # rows in common
        q += start
        low, high = np.maximum(boxes[q, :2], boxes_too[g, :2]), np.minimum(boxes[q, 2:], boxes_too[g, 2:])
        enough = (high - low).clip(0).prod(1) > AGREE * np.maximum(areas[q], areas_too[g])
        enough &= labels[q] == labels_too[g]
        yield from zip(q[enough].tolist(), g[enough].tolist())


def _columns(side: list[_Found]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[n] labels, [n] areas and [n, 4] boxes."""
    labels, areas, boxes = zip(*((found.label, found.area, found.box) for found in side))
    return np.array(labels), np.array(areas), np.array(boxes)


def _iou(one: _Found, other: _Found) -> float:
    """Of the two masks, cut at one half."""
    x0, y0 = max(one.box[0], other.box[0]), max(one.box[1], other.box[1])
    x1, y1 = min(one.box[2], other.box[2]), min(one.box[3], other.box[3])
    shared = int(np.count_nonzero(one.cut(x0, y0, x1, y1) & other.cut(x0, y0, x1, y1)))
    return shared / max(1, one.area + other.area - shared)
