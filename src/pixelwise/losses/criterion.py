"""`criterion(output, truths, task, recipe) -> {name: loss}`, chosen by the kind of output.

A net that brings its own kind of output registers its loss with `criterion.register` in its own file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from pixelwise.core.outputs import Dense, heads
from pixelwise.core.segments import Segments
from pixelwise.core.types import Task
from pixelwise.errors import ConfigError
from pixelwise.losses.mix import Mix, parse

VOID = 255


@dataclass(frozen=True)
class Recipe:
    """How outputs become a loss.

    mix            the weighted losses of outputs that label every pixel
    class_weights  [K] for the terms that take them, or ()
    """

    mix: Mix = field(default_factory=lambda: parse("ce"))
    class_weights: tuple[float, ...] = ()


@singledispatch
def criterion(output: Any, truths: Sequence[Segments], task: Task, recipe: Recipe) -> dict[str, Tensor]:
    """{name: scalar} whose sum is trained on; `truths` are at the padded input size, as `task.view` shows them.

    Raises ConfigError for an output that nobody registered a loss for.
    """
    raise ConfigError(f"No loss is registered for outputs of kind {type(output).__name__}.")


@criterion.register
def _(output: Dense, truths: Sequence[Segments], task: Task, recipe: Recipe) -> dict[str, Tensor]:
    if output.activation != "softmax":
        raise ConfigError("The losses over class maps need classes that exclude each other (activation 'softmax').")
    target = class_targets(truths, task)  # [B, H, W]
    weight = torch.tensor(recipe.class_weights, device=target.device) if recipe.class_weights else None
    losses: dict[str, Tensor] = {}
    for prefix, factor, head in heads(output):
        terms = recipe.mix(head.logits, target, ignore_index=void_label(task), weight=weight,
                           align_corners=head.align_corners)  # fmt: skip
        losses |= {prefix + name: factor * loss for name, loss in terms.items()}
    return losses


def void_label(task: Task) -> int:
    """The label that stands for unknown pixels in targets: 255, or -1 where 255 may be a class."""
    return VOID if task.classes.channels <= VOID else -1


def class_targets(truths: Sequence[Segments], task: Task) -> Tensor:
    """[B, H, W] labels; unknown pixels are void, pixels known to be nothing get the channel past the last class.

    Without that channel (a class for every pixel) nothing is unknown too.
    """
    void = void_label(task)
    nothing = len(task.classes) if task.classes.nothing else void
    return torch.stack([truth.class_map(void, nothing) for truth in truths])
