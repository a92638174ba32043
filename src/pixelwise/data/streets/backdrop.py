"""Sky, ground and road markings of a drawn street."""

from dataclasses import dataclass

import cv2
import numpy as np

from pixelwise.data.streets import textures
from pixelwise.data.streets.canvas import Canvas, Colour, mix, scale
from pixelwise.data.streets.labels import Label


@dataclass(frozen=True)
class Ground:
    """The street's cross-section in metres and the colours of its two surfaces."""

    left: float  # X of the left kerb
    right: float  # X of the right kerb
    walk: float  # width of each pavement, to the house fronts
    end: float  # Z where the street ends in a row of houses or trees
    road: Colour
    pavement: Colour
    road_pattern: str  # asphalt, stones
    pavement_pattern: str  # asphalt, slabs, stones, bricks


def draw_sky(canvas: Canvas, rng: np.random.Generator, top: Colour, low: Colour, cloud: Colour, cover: float) -> None:
    """A gradient with clouds; `cover` 0 is a clear sky, 1 an overcast one."""
    height, width = canvas.ids.shape
    rows, columns = int(canvas.camera.horizon * 1.05) // 2 + 2, width // 2 + 1
    depth = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    gradient = np.asarray(top, np.float32) * (1 - depth) + np.asarray(low, np.float32) * depth
    tile = np.roll(textures.fractal(7, 6), rng.integers(0, textures.TILE, 2), (0, 1))
    # The cloud layer is a ceiling: towards the horizon it is seen ever more from the side, so rows crowd together.
    near = 1.0 / (0.25 + 1.1 * (1 - depth[:, 0, 0]))
    across = np.linspace(-1, 1, columns, dtype=np.float32)[None]
    map_x = (across * near[:, None] * 120 + 256).astype(np.float32)
    map_y = np.repeat((near * 130)[:, None], columns, 1).astype(np.float32)
    noise = cv2.remap(tile, map_x % (textures.TILE - 1), map_y % (textures.TILE - 1), cv2.INTER_LINEAR)
    share = np.clip((noise - (0.72 - 0.45 * cover)) * 4, 0, 0.92)[..., None]
    belly = np.clip((noise - (0.78 - 0.45 * cover)) * 2.2, 0, 0.35)[..., None]
    clouds = np.asarray(cloud, np.float32) * (1 - belly) + np.asarray(low, np.float32) * 0.8 * belly
    sky = np.clip(gradient * (1 - share) + clouds * share, 0, 255).astype(np.uint8)
    target = min(2 * rows, height)
    canvas.image[:target] = cv2.resize(sky, (width, target), interpolation=cv2.INTER_LINEAR)
    canvas.ids[:target] = Label.SKY


