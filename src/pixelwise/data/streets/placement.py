"""What stands where in a drawn street: houses, trees, lamps, cars, people and cyclists."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pixelwise.data.streets.backdrop import Ground, cast, darken, draw_ground, draw_markings
from pixelwise.data.streets.buildings import House, any_colour, draw_house, random_house
from pixelwise.data.streets.canvas import Canvas, Colour, mix, scale
from pixelwise.data.streets.furniture import draw_lamp, draw_sign, draw_traffic_light, random_pole
from pixelwise.data.streets.people import Bicycle, draw_bicycle, draw_person, draw_rider, random_person
from pixelwise.data.streets.plants import draw_hedge, draw_tree, random_tree, row_leaf
from pixelwise.data.streets.vehicles import BODIES, Car, draw_car, footprint
from pixelwise.data.streets.weather import Mood

Rng = np.random.Generator
Item = tuple[float, Callable[[], None]]  # distance of the far end in metres, and what paints it

# A car is long, and painted at the distance of its middle: what stands on the pavement beside it comes before it, what
# passes it on the road after it, by half a car.
BESIDE = 2.3


def paint_street(canvas: Canvas, rng: Rng, mood: Mood) -> None:
    """Choose a street, put everything in its place and paint it, far to near."""
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
                items.append(
                    (
                        z + long + BESIDE,
                        _bind(draw_hedge, canvas, _own(rng), front, z, z + long, rng.uniform(0.9, 1.8), leaf),
                    )
                )
                for place in np.arange(z + 2, z + long + 6, 4.0):
                    if place > 3:
                        tree = random_tree(rng, front + side * rng.uniform(2.0, 6.0), float(place), leaf)
                        items.append((float(place) + long + BESIDE, _bind(draw_tree, canvas, _own(rng), tree)))
            else:
                house = random_house(rng, side, front + side * float(rng.choice([0.0, 0.0, 0.8])), z, tall=tall)
                long = house.long
                if z + long > 1.5:
                    items.append((z + long + BESIDE, _bind(draw_house, canvas, _own(rng), house)))
                if side == canvas.light.side:
                    reach = min(house.high * canvas.light.slant * 0.7, 14.0)
                    edge = house.x - side * reach
                    cast(
                        canvas,
                        shadow,
                        [(house.x, z), (edge, z + reach * 0.4), (edge, z + long + reach * 0.4), (house.x, z + long)],
                    )
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
            items += [
                (far + 500, _bind(draw_tree, canvas, _own(rng), tree)),
                (far + 499, _bind(draw_tree, canvas, _own(rng), bush)),
            ]
            x += 5.0
        else:
            house: House = random_house(rng, 0, x, far, tall=1.1)
            items.append((far + 501, _bind(draw_house, canvas, _own(rng), house)))
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
            items.append((tree.z + BESIDE, _bind(draw_tree, canvas, _own(rng), tree)))
            reach, half = (tree.trunk + tree.high / 2) * canvas.light.slant, tree.wide / 2
            turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
            centre = x - canvas.light.side * reach
            cast(
                canvas,
                shadow,
                [
                    (centre + half * float(np.cos(t)), tree.z + reach * 0.3 + half * 0.8 * float(np.sin(t)))
                    for t in turn
                ],
            )
            cast(
                canvas,
                shadow,
                [
                    (x - 0.12, tree.z),
                    (x + 0.12, tree.z),
                    (centre + 0.1, tree.z + reach * 0.3),
                    (centre - 0.1, tree.z + reach * 0.3),
                ],
            )
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
            items.append((z + BESIDE, _bind(draw_sign, canvas, _own(rng), x + side * rng.uniform(-0.1, 0.4), z, paint)))
        if crossing:
            items.append(
                (crossing + 3.3 + BESIDE, _bind(draw_traffic_light, canvas, _own(rng), x, crossing + 3.3, paint))
            )
    return items


def _traffic(
    canvas: Canvas,
    rng: Rng,
    ground: Ground,
    parking: list[float],
    lane: float,
    shadow: npt.NDArray[np.uint8],
    crossing: float | None,
) -> list[Item]:
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
            z += add(x + rng.normal(0, 0.08), z, (np.pi if side < 0 else 0) + rng.normal(0, 0.02)) + rng.uniform(
                0.5, 1.3
            )
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


def _people(
    canvas: Canvas, rng: Rng, ground: Ground, shadow: npt.NDArray[np.uint8], crossing: float | None
) -> list[Item]:
    """People alone and in groups on the pavements, and on the crossing."""
    places: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(4, 10))):
        side = 1 if rng.random() < 0.5 else -1
        inner = ground.right + 0.8 if side > 0 else ground.left - 0.8
        x, z = inner + side * rng.uniform(0, ground.walk - 1.6), 5.0 + 30 * rng.random() ** 1.5
        for member in range(int(rng.choice([1, 1, 2, 2, 3, 4]))):
            reach = min(abs(x) + 0.42 * member, abs(inner) + ground.walk - 1.35)  # not through the house front
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
        x = (
            rng.uniform(-lane, lane) * 0.85
            if across
            else float(rng.choice([-1.0, 1.0])) * (lane - 0.5 - rng.uniform(0, 0.9))
        )
        turn = np.pi / 2 * float(rng.choice([-1.0, 1.0])) if across else (0.0 if x > 0 else np.pi)
        bicycle = Bicycle(x, z, turn + rng.normal(0, 0.25), any_colour(rng))
        items.append((z - BESIDE, _bind(draw_rider, canvas, bicycle, random_person(rng, x, z))))
        cast(
            canvas,
            shadow,
            [
                (x - 0.6, z - 0.2),
                (x + 0.6, z - 0.2),
                (x + 0.6 - canvas.light.side, z + 0.4),
                (x - 0.6 - canvas.light.side, z + 0.4),
            ],
        )
    for _ in range(int(rng.integers(0, 3))):
        side = 1 if rng.random() < 0.5 else -1
        x, z = (ground.right + 0.75 if side > 0 else ground.left - 0.75), rng.uniform(5, 18)
        for number in range(int(rng.integers(1, 4))):
            bicycle = Bicycle(
                x + side * 0.1 * number, z + 0.45 * number, np.pi / 2 + rng.normal(0, 0.3), any_colour(rng)
            )
            items.append((bicycle.z + BESIDE, _bind(draw_bicycle, canvas, bicycle)))
    return items


def _own(rng: Rng) -> Rng:
    """A stream for one object, so that what it draws, or that it is out of the picture, changes nothing else."""
    return np.random.default_rng(int(rng.integers(1 << 62)))


def _bind(paint: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: paint(*arguments)


def _bind_old(canvas: Canvas, x: float, z: float, paint: Colour, old: bool) -> Callable[[], None]:
    return lambda: draw_lamp(canvas, x, z, paint, old=old)
