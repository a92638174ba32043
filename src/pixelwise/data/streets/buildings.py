"""The houses of a drawn street: a flat front with windows, doors and shops, laid on a wall in perspective."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from pixelwise.data.streets import textures
from pixelwise.data.streets.canvas import Canvas, Colour, mix, scale
from pixelwise.data.streets.labels import Label

# One palette for walls, cars, clothes and surfaces alike: colour alone must not tell the classes apart.
PALETTE: tuple[Colour, ...] = (
    (178, 92, 70), (205, 186, 150), (232, 226, 212), (120, 122, 126), (150, 168, 184), (214, 164, 104),
    (98, 112, 92), (92, 98, 122), (186, 130, 120), (70, 72, 78), (224, 206, 128), (126, 150, 128),
    (160, 70, 62), (118, 152, 190), (196, 198, 200), (142, 110, 84), (88, 128, 84), (240, 236, 228),
)  # fmt: skip

Tone = Callable[[Colour], Colour]
Box = Callable[[float, float, float, float, Colour], None]  # left, bottom, right, top in metres


def any_colour(rng: np.random.Generator) -> Colour:
    """A palette colour, jittered."""
    base = PALETTE[int(rng.integers(len(PALETTE)))]
    factor = rng.uniform(0.75, 1.12)
    red, green, blue = (min(max(c * factor + j, 18.0), 250.0) for c, j in zip(base, rng.uniform(-12, 12, 3).tolist()))
    return red, green, blue


@dataclass(frozen=True)
class House:
    """A house along the street (`side` -1 left, 1 right) or across its end (`side` 0), in metres."""

    side: int
    x: float  # X of the front (side -1, 1), or of its left edge (side 0)
    near: float  # Z of the nearer corner
    long: float
    high: float
    roof: float  # height of a pitched roof, 0 for a flat one
    wall: Colour
    trim: Colour
    cover: Colour  # roof
    material: str
    shop: bool
    storey: float
    bay: float  # distance between windows


def random_house(rng: np.random.Generator, side: int, x: float, near: float, *, tall: float) -> House:
    """A house of a style of its own; `tall` scales the neighbourhood."""
    storey, floors = rng.uniform(2.8, 3.6), int(rng.integers(2, 6))
    pitched = floors <= 3 and rng.random() < 0.75
    wall = any_colour(rng)
    return House(
        side=side, x=x, near=near, long=rng.uniform(7, 15), high=storey * floors * tall + 0.8,
        roof=rng.uniform(2.2, 4.2) if pitched else 0.0, wall=wall,
        trim=mix(wall, (244, 240, 230), rng.uniform(0.3, 0.9)) if rng.random() < 0.7 else scale(wall, 0.6),
        cover=[(150, 78, 58), (84, 86, 96), (110, 74, 62), (128, 128, 130)][int(rng.integers(4))],
        material=["brick", "brick", "plaster", "plaster", "stone", "metal"][int(rng.integers(6))],
        shop=bool(rng.random() < 0.45), storey=storey * tall, bay=rng.uniform(1.9, 3.0),
    )  # fmt: skip


def facade(rng: np.random.Generator, house: House, scale_px: float, tone: Tone, *, dark: bool) -> np.ndarray:
    """The front seen square on: `[h, w, 3]` uint8 at `scale_px` pixels a metre, lit by `tone`."""
    height, width = max(8, int(house.high * scale_px)), max(8, int(house.long * scale_px))
    halvings = 2 if scale_px <= 8 else int(scale_px <= 16)
    tile = textures.masonry(house.material, halvings)
    top, left = (int(v) for v in rng.integers(0, textures.TILE, 2))
    ratio = (32 >> halvings) / scale_px
    grey: textures.Grey = textures.crop(tile, top, left, max(2, int(height * ratio)), max(2, int(width * ratio)))
    front = textures.tint(np.asarray(cv2.resize(grey, (width, height)), np.uint8), tone(house.wall))

    def box(x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Metres from the left edge and up from the ground; what is far below a pixel is left out."""
        if min(x1 - x0, y1 - y0) * scale_px < 0.7:
            return
        corner = (int(x0 * scale_px), height - int(y1 * scale_px))
        opposite = (max(int(x1 * scale_px) - 1, corner[0]), max(height - int(y0 * scale_px) - 1, corner[1]))
        cv2.rectangle(front, corner, opposite, colour, -1)

    trim, shadow = tone(house.trim), scale(tone(house.wall), 0.72)
    glass = tone(mix((74, 88, 104), house.wall, 0.12))
    floors = max(1, int((house.high - 0.6) / house.storey))
    bays = max(1, int((house.long - 0.6) / house.bay))
    step, margin = (house.long - 0.6) / bays, 0.3
    wide, tall = step * rng.uniform(0.42, 0.66), house.storey * rng.uniform(0.48, 0.64)
    style = int(rng.integers(4))
    for floor in range(1, floors):
        sill = floor * house.storey + 0.75 * (house.storey - tall)
        if style == 0:
            box(0, floor * house.storey - 0.08, house.long, floor * house.storey + 0.1, trim)
        for bay in range(bays):
            _window(
                box,
                rng,
                (margin + step * (bay + 0.5) - wide / 2, sill, wide, tall),
                style,
                (trim, shadow, glass, tone(house.cover)),
                dark,
            )
    _ground_floor(box, rng, house, (trim, shadow, glass), tone, (bays, step, margin), dark)
    if not house.roof:
        box(0, house.high - 0.5, house.long, house.high, trim)
        box(0, house.high - 0.62, house.long, house.high - 0.5, shadow)
    else:
        box(0, house.high - 0.2, house.long, house.high, scale(trim, 0.8))
    return front


