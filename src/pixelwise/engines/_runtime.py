"""What engines over another runtime share: a program for images of any size, held against the net when it is made;
where that cannot be, a program for each size, a few of which are kept."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelwise.core.outputs import Frame, Output
from pixelwise.engines import least_size
from pixelwise.engines._program import Program, example, flat, trace
from pixelwise.errors import ConfigError

KEPT = 4  # programs for one size each
CLOSE = 1e-3  # relative error allowed to float32 arithmetic in another order

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # images [B, C, H, W] float32 -> what the program gives


class Runtime:
    """An engine whose `build` turns a program into something that runs. See `engines.Engine`.

    any_size  whether one program serves all sizes
    """

    name: str

    def __init__(self, net: nn.Module, precision: str) -> None:
        self.net, self.precision, self.min_size = net.to("cpu"), precision, least_size(net)
        self.device = torch.device("cpu")
        self._programs: OrderedDict[tuple[int, int, int] | None, tuple[Program, Run]] = OrderedDict()
        self.any_size = False
        self.any_size = self._make_open()

    @abstractmethod
    def build(self, program: Program, precision: str) -> Run:
        """What runs the program. Raises ConfigError naming the operator that stops it."""

    def __call__(self, images: Tensor, frames: tuple[Frame, ...] | None = None) -> Output:
        size = (len(images), int(images.shape[2]), int(images.shape[3]))
        frames = frames or (Frame.whole(*size[1:]),) * len(images)
        program, run = self._for(size)
        if not program.single:
            return program.rebuild(_tensors(run, images), frames)
        return program.rebuild([_tensors(run, _seen(image, frame)) for image, frame in zip(images, frames)], frames)

    def _for(self, size: tuple[int, int, int]) -> tuple[Program, Run]:
        key = None if self.any_size else size
        if key not in self._programs:
            program = trace(self.net, size)
            self._programs[key] = program, self.build(program, self.precision)
            if len(self._programs) > KEPT:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    def _make_open(self) -> bool:
        """Whether there is a program for any size now, that answers as the net does at sizes it was not traced at."""
        try:
            program = trace(self.net)
            run = self.build(program, "fp32")
            if not agrees(self.net, program, run):
                return False
            self._programs[None] = program, run if self.precision == "fp32" else self.build(program, self.precision)
        except ConfigError:
            self._for((1, *example(self.net, 1).shape[2:]))  # where there is none for one size either, this says why
            return False
        return True


def _tensors(run: Run, images: Tensor) -> Any:
    return [torch.from_numpy(array) for array in run(np.ascontiguousarray(images.detach().float().numpy()))]


def _seen(image: Tensor, frame: Frame) -> Tensor:
    """[C, h, w] -> [1, C, H, W]: what shows the image."""
    top, left, height, width = frame.window
    return image[None, :, top : top + height, left : left + width]


@torch.no_grad()
def agrees(net: nn.Module, program: Program, run: Run) -> bool:
    """Whether a program answers as the net does, to the precision of float32, at even, odd and mixed small sizes."""
    module, like = flat(net), example(net, program.channels)
    height, width = like.shape[2:]
    for count, size in ((1, (height - 1, width - 1)), (2, (height + 5, width + 2)), (1, (height + 2, width + 4))):
        count = 1 if program.single else count
        images = torch.nn.functional.interpolate(like[:count], size=size)
        expected: Sequence[Tensor] = module(images)
        try:
            found = run(images.numpy())
        except RuntimeError:  # of the runtime, where a shape does not fit
            return False
        for one, other in zip(expected, found, strict=True):
            same = tuple(one.shape) == other.shape
            if not same or not np.allclose(one.numpy(), other, rtol=CLOSE, atol=CLOSE * float(one.abs().max() + 1e-6)):
                return False
    return True
