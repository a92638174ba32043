"""Whole-object overlap of crowded objects: AJI (Kumar et al. 2017), AJI+ (Graham et al. 2019, 1812.06499), object Dice.

Objects meet within their class. UNKNOWN pixels of the truth are taken out of predictions; crowd is no object, and a
prediction that lies for more than half on unknown pixels and on crowd of its class is left out where nothing pairs it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError
from pixelwise.metrics.histogram import divide, nan_mean
from pixelwise.metrics.meetings import Meetings, meet

EPSILON = 1e-6  # in the union by which pairs are ranked, as the method's own code has it: it decides between equal IoU


class _PerImage(ABC):
    """Rows [R, K] of numbers for each image, joined in no order: sums are exact whatever it is."""

    def __init__(self, classes: Classes | int) -> None:
        self.num_classes = len(classes) if isinstance(classes, Classes) else int(classes)
        if self.num_classes < 1:
            raise ConfigError(f"{type(self).__name__} needs at least 1 class, got {classes}.")
        self.images: list[np.ndarray] = []

    def update(self, prediction: Segments, truth: Segments, index: int | None = None) -> None:
        """Adds one image. `index` is taken because all metrics are called alike; the order does not matter here.

        Raises DataError when the sizes differ or a label is no class.
        """
        self.images.append(self._count(meet(prediction, truth, self.num_classes)))

    def merge(self, other: Any) -> None:
        """Takes in another process's images. Raises ConfigError when it counts other classes."""
        if type(self) is not type(other) or self.num_classes != other.num_classes:
            raise ConfigError(f"{type(self).__name__} of {self.num_classes} classes cannot take in "
                              f"{type(other).__name__} of {other.num_classes} classes.")  # fmt: skip
        self.images = self.images + other.images

    @abstractmethod
    def _count(self, seen: Meetings) -> np.ndarray:
        """The rows [R, K] of one image."""

    def _by_class(self, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """[K] float64 sums."""
        return np.bincount(labels, weights, self.num_classes).astype(np.float64)  # of nothing NumPy makes integers


class AggregatedJaccard(_PerImage):
    """Aggregated Jaccard index: pixels that pairs share over pixels of pairs and of all that is left, image by image.

    aji pairs each true object with the prediction of the largest IoU, which may serve several (the rule of MoNuSeg, as
    in hover_net's get_fast_aji); aji_plus pairs one to one with the largest sum of IoU (its get_fast_aji_plus). Both
    are means over the images that have an object on either side, aji_per_class likewise of each class alone.

    Keys of compute(): aji, aji_plus, aji_per_class and aji_plus_per_class [K] float64. Raises ConfigError when there is
    no class.

    >>> truth = Segments(np.array([[0, 0, -1, 1, 1]], np.int8), labels=[0, 0])
    >>> prediction = Segments(np.array([[0, 0, 0, 0, 0]], np.int8), labels=[0])
    >>> metric = AggregatedJaccard(1)
    >>> metric.update(prediction, truth)
    >>> metric.compute()["aji"], round(metric.compute()["aji_plus"], 3)  # 4 of 10 pixels, 2 of 7
    (0.4, 0.286)
    """

    def _count(self, seen: Meetings) -> np.ndarray:
        """[4, K] shared and joint pixels of aji, then of aji_plus."""
        pairs = np.flatnonzero(seen.objects[seen.t])
        t, p, known = seen.t[pairs], seen.p[pairs], seen.p_area - seen.void
        shared = seen.shared[pairs]
        union = seen.t_area[t] + known[p] - shared
        rank = shared / (union + EPSILON)
        rows = []
        for chosen in (_best(t, p, rank), _assigned(t, p, rank, len(seen.t_label))):
            unpaired_t, unpaired_p = seen.objects.copy(), seen.alarms.copy()
            unpaired_t[t[chosen]] = unpaired_p[p[chosen]] = False
            label = seen.t_label[t[chosen]]
            joint = self._by_class(label, union[chosen])
            joint += self._by_class(seen.t_label[unpaired_t], seen.t_area[unpaired_t])
            joint += self._by_class(seen.p_label[unpaired_p], known[unpaired_p])
            rows += [self._by_class(label, shared[chosen]), joint]
        return np.stack(rows)

    def compute(self) -> dict[str, Any]:
        """The scores so far, in 0..1; see the class for the keys."""
        counts = np.stack(self.images) if self.images else np.zeros((0, 4, self.num_classes))  # [I, 4, K]
        out: dict[str, Any] = {}
        for row, name in enumerate(("aji", "aji_plus")):
            shared, joint = counts[:, 2 * row], counts[:, 2 * row + 1]
            out[name] = _mean(divide(shared.sum(1), joint.sum(1)))
            out[f"{name}_per_class"] = np.array([_mean(column) for column in divide(shared, joint).T])
        return out


class ObjectDice(_PerImage):
    """Object Dice of the GlaS contest (Sirinukunwattana et al. 2017, 1603.00275): Dice of each object, by its area.

    Each object on either side is held against the one that it shares most pixels with (0 where there is none); the
    mean over true objects and the mean over predicted ones, each weighted by area, are averaged. object_dice pools the
    objects of all images, object_dice_per_image is the mean over images of what each scores alone; in both, means over
    classes, and an image or a class without objects on either side is left out.

    Keys of compute(): object_dice, object_dice_per_image, object_dice_per_class [K] float64 (pooled). Raises
    ConfigError when there is no class.

    >>> truth = Segments(np.array([[0, 0, -1, 1, 1]], np.int8), labels=[0, 0])
    >>> prediction = Segments(np.array([[0, 0, 0, -1, -1]], np.int8), labels=[0])
    >>> metric = ObjectDice(1)
    >>> metric.update(prediction, truth)
    >>> round(metric.compute()["object_dice"], 3)  # (0.8 / 2 + 0.8) / 2
    0.6
    """

    def _count(self, seen: Meetings) -> np.ndarray:
        """[4, K] area x Dice and area of the true objects, then of the predicted ones."""
        pairs = np.flatnonzero(seen.objects[seen.t])
        t, p, known = seen.t[pairs], seen.p[pairs], seen.p_area - seen.void
        shared = seen.shared[pairs]
        dice = 2 * shared / (seen.t_area[t] + known[p])
        of_t, of_p = np.zeros(len(seen.t_label)), np.zeros(len(seen.p_label))
        best = _best(t, p, shared)
        of_t[t[best]] = dice[best]
        best = _best(p, t, shared)
        of_p[p[best]] = dice[best]
        rows = []
        for labels, areas, values, counted in ((seen.t_label, seen.t_area, of_t, seen.objects),
                                               (seen.p_label, known, of_p, seen.alarms)):  # fmt: skip
            rows += [self._by_class(labels[counted], (areas * values)[counted])]
            rows += [self._by_class(labels[counted], areas[counted])]
        return np.stack(rows)

    def compute(self) -> dict[str, Any]:
        """The scores so far, in 0..1; see the class for the keys."""
        counts = np.stack(self.images) if self.images else np.zeros((0, 4, self.num_classes))  # [I, 4, K]
        sums = np.array([[math.fsum(counts[:, row, k]) for k in range(self.num_classes)] for row in range(4)])
        alone = [nan_mean(_object_dice(image)) for image in counts]
        return {
            "object_dice": nan_mean(_object_dice(sums)),
            "object_dice_per_image": _mean(np.array(alone)),
            "object_dice_per_class": _object_dice(sums),
        }


def _object_dice(sums: np.ndarray) -> np.ndarray:
    """[4, K] -> [K]: a side without objects scores 0, NaN where both are without."""
    true, called = divide(sums[0], sums[1]), divide(sums[2], sums[3])
    either = ~np.isnan(true) | ~np.isnan(called)
    return np.where(either, (np.nan_to_num(true) + np.nan_to_num(called)) / 2, np.nan)


def _mean(values: np.ndarray) -> float:
    """Mean of what is not NaN, the same in whichever order; NaN when nothing is."""
    kept = values[~np.isnan(values)].tolist()
    return math.fsum(kept) / len(kept) if kept else math.nan


def _best(rows: np.ndarray, others: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Of each row's pairs the one of the highest rank; of equal ones that with the first other."""
    order = np.lexsort((others, -rank, rows))
    return order[np.diff(rows[order], prepend=-1) > 0]


def _assigned(t: np.ndarray, p: np.ndarray, rank: np.ndarray, n: int) -> np.ndarray:
    """The pairs of the one-to-one matching with the largest sum of ranks, found apart in each group that meets."""
    if not len(t):
        return t
    size = n + int(p.max()) + 1
    place = t.astype(np.int32), (p + n).astype(np.int32)  # older SciPy takes 32-bit indices only
    group = connected_components(csr_array((np.ones(len(t), np.int8), place), shape=(size, size)), directed=False)[1][t]
    order = np.argsort(group, kind="stable")
    chosen = []
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(members) == 1:
            chosen.append(members)
            continue
        (rows, i), (columns, j) = (np.unique(side[members], return_inverse=True) for side in (t, p))
        table, pair = np.zeros((len(rows), len(columns))), np.full((len(rows), len(columns)), -1)
        table[i, j], pair[i, j] = rank[members], members
        found = pair[linear_sum_assignment(table, maximize=True)]
        chosen.append(found[found >= 0])
    return np.sort(np.concatenate(chosen))
