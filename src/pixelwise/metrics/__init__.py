"""Scores over a data set: update(prediction, truth, index=None), merge(other), compute() -> dict. All pickle."""

from pixelwise.metrics.aggregated import AggregatedJaccard, ObjectDice
from pixelwise.metrics.boundary import BoundaryF, BoundaryIoU
from pixelwise.metrics.cityscapes import CityscapesAP
from pixelwise.metrics.matching import InstanceF1
from pixelwise.metrics.overlap import ConfusionMatrix
from pixelwise.metrics.panoptic import PanopticQuality
from pixelwise.metrics.precision import AveragePrecision

__all__ = [
    "AggregatedJaccard",
    "AveragePrecision",
    "BoundaryF",
    "BoundaryIoU",
    "CityscapesAP",
    "ConfusionMatrix",
    "InstanceF1",
    "ObjectDice",
    "PanopticQuality",
]
