"""The protocols that parts of the house agree on: what a task, a metric and an objective can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Output
from pixelwise.core.segments import Segments


class Metric(Protocol):
    """Counts over a data set: exact in any number of processes because counts merge.

    One with the attribute `ranked = True` wants every object that was found with its score, as average precision does;
    the others see the task's answer.
    """

    def update(self, prediction: Segments, truth: Segments, index: int | None = None) -> None: ...

    def merge(self, other: Any) -> None: ...

    def compute(self) -> dict[str, Any]: ...


class Chooser(Protocol):
    """Tries a task's thresholds on images with truth; counts merge as those of a metric.

    `compute` gives a Choice. `most`: at most so many images of a split are looked at, spread evenly; None: all.
    """

    @property
    def most(self) -> int | None: ...

    def update(self, reading: Any, truth: Segments) -> None: ...

    def merge(self, other: Any) -> None: ...

    def compute(self) -> Choice: ...


@dataclass(frozen=True)
class Choice:
    """Thresholds that were chosen on data.

    thresholds   the task's options
    score        what they reach there, and `default` what the task's own defaults reach, in 0..1; NaN without objects
    what         which score that is
    images       that were looked at
    """

    thresholds: dict[str, float]
    score: float
    default: float
    what: str
    images: int


@dataclass(frozen=True)
class Partial:
    """The answer for a window of an image, in which nothing is left out yet for what only the whole image tells.

    segments     of the window; all that may still count
    least_area   [N] int64 pixels and least_score [N] float32: rows that have less in the whole image are left out; a
                 row of least area 0 stays even where it owns no pixel
    rest         NOTHING or UNKNOWN: what the pixels of those become
    """

    segments: Segments
    least_area: Tensor
    least_score: Tensor
    rest: int


class Task(Protocol):
    """What is asked of a net: the truth as this task sees it, how an output is read, how it is scored.

    `decode` is the answer, `decide(read(output, i))`: `read` is what costs, `decide` applies the task's thresholds.
    `ranked` is what average precision sees of a reading. `chooser` makes what chooses the thresholds, where there are
    some. `partial` answers for a window of a larger image, whose other windows go on with what it finds: segments of a
    `countable` label are single objects, those of any other label are one.
    """

    name: ClassVar[str]
    primary: ClassVar[str]  # the key of the score that picks the best model; larger is better

    @property
    def classes(self) -> Classes: ...

    def view(self, truth: Segments) -> Segments: ...

    def read(self, output: Output, i: int) -> Any: ...

    def decide(self, reading: Any) -> Segments: ...

    def decode(self, output: Output, i: int) -> Segments: ...

    def ranked(self, reading: Any) -> Segments: ...

    @property
    def countable(self) -> np.ndarray: ...  # [K] bool, K of `classes`

    def partial(self, output: Output, i: int) -> Partial: ...

    def chooser(self) -> Chooser | None: ...

    def metric(self) -> Metric: ...


class Objective(Protocol):
    """What a training step minimises. `progress` runs from 0 to 1 over the training."""

    def __call__(self, net: Any, batch: Any, task: Task, progress: float) -> Mapping[str, Tensor]: ...
