"""Confusion matrix of two 1024 x 2048 maps of 19 classes, 8 bit, beside torchmetrics with and without its checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from speed_side import Row, Work

SIZE, CLASSES = (1024, 2048), 19


def maps(size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth: blocks of 8 x 8, a tenth of the prediction wrong, two rows of void."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, CLASSES, (size[0] // 8, size[1] // 8)), np.ones((8, 8))).astype(np.uint8)
    prediction = np.where(rng.random(size) < 0.1, rng.integers(0, CLASSES, size), truth).astype(np.uint8)
    truth[:2] = 255
    return prediction, truth


def ours() -> Work:
    from pixelwise.metrics import ConfusionMatrix

    def count(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
        metric = ConfusionMatrix(CLASSES)
        metric.update(prediction, truth)
        return metric.counts[:CLASSES, :CLASSES]

    count(*maps((16, 16)))
    prediction, truth = maps()
    return lambda: count(prediction, truth)


def theirs(validate: bool) -> Work:
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    prediction, truth = (torch.from_numpy(m).long() for m in maps())
    return lambda: multiclass_confusion_matrix(prediction, truth, CLASSES, ignore_index=255, validate_args=validate)


def compare(answers: Mapping[str, Any]) -> str:
    return "equal" if all(a == answers["pixelwise"] for a in answers.values()) else "DIFFERENT"


ROW = Row(
    what="confusion matrix, 1024x2048, 19 classes",
    sides={
        "pixelwise": ours,
        "torchmetrics": lambda: theirs(True),
        "torchmetrics without checks": lambda: theirs(False),
    },
    compare=compare,
    target={"torchmetrics": 40, "torchmetrics without checks": 9},
)
