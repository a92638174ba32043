"""`Renumbered`: an output whose labels stand in another order, as those of a net trained from another class table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pixelwise.core.outputs import Candidates, Frame, Window, register


@dataclass(frozen=True, eq=False)
class Renumbered:
    """Reads another output in the order that is asked for.

    output  any output of K channels
    order   K numbers: the output's channel of each label
    """

    output: Any
    order: tuple[int, ...]
    aux: tuple[tuple[str, float, Any], ...] = ()

    @property
    def frames(self) -> tuple[Frame, ...]:
        return tuple(self.output.frames)

    def probs(self, i: int, window: Window | None = None) -> Tensor:
        """[K, H, W] float32 in 0..1."""
        found: Tensor = self.output.probs(i, window)
        return found[list(self.order)]

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] integer; what is no channel stays what it is."""
        labels: Tensor = self.output.class_map(i, window)
        table = torch.arange(len(self.order) + 1, device=labels.device)
        table[list(self.order)] = torch.arange(len(self.order), device=labels.device)
        return table.to(labels.dtype)[labels.long()]

    def candidates(self, i: int) -> Candidates:
        found: Candidates = self.output.candidates(i)
        return replace(found, scores=found.scores[:, list(self.order)])

    def heat_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] that of `Centers`, which knows no classes."""
        heat: Tensor = self.output.heat_map(i, window)
        return heat

    def offset_map(self, i: int, window: Window | None = None) -> Tensor:
        """[2, H, W] the same."""
        offsets: Tensor = self.output.offset_map(i, window)
        return offsets


register(Renumbered, ["output"])
