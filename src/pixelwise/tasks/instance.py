"""Instance segmentation: every countable object by itself; stuff does not count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Candidates, Output
from pixelwise.core.segments import NOTHING, Segments
from pixelwise.core.types import Partial
from pixelwise.errors import ConfigError
from pixelwise.metrics.precision import AveragePrecision
from pixelwise.tasks.thresholds import InstanceThresholds, check_thresholds


@dataclass(frozen=True)
class Instance:
    """Reads `candidates`. Average precision ranks all objects; whatever else is scored or shown is the answer.

    source    the classes of the data; those of the task are the things among them
    score     objects whose own score (class score x mask quality) is below it are not answered
    min_area  objects below it, in pixels, are not answered
    keep      at most so many objects an image, the best ones; an output may know a lower limit (`Merge.best`)
              Training chooses score and min_area on the validation split, see `thresholds`; without one these stand.
    whole     the net answers for all of `source`, as one trained for panoptic maps does, not for the things alone
    Raises ConfigError when the data has no things, and for a score outside 0..1.
    """

    source: Classes
    score: float = 0.5
    min_area: int = 0
    keep: int = 1000
    whole: bool = False
    classes: Classes = field(init=False)
    name: ClassVar[str] = "instance"
    primary: ClassVar[str] = "ap"

    def __post_init__(self) -> None:
        check_thresholds(self.score, self.min_area)
        if not self.source.things:
            raise ConfigError(
                f"Instance segmentation needs classes that are things; none of {list(self.source.names)} is one. "
                "Name them in the data set's classes.txt (a column `thing`), or choose the task semantic."
            )
        object.__setattr__(self, "classes", self.source.only(self.source.things, nothing=True))

    def view(self, truth: Segments) -> Segments:
        """The things alone, labels renumbered to the task's classes; stuff becomes NOTHING, unknown stays unknown."""
        renumber = torch.full((len(self.source),), -1, dtype=torch.int64, device=truth.labels.device)
        rows = torch.from_numpy(np.flatnonzero(self.source.is_thing)).to(renumber.device)
        renumber[rows] = torch.arange(len(rows), device=renumber.device)
        labels = renumber[truth.labels]
        things = truth.keep(labels >= 0)
        columns = {n: getattr(things, n) for n in ("scores", "crowd", "keys", "kind", "given_areas", "given_boxes")}
        return Segments(things.ids, labels[labels >= 0], **columns)

    def read(self, output: Output, i: int) -> Segments:
        """Every object, however unsure or small, the surest first; at most `keep`."""
        found = output.candidates(i)
        columns = np.flatnonzero(self.source.is_thing) if self.whole else np.arange(len(self.classes))
        scores = found.scores[:, columns] * mask_quality(found)[:, None]  # [Q, K]
        q, label = np.nonzero(scores > 0)
        crops = [crop if crop.dtype == bool else crop > 0.5 for crop in found.crops]
        areas = np.array([crop.sum() for crop in crops], dtype=np.int64)
        q, label = q[areas[q] > 0], label[areas[q] > 0]
        value = scores[q, label]
        limit = min(self.keep, found.merge.best or self.keep)
        best = np.argsort(-value, kind="stable")[:limit]
        return Segments.from_windows(
            found.boxes[q[best]], [crops[j] for j in q[best]], label[best], found.size, scores=value[best]
        )

    def decide(self, reading: Segments) -> Segments:
        """Those objects that are sure and large enough."""
        answered = reading.scores.numpy() >= self.score
        if self.min_area > 1:
            answered &= reading.pixel_counts.numpy() >= self.min_area
        kept = reading.keep(answered)
        return kept if len(kept.ids) == 1 else kept.compact()  # fewer objects overlap in fewer layers

    def decode(self, output: Output, i: int) -> Segments:
        return self.decide(self.read(output, i))

    def ranked(self, reading: Segments) -> Segments:
        return reading

    @property
    def countable(self) -> np.ndarray:
        """[K] bool: all classes are."""
        return np.ones(len(self.classes), bool)

    def partial(self, output: Output, i: int) -> Partial:
        """Objects of half the least score too: the score of one that is seen in parts is their mean by area."""
        reading = self.read(output, i)
        found = reading.keep(reading.scores >= self.score / 2).to("cpu")
        area, score = torch.full((len(found),), max(1, self.min_area)), torch.full((len(found),), self.score)
        return Partial(found, area, score, NOTHING)

    def chooser(self) -> InstanceThresholds:
        return InstanceThresholds(len(self.classes))

    def metric(self) -> AveragePrecision:
        return AveragePrecision(self.classes)


def mask_quality(found: Candidates) -> np.ndarray:
    """[Q] mean mask probability inside the mask, 1 for hard masks (Mask2Former's instance score has this factor)."""
    quality = np.ones(len(found.crops), np.float32)
    for q, crop in enumerate(found.crops):
        if crop.dtype != bool:
            inside = crop[crop > 0.5]
            quality[q] = inside.mean() if len(inside) else 0.0
    return quality