def _window(
    box: Box,
    rng: np.random.Generator,
    place: tuple[float, float, float, float],
    style: int,
    paints: tuple[Colour, ...],
    dark: bool,
) -> None:
    """One window at `place` (left, sill, width, height): frame, pane, curtain, bar, sill, perhaps shutters."""
    x, y, wide, tall = place
    trim, shadow, glass, shutter = paints
    lit = dark and rng.random() < 0.45
    pane = (255.0, rng.uniform(190, 225), rng.uniform(110, 160)) if lit else scale(glass, rng.uniform(0.75, 1.3))
    box(x - 0.12, y - 0.12, x + wide + 0.12, y + tall + 0.14, trim)
    box(x, y, x + wide, y + tall, pane)
    if rng.random() < 0.4:
        box(x, y + tall * rng.uniform(0.4, 0.8), x + wide, y + tall, mix(pane, trim, 0.6))
    if not lit:
        box(x, y, x + wide * 0.4, y + tall, mix(pane, (255, 255, 255), 0.1))
    box(x + wide / 2 - 0.035, y, x + wide / 2 + 0.035, y + tall, trim)
    box(x, y + tall * 0.62, x + wide, y + tall * 0.62 + 0.06, trim)
    box(x - 0.2, y - 0.2, x + wide + 0.2, y - 0.08, trim)
    box(x - 0.15, y - 0.3, x + wide + 0.15, y - 0.2, shadow)
    if style == 1:
        box(x - 0.12 - wide * 0.36, y - 0.05, x - 0.12, y + tall + 0.05, shutter)
        box(x + wide + 0.12, y - 0.05, x + wide * 1.36 + 0.12, y + tall + 0.05, shutter)
    if style == 2:
        box(x - 0.2, y - 0.1, x + wide + 0.2, y + tall * 0.32, scale(shadow, 0.8))
        for bar in np.arange(x - 0.2, x + wide + 0.2, 0.22):
            box(bar, y - 0.1, bar + 0.08, y + tall * 0.34, scale(trim, 0.85))


