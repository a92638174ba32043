"""Optimiser, learning rate over the training, running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.config import OptimSettings, ScheduleSettings

AVERAGED_SHARE = 0.01  # of the training: how much the running average of the weights looks back over


def make_optimizer(net: nn.Module, settings: OptimSettings, lr: float) -> torch.optim.Optimizer:
    """The optimiser over all trainable parameters; vectors (norms, biases) do not decay."""
    decay = settings.weight_decay
    if decay is None:
        decay = {"adamw": 0.01, "sgd": 1e-4}.get(settings.name, 0.0)
    trained = [p for p in net.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    if settings.name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, momentum=settings.momentum)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr)


@dataclass
class Schedule:
    """The learning rate as a function of the progress 0..1; `plateau` also looks at the scores it is told."""

    settings: ScheduleSettings
    lr: float
    scale: float = 1.0  # what plateau has come down to
    best: float = -math.inf
    waited: int = 0

    def at(self, progress: float) -> float:
        s, p = self.settings, min(1.0, max(0.0, progress))
        warm = min(1.0, p / s.warmup) if s.warmup > 0 else 1.0
        rest = (p - s.warmup) / (1 - s.warmup) if p > s.warmup else 0.0
        if s.name == "cosine":
            return self.lr * warm * 0.5 * (1 + math.cos(math.pi * rest))
        if s.name == "poly":
            return self.lr * warm * (1 - rest) ** s.power
        if s.name == "onecycle":  # Smith 2017, 1708.07120: up over 30 %, down to a ten-thousandth
            if p < 0.3:
                return self.lr * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * p / 0.3)))
            return self.lr * (1e-4 + (1 - 1e-4) * 0.5 * (1 + math.cos(math.pi * (p - 0.3) / 0.7)))
        return self.lr * warm * self.scale

    def scored(self, score: float) -> None:
        """Tells `plateau` the newest score (larger is better)."""
        if self.settings.name != "plateau":
            return
        if score > self.best:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
            if self.waited > self.settings.patience:
                self.scale, self.waited = self.scale * self.settings.factor, 0

    def state(self) -> dict[str, float]:
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        self.scale, self.best, self.waited = state["scale"], state["best"], int(state["waited"])


@dataclass
class Average:
    """A running average of weights and norm statistics; what is scored and saved.

    decay   a fixed decay a step, or None: the average then looks back over AVERAGED_SHARE of the training, and over a
            tenth of what has passed while that is less.
    """

    decay: float | None
    values: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    @torch.no_grad()
    def update(self, named: Iterable[tuple[str, Tensor]], progress: float, advance: float) -> None:
        """`advance` is the progress made by this step."""
        if self.decay is None:
            window = min(AVERAGED_SHARE, max(progress, 1e-9) / 10)
            keep = math.exp(-advance / window)
        else:
            keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, value in named:
            held = self.values.get(name)
            if held is None or not value.is_floating_point():
                self.values[name] = value.detach().clone()
            else:
                held.lerp_(value.detach().to(held.dtype), 1 - keep)
