"""The protocols that parts of the house agree on: what a task, a metric and an objective can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from torch import Tensor

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Output
from pixelwise.core.segments import Segments


class Metric(Protocol):
    """Counts over a data set: exact in any number of processes because counts merge."""

    def update(self, prediction: Segments, truth: Segments, index: int | None = None) -> None: ...

    def merge(self, other: Any) -> None: ...

    def compute(self) -> dict[str, Any]: ...


class Task(Protocol):
    """What is asked of a net: the truth as this task sees it, how an output is read, how it is scored."""

    name: ClassVar[str]
    primary: ClassVar[str]  # the key of the score that picks the best model; larger is better

    @property
    def classes(self) -> Classes: ...

    def view(self, truth: Segments) -> Segments: ...

    def decode(self, output: Output, i: int) -> Segments: ...

    def metric(self) -> Metric: ...


class Objective(Protocol):
    """What a training step minimises. `progress` runs from 0 to 1 over the training."""

    def __call__(self, net: Any, batch: Any, task: Task, progress: float) -> Mapping[str, Tensor]: ...
