"""`torch.compile`: the net's operators fused into code that is compiled for this machine."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.core.outputs import Frame, Output
from pixelwise.engines import least_size
from pixelwise.engines._program import flat, quiet
from pixelwise.engines.eager import autocast
from pixelwise.errors import ConfigError

NOTE = (
    "compiles at the first image, in half a minute or more, once more at a second size, then for any size; the weights "
    "are those at the first image"
)
COMPILERS = ("g++", "clang++", "c++") if os.name != "nt" else ("cl",)


class Compiled:
    """See `engines.Engine`. The first size has a program of its own, a second one makes a program for all others."""

    name = "compiled"

    def __init__(self, net: nn.Module, device: torch.device, precision: str) -> None:
        self.device, self.precision, self.min_size = device, precision, least_size(net)
        self._flat = flat(net.to(device).to(memory_format=torch.channels_last))
        options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
        self._run: Any = torch.compile(self._flat, options=options)
        self._seen: set[tuple[int, ...]] = set()

    def __call__(self, images: Tensor, frames: tuple[Frame, ...] | None = None) -> Output:
        images = images.contiguous(memory_format=torch.channels_last)
        frames = frames or (Frame.whole(*images.shape[-2:]),) * len(images)
        with torch.no_grad(), autocast(self.device, self.precision):
            if tuple(images.shape) in self._seen:
                tensors = self._run(images)
            else:
                with quiet():
                    tensors = self._run(images)
                self._seen.add(tuple(images.shape))
        output: Output = self._flat.rebuild(tensors, frames)
        return output


def compiler() -> str:
    """The C++ compiler that torch will call; "" where there is none, or no Python headers to compile against."""
    wanted = os.environ.get("CXX", "").split()
    found = next((name for name in (*wanted[:1], *COMPILERS) if shutil.which(name)), "")
    return found if (Path(sysconfig.get_paths()["include"]) / "Python.h").exists() else ""


def obstacle(net: nn.Module, device: torch.device) -> str:
    if device.type == "cpu" and not compiler():
        return "torch.compile needs a C++ compiler and Python's headers on a CPU, and there are none"
    if hasattr(net, "flat"):
        return "torchvision's nms breaks the compiled program at every image"
    return ""


def open(net: nn.Module, *, device: torch.device, precision: str) -> Compiled:
    reason = obstacle(net, device)
    if reason:
        raise ConfigError(f"The engine compiled cannot run here: {reason}. Take another engine, such as eager.")
    return Compiled(net, device, precision)
