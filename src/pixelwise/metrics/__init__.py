"""Scores over a data set: update(prediction, truth, index=None), merge(other), compute() -> dict. All pickle."""

from pixelwise.metrics.boundary import BoundaryF, BoundaryIoU
from pixelwise.metrics.matching import InstanceF1
from pixelwise.metrics.overlap import ConfusionMatrix
from pixelwise.metrics.panoptic import PanopticQuality
from pixelwise.metrics.precision import AveragePrecision

__all__ = ["AveragePrecision", "BoundaryF", "BoundaryIoU", "ConfusionMatrix", "InstanceF1", "PanopticQuality"]
