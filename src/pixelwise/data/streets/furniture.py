"""Lamps, signs and traffic lights of a drawn street, and the poles that carry them."""

import math

import numpy as np

from pixelwise.data.streets.canvas import Canvas, Colour, Point, mix, scale
from pixelwise.data.streets.labels import Label

POLE_COLOURS: tuple[Colour, ...] = (
    (138, 140, 144),
    (92, 98, 96),
    (60, 62, 66),
    (110, 100, 88),
    (170, 172, 170),
    (80, 100, 84),
)
SIGN_COLOURS: tuple[Colour, ...] = ((196, 48, 44), (46, 84, 160), (214, 178, 60), (60, 120, 86), (226, 224, 216))


def _pole(canvas: Canvas, x: float, z: float, high: float, thick: float, colour: Colour) -> None:
    light, project = canvas.light, canvas.camera.project
    left, right = project(x - thick / 2, 0, z), project(x + thick / 2, 0, z)
    if right[0] - left[0] < 2:  # never thinner than one pixel of the finished picture
        left, right = (left[0] - 1, left[1]), (left[0] + 1, left[1])
    top = project(x, high, z)[1]
    canvas.polygon([left, right, (right[0], top), (left[0], top)], light.tone(colour, 0.3, z), Label.POLE)
    middle = (left[0] + right[0]) / 2
    bright = right if light.side > 0 else left
    canvas.polygon([(middle, left[1]), bright, (bright[0], top), (middle, top)], light.tone(colour, 0.95, z))
    base = canvas.camera.span(thick * 0.95, z)
    if thick > 0.1:
        canvas.polygon(
            [
                (middle - base, left[1]),
                (middle + base, left[1]),
                (middle + base * 0.8, left[1] - 4 * base),
                (middle - base * 0.8, left[1] - 4 * base),
            ],
            light.tone(scale(colour, 0.8), 0.4, z),
            Label.POLE,
        )


def draw_lamp(canvas: Canvas, x: float, z: float, colour: Colour, *, old: bool) -> None:
    """A street lamp: an arm over the road, or an old one with a lantern on top."""
    light, camera = canvas.light, canvas.camera
    side = 1 if x > 0 else -1
    size = camera.span(1.0, z)
    bulb = (255.0, 236.0, 180.0) if light.dark else light.tone((226, 226, 214), 0.8, z)
    if old:
        _pole(canvas, x, z, 3.6, 0.13, colour)
        head = camera.project(x, 3.6, z)
        glass = [
            (head[0] - 0.16 * size, head[1]),
            (head[0] + 0.16 * size, head[1]),
            (head[0] + 0.24 * size, head[1] - 0.5 * size),
            (head[0] - 0.24 * size, head[1] - 0.5 * size),
        ]
        canvas.polygon(glass, bulb, Label.POLE)
        cap = [
            (head[0] - 0.3 * size, head[1] - 0.5 * size),
            (head[0] + 0.3 * size, head[1] - 0.5 * size),
            (head[0], head[1] - 0.78 * size),
        ]
        canvas.polygon(cap, light.tone(colour, 0.5, z), Label.POLE)
        canvas.shine((head[0], head[1] - 0.25 * size), 0.5 * size, (190, 150, 80))
        return
    _pole(canvas, x, z, 6.4, 0.16, colour)
    arm = [camera.project(x, 6.3, z), camera.project(x - side * 0.5, 6.7, z), camera.project(x - side * 1.5, 6.8, z)]
    canvas.stroke(arm, max(2.0, 0.1 * size), light.tone(colour, 0.6, z), Label.POLE)
    tip = arm[-1]
    canvas.stroke(
        [tip, (tip[0] - side * 0.45 * size, tip[1] + 0.03 * size)],
        max(2.0, 0.2 * size),
        light.tone(scale(colour, 0.85), 0.5, z),
        Label.POLE,
    )
    canvas.stroke(
        [(tip[0], tip[1] + 0.09 * size), (tip[0] - side * 0.4 * size, tip[1] + 0.1 * size)], max(1.0, 0.07 * size), bulb
    )
    canvas.shine((tip[0] - side * 0.2 * size, tip[1]), 0.5 * size, (190, 150, 80))


def _ring(centre: Point, radius: float, corners: int, start: float = 0.0) -> list[Point]:
    angles = [start + 2 * math.pi * n / corners for n in range(corners)]
    return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def draw_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float, pole: Colour) -> None:
    """A pole with one or two plates: round, triangular, eight-cornered or square."""
    light, camera = canvas.light, canvas.camera
    _pole(canvas, x, z, 2.75, 0.09, pole)
    size = camera.span(1.0, z)
    for plate in range(int(rng.integers(1, 3))):
        shape, main = int(rng.integers(5)), SIGN_COLOURS[int(rng.integers(5))]
        high = 2.5 - 0.78 * plate
        centre = camera.project(x, high, z)
        inner = mix(main, (250, 250, 246), 0.92) if rng.random() < 0.6 else scale(main, 0.92)
        outline = {
            0: _ring(centre, 0.38 * size, 20), 1: _ring(centre, 0.44 * size, 3, -math.pi / 2),
            2: _ring(centre, 0.4 * size, 8, math.pi / 8), 3: _ring(centre, 0.48 * size, 4, math.pi / 4),
            4: _ring(centre, 0.44 * size, 3, math.pi / 2),
        }[shape]  # fmt: skip
        canvas.polygon(outline, light.tone(main, 0.7, z), Label.TRAFFIC_SIGN)
        middle = (sum(p[0] for p in outline) / len(outline), sum(p[1] for p in outline) / len(outline))
        canvas.polygon(
            [(middle[0] + 0.74 * (a - middle[0]), middle[1] + 0.74 * (b - middle[1])) for a, b in outline],
            light.tone(inner, 0.7, z),
        )
        mark = light.tone(scale(main, 0.5), 0.7, z)
        if rng.random() < 0.5:
            canvas.stroke(
                [(middle[0] - 0.17 * size, middle[1]), (middle[0] + 0.17 * size, middle[1])], 0.09 * size, mark
            )
        else:
            canvas.stroke(
                [(middle[0], middle[1] + 0.13 * size), (middle[0], middle[1] - 0.15 * size)], 0.08 * size, mark
            )


def draw_traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float, pole: Colour) -> None:
    """A pole with a signal head of three lamps, one of them on."""
    light, camera = canvas.light, canvas.camera
    _pole(canvas, x, z, 3.4, 0.14, pole)
    size = camera.span(1.0, z)
    top = camera.project(x, 3.75, z)
    half, tall = 0.24 * size, 1.25 * size
    box = [
        (top[0] - half, top[1]),
        (top[0] + half, top[1]),
        (top[0] + half, top[1] + tall),
        (top[0] - half, top[1] + tall),
    ]
    canvas.polygon(box, light.tone((50, 54, 52), 0.5, z), Label.TRAFFIC_LIGHT)
    on = int(rng.integers(3))
    for lamp, (bright, dull) in enumerate(
        (((255, 64, 52), (104, 40, 38)), ((255, 196, 60), (110, 88, 40)), ((80, 240, 140), (36, 84, 58)))
    ):
        centre = (top[0], top[1] + (0.22 + 0.4 * lamp) * size)
        canvas.disc(centre, 0.15 * size, bright if lamp == on else light.tone(dull, 0.6, z))
        if lamp == on:
            canvas.shine(centre, 0.35 * size, scale(bright, 0.55))


def random_pole(rng: np.random.Generator) -> Colour:
    """The paint of a street's poles."""
    return POLE_COLOURS[int(rng.integers(len(POLE_COLOURS)))]
