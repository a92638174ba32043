"""People, riders and bicycles of a drawn street: jointed figures of strokes with round ends."""

import math
from dataclasses import dataclass

import numpy as np

from pixelwise.data.streets.buildings import any_colour
from pixelwise.data.streets.canvas import Canvas, Colour, Paint, Place, Point, mix, scale
from pixelwise.data.streets.labels import Label

SKIN: tuple[Colour, ...] = ((236, 196, 164), (206, 156, 120), (150, 104, 76), (104, 70, 52))
HAIR: tuple[Colour, ...] = ((48, 38, 34), (92, 62, 42), (196, 160, 100), (150, 146, 142), (140, 70, 44))


@dataclass(frozen=True)
class Person:
    """How someone looks: height in metres, clothes, pace and what they carry."""

    x: float
    z: float
    high: float
    heading: float  # -1 walks left, 1 right, 0 towards or away from the camera
    stride: float  # radians of the walking cycle
    coat: Colour
    legs: Colour
    skin: Colour
    hair: Colour
    skirt: bool
    bag: bool
    hat: bool
    away: bool  # seen from behind


def random_person(rng: np.random.Generator, x: float, z: float) -> Person:
    """Someone, dressed in anything."""
    child = rng.random() < 0.15
    return Person(
        x=x, z=z, high=rng.uniform(1.1, 1.4) if child else rng.uniform(1.58, 1.9),
        heading=float(rng.choice([-1.0, -0.6, 0.0, 0.0, 0.6, 1.0])), stride=rng.uniform(0, 2 * np.pi),
        coat=any_colour(rng), legs=mix(any_colour(rng), (60, 64, 84), 0.5),
        skin=SKIN[int(rng.integers(4))], hair=HAIR[int(rng.integers(5))],
        skirt=bool(rng.random() < 0.25), bag=bool(rng.random() < 0.35), hat=bool(rng.random() < 0.15),
        away=bool(rng.random() < 0.5),
    )  # fmt: skip


def draw_person(canvas: Canvas, person: Person) -> None:
    """Paint someone on foot."""
    truth, light = canvas.instance(Label.PERSON), canvas.light
    size = canvas.camera.span(person.high / 1.75, person.z)
    x, ground = canvas.camera.project(person.x, 0.0, person.z)

    def at(across: float, up: float) -> Point:
        return (x + across * size, ground - up * size)

    def tone(colour: Colour, shade: float = 0.6) -> Colour:
        return light.tone(colour, shade, person.z)

    swing = math.sin(person.stride) * (0.3 * abs(person.heading) + 0.03)
    lift = abs(math.cos(person.stride)) * 0.05
    broad = 0.17 - 0.05 * abs(person.heading)
    coat, legs, skin = tone(person.coat), tone(person.legs), tone(person.skin)
    back = tone(scale(person.coat, 0.78), 0.4)
    canvas.stroke(
        [at(-broad, 1.4), at(-broad - 0.06 - swing * 0.5, 1.12), at(-broad - swing * 0.9, 0.88)],
        0.1 * size,
        back,
        truth,
    )
    for step, shoe, shade in ((-swing, 0.0, 0.35), (swing, lift, 0.7)):
        hip = math.copysign(0.075 * (1 - 0.6 * abs(person.heading)), step or 1)
        knee, foot = (
            at(hip + step * 0.6, 0.5 + shoe),
            at(hip + step * 1.1 - 0.1 * person.heading * (step < 0), 0.07 + shoe * 0.6),
        )
        canvas.stroke([at(hip, 0.9), knee, foot], 0.135 * size, tone(person.legs, shade), truth)
        canvas.stroke(
            [foot, (foot[0] + 0.1 * size * (person.heading or 0.3 * hip), foot[1] + 0.01 * size)],
            0.1 * size,
            tone((52, 46, 44), shade),
            truth,
        )
    if person.skirt:
        canvas.polygon([at(-broad, 1.0), at(broad, 1.0), at(broad + 0.12, 0.52), at(-broad - 0.12, 0.52)], legs, truth)
    torso = [
        at(-broad, 1.46),
        at(broad, 1.46),
        at(broad + 0.05, 1.3),
        at(broad + 0.01, 0.86),
        at(-broad - 0.01, 0.86),
        at(-broad - 0.05, 1.3),
    ]
    canvas.polygon(torso, coat, truth)
    half = [
        at(0.02, 1.44),
        at(light.side * broad, 1.44),
        at(light.side * (broad + 0.03), 1.3),
        at(light.side * broad, 0.88),
        at(0.02, 0.88),
    ]
    canvas.polygon(half, tone(person.coat, 0.95))
    canvas.stroke(
        [at(broad, 1.4), at(broad + 0.07 + swing * 0.4, 1.14), at(broad + 0.02 + swing, 0.9)],
        0.1 * size,
        tone(scale(person.coat, 0.9)),
        truth,
    )
    canvas.disc(at(broad + 0.02 + swing, 0.87), 0.05 * size, skin, truth)
    _head(canvas, person, at, tone, size, truth)
    if person.bag:
        canvas.polygon(
            [at(broad + 0.02, 0.98), at(broad + 0.22, 0.98), at(broad + 0.24, 0.68), at(broad, 0.68)],
            tone(scale(person.legs, 1.3)),
            truth,
        )


