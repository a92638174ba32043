"""Instance segmentation: every countable object by itself; stuff does not count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Candidates, Output
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError
from pixelwise.metrics.precision import AveragePrecision


@dataclass(frozen=True)
class Instance:
    """Reads `candidates`.

    source    the classes of the data; those of the task are the things among them
    score     objects whose own score (class score x mask quality) is below it are not answered
    min_area  objects below it, in pixels, are not answered
    keep      at most so many objects an image, the best ones; an output may know a lower limit (`Merge.best`)
    Raises ConfigError when the data has no things.
    """

    source: Classes
    score: float = 0.0
    min_area: int = 0
    keep: int = 1000
    classes: Classes = field(init=False)
    name: ClassVar[str] = "instance"
    primary: ClassVar[str] = "ap"

    def __post_init__(self) -> None:
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

    def decode(self, output: Output, i: int) -> Segments:
        found = output.candidates(i)
        k = len(self.classes)
        scores = found.scores[:, :k] * mask_quality(found)[:, None]  # [Q, K]
        q, label = np.nonzero((scores > 0) & (scores >= self.score))
        crops = [crop if crop.dtype == bool else crop > 0.5 for crop in found.crops]
        areas = np.array([crop.sum() for crop in crops], dtype=np.int64)
        value = scores[q, label]
        fits = areas[q] >= max(1, self.min_area)
        q, label, value = q[fits], label[fits], value[fits]
        limit = min(self.keep, found.merge.best or self.keep)
        best = np.argsort(-value, kind="stable")[:limit]
        return Segments.from_windows(
            found.boxes[q[best]], [crops[j] for j in q[best]], label[best], found.size, scores=value[best]
        )

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
