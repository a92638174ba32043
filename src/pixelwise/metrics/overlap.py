"""Confusion matrix of a data set, and what is read from it: IoU, Dice, accuracies (Long et al. 2014, 1411.4038).

Where libraries disagree, this is the rule here. Counts are pooled over the data set, never averaged over images. A
class in neither truth nor prediction is NaN and left out of means; one that is predicted but nowhere true scores 0 and
counts. A pixel predicted void (or anything that is no class) is a miss of its true class and a false alarm of none, as
Cityscapes counts it. Pixels whose truth is void or UNKNOWN never count. Pixels known to be NOTHING are negatives: a
class predicted there is a false alarm of that class. Where segments overlap the lowest layer counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.kernels.joint import Codes, joint
from pixelwise.metrics.histogram import as_integers, checked_labels, divide, nan_mean, row_codes

DIRECT = 1 << 18  # ids are counted as they are while both sides together need no more cells than this
VOID, STRANGE = -1, -2  # what a code can mean besides a class 0..K-1 and K, nothing


class ConfusionMatrix:
    """Counts [K + 1, K + 1] int64: rows are the truth, columns the prediction.

    Row K is truth that is known to be nothing (Segments only); column K a prediction that is no class: NOTHING,
    UNKNOWN, void or out of range. `ignore_index` marks unknown pixels where the truth is an integer map (None: there
    are none); where it is one of 0..K-1, that class is void on both sides and its scores are NaN, so with more than 255
    classes say another. Truth as Segments says itself what is unknown. Raises ConfigError when there is no class.

    >>> import numpy as np
    >>> matrix = ConfusionMatrix(2)
    >>> matrix.update(np.array([[0, 1, 1, 1]]), np.array([[0, 1, 255, 0]]))
    >>> matrix.compute()["iou"].tolist()
    [0.5, 0.5]
    """

    def __init__(self, num_classes: int, ignore_index: int | None = 255) -> None:
        if num_classes < 1:
            raise ConfigError(f"ConfusionMatrix needs at least 1 class, got {num_classes}.")
        self.num_classes, self.ignore_index = int(num_classes), ignore_index
        self.counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)

    def update(self, prediction: Any, truth: Any, index: int | None = None) -> None:
        """Adds an image or a batch: each side Segments, or labels of any integer dtype, any device and equal shape.

        `index` is taken because all metrics are called alike; sums do not depend on the order. Raises DataError when
        the shapes differ, or when the truth holds an id that is neither a class nor `ignore_index`.
        """
        k, void = self.num_classes, None if isinstance(truth, Segments) else self.ignore_index
        called, true = read_labels(prediction, k, void, "prediction"), read_labels(truth, k, void, "truth")
        if called.codes.values.shape != true.codes.values.shape:
            shapes = list(called.codes.values.shape), list(true.codes.values.shape)
            raise DataError(f"The prediction is {shapes[0]}, the truth {shapes[1]}: not one size.")
        columns, rows = np.where(called.meaning < 0, k, called.meaning), np.where(true.meaning < 0, k + 1, true.meaning)
        if len(rows) * len(columns) > DIRECT:
            refuse_strange(true, k, void)
            table = joint(Codes(look_up(rows, true.codes), 0, k + 2), Codes(look_up(columns, called.codes), 0, k + 1))
            rows, columns = np.arange(k + 2), np.arange(k + 1)
        else:
            table = joint(true.codes, called.codes)
            refuse_strange(true, k, void, table.sum(1))
        seen = np.nonzero(table)
        counts = np.zeros((k + 2, k + 1), np.int64)
        np.add.at(counts, (rows[seen[0]], columns[seen[1]]), table[seen])
        self.counts += counts[: k + 1]

    def merge(self, other: ConfusionMatrix) -> None:
        """Adds the counts of another process. Raises ConfigError when it counts other classes."""
        mine, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
        if mine != theirs:
            raise ConfigError(f"ConfusionMatrix of (classes, ignore_index) {mine} cannot take in one of {theirs}.")
        self.counts = self.counts + other.counts

    def compute(self) -> dict[str, Any]:
        """Scores in 0..1, NaN where undefined.

        confusion [K+1, K+1] int64; iou, dice, accuracy [K] float64 (accuracy is the recall of a class); miou, mdice,
        mean_accuracy: means over the classes that are not NaN; pixel_accuracy: correct over all known pixels (no class
        predicted where there is nothing is correct); fwiou: mean IoU weighted by the pixels of the class in the truth.
        """
        k = self.num_classes
        hit, true, called = self.counts.diagonal()[:k], self.counts[:k].sum(1), self.counts[:, :k].sum(0)
        iou, dice, accuracy = divide(hit, true + called - hit), divide(2 * hit, true + called), divide(hit, true)
        return {
            "iou": iou,
            "dice": dice,
            "accuracy": accuracy,
            "miou": nan_mean(iou),
            "mdice": nan_mean(dice),
            "mean_accuracy": nan_mean(accuracy),
            "pixel_accuracy": float(divide(self.counts.trace(), self.counts.sum())),
            "fwiou": float(divide((true * np.nan_to_num(iou)).sum(), true.sum())),
            "confusion": self.counts.copy(),
        }


class Labels(NamedTuple):
    """A map, and what each of its codes means: 0..K-1 a class, K nothing, VOID, or STRANGE, an id that is no class.

    ids [codes] is what each code is called on the outside; None where that is a row of Segments.
    """

    codes: Codes
    meaning: np.ndarray
    ids: np.ndarray | None


def read_labels(side: Any, num_classes: int, void: int | None, what: str) -> Labels:
    """`side` is Segments or a map of labels, `void` the label that is none, `what` its name in an error's message."""
    k = num_classes
    if isinstance(side, Segments):
        labels = checked_labels(side, k, what)
        if void is not None:
            labels = np.where(labels == void, VOID, labels)
        return Labels(row_codes(side), np.concatenate([[VOID, k], labels]), None)
    codes, ids = _compact(as_integers(side, what))
    meaning = np.where((ids >= 0) & (ids < k), ids, STRANGE)
    if void is not None:
        meaning = np.where(ids == void, VOID, meaning)
    return Labels(codes, meaning, ids)


