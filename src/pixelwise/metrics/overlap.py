"""Confusion matrix of a data set, and what is read from it: IoU, Dice, accuracies (Long et al. 2014, 1411.4038).

Where libraries disagree, this is the rule here. Counts are pooled over the data set, never averaged over images. A class
in neither truth nor prediction is NaN and left out of means; one that is predicted but nowhere true scores 0 and counts.
A pixel predicted void (or anything that is no class) is a miss of its true class and a false alarm of none, as Cityscapes
counts it. Pixels whose truth is void or UNKNOWN never count. Pixels known to be NOTHING are negatives: a class predicted
there is a false alarm of that class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics.histogram import MARKS, as_integers, joint

DIRECT = 1 << 18  # ids are counted as they are while both sides together need no more cells than this
NEVER, STRANGE = -1, -2  # what a truth id means besides 0..K


class ConfusionMatrix:
    """Counts [K + 1, K + 1] int64: rows are the truth, columns the prediction.

    Row K is truth that is known to be nothing (Segments only), column K a prediction that is no class: NOTHING, UNKNOWN,
    void or out of range. `ignore_index` marks unknown pixels in integer maps; if it is one of 0..K-1, that class is void.

    >>> import numpy as np
    >>> matrix = ConfusionMatrix(2)
    >>> matrix.update(np.array([[0, 1, 1]]), np.array([[0, 1, 255]]))
    >>> matrix.compute()["miou"]
    1.0
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if num_classes < 1:
            raise ConfigError(f"ConfusionMatrix needs at least 1 class, got {num_classes}.")
        self.num_classes, self.ignore_index = int(num_classes), int(ignore_index)
        self.counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)

    def update(self, prediction: Any, truth: Any, index: int | None = None) -> None:
        """Adds one image or batch: each side Segments, or labels of any integer dtype and equal shape, on any device.

        `index` is taken because all metrics are called alike; sums do not depend on the order. Raises DataError when the
        shapes differ, or when the truth holds an id that is neither a class nor `ignore_index`.
        """
        predicted, meaning_p = self._codes(prediction, "prediction")
        true, meaning_t = self._codes(truth, "truth")
        if predicted.shape != true.shape:
            raise DataError(f"The prediction is {list(predicted.shape)}, the truth {list(true.shape)}; they must be equal.")
        if not true.numel():
            return
        self._refuse_strange(true, truth, meaning_t)
        k = self.num_classes
        columns = np.where(meaning_p < 0, k, meaning_p)
        rows = np.where(meaning_t < 0, k + 1, meaning_t)
        if len(rows) * len(columns) > DIRECT:
            true, rows = _look_up(rows, true), np.arange(k + 2)
            predicted, columns = _look_up(columns, predicted), np.arange(k + 1)
        table = joint(true, len(rows), predicted, len(columns))
        seen = np.nonzero(table)
        counts = np.zeros((k + 2, k + 1), np.int64)
        np.add.at(counts, (rows[seen[0]], columns[seen[1]]), table[seen])
        self.counts += counts[: k + 1]

    def merge(self, other: ConfusionMatrix) -> None:
        """Adds the counts of another process. Raises ConfigError when it counts other classes."""
        mine, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
        if mine != theirs:
            raise ConfigError(f"ConfusionMatrix of (classes, ignore_index) {mine} cannot take in one of {theirs}.")
        self.counts += other.counts

    def compute(self) -> dict[str, Any]:
        """Scores in 0..1, NaN where undefined.

        confusion [K+1, K+1] int64; iou, dice, accuracy [K] float64 (accuracy is the recall of a class); miou, mdice,
        mean_accuracy: means over the classes that are not NaN; pixel_accuracy: correct over all known pixels (nothing
        predicted where there is nothing is correct); fwiou: IoU weighted by the pixels of the class in the truth.
        """
        k = self.num_classes
        counts = self.counts.astype(np.float64)
        hit, true, called = counts.diagonal()[:k], counts[:k].sum(1), counts[:, :k].sum(0)
        iou = divide(hit, true + called - hit)
        dice, accuracy = divide(2 * hit, true + called), divide(hit, true)
        return {
            "iou": iou,
            "dice": dice,
            "accuracy": accuracy,
            "miou": nan_mean(iou),
            "mdice": nan_mean(dice),
            "mean_accuracy": nan_mean(accuracy),
            "pixel_accuracy": float(divide(counts.trace(), counts.sum())),
            "fwiou": float(divide((true * np.nan_to_num(iou)).sum(), true.sum())),
            "confusion": self.counts.copy(),
        }

    def _codes(self, side: Any, what: str) -> tuple[Tensor, np.ndarray]:
        """A map of small codes from 0 and what each means: 0..K-1 a class, K nothing, NEVER, STRANGE."""
        k = self.num_classes
        if isinstance(side, Segments):
            labels = side.labels.cpu().numpy()
            if len(labels) and not (0 <= labels.min() and labels.max() < k):
                raise DataError(f"The {what} holds labels {labels.min()}..{labels.max()}; there are {k} classes, 0..{k - 1}.")
            meaning = np.concatenate([[NEVER, k], labels])
            return side.row_map().to(torch.int32) - UNKNOWN, np.where(meaning == self._void_class, NEVER, meaning)
        codes, ids = _compact(as_integers(side, what))
        meaning = np.where((ids >= 0) & (ids < k), ids, STRANGE)
        return codes, np.where(ids == self.ignore_index, NEVER, meaning)

    @property
    def _void_class(self) -> int:
        return self.ignore_index if 0 <= self.ignore_index < self.num_classes else UNKNOWN

    def _refuse_strange(self, codes: Tensor, truth: Any, meaning: np.ndarray) -> None:
        strange = np.flatnonzero(meaning == STRANGE)
        if not len(strange):
            return
        found = torch.bincount(codes.flatten(), minlength=len(meaning)).cpu().numpy()
        held = strange[found[strange] > 0]
        if len(held):
            ids = _compact(as_integers(truth, "truth"))[1]
            named = ", ".join(f"{ids[c]} ({found[c]} pixels)" for c in held[:5])
            raise DataError(
                f"The truth holds ids that are no class: {named}; expected 0..{self.num_classes - 1} or the void id "
                f"{self.ignore_index}. Map the ids on disk to labels first, or say which id is void."
            )


def _compact(values: Tensor) -> tuple[Tensor, np.ndarray]:
    """Codes from 0 without gaps too wide to count, and the id [codes] that each stands for."""
    if values.dtype == torch.uint8:
        return values, np.arange(256)
    low, high = (int(values.min()), int(values.max())) if values.numel() else (0, 0)
    if high - low < 1 << 16:
        return (values.to(torch.int64) - low).to(torch.int32), np.arange(low, high + 1)
    ids, codes = torch.unique(values, return_inverse=True)
    return codes, ids.cpu().numpy()


def _look_up(meaning: np.ndarray, codes: Tensor) -> Tensor:
    return torch.from_numpy(meaning.astype(np.int32)).to(codes.device)[codes.long()]


def divide(above: Any, below: Any) -> np.ndarray:
    """above / below in float64, NaN where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)


def nan_mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN when nothing is."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")
