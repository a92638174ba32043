"""Chooses the least score and the least area of what is answered, on images with truth, from one look at each.

What is best is what people look at: for instances the mean of TP / (TP + FP + FN) over IoU 0.50 to 0.95 (`InstanceF1`,
key "accuracy"), for panoptic maps PQ. Average precision has no part in it: it ranks everything that was found.

All settings on a grid of scores and areas are counted at once. Dropping an object changes nothing about the others, so
what becomes of each is looked at once and summed over the settings that keep it; where objects compete for a partner,
or for pixels, it is counted anew for each set of objects that is left. Counts are integers: processes merge exactly.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Candidates
from pixelwise.core.segments import Segments
from pixelwise.core.types import Choice
from pixelwise.errors import ConfigError
from pixelwise.metrics.histogram import divide, nan_mean
from pixelwise.metrics.matching import THRESHOLDS, match
from pixelwise.metrics.meetings import Meetings, meet
from pixelwise.metrics.panoptic import judge

SCORES = np.array([*range(0, 90, 5), *range(90, 100, 2)], np.float32) / np.float32(100)  # [S]
AREAS = np.array([0, 4, 8, 16, 32, 64, 128, 256])  # [A] pixels
PAYS = 0.002  # a least area is set only where it gains that much: small objects are not given up for nothing
UNIT = 2**30  # IoU as an integer: 500 million matches fit 64 bits
COARSE = np.array([*range(0, 100, 10), 95], np.float32) / np.float32(100)  # where maps are merged anew for each
LOOKS = 100  # images at most then: at 2 megapixels eleven merges take longer than a net does


def check_thresholds(score: float | None, min_area: int) -> None:
    """Raises ConfigError for a least score outside 0..1 and a least area below 0."""
    if score is not None and not 0 <= score <= 1:
        raise ConfigError(f"The least score of an object is {score}; it must be in 0..1.")
    if min_area < 0:
        raise ConfigError(f"The least area of an object is {min_area} pixels; it must be at least 0.")


class _Grid:
    """Counts [..., K, S, A] over settings: least scores of a grid by AREAS; `images` that were looked at."""

    most: int | None = None
    grid = SCORES

    def __init__(self, num_classes: int, *kinds: int) -> None:
        self.num_classes = num_classes
        self.counts = np.zeros((*kinds, num_classes, len(self.grid), len(AREAS)), np.int64)
        self.images = 0

    def merge(self, other: Any) -> None:
        """Adds another process's counts. Raises ConfigError when it counts other things."""
        if type(self) is not type(other) or self.counts.shape != other.counts.shape:
            raise ConfigError(f"{type(self).__name__} of {self.num_classes} classes cannot take in "
                              f"{type(other).__name__} of {other.num_classes}.")  # fmt: skip
        self.counts = self.counts + other.counts
        self.images += other.images

    def _places(self, scores: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The last entries of the grid and of AREAS that keep each row."""
        score, area = self.grid.searchsorted(scores, side="right"), AREAS.searchsorted(areas, side="right")
        return score - 1, area - 1

    def _kept(self, labels: np.ndarray, scores: np.ndarray, areas: np.ndarray, weights: Any = None) -> np.ndarray:
        """[K, S, A] int64: of these rows, how many (or how much `weights`) each setting keeps."""
        table = np.zeros((self.num_classes, len(self.grid), len(AREAS)), np.int64)
        np.add.at(table, (labels, scores, areas), 1 if weights is None else weights)
        return table[:, ::-1, ::-1].cumsum(1).cumsum(2)[:, ::-1, ::-1]


def choose(values: np.ndarray, grid: np.ndarray) -> tuple[int, int]:
    """Where values [S, A] over a grid of scores are best: in the middle of a plateau, an area above 0 if it pays."""
    tops = values.max(0)
    best = int(np.argmax(tops))
    area = best if tops[best] > tops[0] + PAYS else 0
    level = np.flatnonzero(values[:, area] >= tops[area] - 1e-9)
    middle = (grid[level[0]] + grid[level[-1]]) / 2
    return int(level[np.argmin(abs(grid[level] - middle))]), area


class InstanceThresholds(_Grid):
    """For `Instance`: update(all objects, truth). Counts are those `InstanceF1` finds on the answer of each setting.

    thresholds  of IoU; what is best is the mean over them
    """

    def __init__(self, num_classes: int, thresholds: tuple[float, ...] = THRESHOLDS) -> None:
        super().__init__(num_classes, 3, len(thresholds))  # tp, fp, fn; [3, T, K, S, A]
        self.thresholds = thresholds

    def update(self, reading: Segments, truth: Segments) -> None:
        """Raises DataError when the sizes differ or a label is no class."""
        found = meet(reading, truth, self.num_classes)
        score, area = self._places(reading.scores.cpu().numpy(), found.p_area)
        objects = np.bincount(found.t_label[found.objects], minlength=self.num_classes)[:, None, None]
        alarms = self._kept(*(column[found.alarms] for column in (found.p_label, score, area)))
        for i, threshold in enumerate(self.thresholds):
            hits, innocent = self._matched(found, found.iou >= threshold, score, area)
            self.counts[:, i] += np.stack([hits, alarms - innocent, objects - hits])
        self.images += 1

    def _matched(self, found: Meetings, close: np.ndarray, score: np.ndarray,
                 area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """[K, S, A] matches, and those among them that would be false alarms without their match."""
        t, p = found.t[close], found.p[close]
        single = (np.bincount(t, minlength=1)[t] == 1) & (np.bincount(p, minlength=1)[p] == 1)
        rows = p[single]
        guilty = rows[found.alarms[rows]]
        hits = self._kept(found.p_label[rows], score[rows], area[rows])
        innocent = self._kept(found.p_label[guilty], score[guilty], area[guilty])
        t, p = t[~single], p[~single]
        for a in range(len(AREAS)) if len(p) else ():
            last, pair = -1, p[:0]
            for s in range(len(self.grid)):
                left = (score[p] >= s) & (area[p] >= a)
                if left.sum() != last:  # sets shrink as the score rises: as many are the same ones
                    last = int(left.sum())
                    pair = match(t[left], p[left], len(found.t_label), len(found.p_label))[1]
                hits[:, s, a] += np.bincount(found.p_label[pair], minlength=self.num_classes)
                false = pair[found.alarms[pair]]
                innocent[:, s, a] += np.bincount(found.p_label[false], minlength=self.num_classes)
        return hits, innocent

    def compute(self) -> Choice:
        """The mean over IoU thresholds of the mean over classes; those without any object are left out."""
        accuracy = divide(self.counts[0], self.counts.sum(0))  # [T, K, S, A]
        values = _mean(np.moveaxis(accuracy, 1, 0)).mean(0)  # NaN only where no image has an object
        default = float(values[self.grid.searchsorted(np.float32(0.5)), 0])
        ious = ", ".join(f"{t:g}" for t in self.thresholds)
        over = "0.50 to 0.95" if self.thresholds == THRESHOLDS else ious
        return _choice(values, self.grid, default, f"mean TP/(TP+FP+FN) over IoU {over}", self.images)


class Merging(Protocol):
    """What is needed of the task `Panoptic`, a dataclass with the options score and min_area."""

    @property
    def classes(self) -> Classes: ...

    def decide(self, reading: Candidates) -> Segments: ...

    def thing(self, label: np.ndarray) -> np.ndarray: ...


class PanopticThresholds(_Grid):
    """For `Panoptic`: update(candidates, truth). Counts are those `PanopticQuality` finds on each setting's answer."""

    most = LOOKS
    grid = COARSE

    def __init__(self, task: Merging) -> None:
        super().__init__(len(task.classes), 4)  # tp, fp, fn, sum of IoU; [4, K, S, A]
        self.task = with_options(task, None)
        self.default = np.zeros((4, self.num_classes), np.int64)

    def update(self, reading: Candidates, truth: Segments) -> None:
        """Raises DataError when the sizes differ or a label is no class."""
        default = self._count(self.task.decide(reading), truth)
        self.default += default[..., 0, 0]
        if reading.merge.rule == "partition":  # dropping one leaves the others as they are
            self.counts += default
        else:
            label, score = reading.scores.argmax(1), reading.scores.max(1, initial=0.0)
            score = score[self.task.thing(label)]
            last, counts = -1, default
            for s, least in enumerate(self.grid):
                left = int((score >= least).sum())
                if left != last:
                    last = left
                    counts = self._count(with_options(self.task, float(least)).decide(reading), truth)
                self.counts[:, :, s] += counts[:, :, 0]
        self.images += 1

    def _count(self, answer: Segments, truth: Segments) -> np.ndarray:
        """[4, K, S, A] of an answer and of what is left of it where things are dropped by score and by area."""
        seen = judge(answer, truth, self.num_classes)
        score, area = self._places(answer.scores.cpu().numpy(), seen.p_area)
        stuff = ~self.task.classes.is_thing[seen.p_label]
        score[stuff], area[stuff] = len(self.grid) - 1, len(AREAS) - 1

        def kept(rows: np.ndarray, weights: Any = None) -> np.ndarray:
            return self._kept(seen.p_label[rows], score[rows], area[rows], weights)

        hits = kept(seen.p)
        true = np.bincount(np.append(seen.t_label[seen.missed], seen.t_label[seen.t]), minlength=self.num_classes)
        units = (seen.iou * UNIT).astype(np.int64)
        return np.stack([hits, kept(np.flatnonzero(seen.alarms)), true[:, None, None] - hits, kept(seen.p, units)])

    def merge(self, other: Any) -> None:
        super().merge(other)
        self.default = self.default + other.default

    def compute(self) -> Choice:
        """PQ: the mean over classes; those with neither match, miss nor false alarm are left out."""
        default = nan_mean(_quality(self.default[:, :, None])[:, 0])
        return _choice(_mean(_quality(self.counts)), self.grid, default, "PQ", self.images)


def with_options(task: Any, score: float | None) -> Merging:
    """The same task with this least score and no least area."""
    return replace(task, score=score, min_area=0)


def _quality(counts: np.ndarray) -> np.ndarray:
    """[4, K, ...] -> [K, ...] PQ."""
    hits, alarms, missed, units = counts
    return divide(units / UNIT, hits + 0.5 * alarms + 0.5 * missed)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0).sum(0), known.sum(0))


def _choice(values: np.ndarray, grid: np.ndarray, default: float, what: str, images: int) -> Choice:
    if math.isnan(default) and np.isnan(values).all():
        return Choice({}, math.nan, math.nan, what, images)
    values = np.nan_to_num(values)  # a setting that answers nothing, where there is nothing to find
    s, a = choose(values, grid)
    chosen = {"score": round(float(grid[s]), 2), "min_area": int(AREAS[a])}
    return Choice(chosen, float(values[s, a]), default, what, images)
