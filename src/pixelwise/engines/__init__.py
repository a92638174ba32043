"""What runs a net: an engine is called as the net is and answers the same `Output`. A file in this folder is an engine.

    engine = open_engine("openvino", net, device=torch.device("cpu"), precision="bf16")
    output = engine(images, frames)

An engine's file has `open(net, *, device, precision)`, `NOTE`, what preparing it costs, in words, and `obstacle(net)`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pixelwise.core.outputs import Frame, Output
from pixelwise.core.registry import load, modules
from pixelwise.errors import ConfigError, nearest

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SMALLEST = 8  # pixels a side that every net takes, unless it says otherwise by its attribute `min_size`


class Engine(Protocol):
    """Runs one net on one device in one precision.

    name      of its file
    min_size  least height and width of the images, in pixels
    An engine is used from one thread at a time; which thread does not matter.
    """

    name: str
    min_size: int

    def __call__(self, images: Tensor, frames: tuple[Frame, ...] | None = None) -> Output:
        """Images [B, C, h, w] float32, normalised, on the engine's device -> the net's output in evaluation mode, on
        these frames. The first call with a new size may prepare for it, which takes time."""
        ...


def engines() -> tuple[str, ...]:
    """The names that `open_engine` knows."""
    return tuple(modules("engines"))


def open_engine(name: str, net: nn.Module, *, device: torch.device | str, precision: str = "fp32") -> Engine:
    """The net behind an engine: "eager", "compiled", "onnx" or "openvino". The net is brought to `device` and into
    evaluation mode.

    precision  "fp32", "bf16" or "fp16": the arithmetic of convolutions and products, perhaps the type of the answer too
    Raises ConfigError for an unknown name or precision, a device or precision that the engine does not have, a missing
    compiler and a net it cannot take, naming the operator; MissingExtraError naming the package to install.

    >>> engine = open_engine("eager", net, device="cpu")
    >>> engine(torch.zeros(1, 3, 64, 64)).class_map(0).shape
    torch.Size([64, 64])
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"There is no precision '{precision}'; {nearest(precision, PRECISIONS)}")
    opened: Engine = load("engines", name).open(net.eval(), device=torch.device(device), precision=precision)
    return opened


def obstacle(name: str, net: nn.Module, *, device: torch.device | str = "cpu") -> str:
    """Why this engine cannot run this net here: a missing package, compiler, device, operator; "" where nothing is
    known against it. Quick: nothing is compiled."""
    why: str = load("engines", name).obstacle(net, torch.device(device))
    return why


def least_size(net: Any) -> int:
    """Least height and width in pixels that the net takes."""
    return int(getattr(net, "min_size", SMALLEST))
