"""A net as a program of tensors alone, for other runtimes and files: torch.export with open batch, height and width.

Frames stay outside: a program takes images and gives tensors, of which `Program.rebuild` makes the output again.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pixelwise.core.outputs import Frame, Output
from pixelwise.engines import least_size
from pixelwise.errors import ConfigError

HERE = (Frame.whole(1, 1),)  # nets but look whether frames are given; those who use them bring a form of their own
SIDES = (64, 96)  # the example has one pixel more: odd at every halving, so that no shortcut of whole sizes is traced
MOST_CHANNELS = 64

Rebuild = Callable[[Sequence[Tensor], tuple[Frame, ...]], Output]


class Flat(nn.Module):
    """images [B, C, H, W] -> the tensors of the net's output, in a tuple."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self._spec: Any = None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        leaves, self._spec = pytree.tree_flatten(self.net(images, HERE))
        self._empty = [leaf is None for leaf in leaves]
        return tuple(leaf for leaf in leaves if leaf is not None)

    def rebuild(self, tensors: Sequence[Tensor], frames: tuple[Frame, ...]) -> Output:
        """The output of which these are the tensors, on these frames; after `forward` has run once."""
        given = iter(tensors)
        output = pytree.tree_unflatten([None if empty else next(given) for empty in self._empty], self._spec)
        framed: Output = dataclasses.replace(output, frames=frames)
        return framed


def flat(net: nn.Module) -> Any:
    """The net's own form of tensors alone, where it brings one by a method `flat`, else the plain one."""
    own = getattr(net, "flat", None)
    return Flat(net) if own is None else own()


@dataclass(frozen=True)
class Program:
    """exported  images [B, C, H, W] float32 -> tuple of tensors
    rebuild      (tensors, frames) -> output        names   of the tensors
    size         (B, H, W) where the program is for images of this size alone; None: for any, down to `least`
    single       it takes one image, and `rebuild` a list of the tensors of each
    """

    exported: torch.export.ExportedProgram
    rebuild: Rebuild
    channels: int
    least: int
    size: tuple[int, int, int] | None = None
    single: bool = False


def input_channels(net: nn.Module) -> int:
    """How many channels the net's images have, found by trying. Raises ConfigError for more than 64."""
    first = next((m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d)), 3)
    for channels in (first, first // 4, first // 16, *range(1, MOST_CHANNELS + 1)):  # folding nets multiply by 4 or 16
        if channels < 1:
            continue
        try:
            with torch.no_grad():
                net(example(net, channels)[:1], HERE)
        except RuntimeError:  # what torch raises where channels do not fit
            continue
        return channels
    raise ConfigError(f"{type(net).__name__} takes no images of 1 to {MOST_CHANNELS} channels.")


def example(net: nn.Module, channels: int) -> Tensor:
    """[2, C, H, W] small odd images that the net takes."""
    blocks = -(-max(1, least_size(net) - 1) // SIDES[0])
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    size = tuple(blocks * side + 1 for side in SIDES)
    return torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0)).to(device) * 4 - 2


def trace(net: nn.Module, size: tuple[int, int, int] | None = None) -> Program:
    """The net in evaluation mode as a program.

    size  (B, H, W) of the only images it is to take; None: any
    Raises ConfigError where torch.export does not take the net, with what it says.
    """
    channels = input_channels(net)
    module, batch = flat(net), example(net, channels)
    open_ended: dict[int, Any] | None = dict.fromkeys(getattr(module, "free", (0, 2, 3)), torch.export.Dim.DYNAMIC)
    single = 0 not in getattr(module, "free", (0,))
    if size is not None:
        batch, open_ended = batch.new_zeros(1 if single else size[0], channels, *size[1:]), None
    elif single:
        batch = batch[:1]
    with quiet(), torch.no_grad():
        module(batch if size is None else example(net, channels)[: len(batch)])  # remembers what its output is made of
        try:
            exported = torch.export.export(module, (batch,), dynamic_shapes=(open_ended,))
        except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"{type(net).__name__} cannot be exported: {reason}") from error
    return Program(without_guards(exported), module.rebuild, channels, least_size(net), size, single)


def without_guards(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program for all sizes: conditions under which torch would have taken a shortcut, such as padding by nothing
    or a single box, say nothing against the general way that was traced. Who uses it tries whether it is right."""
    if hasattr(exported, "_guards_code"):
        exported._guards_code = []
    for node in list(exported.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            exported.graph.erase_node(node)
    return exported


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch.export and converters say about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
