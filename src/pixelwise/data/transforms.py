"""Joint transforms of image and truth: numbers are drawn once and applied to the image, all ids and the boxes.

A transform is any callable `(sample, rng, pick) -> Sample`: `rng` is a `numpy.random.Generator` that depends on the
seed, the epoch and the place in the epoch, never on the worker; `pick(rng)` draws another raw sample. It must not write
into the sample it is given. Those here are frozen dataclasses; `Chain` joins neighbouring geometric ones into one warp.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pixelwise.core.sample import Sample
from pixelwise.data.colour import Blur, ColourJitter, Gamma, Noise
from pixelwise.data.crop import RandomCrop
from pixelwise.data.geometry import Bend, Placement, scaling, translation
from pixelwise.data.paste import CopyPaste
from pixelwise.data.warp import Geometric, Pick, Transform, check_range, check_size, warp
from pixelwise.errors import ConfigError, DataError, PixelwiseError

__all__ = [
    "LARGE_SCALE_JITTER", "Blur", "Chain", "ColourJitter", "CopyPaste", "Elastic", "Flip", "Gamma", "Noise", "Pad",
    "Pick", "RandomCrop", "RandomScale", "Resize", "Rotation", "Settings", "Transform", "training_transforms",
]  # fmt: skip


@dataclass(frozen=True)
class RandomScale(Geometric):
    """Resizes by one factor: out of `choices` where given, else between `low` and `high`.

    The factor is drawn log-uniformly, so that half and double are equally likely; with `uniform` each factor is equally
    likely, as in papers that jitter the scale largely.
    """

    low: float = 0.5
    high: float = 1.5
    choices: tuple[float, ...] = ()
    uniform: bool = False

    def __post_init__(self) -> None:
        for value in (self.low, self.high, *self.choices):
            if not 0 < value < 100:
                raise ConfigError(f"A scale must lie above 0 and below 100, got {value}.")
        if self.low > self.high:
            raise ConfigError(f"The scales must be (smallest, largest), got ({self.low}, {self.high}).")

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        if self.choices:
            factor = float(self.choices[rng.integers(len(self.choices))])
        elif self.uniform:
            factor = float(rng.uniform(self.low, self.high))
        else:
            factor = float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return Resize((max(1, round(p.size[0] * factor)), max(1, round(p.size[1] * factor)))).place(p, sample, rng)


LARGE_SCALE_JITTER = RandomScale(0.1, 2.0, uniform=True)  # of Ghiasi et al. 2020, 2012.07177; a crop or pad follows


@dataclass(frozen=True)
class Resize(Geometric):
    """To `size` (height, width), whatever the shape was."""

    size: tuple[int, int]

    def __post_init__(self) -> None:
        check_size(self.size)

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        if self.size == p.size:
            return p
        return p.then(scaling(p.size[1] / self.size[1], p.size[0] / self.size[0]), self.size)


@dataclass(frozen=True)
class Flip(Geometric):
    """Mirrors left-right with probability `horizontal`, upside down with probability `vertical`."""

    horizontal: float = 0.5
    vertical: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, ("horizontal", "vertical"))

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

    def __post_init__(self) -> None:
        check_range(self, ("degrees",), high=180.0)

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
        check_size(self.size)

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        size = (max(self.size[0], p.size[0]), max(self.size[1], p.size[1]))
        return p.then(translation(-((size[1] - p.size[1]) // 2), -((size[0] - p.size[0]) // 2)), size)


@dataclass(frozen=True)
class Chain:
    """One transform after another; neighbouring geometric ones become one warp, so that only the crop is computed.

    A failure inside a transform is a DataError that names the transform and the sample; so is a result that is no
    Sample or whose truth has another size than its image.

    >>> Chain((RandomScale(0.5, 1.5), Flip(), RandomCrop((224, 320))))(sample, rng, pick).size  # doctest: +SKIP
    (224, 320)
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


