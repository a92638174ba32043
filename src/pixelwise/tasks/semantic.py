"""Semantic segmentation: a class for every pixel; instances do not count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Output
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments, look_up, smallest_int
from pixelwise.core.types import Partial
from pixelwise.metrics.overlap import ConfusionMatrix


@dataclass(frozen=True)
class Semantic:
    """Reads `class_map`; a channel past the last class is "nothing"."""

    classes: Classes
    name: ClassVar[str] = "semantic"
    primary: ClassVar[str] = "miou"

    def view(self, truth: Segments) -> Segments:
        """One row per class, in the classes' order."""
        return by_class(truth, len(self.classes))

    def read(self, output: Output, i: int) -> Segments:
        labels = output.class_map(i)
        rows = torch.where(labels >= len(self.classes), NOTHING, labels).to(smallest_int(len(self.classes)))
        return Segments(rows, torch.arange(len(self.classes), device=rows.device))

    def decide(self, reading: Segments) -> Segments:
        return reading

    def decode(self, output: Output, i: int) -> Segments:
        return self.read(output, i)

    def ranked(self, reading: Segments) -> Segments:
        return reading

    @property
    def countable(self) -> np.ndarray:
        """[K] bool: no class is."""
        return np.zeros(len(self.classes), bool)

    def partial(self, output: Output, i: int) -> Partial:
        """Every class is a row of the whole image, seen or not."""
        rows = len(self.classes)
        return Partial(self.read(output, i), torch.zeros(rows, dtype=torch.int64), torch.zeros(rows), NOTHING)

    def chooser(self) -> None:
        """There is no threshold: the largest score wins."""

    def metric(self) -> ConfusionMatrix:
        return ConfusionMatrix(len(self.classes))


def by_class(truth: Segments, count: int) -> Segments:
    """The same pixels with one row per class 0..count-1, none of them a crowd; in overlaps the lower layer wins."""
    same = len(truth) == count and len(truth.ids) == 1 and truth.kind is None and not bool(truth.crowd.any())
    if same and bool((truth.labels == torch.arange(count, device=truth.labels.device)).all()):
        return truth
    lookup = torch.cat([truth.labels, truth.labels.new_tensor([UNKNOWN, NOTHING])]).to(smallest_int(count))
    return Segments(look_up(lookup, truth.row_map()), torch.arange(count, device=truth.labels.device))
