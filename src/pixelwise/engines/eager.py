"""The net itself, operation by operation, in channels-last memory; autocast for bf16 and fp16."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.core.outputs import Frame, Output
from pixelwise.engines import PRECISIONS, least_size

NOTE = "nothing to prepare"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The arithmetic of a net's forward: "fp32", "bf16" or "fp16"."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


class Eager:
    """See `engines.Engine`."""

    name = "eager"

    def __init__(self, net: nn.Module, device: torch.device, precision: str) -> None:
        self.net = net.to(device).to(memory_format=torch.channels_last)
        self.device, self.precision, self.min_size = device, precision, least_size(net)

    def __call__(self, images: Tensor, frames: tuple[Frame, ...] | None = None) -> Output:
        with autocast(self.device, self.precision):
            output: Output = self.net(images.contiguous(memory_format=torch.channels_last), frames)
        return output


def obstacle(net: nn.Module, device: torch.device) -> str:
    return ""


def open(net: nn.Module, *, device: torch.device, precision: str) -> Eager:
    return Eager(net, device, precision)
