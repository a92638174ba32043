"""Panoptic quality (Kirillov et al. 2018, 1801.00868), as the COCO panoptic evaluator counts it.

A predicted and a true segment of one class match when their IoU exceeds 0.5 (exactly 0.5 does not); void pixels of the
truth are taken out of the union. An unmatched prediction that lies for more than half on void, and on crowd of its own
class, is no false positive. Crowd is neither matched nor missed; where an image has several crowd segments of one class
the last row counts, as in that evaluator. Several stuff segments of a class are not joined here: `Panoptic.view` and
`Panoptic.decode` do that. A class with neither match, miss nor false alarm is NaN and left out of means.

Truth UNKNOWN is that evaluator's void. Truth NOTHING is a negative: a prediction there keeps it in its union. Pixels
without a predicted segment belong to none, whether they are NOTHING or UNKNOWN. Where segments overlap each pixel counts
for the one in the lowest layer, so a segment that shows nowhere is not counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics.histogram import MARKS, joint, same_size
from pixelwise.metrics.overlap import divide, nan_mean

UNIT = 2.0**53  # an IoU above one half is a whole number of 2^-53: their sum is exact in any order as an integer


class PanopticQuality:
    """PQ = SQ * RQ per class and averaged. `classes` says which are things; a mere number of classes leaves that open.

    Keys of compute(): pq, sq, rq (means over classes), the same with _things and _stuff (NaN where there is no such
    class), with _per_class ([K] float64), and tp, fp, fn ([K] int64).
    """

    def __init__(self, classes: Classes | int) -> None:
        self.num_classes = classes if isinstance(classes, int) else len(classes)
        if self.num_classes < 1:
            raise ConfigError(f"PanopticQuality needs at least 1 class, got {classes}.")
        self.is_thing = None if isinstance(classes, int) else classes.is_thing
        self.tp, self.fp, self.fn = np.zeros((3, self.num_classes), np.int64)
        self.iou_units = [0] * self.num_classes

    def update(self, prediction: Segments, truth: Segments, index: int | None = None) -> None:
        """Adds one image. `index` is taken because all metrics are called alike; the order does not matter here.

        Raises DataError when the sizes differ or a label is no class.
        """
        same_size(prediction, truth)
        p_label, t_label = (self._labels(side, what) for side, what in ((prediction, "prediction"), (truth, "truth")))
        counts = joint(truth.row_map().int() + MARKS, len(truth) + MARKS,
                       prediction.row_map().int() + MARKS, len(prediction) + MARKS)  # fmt: skip
        t_area, p_area = counts.sum(1)[MARKS:], counts.sum(0)[MARKS:]
        void, met = counts[0, MARKS:], counts[MARKS:, MARKS:]
        crowd = truth.crowd.cpu().numpy() & (t_area > 0)
        t, p = np.nonzero(met)
        fits = (t_label[t] == p_label[p]) & ~crowd[t]
        t, p = t[fits], p[fits]
        iou = met[t, p] / (t_area[t] + p_area[p] - met[t, p] - void[p])
        t, p, iou = t[iou > 0.5], p[iou > 0.5], iou[iou > 0.5]
        self._count(self.tp, t_label[t])
        for label, value in zip(t_label[t].tolist(), iou.tolist()):
            self.iou_units[label] += int(value * UNIT)
        missed = (t_area > 0) & ~crowd
        missed[t] = False
        self._count(self.fn, t_label[missed])
        alarms = p_area > 0
        alarms[p] = False
        excused = void + _on_crowd(met, np.flatnonzero(crowd), t_label, p_label)
        self._count(self.fp, p_label[alarms & ~(2 * excused > p_area)])

    def merge(self, other: PanopticQuality) -> None:
        """Adds another process's counts. Raises ConfigError when it counts other classes."""
        if self.num_classes != other.num_classes or not np.array_equal(self.is_thing, other.is_thing):
            raise ConfigError(
                f"PanopticQuality of {self.num_classes} classes cannot take in one of {other.num_classes} or other things."
            )
        self.tp, self.fp, self.fn = self.tp + other.tp, self.fp + other.fp, self.fn + other.fn
        self.iou_units = [a + b for a, b in zip(self.iou_units, other.iou_units)]

    def compute(self) -> dict[str, Any]:
        """The scores so far; see the class for the keys. NaN where nothing was counted."""
        weight = self.tp + 0.5 * self.fp + 0.5 * self.fn
        iou = np.array([units / UNIT for units in self.iou_units])
        rq, pq = divide(self.tp, weight), divide(iou, weight)
        # a class without a match has SQ 0, and counts, as long as it is present
        sq = np.where(weight > 0, np.nan_to_num(divide(iou, self.tp)), np.nan)
        thing = self.is_thing
        none = np.zeros(self.num_classes, bool)
        groups = {"": ~none, "_things": none if thing is None else thing, "_stuff": none if thing is None else ~thing}
        scores = {"pq": pq, "sq": sq, "rq": rq}
        out: dict[str, Any] = {f"{k}{g}": nan_mean(v[rows]) for g, rows in groups.items() for k, v in scores.items()}
        out |= {f"{k}_per_class": v for k, v in scores.items()}
        return out | {"tp": self.tp.copy(), "fp": self.fp.copy(), "fn": self.fn.copy()}

    def _labels(self, side: Segments, what: str) -> np.ndarray:
        labels = side.labels.cpu().numpy()
        if len(labels) and not (0 <= labels.min() and labels.max() < self.num_classes):
            raise DataError(
                f"The {what} holds labels {labels.min()}..{labels.max()}; there are {self.num_classes} classes, "
                f"0..{self.num_classes - 1}."
            )
        return labels

    def _count(self, counts: np.ndarray, labels: np.ndarray) -> None:
        counts += np.bincount(labels, minlength=self.num_classes)


def _on_crowd(met: np.ndarray, crowd: np.ndarray, t_label: np.ndarray, p_label: np.ndarray) -> np.ndarray:
    """[M] pixels of each prediction on the crowd of its class; met [N, M] pixels shared by each truth and prediction."""
    shared = np.zeros(met.shape[1], np.int64)
    for row in crowd:  # rising, so that the last crowd of a class stays
        same = p_label == t_label[row]
        shared[same] = met[row, same]
    return shared