def draw_ground(canvas: Canvas, rng: np.random.Generator, ground: Ground) -> None:
    """Road and pavements to the horizon: every pixel is looked up in a texture that lies on the ground."""
    camera, light = canvas.camera, canvas.light
    height, width = canvas.ids.shape
    start = max(0, int(np.ceil(camera.horizon + 1)))
    if start >= height:
        return
    rows = np.arange(start, height, dtype=np.float32) + 0.5
    z = camera.focal * camera.height / (rows - camera.horizon)  # [h']
    z_far = np.minimum(z, 400)
    x_left = (0 - camera.centre) * z / camera.focal + camera.aside - camera.curve * z_far * z
    columns = np.arange(width, dtype=np.float32)
    x = x_left[:, None] + columns[None] * (z / camera.focal)[:, None]  # [h', w]
    on_road = (x > ground.left) & (x < ground.right)
    shift = rng.uniform(0, 8, 2)
    map_x = ((x + shift[0]) * 64 % textures.TILE).astype(np.float32)
    map_z = np.broadcast_to(((z_far + shift[1]) * 64 % textures.TILE).astype(np.float32)[:, None], x.shape)
    map_z = np.ascontiguousarray(map_z)
    fade = np.clip(7 / z, 0, 1)[:, None]  # beyond some metres a texel is smaller than a pixel and would only flicker
    relief = np.empty_like(x)
    for mask, pattern in ((on_road, ground.road_pattern), (~on_road, ground.pavement_pattern)):
        tile = textures.asphalt() if pattern == "asphalt" else textures.paving(pattern)
        looked_up = cv2.remap(tile, map_x, map_z, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        np.copyto(relief, looked_up, where=mask)
    relief = (relief - 128) * fade * (1 / 128) + 1
    near_road, near_walk = light.tone(ground.road, 0.9, 0), light.tone(ground.pavement, 0.9, 0)
    fog = 1 - np.exp(-z / light.clear)
    target = canvas.image[start:]
    for channel in range(3):
        seen = (1 - fog)[:, None]
        colour = np.where(on_road, seen * np.float32(near_road[channel]), seen * np.float32(near_walk[channel]))
        colour *= relief
        colour += (fog * np.float32(light.haze[channel]))[:, None]
        target[..., channel] = np.minimum(colour, 255)
    canvas.ids[start:] = np.where(on_road, np.uint16(Label.ROAD), np.uint16(Label.SIDEWALK))


def _strip(canvas: Canvas, x: float, width: float, near: float, far: float, colour: Colour, truth: int | None) -> None:
    """A band along the street, in short pieces so that it follows the curve and fades into the haze."""
    z = near
    while z < far:
        after = min(z * 1.25 + 0.4, far)
        tone = canvas.light.tone(colour, 0.9, (z + after) / 2)
        canvas.ground([(x, z), (x + width, z), (x + width, after), (x, after)], tone, truth)
        z = after


def draw_markings(canvas: Canvas, rng: np.random.Generator, ground: Ground, crossing: float | None) -> None:
    """Kerbs, lane lines, patches, manholes and, at `crossing` metres, a zebra crossing."""
    light = canvas.light
    for x, inner in ((ground.left, -0.22), (ground.right, 0.0)):
        _strip(canvas, x + inner, 0.22, 0.8, ground.end, scale(ground.pavement, 1.14), Label.SIDEWALK)
    for x in (ground.left, ground.right - 0.35):
        _strip(canvas, x, 0.35, 0.8, ground.end, scale(ground.road, 0.82), Label.ROAD)
    for _ in range(rng.integers(1, 5)):
        _patch(canvas, rng, ground)
    white = mix(ground.road, (242, 240, 230), 0.85)
    dash, phase = rng.uniform(2.0, 3.5), rng.uniform(0, 4)
    middle = (ground.left + ground.right) / 2
    z = phase - 4
    while z < ground.end:
        if z + dash > 0.8 and not (crossing and crossing - 2 < z < crossing + 4):
            tone = light.tone(white, 0.9, max(z, 0) + 1)
            canvas.ground(
                [(middle - 0.07, z), (middle + 0.07, z), (middle + 0.07, z + dash), (middle - 0.07, z + dash)], tone
            )
        z += dash * 2.2
    if crossing:
        _zebra(canvas, ground, crossing, white)


def _zebra(canvas: Canvas, ground: Ground, near: float, white: Colour) -> None:
    tone = canvas.light.tone(white, 0.95, near)
    x = ground.left + 0.5
    while x + 0.5 < ground.right:
        canvas.ground([(x, near), (x + 0.5, near), (x + 0.5, near + 3.2), (x, near + 3.2)], tone)
        x += 1.0
    for line, side in ((near - 1.0, ground.right),):
        middle = (ground.left + ground.right) / 2
        canvas.ground([(middle, line - 0.3), (side - 0.4, line - 0.3), (side - 0.4, line), (middle, line)], tone)


def _patch(canvas: Canvas, rng: np.random.Generator, ground: Ground) -> None:
    """A mended piece of road, or a manhole cover."""
    x, z = rng.uniform(ground.left + 0.8, ground.right - 1.8), rng.uniform(4, 22)
    tone = canvas.light.tone(scale(ground.road, rng.uniform(0.72, 1.2)), 0.9, z)
    if rng.random() < 0.5:
        turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        canvas.ground([(x + 0.36 * np.cos(t), z + 0.36 * np.sin(t)) for t in turn], scale(tone, 0.7))
        return
    wide, long = rng.uniform(0.6, 1.6), rng.uniform(0.8, 4)
    canvas.ground([(x, z), (x + wide, z + 0.1), (x + wide, z + long), (x - 0.1, z + long)], tone)


def cast(canvas: Canvas, shadow: np.ndarray, outline: list[tuple[float, float]]) -> None:
    """Add a flat ground polygon, (X, Z) metres, to the shadow mask `[h, w]` uint8."""
    points = np.clip([canvas.camera.project(x, 0, max(z, 0.8)) for x, z in outline], -16000, 16000)
    cv2.fillPoly(shadow, np.rint(points * 16).astype(np.int32)[None], 255, cv2.LINE_8, 4)


def darken(canvas: Canvas, shadow: np.ndarray, strength: float) -> None:
    """Lay the shadow mask over what is painted so far; `strength` is the share of light that shadows take."""
    top = max(0, int(canvas.camera.horizon))
    small = cv2.resize(shadow[top:], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), 1.2)
    soft = cv2.resize(soft, (shadow.shape[1], shadow.shape[0] - top), interpolation=cv2.INTER_LINEAR)
    left = 255 - cv2.convertScaleAbs(soft, alpha=strength)
    canvas.image[top:] = cv2.multiply(canvas.image[top:], cv2.merge([left, left, left]), scale=1 / 255)
