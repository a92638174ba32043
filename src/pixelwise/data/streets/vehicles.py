"""Cars of a drawn street: a side profile pulled across the width, each face painted where it faces the camera."""

import math
from dataclasses import dataclass

import numpy as np

from pixelwise.data.streets.canvas import Canvas, Colour, Paint, Place, Point, mix, scale
from pixelwise.data.streets.labels import Label


@dataclass(frozen=True)
class Body:
    """A side profile from rear bottom over the roof to front bottom, as (metres from the rear, metres up)."""

    profile: tuple[Point, ...]
    rear_glass: int  # index of the profile edge that is the rear window
    front_glass: int
    windows: tuple[tuple[Point, ...], ...]
    wheels: tuple[float, float]
    radius: float
    wide: float


BODIES: dict[str, Body] = {
    "hatchback": Body(
        ((0.0, 0.24), (0.0, 0.82), (0.1, 0.95), (0.5, 1.42), (0.8, 1.5), (1.9, 1.48), (2.75, 1.0), (3.6, 0.86),
         (3.85, 0.62), (3.85, 0.24)),
        2, 5,
        (((0.45, 0.98), (0.68, 1.38), (1.3, 1.41), (1.3, 0.98)), ((1.4, 0.98), (1.4, 1.41), (1.86, 1.4),
         (2.55, 0.99))),
        (0.72, 3.1), 0.31, 1.66,
    ),
    "saloon": Body(
        ((0.0, 0.24), (0.0, 0.82), (0.08, 0.96), (0.75, 1.0), (1.35, 1.4), (1.6, 1.45), (2.5, 1.43),
         (3.3, 0.98), (4.3, 0.84), (4.5, 0.6), (4.5, 0.24)),
        3, 6,
        (((1.0, 1.0), (1.45, 1.36), (1.95, 1.38), (1.95, 1.0)), ((2.05, 1.0), (2.05, 1.38), (2.46, 1.36),
         (3.05, 0.99))),
        (0.9, 3.65), 0.32, 1.76,
    ),
    "estate": Body(
        ((0.0, 0.26), (0.0, 0.85), (0.06, 1.0), (0.3, 1.56), (0.6, 1.66), (2.5, 1.62), (3.3, 1.08), (4.3, 0.94),
         (4.5, 0.66), (4.5, 0.26)),
        2, 5,
        (((0.3, 1.08), (0.45, 1.5), (1.1, 1.54), (1.1, 1.08)), ((1.2, 1.08), (1.2, 1.54), (1.9, 1.54),
         (1.9, 1.08)), ((2.0, 1.08), (2.0, 1.54), (2.46, 1.52), (3.1, 1.08))),
        (0.85, 3.65), 0.35, 1.84,
    ),
    "van": Body(
        ((0.0, 0.28), (0.0, 1.05), (0.02, 1.2), (0.12, 1.9), (0.35, 2.0), (3.3, 1.98), (4.1, 1.15), (4.7, 1.0),
         (4.85, 0.7), (4.85, 0.28)),
        2, 5,
        (((2.6, 1.2), (2.6, 1.82), (3.25, 1.82), (3.85, 1.2)),),
        (0.95, 3.95), 0.34, 1.9,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Car:
    """A car whose middle stands at X, Z; `turn` 0 drives away from the camera, pi comes towards it."""

    body: Body
    x: float
    z: float
    turn: float
    paint: Colour
    lights: bool


def _area(points: list[Point]) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, points[1:] + points[:1], strict=True))


def draw_car(canvas: Canvas, car: Car) -> None:
    """Paint a car; the id covers body, glass and wheels."""
    left, right = canvas.camera.project(car.x - 2.6, 0, car.z)[0], canvas.camera.project(car.x + 2.6, 0, car.z)[0]
    if car.z > 5 and (right < 0 or left > canvas.ids.shape[1]):
        return
    truth = canvas.instance(Label.CAR)
    body, light, camera = car.body, canvas.light, canvas.camera
    sin, cos = math.sin(car.turn), math.cos(car.turn)
    half, middle = body.wide / 2, body.profile[-1][0] / 2

    def at(along: float, up: float, across: float) -> Point:
        forward = along - middle
        # Cabins lean inwards: above the window sill a car is narrower.
        across *= 1.0 - 0.2 * max(0.0, up - 0.98)
        return camera.project(car.x + forward * sin + across * cos, up, car.z + forward * cos - across * sin)

    def tone(colour: Colour, shade: float) -> Colour:
        return light.tone(colour, shade, car.z)

    glass = mix((52, 60, 72), car.paint, 0.1)
    below = [
        at(0.1, 0.12, -half),
        at(0.1, 0.12, half),
        at(2 * middle - 0.1, 0.12, half),
        at(2 * middle - 0.1, 0.12, -half),
    ]
    canvas.polygon(below, tone((24, 24, 26), 0.1))
    for side in (-half, half):
        _wheels(canvas, car, at, tone, side * 0.92, truth, rim=False)
    for edge in range(len(body.profile) - 1):
        _face(canvas, car, edge, at, tone, glass, truth)
    for side in (-half, half):
        outline = [at(along, up, side) for along, up in body.profile]
        if _area(outline) * side <= 0:
            continue
        facing = cos * math.copysign(1, side)  # above 0 this flank looks to the right
        shade = 0.75 if facing * light.side > 0 else 0.15
        canvas.polygon(outline, tone(car.paint, shade), truth)
        low = [
            (along, min(up, 0.52))
            for along, up in (body.profile[0], body.profile[1], body.profile[-2], body.profile[-1])
        ]
        canvas.polygon([at(a, u, side) for a, u in low], tone(scale(car.paint, 0.78), shade), truth)
        for window in body.windows:
            pane = [at(along, up, side) for along, up in window]
            canvas.polygon(pane, tone(glass, shade))
            canvas.polygon(
                [pane[0], between(pane[0], pane[1], 0.9), between(pane[0], pane[-1], 0.35)],
                tone(mix(glass, (255, 255, 255), 0.22), shade),
            )
        canvas.stroke(
            [at(0.15, 0.94, side), at(2 * middle - 1.2, 0.92, side)],
            camera.span(0.025, car.z),
            tone(scale(car.paint, 0.7), shade),
        )
        _wheels(canvas, car, at, tone, side, truth, rim=True)