class Settings(Protocol):
    """What `training_transforms` reads; each is as in the transform it belongs to."""

    @property
    def scale(self) -> tuple[float, float]: ...  # smallest and largest factor, drawn log-uniform
    @property
    def scales(self) -> tuple[float, ...]: ...  # where given, one of these instead
    @property
    def uniform_scale(self) -> bool: ...  # each factor equally likely
    @property
    def flip(self) -> float: ...  # probability
    @property
    def vertical_flip(self) -> float: ...  # probability
    @property
    def rotation(self) -> float: ...  # degrees to either side
    @property
    def elastic(self) -> float: ...  # standard deviation of the displacement, pixels
    @property
    def brightness(self) -> float: ...
    @property
    def contrast(self) -> float: ...
    @property
    def saturation(self) -> float: ...
    @property
    def hue(self) -> float: ...
    @property
    def blur(self) -> float: ...  # probability
    @property
    def noise(self) -> float: ...  # largest standard deviation, share of the value's range
    @property
    def max_class_share(self) -> float: ...
    @property
    def rare_focus(self) -> float: ...  # probability
    @property
    def min_visible(self) -> float: ...  # share of an object
    @property
    def copy_paste(self) -> float: ...  # probability
    @property
    def paste_scale(self) -> tuple[float, float]: ...  # smallest and largest factor, drawn uniformly
    @property
    def paste_blend(self) -> float: ...  # standard deviation at the edges, pixels


def training_transforms(
    settings: Settings,
    *,
    crop: tuple[int, int] | int,
    class_counts: Sequence[float] | np.ndarray | None = None,
    things: Sequence[bool] | np.ndarray = (),
    own: Transform | None = None,
) -> Chain:
    """The chain that training uses: scale, turn, bend, flip, crop as one warp; pasted objects; colour, blur and noise.

    crop          (height, width), or one number for a square
    class_counts  [K] pixels per class over the training split; the weights of `rare_focus` are one over them. Without
                  them the focus goes to any segment, each equally likely.
    things        [K] labels to which `min_visible` applies and whose objects are pasted; all where none are named
    own           a transform of the user's, which comes last
    Raises ConfigError for values that cannot be, and for `copy_paste` where no class is a thing.
    """
    size = (crop, crop) if isinstance(crop, int) else (int(crop[0]), int(crop[1]))
    weights: tuple[float, ...] = ()
    if class_counts is not None:
        counts = np.asarray(class_counts, float)
        weights = tuple(np.where(counts > 0, counts.sum() / np.maximum(counts, 1), 0).tolist())
    steps: list[Transform] = []
    if settings.scales or tuple(settings.scale) != (1.0, 1.0):
        steps.append(RandomScale(*settings.scale, tuple(settings.scales), settings.uniform_scale))
    if settings.rotation > 0:
        steps.append(Rotation(settings.rotation))
    if settings.elastic > 0:
        steps.append(Elastic(settings.elastic))
    if settings.flip > 0 or settings.vertical_flip > 0:
        steps.append(Flip(settings.flip, settings.vertical_flip))
    least, countable = settings.min_visible, tuple(bool(t) for t in things)
    steps.append(RandomCrop(size, max_class_share=settings.max_class_share, focus=settings.rare_focus, weights=weights,
                            min_visible=least, things=countable))  # fmt: skip
    if settings.copy_paste > 0:
        if countable and not any(countable):
            raise ConfigError(
                f"transforms.copy_paste is {settings.copy_paste:g}, but no class is a thing, so there is no object to "
                "paste; leave it 0, or mark things in the data set's classes.txt."
            )
        jitter = (RandomScale(*settings.paste_scale, uniform=True), Flip(settings.flip, settings.vertical_flip),
                  RandomCrop(size, min_visible=least, things=countable))  # fmt: skip
        steps.append(CopyPaste(Chain(jitter), settings.copy_paste, settings.paste_blend, least, countable))
    if max(settings.brightness, settings.contrast, settings.saturation, settings.hue) > 0:
        steps.append(ColourJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue))
    if settings.blur > 0:
        steps.append(Blur(settings.blur))
    if settings.noise > 0:
        steps.append(Noise(settings.noise))
    if own is not None:
        steps.append(own)
    return Chain(tuple(steps))