def refuse_strange(labels: Labels, num_classes: int, void: int | None, found: np.ndarray | None = None) -> None:
    """Raises DataError for a truth that holds ids that are no class. `found` [codes] pixels of each, where known."""
    if labels.ids is None or not (labels.meaning == STRANGE).any():
        return
    if found is None:
        found = joint(labels.codes, Codes(torch.zeros_like(labels.codes.values, dtype=torch.uint8), 0, 1))[:, 0]
    held = np.flatnonzero((labels.meaning == STRANGE) & (found > 0))
    if len(held):
        named = ", ".join(f"{labels.ids[c]} ({found[c]} pixels)" for c in held[:5])
        expected = f"0..{num_classes - 1}" + ("" if void is None else f" or the void id {void}")
        raise DataError(
            f"The truth holds {len(held)} ids that are no class: {named}; expected {expected}. "
            "Map the ids on disk to labels, or say which id is void."
        )


def _compact(values: Tensor) -> tuple[Codes, np.ndarray]:
    """The map as codes, and the id that each code stands for."""
    if values.dtype == torch.uint8:
        return Codes(values, 0, 256), np.arange(256)
    low, high = (int(side) for side in values.aminmax()) if values.numel() else (0, 0)
    if high - low < 1 << 16:
        return Codes(values, low, high - low + 1), np.arange(low, high + 1)
    ids, codes = torch.unique(values, return_inverse=True)
    return Codes(codes, 0, len(ids)), ids.cpu().numpy()


def look_up(meaning: np.ndarray, codes: Codes) -> Tensor:
    """The meaning of each code, in the shape of the map, int32."""
    table = torch.from_numpy(meaning.astype(np.int32)).to(codes.values.device)
    return table.index_select(0, codes.values.reshape(-1).long() - codes.low).view(codes.values.shape)
