"""`Centers`: classes, a heat map of centres and each pixel's way to its own (Panoptic-DeepLab, Cheng et al. 2020,
1911.10194), and how these three maps become segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from pixelwise.core.outputs import Candidates, Dense, Frame, Merge, Window, cut_strips, read_grid, register
from pixelwise.errors import ConfigError
from pixelwise.kernels.grouping import NearestCentre, find_centres

LEAST_SCORE = 1e-6  # of a thing whose heat is zero or less: the sign of a class stays readable


@dataclass(frozen=True)
class Grouping:
    """The numbers of the post-processing; those of the paper's Cityscapes models.

    things      labels of the channels that are things; all else is stuff
    threshold   least heat of a centre
    nms         side in pixels (odd) of the window in which a centre is the maximum, on the image as the net saw it
    top_k       from so many centres on only those above the top_k-th count
    stuff_area  pixels below which a stuff segment becomes unknown in panoptic maps
    Raises ConfigError for numbers that cannot be.
    """

    things: tuple[int, ...]
    threshold: float = 0.1
    nms: int = 7
    top_k: int = 200
    stuff_area: int = 2048

    def __post_init__(self) -> None:
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise ConfigError(f"threshold is {self.threshold!r}; it must be a number in 0..1.")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold!r}; it must lie in 0..1.")
        for name in ("nms", "top_k", "stuff_area"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int):
                raise ConfigError(f"{name} is {number!r}; it must be a whole number.")
        if self.nms < 1 or self.nms % 2 == 0:
            raise ConfigError(f"nms is {self.nms!r}; it must be an odd number of pixels.")
        if self.top_k < 1 or self.stuff_area < 0:
            raise ConfigError(f"top_k {self.top_k!r} must be at least 1, stuff_area {self.stuff_area!r} at least 0.")


@dataclass(frozen=True)
class Goal:
    """What the maps are trained to be: see `losses/centers.py`. All in pixels of the padded input.

    sigma         deviation of the heat's bumps
    spread        above 0, a thing of area A has a bump of deviation `spread` x sqrt(A) where that is less than sigma,
                  at least 1: bumps of small things would else melt into one (not in the paper)
    small_area    pixels of things smaller than this ...
    small_weight  ... count so often in the losses of classes that add up pixels
    Raises ConfigError for numbers that cannot be.
    """

    sigma: float = 8.0
    spread: float = 0.0
    small_area: int = 4096
    small_weight: float = 3.0

    def __post_init__(self) -> None:
        ranges = {"sigma": (0.5, 100), "spread": (0, 1), "small_area": (0, 1e9), "small_weight": (0, 1000)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; it must be a number in {low:g}..{high:g}.")


class CentreMaps(Protocol):
    """What grouping reads, at the original size: of one output, or of several views joined."""

    @property
    def frames(self) -> tuple[Frame, ...]: ...

    def probs(self, i: int, window: Window | None = None) -> Tensor: ...

    def heat_map(self, i: int, window: Window | None = None) -> Tensor: ...

    def offset_map(self, i: int, window: Window | None = None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Centers:
    """Per-pixel classes, centres and offsets, each on the net's grid.

    logits   [B, K, h, w]
    heat     [B, 1, h, w] about 0..1: a bump of height 1 at the centre of mass of every thing
    offsets  [B, 2, h, w] (dy, dx) from a pixel to the centre of its thing, in pixels of the padded input
    """

    logits: Tensor
    heat: Tensor
    offsets: Tensor
    grouping: Grouping
    frames: tuple[Frame, ...] = ()
    align_corners: bool = False
    goal: Goal = field(default_factory=Goal)
    aux: tuple[tuple[str, float, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.frames:
            h, w = self.logits.shape[-2:]
            object.__setattr__(self, "frames", (Frame.whole(h, w),) * self.logits.shape[0])

    @property
    def classes(self) -> Dense:
        """The per-pixel classes alone."""
        return Dense(self.logits, self.frames, align_corners=self.align_corners)

    def full(self) -> Tensor:
        """[B, K, H, W] logits at the input's size."""
        return self.classes.full()

    def full_centres(self) -> tuple[Tensor, Tensor]:
        """[B, 1, H, W] heat and [B, 2, H, W] offsets at the input's size."""
        size = self.frames[0].padded
        heat, offsets = (
            F.interpolate(maps, size=size, mode="bilinear", align_corners=self.align_corners)
            for maps in (self.heat, self.offsets)
        )
        return heat, offsets

    def probs(self, i: int, window: Window | None = None) -> Tensor:
        """[K, H, W] float32 in 0..1 at the original size, or on a window of it."""
        return self.classes.probs(i, window)

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] channel with the largest logit."""
        return self.classes.class_map(i, window)

    def heat_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] float32 at the original size, or on a window of it."""
        return read_grid(self.heat[i], self.frames[i], window, self.align_corners)[0]

    def offset_map(self, i: int, window: Window | None = None) -> Tensor:
        """[2, H, W] float32 (dy, dx) in pixels of the original image, or on a window of it."""
        zoom = torch.tensor(_zoom(self.frames[i]), device=self.offsets.device)[:, None, None]
        return read_grid(self.offsets[i], self.frames[i], window, self.align_corners) * zoom

    def candidates(self, i: int) -> Candidates:
        """Things by grouping with their class by majority vote, and one candidate for each class of stuff."""
        return group(self, i, self.grouping)


register(Centers, ["logits", "heat", "offsets"])


