"""Panoptic segmentation (Kirillov et al. 2018, 1801.00868): every pixel a class, every thing an instance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Candidates, Output
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments, look_up, smallest_int
from pixelwise.core.types import Partial
from pixelwise.metrics.panoptic import PanopticQuality
from pixelwise.tasks.thresholds import PanopticThresholds, check_thresholds


@dataclass(frozen=True)
class Panoptic:
    """Reads `candidates`, joins them by the rule they bring; stuff of a class is one segment.

    score     things whose score is below it are not answered; None: what the rule says (`Merge.score`), all where the
              candidates are a partition. What such a thing would have covered goes to others, or is unknown.
    min_area  things below it, in pixels, are not answered
              Training chooses both on the validation split, see `thresholds`; without one these stand.
    Raises ConfigError for a score outside 0..1.
    """

    classes: Classes
    score: float | None = None
    min_area: int = 0
    name: ClassVar[str] = "panoptic"
    primary: ClassVar[str] = "pq"

    def __post_init__(self) -> None:
        check_thresholds(self.score, self.min_area)

    def view(self, truth: Segments) -> Segments:
        """Things row by row, one row per stuff class, no overlaps (the lower layer wins)."""
        thing = torch.from_numpy(self.classes.is_thing).to(truth.labels.device)
        labels = truth.labels
        merged = torch.arange(len(truth), device=labels.device)
        for k in torch.unique(labels[~thing[labels]]).tolist():
            rows = (labels == k).nonzero()[:, 0]
            merged[rows] = rows[0]
        lookup = torch.cat([merged, merged.new_tensor([UNKNOWN, NOTHING])]).to(smallest_int(len(truth)))
        columns = {n: getattr(truth, n) for n in ("labels", "scores", "crowd", "keys", "kind")}
        joined = Segments(look_up(lookup, truth.row_map()), **columns)
        return joined.keep((merged == torch.arange(len(truth), device=labels.device)).nonzero()[:, 0])

    def read(self, output: Output, i: int) -> Candidates:
        return output.candidates(i)

    def decide(self, reading: Candidates) -> Segments:
        found = reading
        label = found.scores.argmax(1) if len(found.scores) else np.zeros(0, np.int64)
        score = found.scores.max(1) if len(found.scores) else np.zeros(0, np.float32)
        join = RULES[found.merge.rule]
        owner = join(found, score, self.sure(found, label, score), self.thing(label))  # [H, W] row, NOTHING or UNKNOWN
        return self._segments(owner, label, score, found)

    def sure(self, found: Candidates, label: np.ndarray, score: np.ndarray) -> np.ndarray:
        """[Q] bool: candidates that may be answered, by the rule's own threshold or, for things, by `score`."""
        thing, least = self.thing(label), found.merge.score
        rules = {"partition": score >= 0, "paint": ~thing | (score >= least), "argmax": score > least}
        own = rules[found.merge.rule]
        return own if self.score is None else np.where(thing, score >= self.score, own)

    def thing(self, label: np.ndarray) -> np.ndarray:
        """[Q] bool; the channel past the classes is none."""
        return np.append(self.classes.is_thing, False)[np.minimum(label, len(self.classes))]

    def decode(self, output: Output, i: int) -> Segments:
        return self.decide(self.read(output, i))

    def ranked(self, reading: Candidates) -> Segments:
        return self.decide(reading)

    @property
    def countable(self) -> np.ndarray:
        """[K] bool: the things are."""
        return self.classes.is_thing

    def partial(self, output: Output, i: int) -> Partial:
        """However small. The least score counts here already: what is too unsure leaves its pixels to others."""
        found = self.read(output, i)
        small = replace(self, min_area=0)
        segments = small.decide(replace(found, merge=replace(found.merge, stuff_area=0)))
        thing = self.countable[segments.labels.numpy()]
        area = np.where(thing, self.min_area, found.merge.stuff_area).clip(1).astype(np.int64)
        return Partial(segments, torch.from_numpy(area), torch.zeros(len(segments)), UNKNOWN)

    def chooser(self) -> PanopticThresholds:
        return PanopticThresholds(self)

    def _segments(self, owner: np.ndarray, label: np.ndarray, score: np.ndarray, found: Candidates) -> Segments:
        """Joins stuff of a class, drops what is too small, numbers the rest."""
        count, thing, merged = len(label), self.thing(label), np.arange(len(label))
        for k in np.unique(label[~thing]):
            merged[label == k] = np.flatnonzero(label == k)[0]
        rows_of = torch.from_numpy(owner)
        pixels = torch.bincount(rows_of.flatten() - UNKNOWN, minlength=count + 2)[2:].numpy()
        areas = np.bincount(merged, pixels, minlength=count)
        score = np.bincount(merged, pixels * score, minlength=count) / np.maximum(areas, 1)  # joined ones by area
        least = np.where(thing, self.min_area, found.merge.stuff_area).clip(1)
        nothing = label >= len(self.classes)  # the channel past the classes
        rows = np.flatnonzero((areas >= least) & ~nothing)
        number = np.full(count, UNKNOWN)
        number[rows] = np.arange(len(rows))
        table = torch.from_numpy(np.append(np.where(nothing, NOTHING, number[merged]), [UNKNOWN, NOTHING]))
        ids = look_up(table.to(smallest_int(len(rows))), rows_of)
        return Segments(ids, torch.from_numpy(label[rows]), scores=torch.from_numpy(score[rows]))

    def metric(self) -> PanopticQuality:
        return PanopticQuality(self.classes)


