"""One drawn street: what stands where, in which light, painted far to near, then photographed."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pixelwise.data.streets import textures
from pixelwise.data.streets.backdrop import Ground, cast, darken, draw_ground, draw_markings, draw_sky
from pixelwise.data.streets.buildings import House, any_colour, draw_house, random_house
from pixelwise.data.streets.canvas import Camera, Canvas, Colour, Light, mix, scale
from pixelwise.data.streets.furniture import draw_lamp, draw_sign, draw_traffic_light, random_pole
from pixelwise.data.streets.labels import THINGS, Label
from pixelwise.data.streets.people import Bicycle, draw_bicycle, draw_person, draw_rider, random_person
from pixelwise.data.streets.plants import draw_hedge, draw_tree, random_tree, row_leaf
from pixelwise.data.streets.vehicles import BODIES, Car, draw_car, footprint
from pixelwise.errors import ConfigError

Rng = np.random.Generator
Item = tuple[float, Callable[[], None]]  # distance of the far end in metres, and what paints it

SMALLEST = 16  # pixels; below this a street has nothing left to see
_OVERSAMPLE = 2
# A car is long, and painted at the distance of its middle: what stands on the pavement beside it comes before it, what
# passes it on the road after it, by half a car.
BESIDE = 2.3


@dataclass(frozen=True)
class Scene:
    """A drawn street.

    `image [H, W, 3]` uint8 RGB; `label_ids [H, W]` uint8 Cityscapes label ids; `instance_ids [H, W]` uint16, which is
    label * 1000 + n for the n-th car, person, rider or bicycle and the plain label elsewhere.
    """

    image: npt.NDArray[np.uint8]
    label_ids: npt.NDArray[np.uint8]
    instance_ids: npt.NDArray[np.uint16]


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
    Mood((88, 142, 208), (196, 218, 234), (250, 250, 248), (0.2, 0.6), (0.68, 0.72, 0.80), (0.56, 0.50, 0.40), (200, 214, 226), (90, 180), 0.45),
    Mood((120, 168, 214), (226, 226, 216), (252, 246, 238), (0.3, 0.8), (0.68, 0.69, 0.72), (0.58, 0.50, 0.38), (216, 216, 208), (80, 150), 0.40),
    Mood((168, 174, 182), (214, 216, 216), (232, 232, 230), (0.9, 1.2), (0.96, 0.97, 0.99), (0.14, 0.14, 0.13), (202, 206, 208), (50, 110), 0.12),
    Mood((132, 140, 150), (186, 190, 192), (200, 202, 204), (0.9, 1.3), (0.80, 0.82, 0.86), (0.10, 0.10, 0.10), (176, 182, 188), (50, 90), 0.10),
    Mood((110, 130, 182), (248, 196, 138), (255, 222, 184), (0.2, 0.7), (0.64, 0.62, 0.66), (0.64, 0.48, 0.28), (240, 198, 152), (60, 130), 0.40),
    Mood((176, 124, 142), (250, 180, 130), (252, 190, 160), (0.3, 0.8), (0.62, 0.57, 0.64), (0.54, 0.38, 0.26), (232, 178, 148), (60, 130), 0.32),
    Mood((52, 62, 108), (176, 132, 148), (112, 98, 136), (0.2, 0.8), (0.48, 0.49, 0.64), (0.10, 0.08, 0.10), (120, 108, 140), (70, 140), 0.12, True),
)  # fmt: skip


ODDS = (0.3, 0.2, 0.12, 0.08, 0.12, 0.06, 0.12)


def draw_scene(seed: int, index: int, size: tuple[int, int] = (256, 512), split: str = "train") -> Scene:
    """Draw street number `index` of a split.

    A scene depends on `seed`, `split` and `index` alone, not on how many are drawn; `size` is (height, width) in pixels,
    from 16 up, and another size shows the same street. Raises ConfigError for a smaller size or a negative number.

    >>> draw_scene(0, 3, (64, 128)).image.shape
    (64, 128, 3)
    """
    height, width = size
    if min(height, width) < SMALLEST:
        raise ConfigError(f"a street of {height}x{width} pixels was asked for; give a size from {SMALLEST}x{SMALLEST} up")
    if seed < 0 or index < 0:
        raise ConfigError(f"a street of seed {seed} and index {index} was asked for; both must be 0 or more")
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    mood = MOODS[int(rng.choice(len(MOODS), p=ODDS))]
    camera = _camera(rng, height * _OVERSAMPLE, width * _OVERSAMPLE)
    light = _light(rng, mood)
    canvas = Canvas(height * _OVERSAMPLE, width * _OVERSAMPLE, camera, light)
    draw_sky(canvas, rng, _vary(rng, mood.top), mood.low, mood.cloud, rng.uniform(*mood.cover))
    _paint_street(canvas, rng, mood)
    _paint_bonnet(canvas, rng)
    image = _photograph(canvas, rng)
    ids = _number_by_size(_vote(canvas.ids))
    labels = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
    return Scene(image, labels, ids)


def _vary(rng: Rng, colour: Colour) -> Colour:
    factor = rng.uniform(0.85, 1.12, 3)
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


def _light(rng: Rng, mood: Mood) -> Light:
    cast_r, cast_g, cast_b = rng.uniform(0.93, 1.07, 3)
    level = rng.uniform(0.88, 1.1)
    ambient = (mood.ambient[0] * cast_r * level, mood.ambient[1] * cast_g * level, mood.ambient[2] * cast_b * level)
    side = -1 if rng.random() < 0.5 else 1
    return Light(ambient, mood.sun, side, rng.uniform(0.4, 1.1), mood.haze, rng.uniform(*mood.clear), mood.dark)


def _paint_street(canvas: Canvas, rng: Rng, mood: Mood) -> None:
    lane = rng.uniform(2.9, 3.7)
    parking = [float(rng.choice([0.0, 2.1, 2.1])) for _ in range(2)]
    patterns = ["asphalt", "slabs", "slabs", "stones", "bricks"]
    road = mix(any_colour(rng), (112, 112, 116), rng.uniform(0.7, 0.95))
    ground = Ground(
        left=-lane - parking[0], right=lane + parking[1], walk=rng.uniform(2.4, 4.2), end=rng.uniform(48, 85),
        road=road, pavement=mix(any_colour(rng), scale(road, rng.uniform(0.9, 1.35)), rng.uniform(0.5, 0.9)),
        road_pattern="stones" if rng.random() < 0.22 else "asphalt",
        pavement_pattern=patterns[int(rng.integers(len(patterns)))],
    )  # fmt: skip
    crossing = rng.uniform(6, 15) if rng.random() < 0.45 else None
    shadow = np.zeros(canvas.ids.shape, np.uint8)
    items = [*_sides(canvas, rng, ground, shadow), *_end(canvas, rng, ground)]
    items += _trees(canvas, rng, ground, shadow) + _furniture(canvas, rng, ground, crossing)
    items += _traffic(canvas, rng, ground, parking, lane, shadow, crossing)
    items += _people(canvas, rng, ground, shadow, crossing) + _cyclists(canvas, rng, ground, lane, shadow)
    draw_ground(canvas, rng, ground)
    draw_markings(canvas, rng, ground, crossing)
    darken(canvas, shadow, mood.shadow)
    for _, paint in sorted(items, key=lambda item: -item[0]):
        paint()


def _sides(canvas: Canvas, rng: Rng, ground: Ground, shadow: npt.NDArray[np.uint8]) -> list[Item]:
    """Houses and, in the gaps between them, hedges and trees along both sides."""
    items: list[Item] = []
    leaf, tall = row_leaf(rng), rng.uniform(0.9, 1.25)
    for side in (-1, 1):
        front = ground.left - ground.walk if side < 0 else ground.right + ground.walk
        green = rng.random() < 0.16  # a park lies along this side
        z = rng.uniform(-9, 0)
        while z < ground.end:
            gap = green or rng.random() < 0.13
            if gap:
                long = rng.uniform(8, 14)
                items.append((z + long + BESIDE, _bind(draw_hedge, canvas, rng, front, z, z + long, rng.uniform(0.9, 1.8), leaf)))
                for place in np.arange(z + 2, z + long + 6, 4.0):
                    if place > 3:
                        tree = random_tree(rng, front + side * rng.uniform(2.0, 6.0), float(place), leaf)
                        items.append((float(place) + long + BESIDE, _bind(draw_tree, canvas, rng, tree)))
            else:
                house = random_house(rng, side, front + side * float(rng.choice([0.0, 0.0, 0.8])), z, tall=tall)
                long = house.long
                if z + long > 1.5:
                    items.append((z + long + BESIDE, _bind(draw_house, canvas, rng, house)))
                if side == canvas.light.side:
                    reach = min(house.high * canvas.light.slant * 0.7, 14.0)
                    edge = house.x - side * reach
                    cast(canvas, shadow, [(house.x, z), (edge, z + reach * 0.4), (edge, z + long + reach * 0.4), (house.x, z + long)])
            z += long
    return items


def _end(canvas: Canvas, rng: Rng, ground: Ground) -> list[Item]:
    """The row of houses or trees that closes the view."""
    items: list[Item] = []
    far = ground.end + 6
    shift = -canvas.camera.curve * far * far  # the row stands square to the camera, where the street has come to
    leaf = row_leaf(rng)
    x = -38.0 - shift
    while x < 38 - shift:
        if rng.random() < 0.3:
            tree = random_tree(rng, x + 2.5, far + rng.uniform(-1, 1), leaf)
            bush = random_tree(rng, x + 4.0, far - 1, leaf)
            items += [(far + 500, _bind(draw_tree, canvas, rng, tree)), (far + 499, _bind(draw_tree, canvas, rng, bush))]
            x += 5.0
        else:
            house: House = random_house(rng, 0, x, far, tall=1.1)
            items.append((far + 501, _bind(draw_house, canvas, rng, house)))
            x += house.long
    return items


def _trees(canvas: Canvas, rng: Rng, ground: Ground, shadow: npt.NDArray[np.uint8]) -> list[Item]:
    items: list[Item] = []
    leaf = row_leaf(rng)
    for x in (ground.left - 0.7, ground.right + 0.7):
        if rng.random() < 0.45:
            continue
        step = rng.uniform(8, 15)
        for z in np.arange(rng.uniform(6, 14), ground.end, step):
            tree = random_tree(rng, x, float(z), leaf)
            items.append((tree.z + BESIDE, _bind(draw_tree, canvas, rng, tree)))
            reach, half = (tree.trunk + tree.high / 2) * canvas.light.slant, tree.wide / 2
            turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
            centre = x - canvas.light.side * reach
            cast(canvas, shadow, [(centre + half * float(np.cos(t)), tree.z + reach * 0.3 + half * 0.8 * float(np.sin(t))) for t in turn])
            cast(canvas, shadow, [(x - 0.12, tree.z), (x + 0.12, tree.z), (centre + 0.1, tree.z + reach * 0.3), (centre - 0.1, tree.z + reach * 0.3)])
    return items


def _furniture(canvas: Canvas, rng: Rng, ground: Ground, crossing: float | None) -> list[Item]:
    items: list[Item] = []
    paint, old = random_pole(rng), bool(rng.random() < 0.35)
    for side, x in ((-1, ground.left - 0.45), (1, ground.right + 0.45)):
        if rng.random() < 0.75:
            for z in np.arange(rng.uniform(5, 16), ground.end, rng.uniform(14, 22)):
                items.append((float(z) + BESIDE, _bind_old(canvas, x, float(z), paint, old)))
        for _ in range(int(rng.integers(0, 4))):
            z = rng.uniform(5.5, 30)
            items.append((z + BESIDE, _bind(draw_sign, canvas, rng, x + side * rng.uniform(-0.1, 0.4), z, paint)))
        if crossing:
            items.append((crossing + 3.3 + BESIDE, _bind(draw_traffic_light, canvas, rng, x, crossing + 3.3, paint)))
    return items


def _traffic(canvas: Canvas, rng: Rng, ground: Ground, parking: list[float], lane: float, shadow: npt.NDArray[np.uint8], crossing: float | None) -> list[Item]:  # noqa: E501
    """Parked cars bumper to bumper, and cars driving in both lanes."""
    cars: list[Car] = []
    names = list(BODIES)

    def add(x: float, z: float, turn: float) -> float:
        body = BODIES[names[int(rng.choice(4, p=[0.38, 0.3, 0.2, 0.12]))]]
        lights = canvas.light.dark or rng.random() < 0.3
        cars.append(Car(body, x, z + body.profile[-1][0] / 2, turn, any_colour(rng), bool(lights)))
        return body.profile[-1][0]

    for side, room in zip((-1, 1), parking, strict=True):
        if not room:
            continue
        x = ground.left + 1.05 if side < 0 else ground.right - 1.05
        z = rng.uniform(2.5, 7)
        while z < 50:
            blocked = crossing is not None and z + 5 > crossing - 1 and z < crossing + 4
            if blocked or rng.random() < 0.25:
                z += 4.5
                continue
            z += add(x + rng.normal(0, 0.08), z, (np.pi if side < 0 else 0) + rng.normal(0, 0.02)) + rng.uniform(0.5, 1.3)
    for x, turn, gap in ((lane * 0.5, 0.0, 9.0), (-lane * 0.5, np.pi, 5.0)):
        z = rng.uniform(gap, 22)
        while z < 55:
            if crossing is None or not (crossing - 5 < z < crossing + 3.5):
                z += add(x + rng.normal(0, 0.15), z, turn + rng.normal(0, 0.03))
            z += rng.uniform(3, 24)
    if crossing is None and rng.random() < 0.15:  # someone turns out of a gateway, seen from the side
        add(rng.uniform(-2, 2), rng.uniform(14, 24), np.pi / 2 * float(rng.choice([-1.0, 1.0])) + rng.normal(0, 0.2))
    for car in cars:
        cast(canvas, shadow, footprint(car))
        drift = -canvas.light.side * 1.4 * canvas.light.slant
        cast(canvas, shadow, [(x + drift * 0.8, z + 0.3) for x, z in footprint(car, 0.0)])
    return [(car.z, _bind(draw_car, canvas, car)) for car in cars]


def _people(canvas: Canvas, rng: Rng, ground: Ground, shadow: npt.NDArray[np.uint8], crossing: float | None) -> list[Item]:
    """People alone and in groups on the pavements, and on the crossing."""
    places: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(4, 10))):
        side = 1 if rng.random() < 0.5 else -1
        inner = ground.right + 0.8 if side > 0 else ground.left - 0.8
        x, z = inner + side * rng.uniform(0, ground.walk - 1.2), 5.0 + 30 * rng.random() ** 1.5
        for member in range(int(rng.choice([1, 1, 2, 2, 3, 4]))):
            reach = min(abs(x) + 0.42 * member, abs(inner) + ground.walk - 1.0)  # not through the house front
            places.append((side * reach, z + rng.normal(0, 0.25)))
    if crossing:
        for _ in range(int(rng.integers(0, 5))):
            places.append((rng.uniform(ground.left, ground.right), crossing + rng.uniform(0.6, 2.6)))
    items: list[Item] = []
    for x, z in places:
        person = random_person(rng, x, z)
        on_road = ground.left < x < ground.right
        items.append((z + (0.0 if on_road else BESIDE), _bind(draw_person, canvas, person)))
        reach = -canvas.light.side * person.high * canvas.light.slant
        cast(canvas, shadow, [(x - 0.2, z), (x + 0.2, z), (x + reach + 0.15, z + 0.35), (x + reach - 0.1, z + 0.35)])
    return items


def _cyclists(canvas: Canvas, rng: Rng, ground: Ground, lane: float, shadow: npt.NDArray[np.uint8]) -> list[Item]:
    """Riders along and across the street, and bicycles leaning on nothing at the kerb."""
    items: list[Item] = []
    for _ in range(int(rng.integers(1, 5))):
        z = 5.5 + 16 * rng.random() ** 1.3
        across = rng.random() < 0.35
        x = rng.uniform(ground.left, ground.right) if across else float(rng.choice([-1.0, 1.0])) * (lane - 0.5 - rng.uniform(0, 0.9))
        turn = np.pi / 2 * float(rng.choice([-1.0, 1.0])) if across else (0.0 if x > 0 else np.pi)
        bicycle = Bicycle(x, z, turn + rng.normal(0, 0.25), any_colour(rng))
        items.append((z - BESIDE, _bind(draw_rider, canvas, bicycle, random_person(rng, x, z))))
        cast(canvas, shadow, [(x - 0.6, z - 0.2), (x + 0.6, z - 0.2), (x + 0.6 - canvas.light.side, z + 0.4), (x - 0.6 - canvas.light.side, z + 0.4)])
    for _ in range(int(rng.integers(0, 3))):
        side = 1 if rng.random() < 0.5 else -1
        x, z = (ground.right + 0.75 if side > 0 else ground.left - 0.75), rng.uniform(5, 18)
        for number in range(int(rng.integers(1, 4))):
            bicycle = Bicycle(x + side * 0.1 * number, z + 0.45 * number, np.pi / 2 + rng.normal(0, 0.3), any_colour(rng))
            items.append((bicycle.z + BESIDE, _bind(draw_bicycle, canvas, bicycle)))
    return items


def _bind(paint: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: paint(*arguments)


def _bind_old(canvas: Canvas, x: float, z: float, paint: Colour, old: bool) -> Callable[[], None]:
    return lambda: draw_lamp(canvas, x, z, paint, old=old)


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
    shine = [*zip(across.tolist(), (crest + rise * 0.12).tolist(), strict=True), *zip(across[::-1].tolist(), (crest[::-1] + rise * 0.3).tolist(), strict=True)]
    canvas.polygon(shine, mix(tone, canvas.light.haze, 0.45))


def _photograph(canvas: Canvas, rng: Rng) -> npt.NDArray[np.uint8]:
    """From canvas to picture: glow, half size, exposure and cast, softness, grain."""
    full = canvas.image
    height, width = full.shape[0] // _OVERSAMPLE, full.shape[1] // _OVERSAMPLE
    image = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA)
    if canvas.light.dark:
        bloom = cv2.GaussianBlur(canvas.glow, (0, 0), max(1.0, width / 110))
        image = cv2.add(image, cv2.resize(cv2.addWeighted(bloom, 1.3, canvas.glow, 0.3, 0), (width, height)))
    gamma, gain = rng.uniform(0.82, 1.05), rng.uniform(0.93, 1.05, 3)
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


def _number_by_size(ids: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Number each class's visible instances from 0 without gaps: what is wholly hidden leaves no hole."""
    table = np.arange(65536, dtype=np.uint16)
    for label in THINGS:
        present = np.flatnonzero(np.bincount(ids.ravel(), minlength=65536)[label * 1000 : label * 1000 + 1000])
        table[label * 1000 + present] = label * 1000 + np.arange(len(present), dtype=np.uint16)
    return table[ids]
