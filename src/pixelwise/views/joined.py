"""`Joined`: the outputs of several views of the same images, reduced as they come and read as one `Output`.

What is averaged are probabilities, not logits, because a mean of logits lets one sure view outvote the others and picks
other classes. No output outlives the next: it is added to sums at the answer's size and let go. Where all outputs on
the net's own grids take less than the sums would, they are kept instead and averaged when read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pixelwise.core.centers import Centers, Grouping, group
from pixelwise.core.outputs import Candidates, Dense, Frame, Output, Window, components, cut_strips
from pixelwise.errors import ConfigError
from pixelwise.kernels.upsample_argmax import largest_of
from pixelwise.views.fusion import Fusion
from pixelwise.views.renumbered import Renumbered
from pixelwise.views.view import View


def join(seen: Iterable[tuple[View, Output]], count: int) -> Joined:
    """Joins the outputs of `count` views, at least one, taking the next when the last has been reduced.

    All must be outputs for the same images and of the same channels; all count alike. Gradients do not pass.
    """
    joined: Joined | None = None
    for view, output in seen:
        joined = joined or joining(output).begin(view, output, count)
        joined = joined.add(view, output)
        del output  # before the next is computed
    if joined is None:
        raise ConfigError("There is no view to join.")
    return joined


class Joined:
    """Views of the same images, read as one. What is averaged are probabilities; the candidates are those that the
    views agree on (`views.fusion`).

    frames   one per image, as the image lies
    count    views joined so far
    reduced  whether outputs are added up as they come; else they are kept on their own grids
    """

    aux: tuple[tuple[str, float, Any], ...] = ()
    averaged: tuple[str, ...] = ("probs",)  # see READ
    agreed = True  # whether candidates are joined as such; else they are read off the averaged maps

    def __init__(self, frames: Sequence[Frame], like: Mapping[str, Tensor], activation: str) -> None:
        """like  for each map that is averaged what an output says of one pixel, [M, 1, 1]"""
        self.frames, self._like, self.activation = tuple(frames), dict(like), activation
        self.count, self.reduced = 0, False
        self._channels = len(like["probs"])
        pixels = sum(math.prod(frame.original) for frame in frames)
        self._room = 4 * pixels * sum(map(len, like.values()))  # bytes of the sums
        self._kept: list[tuple[View, Any]] = []
        self._sums: dict[str, list[Tensor]] = {}  # [M, H, W] float32 per image
        self._fusions = [Fusion(frame.original) for frame in frames]

    @classmethod
    def begin(cls, view: View, first: Any, count: int) -> Self:
        """With nothing in it. Decides by the first of `count` views' outputs whether they can be kept."""
        like = {name: READ[name](View(), first, 0, (0, 0, 1, 1)).detach() for name in cls.averaged}
        made = cls([view.frame(f) for f in first.frames], like, getattr(first, "activation", "softmax"))
        made.reduced = count * held(first) > made._room
        return made

    @torch.no_grad()
    def add(self, view: View, output: Any) -> Joined:
        """This with a further view in it; another object where outputs of different kinds come together."""
        if type(self) is not Joined and joining(output) is not type(self):
            return self._of_any_kind().add(view, output)
        self.count += 1
        self._kept.append((view, output))
        if self.reduced or sum(held(kept) for _, kept in self._kept) > self._room:  # later ones may be larger
            self._reduce()
        return self

    def _reduce(self) -> None:
        """Adds what is kept to the sums, and lets it go."""
        self.reduced = True
        if not self._sums:
            for name, pixel in self._like.items():
                self._sums[name] = [pixel.new_zeros(len(pixel), *frame.original) for frame in self.frames]
        while self._kept:
            view, output = self._kept.pop(0)
            for i, frame in enumerate(self.frames):
                for name, sums in self._sums.items():
                    for strip in cut_strips(frame, None, len(sums[i])):
                        seen = READ[name](view, output, i, view.window(strip, frame.original))
                        _cut(sums[i], strip).add_(seen.to(sums[i].device))
                if self.agreed:
                    self._fusions[i].add(_as_the_image_lies(view, output.candidates(i)))

    def _of_any_kind(self) -> Joined:
        """The same views, ready for outputs of any kind: their candidates are joined from here on."""
        made = Joined(self.frames, {"probs": self._like["probs"]}, self.activation)
        made.count, made.reduced, made._kept = self.count, self.reduced, self._kept
        if self._sums:
            made._sums = {"probs": self._sums["probs"]}
            for i, fusion in enumerate(made._fusions):
                fusion.add(self.candidates(i), times=self.count)
        return made

    def probs(self, i: int, window: Window | None = None) -> Tensor:
        """[K, H, W] float32 in 0..1: the mean of the views' probabilities."""
        return self._mean("probs", i, window)

    def _mean(self, name: str, i: int, window: Window | None) -> Tensor:
        """[M, H, W] the mean over the views of one of the maps that READ knows."""
        if self.reduced:
            return _cut(self._sums[name][i], window) / self.count
        size, read = self.frames[i].original, READ[name]
        total = functools.reduce(torch.add, (read(view, o, i, view.window(window, size)) for view, o in self._kept))
        return total / self.count

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] channel with the largest mean; K (nothing) where classes stand alone and none exceeds 0.5."""
        floor = 0.5 if self.activation == "sigmoid" else None
        strips = cut_strips(self.frames[i], window, self._channels)
        return torch.cat([largest_of(self.probs(i, strip), floor) for strip in strips])

    def candidates(self, i: int) -> Candidates:
        """What the views agree on; scores are means over all views, 0 where a view did not find it."""
        fusion = self._fusions[i]
        if not self.reduced:
            fusion = Fusion(self.frames[i].original)
            for view, output in self._kept:
                fusion.add(_as_the_image_lies(view, output.candidates(i)))
        return fusion.candidates()


class JoinedDense(Joined):
    """Views of `Dense`."""

    agreed = False

    def candidates(self, i: int) -> Candidates:
        """Connected components of the joined class map."""
        return components(self, i, self._channels)


class JoinedCenters(Joined):
    """Views of `Centers`."""

    averaged = ("probs", "heat", "offsets")
    agreed = False
    grouping: Grouping

    @classmethod
    def begin(cls, view: View, first: Centers, count: int) -> Self:
        made = super().begin(view, first, count)
        made.grouping = first.grouping
        return made

    def heat_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] float32 mean of the views' heat."""
        return self._mean("heat", i, window)[0]

    def offset_map(self, i: int, window: Window | None = None) -> Tensor:
        """[2, H, W] float32 (dy, dx) mean of the views' offsets, each turned with its map."""
        return self._mean("offsets", i, window)

    def candidates(self, i: int) -> Candidates:
        """Grouping on the joined maps."""
        return group(self, i, self.grouping)


