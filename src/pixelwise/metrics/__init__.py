"""Scores over a data set. Each metric: update(prediction, truth, index=None), merge(other), compute() -> dict; all pickle."""

from pixelwise.metrics.overlap import ConfusionMatrix
from pixelwise.metrics.panoptic import PanopticQuality
from pixelwise.metrics.precision import AveragePrecision

__all__ = ["AveragePrecision", "ConfusionMatrix", "PanopticQuality"]
