"""Learning from truth: the output's own criterion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pixelwise.core.sample import Batch, Preprocessing
from pixelwise.core.types import Task
from pixelwise.losses.criterion import Recipe, criterion


@dataclass(frozen=True)
class Supervised:
    """One forward pass, one criterion."""

    preprocessing: Preprocessing
    recipe: Recipe = field(default_factory=Recipe)

    def __call__(self, net: Any, batch: Batch, task: Task, progress: float) -> Mapping[str, Tensor]:
        truths = batch.truths
        output = net(self.preprocessing(batch.images), frames=batch.frames, truths=truths)
        return criterion(output, truths, task, self.recipe)
