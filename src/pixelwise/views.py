"""Views: several looks at one image, joined into one `Output`. So far: mirrored and scaled (test-time augmentation).

A view takes the image its own way and puts the net's maps back. Joined views are themselves an output, whose
probabilities are the mean over the views: of probabilities, not of logits, because a mean of logits lets one sure view
outvote the others and picks other classes. No task is named here: tasks read the joined output like any other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.centers import Centers, group
from pixelwise.core.outputs import Candidates, Dense, Frame, Output, Queries, Window, components, cut_strips
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError, nearest
from pixelwise.kernels.mirror import mirror

MIN_SIZE = 8  # pixels a side that every net takes, unless it says otherwise by its attribute `min_size`


@dataclass(frozen=True)
class View:
    """One look at the image.

    mirrored  left and right exchanged
    scale     factor of the image's size; below 1 it is reduced with a filter, so that it does not alias
    """

    mirrored: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.scale <= 8:
            raise ConfigError(f"A view's scale must lie in 0.1..8, got {self.scale}.")

    def take(self, images: Tensor, rule: SizeRule | None = None) -> Tensor:
        """[B, C, H, W] float -> [B, C, h, w] as the net is to see it: the rule and the scale in one step."""
        height, width = _size(images)
        size = (height, width) if rule is None else rule(height, width)
        if self.scale != 1:
            size = max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale))
        if size != (height, width):
            shrinks = size[0] < height or size[1] < width
            filtered = shrinks and (rule is None or rule.antialias or self.scale < 1)
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=filtered)
        return images.flip(-1) if self.mirrored else images

    def put(self, maps: Tensor) -> Tensor:
        """[..., H, W] maps at the original size, as this view saw them -> as the image lies."""
        return maps.flip(-1) if self.mirrored else maps

    def window(self, window: Window | None, width: int) -> Window | None:
        """Where this view sees a window of an image `width` pixels wide."""
        if window is None or not self.mirrored:
            return window
        top, left, h, w = window
        return top, width - left - w, h, w


PLAIN = (View(),)
NAMED = {
    "none": PLAIN,
    "flip": (View(), View(mirrored=True)),
    "scale": (View(), View(scale=0.75), View(scale=1.25)),
    "flip+scale": tuple(View(mirrored=m, scale=s) for s in (1.0, 0.75, 1.25) for m in (False, True)),
}


def parse(views: str | Sequence[View] | None) -> tuple[View, ...]:
    """Views by name ("flip", "scale", "flip+scale", "none"), or as given. Raises ConfigError for an unknown name.

    >>> parse("flip")
    (View(mirrored=False, scale=1.0), View(mirrored=True, scale=1.0))
    """
    if views is None:
        return PLAIN
    if isinstance(views, str):
        name = "+".join(sorted(views.split("+")))
        if name not in NAMED:
            raise ConfigError(f"There is no test-time augmentation '{views}'; {nearest(views, NAMED)}")
        return NAMED[name]
    if not views or not all(isinstance(v, View) for v in views):
        raise ConfigError(f"Test-time augmentation takes a name or at least one View, got {views!r}.")
    return tuple(views)


def look(net: nn.Module, images: Tensor, views: Sequence[View] = PLAIN, rule: SizeRule | None = None) -> Output:
    """Runs the net over every view of images [B, C, H, W] (normalised, all of one size) and joins what it answers.

    rule  the size the net expects (`Preprocessing.size`); None: the images' own
    Images smaller than the net's least size are padded by reflection; the answers are at the images' own size.
    """
    least = int(getattr(net, "min_size", MIN_SIZE))
    outputs = []
    for view in views:
        taken = view.take(images, rule)
        height, width = _size(taken)
        seen = mirror(taken, (0, max(0, least - height), 0, max(0, least - width)))
        frame = Frame(_size(images), _size(seen), (0, 0, height, width))
        outputs.append(net(seen.contiguous(memory_format=torch.channels_last), (frame,) * len(images)))
    plain = len(views) == 1 and not views[0].mirrored
    return outputs[0] if plain else Joined(tuple(outputs), tuple(views))


def _size(images: Tensor) -> tuple[int, int]:
    return int(images.shape[-2]), int(images.shape[-1])


@dataclass(frozen=True, eq=False)
class Joined:
    """The outputs of several views of the same images, read as one.

    outputs  one per view; each answers at the original size through its own frames
    views    how each is put back
    """

    outputs: tuple[Any, ...]
    views: tuple[View, ...]
    aux: tuple[tuple[str, float, Any], ...] = ()

    @property
    def frames(self) -> tuple[Frame, ...]:
        return self.outputs[0].frames

    def probs(self, i: int, window: Window | None = None) -> Tensor:
        """[K, H, W] float32 in 0..1: the mean of the views' probabilities."""
        return self._mean(i, window, lambda output, view, part: output.probs(i, part))

    def heat_map(self, i: int) -> Tensor:
        """[H, W] float32 mean of the views' heat, where they are `Centers`."""
        return self._mean(i, None, lambda output, view, part: output.heat_map(i))

    def offset_map(self, i: int, window: Window | None = None) -> Tensor:
        """[2, H, W] float32 (dy, dx) mean of the views' offsets, where they are `Centers`: mirrored, dx turns round."""

        def seen(output: Any, view: View, part: Window | None) -> Tensor:
            offsets: Tensor = output.offset_map(i, part)
            return offsets * offsets.new_tensor([1.0, -1.0])[:, None, None] if view.mirrored else offsets

        return self._mean(i, window, seen)

    def _mean(self, i: int, window: Window | None, read: Callable[[Any, View, Window | None], Tensor]) -> Tensor:
        """The mean over the views of maps [..., H, W] that `read` takes off an output on a window of its view."""
        width = self.frames[i].original[1]
        maps = (view.put(read(o, view, view.window(window, width))) for view, o in zip(self.views, self.outputs))
        return functools.reduce(torch.add, maps) / len(self.views)

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] int64 channel with the largest mean; K (nothing) where classes stand alone and none exceeds 0.5."""
        alone = getattr(self.outputs[0], "activation", "softmax") == "sigmoid"
        strips = []
        for strip in cut_strips(self.frames[i], window, self._channels()):
            probs = self.probs(i, strip)
            best = probs.max(0)
            strips.append(best.indices.masked_fill(best.values <= 0.5, len(probs)) if alone else best.indices)
        return torch.cat(strips)

    def candidates(self, i: int) -> Candidates:
        """Connected components of the joined class map, or grouping on the joined maps of `Centers`: as the single
        outputs are read.

        Raises ConfigError for outputs whose candidates are not read off maps: which mask of one view is which of
        another is not told by averaging.
        """
        if all(isinstance(output, Centers) for output in self.outputs):
            return group(self, i, self.outputs[0].grouping)
        if not all(isinstance(output, Dense) for output in self.outputs):
            kind = type(self.outputs[0]).__name__
            raise ConfigError(f"Test-time augmentation cannot join the candidates of {kind}; leave it out (tta=None).")
        return components(self, i, self._channels())

    def _channels(self) -> int:
        """Channels of the widest map a reading holds, for the size of its strips."""
        first = self.outputs[0]
        return int(first.masks.shape[1] if isinstance(first, Queries) else len(first.probs(0, (0, 0, 1, 1))))