def _zoom(frame: Frame) -> tuple[float, float]:
    """Pixels of the original per pixel of the input, downwards and rightwards."""
    return frame.original[0] / frame.window[2], frame.original[1] / frame.window[3]


def group(maps: CentreMaps, i: int, rule: Grouping) -> Candidates:
    """Candidates of image i: class-agnostic grouping, then majority vote (section 3.3 of the paper).

    A pixel of a thing class belongs to the centre nearest to where it points; a group takes the class that most of its
    pixels have (of equals the smallest label). Where no centre is found, things are known to be nothing. Scores are
    those of the authors: of a thing the mean probability of its class over its pixels times the heat at its centre of
    mass; of stuff the mean probability. One pass in strips: no map of K channels at full size is held.
    """
    frame = maps.frames[i]
    heat = maps.heat_map(i).detach()
    window = rule.nms if max(_zoom(frame)) == 1 else 2 * round(rule.nms * max(_zoom(frame)) / 2 - 0.5) + 1
    centres = find_centres(heat, threshold=rule.threshold, window=max(1, window), top_k=rule.top_k)
    owner, tally = _assign(maps, i, centres, rule.things)
    return _candidates(owner, tally, heat.cpu().numpy(), rule)


@dataclass
class _Tally:
    """Pixels and summed probabilities. things [N, T] by group and thing class, stuff [K] by class; float64."""

    pixels: Tensor
    sums: Tensor
    stuff_pixels: Tensor
    stuff_sums: Tensor


def _assign(maps: CentreMaps, i: int, centres: Tensor, things: Sequence[int]) -> tuple[np.ndarray, _Tally]:
    """[H, W] int32 owner of each pixel (group 0..N-1, N + k for stuff k, -1 for things without a centre); its tally."""
    device, count = centres.device, len(centres)
    nearest = NearestCentre(centres, maps.frames[i].original) if count else None
    owners: list[Tensor] = []
    tally: _Tally | None = None
    for strip, probs in _strips(maps, i):
        classes = len(probs)
        columns = torch.full((classes,), -1, dtype=torch.int64, device=device)
        columns[list(things)] = torch.arange(len(things), device=device)
        if tally is None:
            shapes = (count, len(things)), (count, len(things)), (classes,), (classes,)
            tally = _Tally(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))
        best = probs.flatten(1).max(0)
        column = columns.index_select(0, best.indices)
        thing, stuff = (column >= 0).nonzero()[:, 0], (column < 0).nonzero()[:, 0]
        owner = (best.indices + count).int()
        tally.stuff_pixels += torch.bincount(best.indices[stuff], minlength=classes)
        tally.stuff_sums += torch.bincount(best.indices[stuff], best.values[stuff].double(), minlength=classes)
        owner[thing] = -1
        if nearest is not None and len(thing):
            group_of = nearest(_votes(maps, i, strip, thing))
            owner[thing] = group_of.int()
            pairs = torch.bincount(group_of * len(things) + column[thing], minlength=tally.pixels.numel())
            tally.pixels += pairs.view_as(tally.pixels)
            sure = probs[list(things)].flatten(1).index_select(1, thing).T  # [P, T]
            tally.sums.index_add_(0, group_of, sure.double())
        owners.append(owner.view(strip[2], strip[3]))
    assert tally is not None
    return torch.cat(owners).cpu().numpy(), tally


def _strips(maps: CentreMaps, i: int) -> Iterator[tuple[Window, Tensor]]:
    classes = len(maps.probs(i, (0, 0, 1, 1)))
    for strip in cut_strips(maps.frames[i], None, classes):
        yield strip, maps.probs(i, strip).detach()


def _votes(maps: CentreMaps, i: int, strip: Window, pixels: Tensor) -> Tensor:
    """[P, 2] (y, x) places where these pixels of the strip point."""
    offsets = maps.offset_map(i, strip).detach().flatten(1).index_select(1, pixels)  # [2, P]
    y = (pixels.div(strip[3], rounding_mode="floor") + strip[0]).float()
    x = (pixels.remainder(strip[3]) + strip[1]).float()
    return torch.stack([y + offsets[0], x + offsets[1]], 1)


def _candidates(owner: np.ndarray, tally: _Tally, heat: np.ndarray, rule: Grouping) -> Candidates:
    count, classes = len(tally.pixels), len(tally.stuff_pixels)
    pixels, sums = tally.pixels.cpu().numpy(), tally.sums.cpu().numpy()
    stuff = (tally.stuff_sums / tally.stuff_pixels.clamp_min(1)).cpu().numpy()
    vote = pixels.argmax(1) if count and pixels.shape[1] else np.zeros(count, np.int64)
    rows, boxes, crops = [], [], []
    for q, where in enumerate(ndimage.find_objects(owner + 1, max_label=count + classes)):
        if where is None:
            continue
        crop = owner[where] == q
        top, left = where[0].start, where[1].start
        if q < count:
            ys, xs = crop.nonzero()
            sure = sums[q, vote[q]] / len(ys)
            label, score = rule.things[vote[q]], sure * heat[int(top + ys.mean()), int(left + xs.mean())]
        else:
            label, score = q - count, stuff[q - count]
        rows.append((label, min(1.0, max(LEAST_SCORE, float(score)))))
        boxes.append((left, top, where[1].stop, where[0].stop))
        crops.append(crop)
    scores = np.zeros((len(rows), classes), np.float32)
    for row, (label, score) in enumerate(rows):
        scores[row, label] = score
    merge = Merge("partition", stuff_area=rule.stuff_area)
    return Candidates(scores, np.array(boxes, np.int64).reshape(-1, 4), crops, owner.shape, merge)
