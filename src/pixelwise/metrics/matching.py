"""Instance F1 and TP / (TP + FP + FN) at IoU thresholds, as nuclei are judged (Caicedo et al. 2019).

At each threshold predicted and true objects of one class are matched one to one, as many as possible, among pairs whose
IoU is at least the threshold (`strict=True`: above it, the wording of the 2018 Data Science Bowl; the two differ only
where an IoU equals the threshold). Scores of predictions play no part.

What is unknown, and crowd: see `meetings`. Objects may overlap on either side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError
from pixelwise.metrics.histogram import divide, nan_mean
from pixelwise.metrics.meetings import meet

THRESHOLDS = tuple(np.arange(50, 100, 5) / 100)


class InstanceF1:
    """F1 = 2 TP / (2 TP + FP + FN) and accuracy = TP / (TP + FP + FN), pooled over the data set or per image.

    per_image False: counts are pooled over all images, scores are means over classes (a class without any object is
    NaN and left out). per_image True: classes are pooled within an image, scores are means over images (an image
    without true and predicted objects is left out), as the Data Science Bowl scores.

    Keys of compute(): f1 and accuracy, the means over the thresholds; f1_50, f1_75, accuracy_50, accuracy_75;
    f1_per_threshold, accuracy_per_threshold [T] float64; f1_per_class, accuracy_per_class [K] float64 (pooled, mean
    over thresholds); tp, fp, fn [T, K] int64. A key such as f1_50 is there if 0.5 is among `thresholds`. Raises
    ConfigError for thresholds that are not within 0..1.

    >>> truth = Segments(np.array([[0, 0, -1, 1, 1]], np.int8), labels=[0, 0])
    >>> prediction = Segments(np.array([[0, 0, -1, -1, -1]], np.int8), labels=[0])
    >>> metric = InstanceF1(1)
    >>> metric.update(prediction, truth)
    >>> scores = metric.compute()
    >>> round(scores["f1"], 3), scores["accuracy"]
    (0.667, 0.5)
    """

    def __init__(
        self,
        classes: Classes | int,
        *,
        thresholds: tuple[float, ...] = THRESHOLDS,
        strict: bool = False,
        per_image: bool = False,
    ) -> None:
        self.num_classes = len(classes) if isinstance(classes, Classes) else int(classes)
        self.thresholds = tuple(float(t) for t in thresholds)
        if self.num_classes < 1 or not self.thresholds or not all(0 < t <= 1 for t in self.thresholds):
            raise ConfigError(f"InstanceF1 needs 1 class or more and thresholds in 0..1; got {classes}, {thresholds}.")
        self.strict, self.per_image = strict, per_image
        self.counts = np.zeros((3, len(self.thresholds), self.num_classes), np.int64)  # tp, fp, fn
        self.images: list[np.ndarray] = []  # [3, T] of each image, kept where scores are averaged over images

    def update(self, prediction: Segments, truth: Segments, index: int | None = None) -> None:
        """Adds one image. `index` is taken because all metrics are called alike; the order does not matter here.

        Rows without pixels are no objects. Raises DataError when the sizes differ or a label is no class.
        """
        found = meet(prediction, truth, self.num_classes)
        counts = np.zeros_like(self.counts)
        for i, threshold in enumerate(self.thresholds):
            close = found.iou > threshold if self.strict else found.iou >= threshold
            pair_t, pair_p = match(found.t[close], found.p[close], len(truth), len(prediction))
            missed, alarms = found.objects.copy(), found.alarms.copy()
            missed[pair_t] = alarms[pair_p] = False
            for kind, labels in enumerate((found.t_label[pair_t], found.p_label[alarms], found.t_label[missed])):
                counts[kind, i] = np.bincount(labels, minlength=self.num_classes)
        self.counts = self.counts + counts
        if self.per_image:
            self.images.append(counts.sum(2))

    def merge(self, other: InstanceF1) -> None:
        """Adds another process's counts. Raises ConfigError when it was set up otherwise."""
        mine, theirs = ((m.num_classes, m.thresholds, m.strict, m.per_image) for m in (self, other))
        if mine != theirs:
            raise ConfigError(f"InstanceF1 of (classes, thresholds, strict, per_image) {mine} cannot take in {theirs}.")
        self.counts = self.counts + other.counts
        self.images = self.images + other.images

    def compute(self) -> dict[str, Any]:
        """The scores so far, in 0..1; see the class for the keys. NaN where there was no object."""
        out: dict[str, Any] = {}
        for name, rule in (("f1", _f1), ("accuracy", _accuracy)):
            pooled = rule(*self.counts)  # [T, K]
            if self.per_image:
                curve = _mean_over_images([rule(*image) for image in self.images], len(self.thresholds))
            else:
                curve = np.array([nan_mean(row) for row in pooled])
            out[name] = nan_mean(curve)
            out |= {f"{name}_{round(100 * t)}": float(v) for t, v in zip(self.thresholds, curve) if t in (0.5, 0.75)}
            out[f"{name}_per_threshold"] = curve
            out[f"{name}_per_class"] = np.array([nan_mean(column) for column in pooled.T])
        return out | {kind: counts.copy() for kind, counts in zip(("tp", "fp", "fn"), self.counts)}


def _f1(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    return divide(2 * tp, 2 * tp + fp + fn)


def _accuracy(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    return divide(tp, tp + fp + fn)


def _mean_over_images(scores: list[np.ndarray], count: int) -> np.ndarray:
    """[count] means over the images that are not NaN, summed so that their order does not matter."""
    kept = [score for score in scores if not np.isnan(score).any()]
    return np.array([math.fsum(s[i] for s in kept) / len(kept) if kept else math.nan for i in range(count)])


def match(t: np.ndarray, p: np.ndarray, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest one-to-one matching among the pairs (t, p): its true and its predicted rows."""
    if not len(t):
        return t, p
    place = t.astype(np.int32), p.astype(np.int32)  # SciPy before 1.15 matches 32-bit indices only
    graph = csr_array((np.ones(len(t), np.int8), place), shape=(n, m))
    partner = maximum_bipartite_matching(graph, perm_type="column")
    matched = np.flatnonzero(partner >= 0)
    return matched, partner[matched]
