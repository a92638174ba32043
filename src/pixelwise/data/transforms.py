"""Joint transforms of image and truth: parameters are drawn once and applied to the image, all layers of ids and the boxes.

A transform is any callable `(sample, rng, pick) -> Sample`: `rng` is a `numpy.random.Generator` that depends on the seed,
the epoch and the place in the epoch, never on the worker; `pick(rng)` draws another raw sample. It must not write into the
sample it is given. Those here are frozen dataclasses; `Chain` joins neighbouring geometric ones into a single warp.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from pixelwise.core.sample import Sample
from pixelwise.data.colour import Blur, ColourJitter, Noise
from pixelwise.data.geometry import Bend, Placement, scaling, translation
from pixelwise.data.warp import warp, warp_ids
from pixelwise.errors import ConfigError, DataError, PixelwiseError

Pick = Callable[[np.random.Generator], Sample]
Transform = Callable[[Sample, np.random.Generator, Pick], Sample]

LATTICE = 40  # points along the longer side at which a crop's classes are counted


class Geometric:
    """A transform that only moves where the output looks; see `Placement`."""

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        """One step further. Draws from `rng`; reads, but never warps, the sample."""
        raise NotImplementedError

    def __call__(self, sample: Sample, rng: np.random.Generator, pick: Pick) -> Sample:
        return warp(sample, self.place(Placement.whole(sample.size), sample, rng))


@dataclass(frozen=True)
class RandomScale(Geometric):
    """Resizes by one factor: out of `choices` where given, else log-uniform between `low` and `high`."""

    low: float = 0.5
    high: float = 1.5
    choices: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for value in (self.low, self.high, *self.choices):
            if not 0 < value < 100:
                raise ConfigError(f"A scale must lie above 0 and below 100, got {value}.")
        if self.low > self.high:
            raise ConfigError(f"The scales must be (smallest, largest), got ({self.low}, {self.high}).")

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        if self.choices:
            factor = float(self.choices[rng.integers(len(self.choices))])
        else:
            factor = float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return Resize((max(1, round(p.size[0] * factor)), max(1, round(p.size[1] * factor)))).place(p, sample, rng)


@dataclass(frozen=True)
class Resize(Geometric):
    """To `size` (height, width), whatever the shape was."""

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_size(self.size)

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        if self.size == p.size:
            return p
        return p.then(scaling(p.size[1] / self.size[1], p.size[0] / self.size[0]), self.size)


@dataclass(frozen=True)
class Flip(Geometric):
    """Mirrors left-right with probability `horizontal`, upside down with probability `vertical`."""

    horizontal: float = 0.5
    vertical: float = 0.0

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        across, down = rng.random(2) < (self.horizontal, self.vertical)
        height, width = p.size
        if across:
            p = p.then(translation(width, 0) @ scaling(-1, 1), p.size)
        if down:
            p = p.then(translation(0, height) @ scaling(1, -1), p.size)
        return p


@dataclass(frozen=True)
class Rotation(Geometric):
    """Turns about the centre by an angle uniform in -`degrees` to `degrees`; the size stays."""

    degrees: float = 10.0

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        angle = np.deg2rad(rng.uniform(-self.degrees, self.degrees))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        x, y = p.size[1] / 2, p.size[0] / 2
        return p.then(translation(x, y) @ turn @ translation(-x, -y), p.size)


@dataclass(frozen=True)
class Elastic(Geometric):
    """Smooth warp of Ronneberger et al. 2015 (1505.04597): normal vectors on a coarse grid, bicubic between them.

    strength  standard deviation of the vectors in pixels (the paper's 10)
    grid      points along each side of the image (the paper's 3)
    """

    strength: float = 10.0
    grid: int = 3

    def __post_init__(self) -> None:
        if self.grid < 2 or self.strength < 0:
            raise ConfigError(f"Elastic needs grid >= 2 and strength >= 0, got {self.grid} and {self.strength}.")

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        return p.bent(Bend(rng.normal(0, self.strength, (2, self.grid, self.grid)), p.size))


@dataclass(frozen=True)
class Pad(Geometric):
    """To at least `size` (height, width), the image in the middle; ids outside are UNKNOWN, the image is mirrored."""

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_size(self.size)

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        size = (max(self.size[0], p.size[0]), max(self.size[1], p.size[1]))
        return p.then(translation(-((size[1] - p.size[1]) // 2), -((size[0] - p.size[0]) // 2)), size)


@dataclass(frozen=True)
class RandomCrop(Geometric):
    """Cuts out `size` (height, width); a smaller image lies somewhere inside it, mirrored around, ids UNKNOWN there.

    max_class_share   where one class has more than this share of the known pixels, another place is drawn, at most `tries`
                      times; classes are counted on a lattice of about 1,000 points. The last place drawn is then taken.
    focus             probability that the crop shows a pixel drawn from a class, the class drawn by `weights` among those
                      in the image; without weights drawn from a segment (an object), each equally likely
    weights           [K] one number per label, e.g. one over the class's share
    min_visible, things   see `Placement`
    """

    size: tuple[int, int]
    max_class_share: float = 1.0
    tries: int = 10
    focus: float = 0.0
    weights: tuple[float, ...] = ()
    min_visible: float = 0.0
    things: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        _check_size(self.size)
        for name in ("max_class_share", "focus", "min_visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"RandomCrop: {name} must lie in 0..1, got {getattr(self, name)}.")

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        p = replace(p, min_visible=self.min_visible, things=self.things)
        point = self._focus_point(p, sample, rng) if rng.random() < self.focus else None
        for _ in range(max(1, self.tries)):
            crop = self._draw(p, rng, point)
            if self.max_class_share >= 1 or sample.truth is None or self._mixed(crop, sample):
                break
        return crop

    def _draw(self, p: Placement, rng: np.random.Generator, point: tuple[float, float] | None) -> Placement:
        """A place for the crop; with `point` (x, y) one that shows it wherever the image's border allows."""
        corner = []
        for axis, at in ((1, 0), (0, 1)):  # x, then y
            room = p.size[axis] - self.size[axis]
            low, high = min(0, room), max(0, room)
            if point is not None and room > 0:
                centre = int(np.floor(point[at]))
                low, high = (int(np.clip(v, 0, room)) for v in (centre - self.size[axis] + 1, centre))
            corner.append(int(rng.integers(low, high + 1)))
        return p.then(translation(corner[0], corner[1]), self.size)

    def _mixed(self, crop: Placement, sample: Sample) -> bool:
        assert sample.truth is not None
        step = max(1, max(self.size) // LATTICE)
        rows = warp_ids(sample.truth.ids[:1].numpy(), crop, step)
        rows = rows[rows >= 0]
        if not len(rows):
            return False
        shares = np.bincount(sample.truth.labels.numpy()[rows])
        return bool(shares.max() <= self.max_class_share * shares.sum())

    def _focus_point(self, p: Placement, sample: Sample, rng: np.random.Generator) -> tuple[float, float] | None:
        """A random pixel (x, y in `p`) of a segment or class drawn as the class docstring says; None where there is none."""
        if sample.truth is None or not len(sample.truth):
            return None
        ids, labels = sample.truth.ids.numpy(), sample.truth.labels.numpy()
        counts = np.bincount(ids.ravel().astype(np.int64) + 2, minlength=len(labels) + 2)[2:]
        chance = (counts > 0).astype(float)
        if self.weights:
            per_class = np.bincount(labels, counts, minlength=len(self.weights))
            wanted = np.array(self.weights) * (per_class > 0)
            # a class's weight is shared among its rows by their pixels
            chance = wanted[labels] * counts / np.maximum(per_class[labels], 1)
        if chance.sum() <= 0:
            return None
        row = rng.choice(len(chance), p=chance / chance.sum())
        _, ys, xs = np.nonzero(ids == row)
        at = rng.integers(len(ys))
        x, y = p.to_output(np.array([xs[at] + 0.5]), np.array([ys[at] + 0.5]))
        return float(x[0]), float(y[0])


@dataclass(frozen=True)
class Chain:
    """One transform after another; neighbouring geometric ones become one warp, so that only the crop is computed.

    A failure inside a transform is a DataError that names the transform and the sample; so is a result that is no Sample
    or whose truth has another size than its image.
    """

    transforms: tuple[Transform, ...] = ()

    def __call__(self, sample: Sample, rng: np.random.Generator, pick: Pick) -> Sample:
        placement: Placement | None = None
        for transform in self.transforms:
            try:
                if isinstance(transform, Geometric):
                    placement = transform.place(placement or Placement.whole(sample.size), sample, rng)
                    continue
                if placement is not None:
                    sample, placement = warp(sample, placement), None
                sample = _checked(transform(sample, rng, pick), transform)
            except PixelwiseError:
                raise
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                raise DataError(
                    f"The transform {_name(transform)} failed on '{sample.name}': {type(error).__name__}: {error} "
                    f"({where.filename}, line {where.lineno})."
                ) from error
        return sample if placement is None else warp(sample, placement)


def _checked(sample: Any, transform: Transform) -> Sample:
    if not isinstance(sample, Sample):
        raise TypeError(f"it must return a Sample, got {type(sample).__name__}")
    if sample.truth is not None and sample.truth.size != sample.size:
        raise ValueError(f"it returned an image of {sample.size} (H, W) and a truth of {tuple(sample.truth.size)}")
    return sample


def _name(transform: Transform) -> str:
    return getattr(transform, "__name__", type(transform).__name__)


def _check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"A size must be (height, width) of at least 1 pixel, got {size}.")


class Settings(Protocol):
    """What `training_transforms` reads; `pixelwise.config.TransformSettings` says what each means."""

    scale: tuple[float, float]
    scales: tuple[float, ...]
    flip: float
    vertical_flip: float
    rotation: float
    elastic: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    blur: float
    noise: float
    max_class_share: float
    rare_focus: float


def training_transforms(settings: Any, *, crop: tuple[int, int] | int, class_counts: Sequence[float] | None = None,
                        min_visible: float = 0.0, things: Sequence[bool] = ()) -> Chain:  # fmt: skip
    """The chain that training uses: scale, turn, bend, flip and crop as one warp, then colour, blur and noise on the crop.

    crop          (height, width), or one number for a square
    class_counts  [K] pixels per class over the training split; the weights of `rare_focus` are one over them. Without
                  them the focus goes to any segment, each equally likely.
    Raises ConfigError for values that cannot be.
    """
    size = (crop, crop) if isinstance(crop, int) else (int(crop[0]), int(crop[1]))
    weights: tuple[float, ...] = ()
    if class_counts is not None:
        counts = np.asarray(class_counts, float)
        weights = tuple(np.where(counts > 0, counts.sum() / np.maximum(counts, 1), 0).tolist())
    steps: list[Transform] = []
    if settings.scales or tuple(settings.scale) != (1.0, 1.0):
        steps.append(RandomScale(settings.scale[0], settings.scale[1], tuple(settings.scales)))
    if settings.rotation > 0:
        steps.append(Rotation(settings.rotation))
    if settings.elastic > 0:
        steps.append(Elastic(settings.elastic))
    if settings.flip > 0 or settings.vertical_flip > 0:
        steps.append(Flip(settings.flip, settings.vertical_flip))
    steps.append(RandomCrop(size, max_class_share=settings.max_class_share, focus=settings.rare_focus, weights=weights,
                            min_visible=min_visible, things=tuple(bool(t) for t in things)))  # fmt: skip
    if max(settings.brightness, settings.contrast, settings.saturation, settings.hue) > 0:
        steps.append(ColourJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue))
    if settings.blur > 0:
        steps.append(Blur(settings.blur))
    if settings.noise > 0:
        steps.append(Noise(settings.noise))
    return Chain(tuple(steps))