def between(one: Point, other: Point, share: float) -> Point:
    """The point `share` of the way from one to the other."""
    return (one[0] + (other[0] - one[0]) * share, one[1] + (other[1] - one[1]) * share)


def _face(canvas: Canvas, car: Car, edge: int, at: Place, tone: Paint, glass: Colour, truth: int) -> None:
    """The strip across the car between two points of the profile, if it faces the camera."""
    body, half = car.body, car.body.wide / 2
    (a0, u0), (a1, u1) = body.profile[edge], body.profile[edge + 1]
    quad = [at(a0, u0, -half), at(a0, u0, half), at(a1, u1, half), at(a1, u1, -half)]
    if _area(quad) >= 0:
        return
    flat = abs(a1 - a0) / (abs(a1 - a0) + abs(u1 - u0))
    shade = 0.35 + 0.6 * flat
    canvas.polygon(quad, tone(car.paint, shade), truth)

    def part(x0: float, y0: float, x1: float, y1: float, colour: Colour) -> list[Point]:
        """A piece of the strip: x across 0..1, y along the profile edge 0..1."""
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        points = [between(between(quad[0], quad[1], x), between(quad[3], quad[2], x), y) for x, y in corners]
        canvas.polygon(points, colour)
        return points

    if edge in (body.rear_glass, body.front_glass):
        part(0.08, 0.1, 0.92, 0.9, tone(glass, shade))
        part(0.12, 0.12, 0.4, 0.88, tone(mix(glass, (255, 255, 255), 0.15), shade))
    elif edge == 0:  # tail
        part(0.02, 0.0, 0.98, 0.35, tone(scale(car.paint, 0.62), shade))
        part(0.36, 0.42, 0.64, 0.6, tone((236, 232, 214), 0.5))
        for x in (0.03, 0.8):
            lamp = part(x, 0.55, x + 0.17, 0.88, (236, 52, 44) if car.lights else tone((176, 40, 36), shade))
            if car.lights:
                canvas.shine(lamp[0], canvas.camera.span(0.2, car.z), (150, 20, 14))
    elif edge == len(body.profile) - 2:  # nose
        part(0.02, 0.72, 0.98, 1.0, tone(scale(car.paint, 0.55), shade))
        part(0.28, 0.3, 0.72, 0.62, tone((40, 40, 44), shade))
    elif edge == len(body.profile) - 3:
        for x in (0.03, 0.79):
            lamp = part(x, 0.15, x + 0.18, 0.95, (255, 246, 214) if car.lights else tone((226, 228, 230), 0.8))
            if car.lights:
                canvas.shine(lamp[0], canvas.camera.span(0.3, car.z), (160, 150, 110))


def _wheels(canvas: Canvas, car: Car, at: Place, tone: Paint, side: float, truth: int, *, rim: bool) -> None:
    turn = np.linspace(0, 2 * np.pi, 18 if car.z < 14 else 9, endpoint=False)
    circle = list(zip(np.cos(turn).tolist(), np.sin(turn).tolist(), strict=True))
    for along in car.body.wheels:
        for share, colour in (
            ((1.0, (34, 34, 36)), (0.62, (150, 152, 156)), (0.3, (70, 72, 76))) if rim else ((1.0, (26, 26, 28)),)
        ):
            r = car.body.radius * share
            points = [at(along + c * r, car.body.radius + s * r, side) for c, s in circle]
            canvas.polygon(points, tone(colour, 0.45), truth if share == 1.0 else None)


def footprint(car: Car, grow: float = 0.12) -> list[tuple[float, float]]:
    """The ground under a car, as (X, Z) metres."""
    sin, cos = math.sin(car.turn), math.cos(car.turn)
    half, middle = car.body.wide / 2 + grow, car.body.profile[-1][0] / 2 + grow
    corners = ((-middle, -half), (-middle, half), (middle, half), (middle, -half))
    return [(car.x + f * sin + a * cos, car.z + f * cos - a * sin) for f, a in corners]
