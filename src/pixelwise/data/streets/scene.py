"""One drawn street: a camera, a light, everything painted far to near, then a photograph of it."""

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pixelwise.data.streets import textures
from pixelwise.data.streets.backdrop import draw_sky
from pixelwise.data.streets.buildings import any_colour
from pixelwise.data.streets.canvas import Camera, Canvas, Colour, mix, scale
from pixelwise.data.streets.labels import THINGS, Label
from pixelwise.data.streets.placement import paint_street
from pixelwise.data.streets.weather import random_light, random_mood
from pixelwise.errors import ConfigError

Rng = np.random.Generator

SMALLEST = 16  # pixels; below this a street has nothing left to see
_OVERSAMPLE = 2


@dataclass(frozen=True)
class Scene:
    """A drawn street.

    `image [H, W, 3]` uint8 RGB; `label_ids [H, W]` uint8 Cityscapes label ids; `instance_ids [H, W]` uint16, which is
    label * 1000 + n for the n-th car, person, rider or bicycle and the plain label elsewhere.
    """

    image: npt.NDArray[np.uint8]
    label_ids: npt.NDArray[np.uint8]
    instance_ids: npt.NDArray[np.uint16]


def draw_scene(seed: int, index: int, size: tuple[int, int] = (256, 512), split: str = "train") -> Scene:
    """Draw street number `index` of a split.

    A scene depends on `seed`, `split` and `index` alone, not on how many are drawn; `size` is (height, width) in
    pixels, from 16 up, and another size shows the same street.
    Raises ConfigError for a smaller size or a negative number.

    >>> draw_scene(0, 3, (64, 128)).image.shape
    (64, 128, 3)
    """
    height, width = size
    if min(height, width) < SMALLEST:
        raise ConfigError(
            f"a street of {height}x{width} pixels was asked for; give a size from {SMALLEST}x{SMALLEST} up"
        )
    if seed < 0 or index < 0:
        raise ConfigError(f"a street of seed {seed} and index {index} was asked for; both must be 0 or more")
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    mood = random_mood(rng)
    camera = _camera(rng, height * _OVERSAMPLE, width * _OVERSAMPLE)
    light = random_light(rng, mood)
    canvas = Canvas(height * _OVERSAMPLE, width * _OVERSAMPLE, camera, light)
    draw_sky(canvas, rng, _vary(rng, mood.top), mood.low, mood.cloud, rng.uniform(*mood.cover))
    paint_street(canvas, rng, mood)
    _paint_bonnet(canvas, rng)
    image = _photograph(canvas, rng)
    ids = _renumber(_vote(canvas.ids))
    labels = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
    return Scene(image, labels, ids)


def _vary(rng: Rng, colour: Colour) -> Colour:
    factor = rng.uniform(0.9, 1.1, 3)
    return (min(colour[0] * factor[0], 255.0), min(colour[1] * factor[1], 255.0), min(colour[2] * factor[2], 255.0))


def _camera(rng: Rng, height: int, width: int) -> Camera:
    return Camera(
        focal=0.52 * max(width, 1.6 * height) * rng.uniform(0.92, 1.15),
        centre=width * rng.uniform(0.38, 0.62),
        horizon=height * rng.uniform(0.40, 0.5),
        height=rng.uniform(1.35, 2.0),
        aside=rng.uniform(0.6, 2.0),
        curve=rng.uniform(-1, 1) * 0.0016 if rng.random() < 0.6 else 0.0,
    )


def _paint_bonnet(canvas: Canvas, rng: Rng) -> None:
    """The bonnet of the car that carries the camera: void, as in Cityscapes. Half the scenes have one."""
    if rng.random() < 0.5:
        return
    height, width = canvas.ids.shape
    rise, middle = height * rng.uniform(0.04, 0.075), width * rng.uniform(0.46, 0.54)
    across = np.linspace(0, width, 33)
    crest = height - rise * (1 - 0.55 * ((across - middle) / (width * 0.56)) ** 2)
    paint = any_colour(rng)
    tone = canvas.light.tone(scale(paint, 0.7), 0.5, 0)
    outline = [*zip(across.tolist(), crest.tolist(), strict=True), (width, height + 2), (0, height + 2)]
    canvas.polygon(outline, tone, Label.EGO_VEHICLE)
    shine = [
        *zip(across.tolist(), (crest + rise * 0.12).tolist(), strict=True),
        *zip(across[::-1].tolist(), (crest[::-1] + rise * 0.3).tolist(), strict=True),
    ]
    canvas.polygon(shine, mix(tone, canvas.light.haze, 0.45))


def _photograph(canvas: Canvas, rng: Rng) -> npt.NDArray[np.uint8]:
    """From canvas to picture: glow, half size, exposure and cast, softness, grain."""
    full = canvas.image
    height, width = full.shape[0] // _OVERSAMPLE, full.shape[1] // _OVERSAMPLE
    image = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA)
    if canvas.light.dark:
        bloom = cv2.GaussianBlur(canvas.glow, (0, 0), max(1.0, width / 110))
        image = cv2.add(image, cv2.resize(cv2.addWeighted(bloom, 1.3, canvas.glow, 0.3, 0), (width, height)))
    gamma, gain = rng.uniform(0.82, 1.05), rng.uniform(0.95, 1.05, 3)
    ramp = 255 * (np.arange(256, dtype=np.float32)[:, None] / 255) ** gamma * gain
    image = cv2.LUT(image, np.clip(ramp, 0, 255).astype(np.uint8)[None])
    softness = rng.uniform(0.3, 0.75)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), softness)
    deviation = rng.uniform(1.5, 4.5)
    top, left = (int(v) for v in rng.integers(0, textures.TILE, 2))
    noise = textures.crop(textures.grain(), top, left, height, width)
    return np.clip(image + deviation * noise + 0.5, 0, 255).astype(np.uint8)


def _vote(ids: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """The most frequent id of every 2x2 block; a tie goes to the block's first pixel that is not alone."""
    a, b, c, d = ids[::2, ::2], ids[::2, 1::2], ids[1::2, ::2], ids[1::2, 1::2]
    paired = (a == b) | (a == c) | (a == d)
    return np.where(paired, a, np.where((b == c) | (b == d), b, np.where(c == d, c, a)))


def _renumber(ids: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Number each class's visible instances from 0 without gaps: what is wholly hidden leaves no hole."""
    table = np.arange(65536, dtype=np.uint16)
    for label in THINGS:
        present = np.flatnonzero(np.bincount(ids.ravel(), minlength=65536)[label * 1000 : label * 1000 + 1000])
        table[label * 1000 + present] = label * 1000 + np.arange(len(present), dtype=np.uint16)
    return table[ids]
