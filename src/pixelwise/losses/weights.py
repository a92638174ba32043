"""Class weights from the pixel counts of a training split: four published rules.

All take counts [K] (tensor, array or sequence; pixels of each class, void left out) and return float32 [K] on the CPU,
computed in float64. A class with no pixel takes the largest weight found among the others: it is not met in that split,
and where it is met after all (in validation, through label smoothing) it is treated as the rarest, never as worthless
and never as infinite. All raise DataError for counts that are not one non-negative finite number per class, or all 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pixelwise.errors import ConfigError, DataError, nearest
from pixelwise.losses.arguments import number

Counts = Tensor | Sequence[int] | ArrayLike


def inverse(counts: Counts) -> Tensor:
    """total / (classes present * count): every class has the same say, and the weighted mean over pixels is 1.

    >>> inverse([30, 10]).tolist()
    [0.6666666865348816, 2.0]
    """
    pixels = _read(counts)
    present = pixels > 0
    return _filled(pixels.sum() / (present.sum() * np.where(present, pixels, 1)), present)


def median_frequency(counts: Counts, *, seen: Counts | None = None) -> Tensor:
    """median frequency / frequency: Eigen, Fergus 2015, arXiv 1411.4734, as SegNet trains.

    The frequency of a class is its pixels divided by the pixels of those images in which it occurs; the median is over
    the classes present.

    Args:
        counts: [K] pixels of each class.
        seen: [K] pixels of the images holding the class. Without it every class counts as if it were in every image.

    >>> median_frequency([60, 30, 10]).tolist()
    [0.5, 1.0, 3.0]
    """
    pixels = _read(counts)
    present = pixels > 0
    around = np.full_like(pixels, pixels.sum()) if seen is None else _read(seen, "seen")
    if around.shape != pixels.shape or (around < pixels).any():
        raise DataError(f"seen must hold {len(pixels)} numbers, none below the class's own pixels")
    frequency = np.where(present, pixels, 1) / np.where(present, around, 1)
    return _filled(np.median(frequency[present]) / frequency, present)


def enet(counts: Counts, *, offset: float = 1.02) -> Tensor:
    """1 / ln(offset + share of pixels): Paszke, Chaurasia, Kim, Culurciello 2016, arXiv 1606.02147.

    With the paper's 1.02 between 1.4 and 50.5, the latter for a class without a pixel.
    """
    offset = number("offset", offset, low=1 + 1e-6)
    pixels = _read(counts)
    return torch.from_numpy(1 / np.log(offset + pixels / pixels.sum())).float()


def effective_number(counts: Counts, *, beta: float | None = None) -> Tensor:
    """(1 - beta) / (1 - beta^n), scaled to mean 1: Cui, Jia, Lin, Song, Belongie 2019, arXiv 1901.05555.

    beta = (N - 1) / N says that about N pixels of a class are worth having; more hardly lower its weight. The paper's
    0.9 to 0.9999 are meant for counts of images: on pixels they give every class the same weight.

    Args:
        counts: [K] pixels of each class.
        beta: in 0..1; by default N is the mean pixel count of the classes present, so that frequent classes level out
            and rare ones are weighted about inversely.
    """
    pixels = _read(counts)
    present = pixels > 0
    if beta is None:
        beta = 1 - present.sum() / pixels.sum()
    rest = 1 - number("beta", beta, low=0.0, high=1.0)
    some = np.where(present, pixels, 1)
    with np.errstate(divide="ignore"):  # beta 0: every class is worth one pixel, log 0 = -inf is right
        weights = 1 / some if rest == 0 else rest / -np.expm1(some * np.log1p(-rest))
    return _filled(weights / weights[present].mean(), present)


RULES: dict[str, Callable[..., Tensor]] = {
    "inverse": inverse,
    "median": median_frequency,
    "enet": enet,
    "effective": effective_number,
}


def class_weights(counts: Counts, rule: str, *, seen: Counts | None = None) -> Tensor:
    """Weights [K] by the rule of that name: inverse, median, enet or effective.

    `seen` [K], the pixels of the images holding each class, is for the rule that asks for it (see `median_frequency`).
    Raises ConfigError for another name.
    """
    if rule not in RULES:
        raise ConfigError(f"class weights {rule!r} are unknown; {nearest(rule, RULES)}")
    return median_frequency(counts, seen=seen) if rule == "median" else RULES[rule](counts)


def _read(counts: Counts, name: str = "counts") -> NDArray[np.float64]:
    raw = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else np.asarray(counts)
    pixels = raw.astype(np.float64)
    if pixels.ndim != 1 or not np.isfinite(pixels).all() or (pixels < 0).any():
        raise DataError(f"{name} must be one pixel count per class, [K], not negative; got {raw!r}")
    if not pixels.any():
        raise DataError(f"{name} are all 0: no class has a pixel, so there is nothing to weigh")
    return pixels


def _filled(weights: NDArray[np.float64], present: NDArray[np.bool_]) -> Tensor:
    """float32, with the largest weight of a present class at every absent one."""
    return torch.from_numpy(np.where(present, weights, weights[present].max())).float()
