"""Panoptic quality (Kirillov et al. 2018, 1801.00868), as the COCO panoptic evaluator counts it.

A predicted and a true segment of one class match when their IoU exceeds 0.5 (exactly 0.5 does not); void pixels of the
truth are taken out of the union. An unmatched prediction that lies for more than half on void, and on crowd of its own
class, is no false positive. Crowd is neither matched nor missed; where an image has several crowd segments of a class
the last row counts, as in that evaluator. Several stuff segments of a class are not joined here: `Panoptic.view` and
`Panoptic.decode` do that. A class with neither match, miss nor false alarm is NaN and left out of means.

Truth UNKNOWN is that evaluator's void. Truth NOTHING is a negative: a prediction there keeps it in its union. Pixels
without a predicted segment belong to none, whether they are NOTHING or UNKNOWN. Where segments overlap each pixel
counts for the one in the lowest layer; a segment that shows nowhere is not counted, on either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError
from pixelwise.kernels.joint import pairs
from pixelwise.metrics.histogram import MARKS, check_size, checked_labels, divide, nan_mean, row_codes

UNIT = 2.0**53  # an IoU above one half is a whole number of 2^-53: as integers they add up alike in any order


class PanopticQuality:
    """PQ = SQ * RQ per class, and the means. `classes` says which are things; a mere number leaves that open.

    Keys of compute(): pq, sq, rq (means over classes); the same with _things and _stuff (NaN where there is no such
    class); with _per_class ([K] float64); tp, fp, fn ([K] int64). Raises ConfigError when there is no class.

    >>> truth = Segments(np.array([[0, 0, 0, 1, 1]], np.int8), labels=[0, 1])
    >>> prediction = Segments(np.array([[0, 0, 1, 1, 1]], np.int8), labels=[0, 1])
    >>> metric = PanopticQuality(2)
    >>> metric.update(prediction, truth)
    >>> round(metric.compute()["pq"], 3)
    0.667
    """

    def __init__(self, classes: Classes | int) -> None:
        self.num_classes = len(classes) if isinstance(classes, Classes) else int(classes)
        if self.num_classes < 1:
            raise ConfigError(f"PanopticQuality needs at least 1 class, got {classes}.")
        self.is_thing = classes.is_thing if isinstance(classes, Classes) else None
        self.tp, self.fp, self.fn = np.zeros((3, self.num_classes), np.int64)
        self.iou_units = [0] * self.num_classes

    def update(self, prediction: Segments, truth: Segments, index: int | None = None) -> None:
        """Adds one image. `index` is taken because all metrics are called alike; the order does not matter here.

        Raises DataError when the sizes differ or a label is no class.
        """
        seen = judge(prediction, truth, self.num_classes)
        for label, value in zip(seen.t_label[seen.t].tolist(), seen.iou.tolist()):
            self.iou_units[label] += int(value * UNIT)
        self.tp += np.bincount(seen.t_label[seen.t], minlength=self.num_classes)
        self.fn += np.bincount(seen.t_label[seen.missed], minlength=self.num_classes)
        self.fp += np.bincount(seen.p_label[seen.alarms], minlength=self.num_classes)

    def merge(self, other: PanopticQuality) -> None:
        """Adds another process's counts. Raises ConfigError when it counts other classes."""
        mine, theirs = (None if m.is_thing is None else m.is_thing.tolist() for m in (self, other))
        if self.num_classes != other.num_classes or mine != theirs:
            raise ConfigError(
                f"PanopticQuality of {self.num_classes} classes cannot take in one of {other.num_classes}, "
                "or of other things."
            )
        self.tp, self.fp, self.fn = self.tp + other.tp, self.fp + other.fp, self.fn + other.fn
        self.iou_units = [a + b for a, b in zip(self.iou_units, other.iou_units)]

    def compute(self) -> dict[str, Any]:
        """The scores so far, in 0..1; see the class for the keys. NaN where nothing was counted."""
        weight = self.tp + 0.5 * self.fp + 0.5 * self.fn
        iou = np.array([units / UNIT for units in self.iou_units])
        # a class that is present but without a match has SQ 0, and counts
        sq = np.where(weight > 0, np.nan_to_num(divide(iou, self.tp)), np.nan)
        scores = {"pq": divide(iou, weight), "sq": sq, "rq": divide(self.tp, weight)}
        everything, none = np.ones(self.num_classes, bool), np.zeros(self.num_classes, bool)
        things, stuff = (none, none) if self.is_thing is None else (self.is_thing, ~self.is_thing)
        out: dict[str, Any] = {}
        for suffix, rows in (("", everything), ("_things", things), ("_stuff", stuff)):
            out |= {key + suffix: nan_mean(values[rows]) for key, values in scores.items()}
        out |= {f"{key}_per_class": values for key, values in scores.items()}
        return out | {"tp": self.tp.copy(), "fp": self.fp.copy(), "fn": self.fn.copy()}


@dataclass(frozen=True)
class Judgement:
    """One image, segment by segment. N true rows, M predicted ones.

    t, p, iou   the pairs that match: rows, and their IoU above 0.5
    missed      [N] bool true rows without a match that are to be found
    alarms      [M] bool predicted rows without a match that count as false
    t_label, p_label, p_area   [N], [M], [M]: labels, and pixels where the predicted row shows and truth is any
    """

    t: np.ndarray
    p: np.ndarray
    iou: np.ndarray
    missed: np.ndarray
    alarms: np.ndarray
    t_label: np.ndarray
    p_label: np.ndarray
    p_area: np.ndarray


def judge(prediction: Segments, truth: Segments, num_classes: int) -> Judgement:
    """The verdict of panoptic quality on each segment. Raises DataError when sizes differ or a label is no class."""
    check_size(prediction, truth)
    p_label = checked_labels(prediction, num_classes, "prediction")
    t_label = checked_labels(truth, num_classes, "truth")
    n, m = len(truth), len(prediction)
    t, p, shared = pairs(row_codes(truth), row_codes(prediction))
    t_area = np.bincount(t, shared, n + MARKS)[MARKS:]  # sums in float64: exact, and fit to divide
    p_area = np.bincount(p, shared, m + MARKS)[MARKS:]
    void = np.bincount(p[t == 0], shared[t == 0], m + MARKS)[MARKS:]
    both = (t >= MARKS) & (p >= MARKS)
    t, p, shared = t[both] - MARKS, p[both] - MARKS, shared[both]
    same = t_label[t] == p_label[p]
    t, p, shared = t[same], p[same], shared[same]
    crowd = truth.crowd.cpu().numpy()
    last_crowd = {t_label[row]: row for row in np.flatnonzero(crowd & (t_area > 0))}
    excused = void + _on_crowd(t, p, shared, np.array(list(last_crowd.values()), np.int64), m)

    iou = np.where(crowd[t], 0, shared / (t_area[t] + p_area[p] - shared - void[p]))
    t, p, iou = t[iou > 0.5], p[iou > 0.5], iou[iou > 0.5]
    missed, alarms = (t_area > 0) & ~crowd, (p_area > 0) & ~(excused > 0.5 * p_area)
    missed[t] = alarms[p] = False
    return Judgement(t, p, iou, missed, alarms, t_label, p_label, p_area)


def _on_crowd(t: np.ndarray, p: np.ndarray, shared: np.ndarray, crowd: np.ndarray, count: int) -> np.ndarray:
    """[count] pixels of each prediction on these crowd rows; t, p, shared: the pairs of one class that meet."""
    counts = np.isin(t, crowd)
    return np.bincount(p[counts], shared[counts], count)
