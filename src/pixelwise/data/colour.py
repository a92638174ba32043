"""Transforms of the image's values alone: the truth passes through untouched. 8 and 16 bit, any number of channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pixelwise.core.sample import Sample, image_tensor
from pixelwise.data.warp import Pick, check_range, pixels_of

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma of R, G, B
# luma and two colour differences (NTSC's Y, I, Q); hue is an angle in the plane of the last two
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast, saturation and hue as one affine map of the values, rounded and clipped once.

    brightness, contrast, saturation  factors uniform in 1 - x to 1 + x; contrast about the image's mean luma
    hue  turns of the colour circle, uniform in -x to x: a rotation of the chrominance plane (of Y, I, Q), luma stays
    Saturation and hue are for images of 3 channels; others keep brightness and contrast, the same for each channel.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.02

    def __post_init__(self) -> None:
        check_range(self, ("brightness", "contrast", "saturation"))
        check_range(self, ("hue",), high=0.5)

    def __call__(self, sample: Sample, rng: np.random.Generator, pick: Pick) -> Sample:
        bright, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * (self.brightness, self.contrast, self.saturation)
        angle = 2 * np.pi * rng.uniform(-self.hue, self.hue)
        pixels = pixels_of(sample)
        means = np.array(cv2.mean(pixels)[: pixels.shape[2]]) if pixels.shape[2] <= 4 else pixels.mean((0, 1))
        colour = pixels.shape[2] == 3
        mean = float(GREY @ means) if colour else float(means.mean())
        offset = bright * mean * (1 - contrast)
        if colour and (self.saturation > 0 or self.hue > 0):
            turn = np.diag([1.0, saturation, saturation])
            turn[1:, 1:] = saturation * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            matrix = bright * contrast * (np.linalg.inv(YIQ) @ turn @ YIQ)
            out = cv2.transform(pixels, np.column_stack([matrix, np.full(3, offset)]))
        else:
            out = _lookup(pixels, lambda v: v * (bright * contrast) + offset)
        return replace(sample, image=image_tensor(out))


def _lookup(pixels: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A map of single values through a table of all of them."""
    top = np.iinfo(pixels.dtype).max
    table = np.clip(np.round(change(np.arange(top + 1, dtype=np.float64))), 0, top).astype(pixels.dtype)
    return cv2.LUT(pixels, table).reshape(pixels.shape) if pixels.dtype == np.uint8 else np.take(table, pixels)


@dataclass(frozen=True)
class Gamma:
    """v -> v ** g of the value's range, g log-uniform in 1 / (1 + strength) to 1 + strength."""

    strength: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, ("strength",), high=9.0)

    def __call__(self, sample: Sample, rng: np.random.Generator, pick: Pick) -> Sample:
        most = np.log1p(self.strength)
        power = np.exp(rng.uniform(-most, most))
        pixels = pixels_of(sample)
        top = np.iinfo(pixels.dtype).max
        return replace(sample, image=image_tensor(_lookup(pixels, lambda v: (v / top) ** power * top)))


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with probability `probability`, its sigma uniform between `low` and `high` pixels."""

    probability: float = 0.5
    low: float = 0.3
    high: float = 1.5

    def __post_init__(self) -> None:
        check_range(self, ("probability",))
        check_range(self, ("low",), 0.1, self.high)
        check_range(self, ("high",), self.low, 100.0)

    def __call__(self, sample: Sample, rng: np.random.Generator, pick: Pick) -> Sample:
        draw, sigma = rng.random(), rng.uniform(self.low, self.high)
        if draw >= self.probability:
            return sample
        pixels = pixels_of(sample)
        out = cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REFLECT).reshape(pixels.shape)
        return replace(sample, image=image_tensor(out))


@dataclass(frozen=True)
class Noise:
    """Normal noise on every value; its deviation is uniform in 0 to `strength`, a share of the range (255 or 65535)."""

    strength: float = 0.05

    def __post_init__(self) -> None:
        check_range(self, ("strength",))

    def __call__(self, sample: Sample, rng: np.random.Generator, pick: Pick) -> Sample:
        pixels = pixels_of(sample)
        top = np.iinfo(pixels.dtype).max
        deviation = rng.uniform(0, self.strength) * top
        noisy = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(deviation) + pixels
        return replace(sample, image=image_tensor(np.clip(np.rint(noisy), 0, top).astype(pixels.dtype)))