# The rules: candidates with score [Q], which may be answered [Q] and which are things [Q] -> [H, W] row or mark.


def _partition(found: Candidates, score: np.ndarray, sure: np.ndarray, thing: np.ndarray) -> np.ndarray:
    owner = np.full(found.size, NOTHING, np.int32)
    for q, ((x0, y0, x1, y1), crop) in enumerate(zip(found.boxes.tolist(), found.crops)):
        owner[y0:y1, x0:x1][crop if crop.dtype == bool else crop > 0.5] = q if sure[q] else UNKNOWN
    return owner


def _paint(found: Candidates, score: np.ndarray, sure: np.ndarray, thing: np.ndarray) -> np.ndarray:
    owner = np.full(found.size, UNKNOWN, np.int32)
    for q in np.lexsort((-score, ~thing)):  # things by falling score, then stuff
        if not sure[q]:
            continue
        x0, y0, x1, y1 = found.boxes[q]
        crop = found.crops[q] if found.crops[q].dtype == bool else found.crops[q] > 0.5
        free = crop & (owner[y0:y1, x0:x1] < 0)
        left = np.count_nonzero(free)
        least = found.merge.overlap * np.count_nonzero(crop) if thing[q] else 0  # stuff takes whatever things leave
        if left and left >= least:
            owner[y0:y1, x0:x1][free] = q
    return owner


def _argmax(found: Candidates, score: np.ndarray, sure: np.ndarray, thing: np.ndarray) -> np.ndarray:
    owner, best = np.full(found.size, UNKNOWN, np.int32), np.zeros(found.size, np.float32)
    none = 1 - found.scores.sum(1)  # what the softmax leaves for "no segment"
    rows = np.flatnonzero(sure & (score > none))
    for q in rows:
        x0, y0, x1, y1 = found.boxes[q]
        value = score[q] * found.crops[q]
        wins = value > best[y0:y1, x0:x1]
        best[y0:y1, x0:x1][wins] = value[wins]
        owner[y0:y1, x0:x1][wins] = q
    for q in rows:  # a segment whose own mask is mostly taken by others is dropped; so is what lies outside its mask
        x0, y0, x1, y1 = found.boxes[q]
        window, own = owner[y0:y1, x0:x1], found.crops[q] >= 0.5
        won = (window == q) & own
        if own.sum() == 0 or (window == q).sum() / own.sum() < found.merge.overlap:
            won[:] = False
        window[(window == q) & ~won] = UNKNOWN
    return owner


RULES = {"partition": _partition, "paint": _paint, "argmax": _argmax}
