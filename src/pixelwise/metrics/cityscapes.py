"""Average precision of instances by Cityscapes' own rules (Cordts et al. 2016, 1604.01685), not COCO's.

Over IoU 0.50:0.05:0.95, strictly above. True objects below 100 pixels and groups (crowd) are not to be found; what
matches them is neither right nor wrong. Of several detections above the threshold the surest is right, the others are
false. A detection without a match is left out when more than the threshold's share of it lies on void, on groups and on
small objects of its class. IoU is measured with void in it. Precision is summed over the steps of recall, each half way
to its neighbours, from recall 0 with precision 1; equal scores are one step, so no order decides. There is no limit of
detections. Void is what the truth leaves UNKNOWN: labels that the benchmark ignores must be read so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError
from pixelwise.metrics.histogram import nan_mean
from pixelwise.metrics.meetings import Meetings, meet

OVERLAPS = np.arange(0.5, 1.0, 0.05)  # as that evaluator writes them: 0.55 is 0.55 + 1e-16
LEAST = 100  # pixels


@dataclass(frozen=True)
class _Found:
    """The detections of one image: M labels and scores; right and wrong [M, T], how often each counts as what."""

    labels: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    wrong: np.ndarray


class CityscapesAP:
    """Mask AP as Cityscapes counts it. The distances of its 50 m and 100 m scores are not known here.

    Keys of compute(): cityscapes_ap, cityscapes_ap50 (means over classes), and both with _per_class ([K] float64). A
    class without true objects to be found is NaN and left out. Raises ConfigError when there is no class.

    >>> ids = np.repeat(np.array([[0, 0, -1, 1, 1]], np.int8), 60, 0)
    >>> truth = Segments(ids, labels=[0, 0])
    >>> prediction = Segments(np.where(ids == 0, 0, -1), labels=[0], scores=[0.9])
    >>> metric = CityscapesAP(1)
    >>> metric.update(prediction, truth)
    >>> metric.compute()["cityscapes_ap"]
    0.5
    """

    ranked = True  # wants every object with its score, however unsure

    def __init__(self, classes: Classes | int) -> None:
        self.num_classes = len(classes) if isinstance(classes, Classes) else int(classes)
        if self.num_classes < 1:
            raise ConfigError(f"CityscapesAP needs at least 1 class, got {classes}.")
        self.images: list[_Found] = []
        self.missed = np.zeros((len(OVERLAPS), self.num_classes), np.int64)
        self.objects = np.zeros(self.num_classes, np.int64)

    def update(self, prediction: Segments, truth: Segments, index: int | None = None) -> None:
        """Adds one image. `index` is taken because all metrics are called alike; the order does not matter here.

        Raises DataError when the sizes differ or a label is no class.
        """
        seen = meet(prediction, truth, self.num_classes)
        crowd, scores = truth.crowd.cpu().numpy(), prediction.scores.cpu().numpy()
        small = seen.t_area < LEAST
        wanted = (seen.t_area > 0) & ~crowd & ~small
        overlap = seen.shared / (seen.t_area[seen.t] + seen.p_area[seen.p] - seen.shared)
        # a small group counts twice, as there
        forgiven = seen.void + _on(seen, crowd) + _on(seen, small)
        right, wrong = np.zeros((2, len(prediction), len(OVERLAPS)), np.uint8)
        for i, least in enumerate(OVERLAPS):
            close = overlap > least
            to_find = close & wanted[seen.t]
            t, p = seen.t[to_find], seen.p[to_find]
            surest = np.lexsort((-scores[p], t))
            t, p = t[surest], p[surest]
            first = np.diff(t, prepend=-1) > 0
            np.add.at(right[:, i], p[first], 1)
            np.add.at(wrong[:, i], p[~first], 1)
            alone = seen.p_area > 0
            alone[seen.p[close]] = False
            wrong[alone & (forgiven <= least * seen.p_area), i] += 1
            missed = wanted.copy()
            missed[t] = False
            self.missed[i] += np.bincount(seen.t_label[missed], minlength=self.num_classes)
        self.objects += np.bincount(seen.t_label[wanted], minlength=self.num_classes)
        rows = seen.p_area > 0
        self.images.append(_Found(seen.p_label[rows], scores[rows], right[rows], wrong[rows]))

    def merge(self, other: CityscapesAP) -> None:
        """Takes in another process's images. Raises ConfigError when it counts other classes."""
        if self.num_classes != other.num_classes:
            raise ConfigError(
                f"CityscapesAP of {self.num_classes} classes cannot take in one of {other.num_classes} classes."
            )
        self.images = self.images + other.images
        self.missed, self.objects = self.missed + other.missed, self.objects + other.objects

    def compute(self) -> dict[str, Any]:
        """The scores so far, in 0..1; see the class for the keys."""
        table = np.full((self.num_classes, len(OVERLAPS)), np.nan)
        for k in np.flatnonzero(self.objects):
            parts = [(f.scores[f.labels == k], f.right[f.labels == k], f.wrong[f.labels == k]) for f in self.images]
            scores, right, wrong = (np.concatenate(column) for column in zip(*parts))
            order = np.argsort(scores)
            for i in range(len(OVERLAPS)):
                counted = right[order, i].astype(np.int64), wrong[order, i].astype(np.int64)
                table[k, i] = _average_precision(scores[order], *counted, int(self.missed[i, k]))
        out: dict[str, Any] = {"cityscapes_ap": nan_mean(table), "cityscapes_ap50": nan_mean(table[:, 0])}
        return out | {"cityscapes_ap_per_class": table.mean(1), "cityscapes_ap50_per_class": table[:, 0].copy()}


def _on(seen: Meetings, rows: np.ndarray) -> np.ndarray:
    """[M] pixels of each prediction on these true rows of its class."""
    there = rows[seen.t]
    return np.bincount(seen.p[there], seen.shared[there], len(seen.p_label))


def _average_precision(scores: np.ndarray, right: np.ndarray, wrong: np.ndarray, missed: int) -> float:
    """Of detections by rising score, of which `right` and `wrong` say how often each counts as what; 0 for none."""
    counts = right + wrong > 0
    scores, right, wrong = scores[counts], right[counts], wrong[counts]
    if not len(scores):
        return 0.0
    steps = np.unique(scores, return_index=True)[1]
    hits = right[::-1].cumsum()[::-1][steps]  # at this score and above
    named = (right + wrong)[::-1].cumsum()[::-1][steps]
    precision, recall = np.append(hits / named, 1.0), np.append(hits / (right.sum() + missed), 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(np.dot(precision, 0.5 * padded[:-2] - 0.5 * padded[2:]))