def _head(canvas: Canvas, person: Person, at: Place, tone: Paint, size: float, truth: int) -> None:
    lean = 0.03 * person.heading
    canvas.stroke([at(0, 1.45), at(lean, 1.54)], 0.09 * size, tone(scale(person.skin, 0.85)), truth)
    canvas.disc(at(lean, 1.64), 0.115 * size, tone(person.hair), truth)
    if not person.away or person.heading:
        canvas.disc(at(lean + 0.035 * (person.heading or 0.3), 1.615), 0.085 * size, tone(person.skin), truth)
    if person.hat:
        canvas.stroke([at(lean - 0.13, 1.7), at(lean + 0.13, 1.7)], 0.05 * size, tone(person.coat), truth)
        canvas.polygon(
            [at(lean - 0.09, 1.7), at(lean + 0.09, 1.7), at(lean + 0.07, 1.8), at(lean - 0.07, 1.8)],
            tone(person.coat),
            truth,
        )


@dataclass(frozen=True)
class Bicycle:
    """A bicycle at X, Z; `turn` 0 points away from the camera, pi/2 to the right."""

    x: float
    z: float
    turn: float
    paint: Colour


def draw_bicycle(canvas: Canvas, bicycle: Bicycle) -> None:
    """Paint a bicycle; the id covers the whole wheels, as annotators outline them."""
    truth, light, camera = canvas.instance(Label.BICYCLE), canvas.light, canvas.camera
    size = camera.span(1.0, bicycle.z)
    sin, cos = math.sin(bicycle.turn), math.cos(bicycle.turn)

    def at(along: float, up: float, across: float = 0.0) -> Point:
        return camera.project(bicycle.x + along * sin + across * cos, up, bicycle.z + along * cos - across * sin)

    tyre, metal = light.tone((38, 38, 40), 0.4, bicycle.z), light.tone((176, 178, 182), 0.7, bicycle.z)
    paint = light.tone(bicycle.paint, 0.7, bicycle.z)
    turn = np.linspace(0, 2 * np.pi, 25)
    for hub in (-0.52, 0.52):
        rim = [at(hub + 0.33 * math.cos(t), 0.34 + 0.33 * math.sin(t)) for t in turn]
        spokes = mix(metal, tyre, 0.3)
        x, y = at(hub, 0.34)
        row, column = int(np.clip(y, 0, canvas.ids.shape[0] - 1)), int(np.clip(x, 0, canvas.ids.shape[1] - 1))
        behind: Colour = tuple(float(c) for c in canvas.image[row, column])  # type: ignore[assignment]
        canvas.polygon(rim, mix(behind, spokes, 0.25), truth)
        for number in range(0, 24, 3):
            canvas.stroke([rim[number], (x, y)], 0.008 * size, mix(behind, spokes, 0.8))
        canvas.stroke(rim, 0.05 * size, tyre, truth)
    crank, seat, head, rear, front = (-0.05, 0.3), (-0.18, 0.82), (0.36, 0.86), (-0.52, 0.34), (0.52, 0.34)
    for a, b in ((rear, crank), (crank, seat), (seat, rear), (crank, head), (seat, head), (head, front)):
        canvas.stroke([at(*a), at(*b)], 0.055 * size, paint, truth)
    canvas.stroke([at(-0.3, 0.9), at(-0.06, 0.9)], 0.07 * size, tyre, truth)
    canvas.stroke([at(-0.18, 0.82), at(-0.18, 0.9)], 0.04 * size, metal, truth)
    canvas.stroke([at(0.36, 0.86), at(0.34, 1.02)], 0.04 * size, metal, truth)
    canvas.stroke([at(0.34, 1.02, -0.26), at(0.34, 1.02, 0.26)], 0.045 * size, tyre, truth)


