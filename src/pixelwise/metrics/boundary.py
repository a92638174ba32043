"""How well contours agree: boundary IoU (Cheng et al. 2021, 2103.16562) and boundary F (Csurka et al. 2013, BMVC).

Both read one map of classes per side and hold no mask per class. Counts are pooled over the data set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import cv2
import numpy as np
from scipy.spatial import cKDTree

from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics.histogram import divide, nan_mean
from pixelwise.metrics.overlap import VOID, look_up, read_labels, refuse_strange


def label_maps(
    prediction: Any, truth: Any, num_classes: int, ignore_index: int | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prediction, truth) of each image, [H, W] int32: a class 0..K-1, K for none, VOID where the truth is unknown.

    Each side is Segments or labels [H, W] or [B, H, W]. Raises DataError for unequal shapes and ids that are no class.
    """
    void = None if isinstance(truth, Segments) else ignore_index
    called = read_labels(prediction, num_classes, void, "prediction")
    true = read_labels(truth, num_classes, void, "truth")
    refuse_strange(true, num_classes, void)
    shapes = list(called.codes.values.shape), list(true.codes.values.shape)
    if shapes[0] != shapes[1] or len(shapes[0]) not in (2, 3):
        raise DataError(
            f"The prediction is {shapes[0]}, the truth {shapes[1]}; "
            "expected two maps [H, W], or [B, H, W], of one size."
        )
    left = look_up(np.where(called.meaning < 0, num_classes, called.meaning), called.codes).cpu().numpy()
    right = look_up(true.meaning, true.codes).cpu().numpy()
    return [(left, right)] if left.ndim == 2 else list(zip(left, right))


def near_edge(labels: np.ndarray, reach: int, *, border: bool) -> np.ndarray:
    """[H, W] bool: pixels with another label within `reach` pixels, diagonal steps counted as one.

    It is what `reach` erosions of each class by a 3x3 square take away. `border`: the image's edge counts as another.
    """
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    shifted = labels - labels.min() if labels.size else labels
    top = int(shifted.max(initial=0)) + 1
    # OpenCV's erosion knows no 32-bit integers; float32 holds labels up to 2^24 exactly
    image: Any = shifted.astype(np.uint8 if top < 256 else np.uint16 if top < 65536 else np.float32)
    rule = cv2.BORDER_CONSTANT if border else cv2.BORDER_REPLICATE
    low = cv2.erode(image, kernel, borderType=rule, borderValue=[top])
    return low != cv2.dilate(image, kernel, borderType=rule, borderValue=[top])


class _PerClass(ABC):
    """Integer counts per class that add up over images and processes."""

    rows: int  # how many counts a class has

    def __init__(self, num_classes: int, ignore_index: int | None, share: float) -> None:
        if num_classes < 1 or not 0 < share < 1:
            raise ConfigError(
                f"{type(self).__name__} needs 1 class or more and a share of the image diagonal between 0 and 1; "
                f"got {num_classes} and {share}."
            )
        self.num_classes, self.ignore_index, self.share = int(num_classes), ignore_index, float(share)
        self.counts = np.zeros((self.rows, num_classes), np.int64)

    def update(self, prediction: Any, truth: Any, index: int | None = None) -> None:
        """Adds an image or a batch: each side Segments, or labels [H, W] or [B, H, W] of any integer dtype and device.

        `index` is taken because all metrics are called alike; sums do not depend on the order. Raises DataError when
        the shapes differ, or when the truth holds an id that is neither a class nor `ignore_index`.
        """
        for called, true in label_maps(prediction, truth, self.num_classes, self.ignore_index):
            self.counts += self._count(called, true)

    def merge(self, other: Any) -> None:
        """Adds the counts of another process. Raises ConfigError when it was set up otherwise."""
        mine, theirs = ((type(m).__name__, m.num_classes, m.ignore_index, m.share) for m in (self, other))
        if mine != theirs:
            raise ConfigError(f"{mine} (classes, ignore_index, share of the diagonal) cannot take in {theirs}.")
        self.counts = self.counts + other.counts

    @abstractmethod
    def _count(self, called: np.ndarray, true: np.ndarray) -> np.ndarray:
        """[rows, K] counts of one image; `called` and `true` as in `label_maps`."""

    def _histogram(self, labels: np.ndarray) -> np.ndarray:
        """[K] how many of these labels are each class; what is no class is left out."""
        return np.bincount(labels[(labels >= 0) & (labels < self.num_classes)], minlength=self.num_classes)