@singledispatch
def joining(output: Any) -> type[Joined]:
    """How outputs of this kind are joined; kinds that are not known have candidates of their own."""
    return Joined


@joining.register
def _(output: Dense) -> type[Joined]:
    return JoinedDense


@joining.register
def _(output: Centers) -> type[Joined]:
    return JoinedCenters


@joining.register
def _(output: Renumbered) -> type[Joined]:
    return joining(output.output)


def _read_probs(view: View, output: Any, i: int, window: Window | None) -> Tensor:
    return view.put(output.probs(i, window))


def _read_heat(view: View, output: Any, i: int, window: Window | None) -> Tensor:
    return view.put(output.heat_map(i, window)[None])


def _read_offsets(view: View, output: Any, i: int, window: Window | None) -> Tensor:
    return view.put_vectors(output.offset_map(i, window))


# (view, output, i, window of the view) -> [M, H, W] as the image lies
READ: dict[str, Callable[[View, Any, int, Window | None], Tensor]] = {
    "probs": _read_probs,
    "heat": _read_heat,
    "offsets": _read_offsets,
}


def _cut(maps: Tensor, window: Window | None) -> Tensor:
    """A window of [M, H, W], on the same memory."""
    top, left, height, width = window or (0, 0, *maps.shape[1:])
    return maps[:, top : top + height, left : left + width]


def _as_the_image_lies(view: View, seen: Candidates) -> Candidates:
    """A view's candidates in the image's coordinates."""
    if view.upright:
        return seen
    back, boxes, crops = view.inverse, [], []
    for (x0, y0, x1, y1), crop in zip(seen.boxes.tolist(), seen.crops):
        window = back.window((y0, x0, y1 - y0, x1 - x0), seen.size)
        assert window is not None
        top, left, height, width = window
        boxes.append((left, top, left + width, top + height))
        crops.append(view.put(torch.from_numpy(crop)).numpy())
    return replace(seen, boxes=np.array(boxes, np.int64).reshape(-1, 4), crops=crops, size=back.size(seen.size))


def held(output: Any) -> float:
    """Bytes that the tensors of an output keep alive; infinity where it does not show its tensors (`core.register`)."""
    tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) if tensors else math.inf