def _ground_floor(
    box: Box,
    rng: np.random.Generator,
    house: House,
    paints: tuple[Colour, ...],
    tone: Tone,
    grid: tuple[int, float, float],
    dark: bool,
) -> None:
    """A shop with awning and name board, or a plinth, a door and windows."""
    trim, shadow, glass = paints
    bays, step, margin = grid
    high = house.storey * 0.72
    accent = tone(any_colour(rng))
    box(0, 0, house.long, 0.5, shadow)
    door = int(rng.integers(bays))
    shop_pane = (255.0, 220.0, 160.0) if dark else scale(glass, 1.1)
    for bay in range(bays):
        x = margin + step * bay
        if bay == door:
            box(x + step * 0.22, 0, x + step * 0.78, high + 0.12, trim)
            box(x + step * 0.28, 0.05, x + step * 0.72, high, scale(accent, 0.8))
            box(x + step * 0.34, high * 0.55, x + step * 0.66, high * 0.92, glass)
        elif house.shop:
            box(x + 0.08, 0.4, x + step - 0.08, high, shop_pane)
            box(x + 0.08, 0.4, x + step * 0.45, high, mix(shop_pane, (255, 255, 255), 0.12))
            for _ in range(3):
                left = x + rng.uniform(0.1, 0.7) * step
                box(left, 0.45, left + 0.3, rng.uniform(0.8, 1.5), mix(accent, shop_pane, 0.4))
        else:
            _window(box, rng, (x + step * 0.25, 0.95, step * 0.5, high - 0.95), 0, (trim, shadow, glass, accent), dark)
    if house.shop:
        box(margin, high + 0.1, house.long - margin, high + 0.75, accent)
        for word in range(int(house.long // 3)):
            box(1 + word * 2.6, high + 0.3, 2.6 + word * 2.6, high + 0.5, mix(accent, (250, 245, 230), 0.8))
        if rng.random() < 0.7:
            stripe = np.arange(margin, house.long - margin, 0.5)
            for number, x in enumerate(stripe):
                box(x, high - 0.55, x + 0.5, high + 0.12, accent if number % 2 else scale(trim, 1.05))


def draw_house(canvas: Canvas, rng: np.random.Generator, house: House) -> None:
    """Paint a house: gable wall towards the camera, roof, then its front."""
    camera, light, project = canvas.camera, canvas.light, canvas.camera.project
    middle = house.near + (house.long / 2 if house.side else 0)
    shade = 0.45 if not house.side else (0.12 if house.side == light.side else 1.0)

    def tone(colour: Colour) -> Colour:
        return light.tone(colour, shade, middle)

    ends = [
        project(house.x, 0, max(house.near, 1.2))[0],
        project(house.x + (0 if house.side else house.long), 0, house.near + (house.long if house.side else 0))[0],
    ]
    if max(ends) < -200 or min(ends) > canvas.ids.shape[1] + 200:
        return
    pixels = float(np.clip(camera.focal / max(middle, 4.0) * 1.1, 4, 26))
    front = facade(rng, house, pixels, tone, dark=light.dark)
    truth = int(Label.BUILDING)
    if house.side == 0:
        far, x0, x1 = house.near, house.x, house.x + house.long
        if house.roof:
            inset = min(1.5, house.long / 4)
            points = [
                (x0 - 0.3, house.high),
                (x1 + 0.3, house.high),
                (x1 - inset, house.high + house.roof),
                (x0 + inset, house.high + house.roof),
            ]
            canvas.polygon([project(x, y, far) for x, y in points], light.tone(house.cover, 0.6, far), truth)
        corners = [(x0, house.high), (x1, house.high), (x1, 0.0), (x0, 0.0)]
        canvas.surface(front, [project(x, y, far) for x, y in corners], truth)
        return
    near, far, x = max(house.near, 1.2), house.near + house.long, house.x
    if far <= near + 0.2:
        return
    _gable(canvas, house, near)
    if house.roof:
        ridge, top = x + house.side * 3.5, house.high + house.roof
        roof = [
            project(x - house.side * 0.3, house.high, near),
            project(x - house.side * 0.3, house.high, far),
            project(ridge, top, far),
            project(ridge, top, near),
        ]
        canvas.polygon(roof, light.tone(house.cover, 0.15 if house.side == light.side else 0.95, middle), truth)
    shown = front[:, int((near - house.near) / house.long * front.shape[1]) :]
    if house.side > 0:  # on the right the near end of the front is its right end
        shown = shown[:, ::-1]
        quad = [project(x, house.high, far), project(x, house.high, near), project(x, 0, near), project(x, 0, far)]
    else:
        quad = [project(x, house.high, near), project(x, house.high, far), project(x, 0, far), project(x, 0, near)]
    if quad[1][0] - quad[0][0] > 0.5:
        canvas.surface(np.ascontiguousarray(shown), quad, truth)


def _gable(canvas: Canvas, house: House, near: float) -> None:
    """The wall that faces the camera, seen where the nearer neighbour is lower or missing."""
    project, light = canvas.camera.project, canvas.light
    deep, x = house.side * 9.0, house.x
    outline = [(x, 0.0), (x, house.high), (x + deep, house.high), (x + deep, 0.0)]
    if house.roof:
        outline = [
            (x, 0.0),
            (x, house.high),
            (x + deep * 0.39, house.high + house.roof),
            (x + deep * 0.78, house.high),
            (x + deep * 0.78, 0.0),
        ]
    canvas.polygon(
        [project(a, b, near) for a, b in outline], light.tone(scale(house.wall, 0.85), 0.4, near), int(Label.BUILDING)
    )
    for floor in range(1, max(1, int(house.high / house.storey))):
        bottom = floor * house.storey + 0.8
        for left in (2.2, 5.0):
            corners = [(left, bottom), (left + 0.9, bottom), (left + 0.9, bottom + 1.3), (left, bottom + 1.3)]
            points = [project(x + house.side * a, b, near) for a, b in corners]
            canvas.polygon(points, light.tone((80, 92, 106), 0.4, near))
