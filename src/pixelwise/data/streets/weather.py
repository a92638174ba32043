"""The weather and the hour of a drawn street: its sky, its light, its air."""

from dataclasses import dataclass

import numpy as np

from pixelwise.data.streets.canvas import Colour, Light


@dataclass(frozen=True)
class Mood:
    """A kind of weather and hour: sky, light and air."""

    top: Colour
    low: Colour
    cloud: Colour
    cover: tuple[float, float]
    ambient: Colour
    sun: Colour
    haze: Colour
    clear: tuple[float, float]
    shadow: float
    dark: bool = False


MOODS: tuple[Mood, ...] = (
    Mood(
        (88, 142, 208), (196, 218, 234), (250, 250, 248), (0.2, 0.6),
        (0.68, 0.72, 0.80), (0.56, 0.50, 0.40), (200, 214, 226), (90, 180), 0.45,
    ),
    Mood(
        (120, 168, 214), (226, 226, 216), (252, 246, 238), (0.3, 0.8),
        (0.68, 0.69, 0.72), (0.58, 0.50, 0.38), (216, 216, 208), (80, 150), 0.40,
    ),
    Mood(
        (168, 174, 182), (214, 216, 216), (232, 232, 230), (0.9, 1.2),
        (0.96, 0.97, 0.99), (0.14, 0.14, 0.13), (202, 206, 208), (50, 110), 0.12,
    ),
    Mood(
        (132, 140, 150), (186, 190, 192), (200, 202, 204), (0.9, 1.3),
        (0.80, 0.82, 0.86), (0.10, 0.10, 0.10), (176, 182, 188), (50, 90), 0.10,
    ),
    Mood(
        (110, 130, 182), (248, 196, 138), (255, 222, 184), (0.2, 0.7),
        (0.64, 0.62, 0.66), (0.64, 0.48, 0.28), (240, 198, 152), (60, 130), 0.40,
    ),
    Mood(
        (176, 124, 142), (250, 180, 130), (252, 190, 160), (0.3, 0.8),
        (0.62, 0.57, 0.64), (0.54, 0.38, 0.26), (232, 178, 148), (60, 130), 0.32,
    ),
    Mood(
        (52, 62, 108), (176, 132, 148), (112, 98, 136), (0.2, 0.8),
        (0.48, 0.49, 0.64), (0.10, 0.08, 0.10), (120, 108, 140), (70, 140), 0.12, True,
    ),
)  # fmt: skip


ODDS = (0.3, 0.2, 0.12, 0.08, 0.12, 0.06, 0.12)


def random_mood(rng: np.random.Generator) -> Mood:
    """One of `MOODS`, fine days before dusk."""
    return MOODS[int(rng.choice(len(MOODS), p=ODDS))]


def random_light(rng: np.random.Generator, mood: Mood) -> Light:
    """The light of a mood, with a cast, a strength and a side of its own."""
    cast_r, cast_g, cast_b = rng.uniform(0.95, 1.05, 3)
    level = rng.uniform(0.88, 1.1)
    ambient = (mood.ambient[0] * cast_r * level, mood.ambient[1] * cast_g * level, mood.ambient[2] * cast_b * level)
    side = -1 if rng.random() < 0.5 else 1
    return Light(ambient, mood.sun, side, rng.uniform(0.4, 1.1), mood.haze, rng.uniform(*mood.clear), mood.dark)