class BoundaryIoU(_PerClass):
    """IoU of the bands along the inside of the contours, by the rule of the method's own code.

    A class's band is what d erosions by a 3x3 square take away, d = round(ratio * image diagonal), at least 1; the
    image's edge counts as contour. The band of the truth also runs along void and along nothing. Pixels whose truth is
    void are left out of both bands afterwards. A class without a band on either side is NaN and left out of the mean.

    Keys of compute(): boundary_iou (mean), boundary_iou_per_class [K] float64. Raises ConfigError for a ratio that is
    not between 0 and 1.

    >>> labels = np.zeros((8, 8), np.uint8)
    >>> metric = BoundaryIoU(1)
    >>> metric.update(labels, labels)
    >>> metric.counts[0].tolist(), metric.compute()["boundary_iou"]  # the 28 pixels along the edge
    ([28], 1.0)
    """

    rows = 3

    def __init__(self, num_classes: int, ignore_index: int | None = 255, *, ratio: float = 0.02) -> None:
        super().__init__(num_classes, ignore_index, ratio)

    def _count(self, called: np.ndarray, true: np.ndarray) -> np.ndarray:
        """[3, K]: pixels in both bands, in the predicted one, in the true one."""
        reach = max(1, round(self.share * np.sqrt(true.shape[0] ** 2 + true.shape[1] ** 2)))
        known = true != VOID
        mine, theirs = near_edge(called, reach, border=True) & known, near_edge(true, reach, border=True) & known
        shared = true[mine & theirs & (called == true)]
        return np.stack([self._histogram(labels) for labels in (shared, called[mine], true[theirs])])

    def compute(self) -> dict[str, Any]:
        """The scores so far, in 0..1; NaN where there is no contour."""
        both, called, true = self.counts
        iou = divide(both, called + true - both)
        return {"boundary_iou": nan_mean(iou), "boundary_iou_per_class": iou}


class BoundaryF(_PerClass):
    """F measure of contours with a tolerance, after Csurka et al.: precision and recall of contour pixels.

    A class's contour are its pixels with another label among the 8 neighbours; the image's edge is no contour. A
    contour pixel is found when the other side has one of the same class within `tolerance` * image diagonal (at least
    1 pixel), in Euclidean distance. Counts are pooled over the data set (Csurka average over images; DAVIS' F, on half-
    pixel contours with 0.008 of the diagonal rounded up, is of the same family but not equal).

    Void: contours of the truth towards unknown pixels are none, and a predicted contour pixel that is not found is left
    out when it lies within the tolerance of unknown pixels, since the contour may be there. A class without contour on
    either side is NaN and left out of the mean; without on one side it is 0.

    Keys of compute(): boundary_f (mean), and [K] float64 boundary_f_per_class, boundary_precision_per_class,
    boundary_recall_per_class. Raises ConfigError for a tolerance that is not between 0 and 1.

    >>> truth = np.zeros((8, 8), np.uint8)
    >>> truth[:, 4:] = 1
    >>> metric = BoundaryF(2)
    >>> metric.update(np.roll(truth, 1, axis=1)[:, 1:], truth[:, 1:])  # one pixel off is within the tolerance
    >>> metric.compute()["boundary_f"]
    1.0
    """

    rows = 4

    def __init__(self, num_classes: int, ignore_index: int | None = 255, *, tolerance: float = 0.0075) -> None:
        super().__init__(num_classes, ignore_index, tolerance)

    def _count(self, called: np.ndarray, true: np.ndarray) -> np.ndarray:
        """[4, K]: predicted contour pixels found, of how many; true ones found, of how many."""
        reach = max(1.0, self.share * float(np.hypot(*true.shape)))
        unknown = true == VOID
        mine, theirs = near_edge(called, 1, border=False), _true_contour(true, unknown)
        called, true = called[mine], true[theirs]  # [P] and [T] labels of the contour pixels from here on
        at_mine, at_theirs = np.argwhere(mine), np.argwhere(theirs)
        found_mine, found_theirs = np.zeros(len(called), bool), np.zeros(len(true), bool)
        for k in np.intersect1d(called, true):
            a, b = called == k, true == k
            found_mine[a] = _within(at_mine[a], at_theirs[b], reach)
            found_theirs[b] = _within(at_theirs[b], at_mine[a], reach)
        counts = np.ones(len(called), bool)
        if unknown.any():
            away = cv2.distanceTransform((~unknown).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[mine]
            counts = np.where(found_mine, away > 0, away > reach)
        sides = (called[found_mine & counts], called[counts], true[found_theirs], true)
        return np.stack([self._histogram(labels) for labels in sides])

    def compute(self) -> dict[str, Any]:
        """The scores so far, in 0..1; NaN where there is no contour."""
        found_called, called, found_true, true = self.counts
        precision, recall = divide(found_called, called), divide(found_true, true)
        f = divide(2 * precision * recall, precision + recall)
        f = np.where((called > 0) | (true > 0), np.nan_to_num(f), np.nan)
        return {
            "boundary_f": nan_mean(f),
            "boundary_f_per_class": f,
            "boundary_precision_per_class": precision,
            "boundary_recall_per_class": recall,
        }


def _true_contour(true: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """[H, W] bool: known pixels with another known label among their 8 neighbours."""
    if not unknown.any():
        return near_edge(true, 1, border=False)
    top = int(true.max()) + 1
    kernel = np.ones((3, 3), np.uint8)
    # unknown must neither be the least nor the largest label around: it is raised for one and lowered for the other
    low = cv2.erode(np.where(unknown, top, true).astype(np.float32), kernel, borderType=cv2.BORDER_REPLICATE)
    high = cv2.dilate(np.where(unknown, -1, true).astype(np.float32), kernel, borderType=cv2.BORDER_REPLICATE)
    return (low != high) & ~unknown


def _within(points: np.ndarray, others: np.ndarray, reach: float) -> np.ndarray:
    """[P] bool: which points have one of the others at most `reach` pixels away."""
    # the search leaves out what lies exactly at its bound
    distance, _ = cKDTree(others).query(points, distance_upper_bound=np.nextafter(reach, np.inf) + 1e-9)
    return np.isfinite(distance)
