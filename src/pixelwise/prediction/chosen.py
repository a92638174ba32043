"""Runs a net the way that suits the machine and the work, and changes to a faster one when that pays.

The net itself begins. The second image says how long one takes (the first warms up); where a faster way pays for the
images to come, it is tried on that image: it must answer almost alike and be quicker, or it is not taken. See
`core/choice.py` for the rules. An explicit wish is followed from the first image on and not tried.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.core.choice import FEW, NO_WISHES, REFERENCE, Choice, Net, Wishes, Work, for_prediction
from pixelwise.core.machine import Machine, here, hold_threads
from pixelwise.core.outputs import Frame, Output
from pixelwise.engines import Engine, least_size, open_engine
from pixelwise.errors import ConfigError, PixelwiseError

TRIED_AT = 2  # the image that is timed: the first one warms up
MOST_SIZES = 4  # for which an engine that prepares for each size is taken


class ChosenEngine:
    """An `Engine`, called as the net is, that stands for the one chosen.

    choice  how the net is run now, and why
    facts   what was measured on the way
    Images that are not announced by `expect` count as few. Used from one thread at a time.
    """

    def __init__(self, net: nn.Module, *, device: torch.device, wishes: Wishes = NO_WISHES,
                 machine: Machine | None = None, agreement: Mapping[str, float] | None = None) -> None:  # fmt: skip
        """agreement  of ways with float32, as the model file has it. Raises ConfigError, as `for_prediction` does."""
        self.net, self.device = net, device
        self.wishes = replace(wishes, device=str(device)).checked()
        self.machine = machine or here()
        self.facts, self.work = Net(agreement=dict(agreement or {})), FEW
        self.min_size = least_size(net)
        self._seen = 0  # images since the work was announced
        self._settled = False
        self._open: dict[str, Engine] = {}
        self._run(self._choose())
        hold_threads(self.choice.threads)

    def expect(self, images: int, sizes: int = 1) -> None:
        """Announces so many further images, of so many different sizes: a faster way is looked for if they are many."""
        if images > 1 and images > (self.work.images or 0):
            self.work, self._seen, self._settled = Work(images, max(1, min(sizes, images))), 0, False

    def __call__(self, images: Tensor, frames: tuple[Frame, ...] | None = None) -> Output:
        """Images [B, C, h, w] float32, normalised -> the net's output, in evaluation mode."""
        with _arithmetic(exact=self.wishes.exact):
            self._seen += len(images)
            if self._settled or (self.work.images or 1) <= TRIED_AT or self._seen < TRIED_AT:
                return self.engine(images, frames)
            self._settled = True
            return self._settle(images, frames)

    def _settle(self, images: Tensor, frames: tuple[Frame, ...] | None) -> Output:
        """Chooses for the images to come, by trying on these; gives their output on the way that is chosen."""
        assert self.work.images is not None
        self.work = replace(self.work, images=max(1, self.work.images - self._seen))
        outputs: dict[str, Output] = {}
        if self.wishes.engine is None or self.wishes.precision is None:
            if REFERENCE not in self.facts.seconds:
                self._try(REFERENCE, images, frames, outputs)
            while (choice := self._choose()).unproven:
                if REFERENCE not in outputs:
                    self._try(REFERENCE, images, frames, outputs)
                self._try(choice.name, images, frames, outputs)
        self._run(self._choose())
        return outputs[self.choice.name] if self.choice.name in outputs else self.engine(images, frames)

    def _try(self, name: str, images: Tensor, frames: tuple[Frame, ...] | None, outputs: dict[str, Output]) -> None:
        """Runs a way on these images, and notes seconds and agreement, or what stands against it."""
        engine, precision = name.split()
        facts = self.facts
        try:
            opened = self._open.get(name) or open_engine(engine, self.net, device=self.device, precision=precision)
            self._open[name] = opened
            if not getattr(opened, "any_size", True) and self.work.sizes > MOST_SIZES:
                raise ConfigError(f"it would prepare for each of about {self.work.sizes} sizes of images.")
            if name != self.choice.name:  # what runs already is warm
                opened(images, frames)
            self._wait()
            begin = time.perf_counter()
            outputs[name] = opened(images, frames)
            self._wait()
            each = (time.perf_counter() - begin) / len(images)
        except (PixelwiseError, RuntimeError) as error:  # an engine that cannot: the choice says why, others go on
            if name == REFERENCE:
                raise
            self.facts = replace(facts, obstacles={**facts.obstacles, name: str(error).splitlines()[0]})
            return
        self.facts = replace(facts, seconds={**facts.seconds, name: each})
        if name != REFERENCE:
            share = equal_share(outputs[REFERENCE], outputs[name], len(images))
            self.facts = replace(self.facts, agreement={**facts.agreement, name: share})

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _choose(self) -> Choice:
        return for_prediction(self.machine, self.facts, self.work, self.wishes)

    def _run(self, choice: Choice) -> None:
        """From now on on this one; those that were only tried are let go of."""
        self.choice, self.name = choice, choice.engine
        self.engine = self._open.get(choice.name) or open_engine(choice.engine, self.net, device=self.device,
                                                                 precision=choice.precision)  # fmt: skip
        self._open = {choice.name: self.engine}


def equal_share(one: Any, other: Any, count: int) -> float:
    """Share of the pixels of `count` images to which two outputs give one class, 0..1."""
    equal = pixels = 0
    for i in range(count):
        labels, labels_too = one.class_map(i), other.class_map(i)
        equal += int((labels == labels_too).sum())
        pixels += labels.numel()
    return equal / pixels


@contextlib.contextmanager
def _arithmetic(*, exact: bool) -> Iterator[None]:
    """Exact: convolutions on a GPU in float32 too; PyTorch takes TF32 by default, which keeps 10 bits of 23."""
    before = torch.backends.cudnn.allow_tf32
    if exact:
        torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if exact:
            torch.backends.cudnn.allow_tf32 = before