def draw_rider(canvas: Canvas, bicycle: Bicycle, person: Person) -> None:
    """Paint a bicycle with someone on it: two instances, of bicycle and of rider."""
    camera, light = canvas.camera, canvas.light
    size = camera.span(1.0, bicycle.z)
    sin, cos = math.sin(bicycle.turn), math.cos(bicycle.turn)

    def at(along: float, up: float, across: float = 0.0) -> Point:
        return camera.project(bicycle.x + along * sin + across * cos, up, bicycle.z + along * cos - across * sin)

    def tone(colour: Colour, shade: float = 0.65) -> Colour:
        return light.tone(colour, shade, bicycle.z)

    draw_bicycle(canvas, bicycle)
    truth = canvas.instance(Label.RIDER)
    pedal = 0.17 * math.sin(person.stride)
    for across, foot_up, shade in ((-0.1, 0.3 - pedal, 0.35), (0.1, 0.3 + pedal, 0.75)):
        knee = at(0.2, 0.62 + (foot_up - 0.3) * 0.9, across * 1.1)
        foot = at(-0.02, foot_up, across)
        canvas.stroke([at(-0.16, 0.95, across * 0.8), knee, foot], 0.14 * size, tone(person.legs, shade), truth)
        canvas.stroke([foot, at(0.12, foot_up - 0.01, across)], 0.09 * size, tone((48, 44, 44), shade), truth)
    shoulder = (0.12, 1.42)
    canvas.stroke(
        [at(*shoulder, -0.17), at(0.22, 1.15, -0.2), at(0.34, 1.04, -0.22)],
        0.09 * size,
        tone(scale(person.coat, 0.75), 0.4),
        truth,
    )
    for across in (-0.08, 0.08):
        canvas.stroke([at(-0.17, 0.98, across), at(*shoulder, across * 1.4)], 0.24 * size, tone(person.coat), truth)
    canvas.stroke([at(-0.1, 1.05, 0.06), at(shoulder[0], 1.38, 0.09)], 0.1 * size, tone(person.coat, 0.95))
    canvas.stroke(
        [at(*shoulder, 0.17), at(0.24, 1.16, 0.2), at(0.34, 1.04, 0.22)],
        0.09 * size,
        tone(scale(person.coat, 0.9), 0.7),
        truth,
    )
    canvas.stroke([at(0.15, 1.45), at(0.18, 1.54)], 0.09 * size, tone(person.skin), truth)
    canvas.disc(at(0.2, 1.62), 0.115 * size, tone(person.coat if person.hat else person.hair), truth)
    if cos < 0.5:  # else the rider is seen from behind
        canvas.disc(at(0.24, 1.6), 0.085 * size, tone(person.skin), truth)
    if person.hat:
        helmet = at(0.19, 1.69)
        canvas.stroke(
            [(helmet[0] - 0.08 * size, helmet[1]), (helmet[0] + 0.08 * size, helmet[1])],
            0.1 * size,
            tone(scale(person.legs, 1.4)),
            truth,
        )
