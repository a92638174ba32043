"""What drawn streets are drawn on: a pinhole camera, a light, and a canvas that paints image and truth at once.

World coordinates are metres: X to the right of the road's middle, Y up from the ground, Z ahead of the camera.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Colour = tuple[float, float, float]  # RGB, 0..255
Point = tuple[float, float]  # x, y in canvas pixels
Place = Callable[..., Point]  # an object's own metres to canvas pixels
Paint = Callable[..., Colour]  # a colour, and how much sun it gets, to the colour seen

NEAREST = 0.7  # metres; what is nearer is drawn as if it were here, which keeps coordinates finite
_SHIFT = 4  # fractional bits of the coordinates given to OpenCV


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` of `other`, the rest of `one`."""
    keep = 1.0 - share
    return (
        one[0] * keep + other[0] * share,
        one[1] * keep + other[1] * share,
        one[2] * keep + other[2] * share,
    )


def scale(colour: Colour, factor: float) -> Colour:
    """A darker (below 1) or brighter colour, cut at white."""
    return (min(colour[0] * factor, 255.0), min(colour[1] * factor, 255.0), min(colour[2] * factor, 255.0))


def _fixed(points: Sequence[Point] | npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Points as OpenCV's fixed-point coordinates `[n, 2]`, cut far outside every canvas."""
    scaled = np.asarray(points, np.float64) * (1 << _SHIFT)
    limit = 16000.0 * (1 << _SHIFT)
    return np.rint(np.minimum(np.maximum(scaled, -limit), limit)).astype(np.int32)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera `height` metres up, `aside` metres right of the road's middle; `curve` (1/m) bends it."""

    focal: float
    centre: float
    horizon: float
    height: float
    aside: float
    curve: float

    def project(self, x: float, y: float, z: float) -> Point:
        """World metres to canvas pixels."""
        z = max(z, NEAREST)
        pull = self.focal / z
        return (
            self.centre + (x - self.aside + self.curve * z * z) * pull,
            self.horizon + (self.height - y) * pull,
        )

    def span(self, metres: float, z: float) -> float:
        """How many pixels a length seen square on takes at a distance."""
        return metres * self.focal / max(z, NEAREST)


@dataclass(frozen=True)
class Light:
    """Ambient and sun light per channel, the side the sun is on (-1 left, 1 right), and the haze."""

    ambient: Colour
    sun: Colour
    side: int
    slant: float  # metres of shadow per metre of height, across the street
    haze: Colour
    clear: float  # metres after which haze has taken 63 % of a colour
    dark: bool  # windows and lamps are lit

    def tone(self, colour: Colour, shade: float, z: float) -> Colour:
        """A surface's colour as the camera sees it; `shade` 0 is out of the sun, 1 faces it."""
        fog = 1.0 - 2.718281828 ** (-max(z, 0.0) / self.clear)
        clear = 1.0 - fog
        (r, g, b), (ar, ag, ab), (sr, sg, sb), (hr, hg, hb) = colour, self.ambient, self.sun, self.haze
        return (
            min(r * (ar + sr * shade), 255.0) * clear + hr * fog,
            min(g * (ag + sg * shade), 255.0) * clear + hg * fog,
            min(b * (ab + sb * shade), 255.0) * clear + hb * fog,
        )


class Canvas:
    """`image [h, w, 3]` uint8 RGB and `ids [h, w]` uint16 in Cityscapes' instance coding, painted far to near."""

    def __init__(self, height: int, width: int, camera: Camera, light: Light) -> None:
        self.image: npt.NDArray[np.uint8] = np.zeros((height, width, 3), np.uint8)
        self.ids: npt.NDArray[np.uint16] = np.zeros((height, width), np.uint16)
        self.glow: npt.NDArray[np.uint8] = np.zeros((height // 4 + 1, width // 4 + 1, 3), np.uint8)
        self.camera, self.light = camera, light
        self._taken: dict[int, int] = {}

    def instance(self, label: int) -> int:
        """The next free instance id of a thing class."""
        number = self._taken.get(label, 0)
        self._taken[label] = number + 1
        return label * 1000 + number

    def polygon(self, points: Sequence[Point], colour: Colour, truth: int | None = None) -> None:
        """Fill a polygon of canvas points; without `truth` only the image changes (a marking, a window)."""
        fixed = _fixed(points)
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, _SHIFT)
        if truth is not None:
            cv2.fillPoly(self.ids, [fixed], truth, cv2.LINE_8, _SHIFT)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour, truth: int | None = None) -> None:
        """A line with round ends, `width` in pixels."""
        fixed, thick = _fixed(points), max(1, round(width))
        cv2.polylines(self.image, [fixed], False, colour, thick, cv2.LINE_AA, _SHIFT)
        if truth is not None:
            cv2.polylines(self.ids, [fixed], False, truth, thick, cv2.LINE_8, _SHIFT)

    def disc(self, centre: Point, radius: float, colour: Colour, truth: int | None = None) -> None:
        """A filled circle, `radius` in pixels."""
        if abs(centre[0]) > 16000 or abs(centre[1]) > 16000:
            return
        middle, size = (round(centre[0]), round(centre[1])), max(1, round(radius))
        cv2.circle(self.image, middle, size, colour, -1, cv2.LINE_AA)
        if truth is not None:
            cv2.circle(self.ids, middle, size, truth, -1, cv2.LINE_8)

    def shine(self, centre: Point, radius: float, colour: Colour) -> None:
        """A light that will bloom, seen only in the dark."""
        if self.light.dark and abs(centre[0]) < 16000 and abs(centre[1]) < 16000:
            middle = (round(centre[0] / 4), round(centre[1] / 4))
            cv2.circle(self.glow, middle, max(1, round(radius / 4)), colour, -1)

    def surface(self, texture: npt.NDArray[np.uint8], quad: Sequence[Point], truth: int) -> None:
        """Lay a texture `[h, w, 3]` on a quadrilateral (its top left, top right, bottom right, bottom left corner)."""
        height, width = self.ids.shape
        corners = np.asarray(quad, np.float32)
        left, top = np.maximum(np.floor(corners.min(0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(corners.max(0)) + 1, (width, height)).astype(int)
        if right <= left or bottom <= top:
            return
        rows, columns = texture.shape[:2]
        source = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
        inside = corners - np.array((left, top), np.float32)
        window = (int(right - left), int(bottom - top))
        flat = cv2.getPerspectiveTransform(source, inside)
        warped = cv2.warpPerspective(texture, flat, window, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = np.zeros((window[1], window[0]), np.uint8)
        cv2.fillPoly(mask, [_fixed(inside)], 1, cv2.LINE_8, _SHIFT)
        cv2.copyTo(warped, mask, self.image[top:bottom, left:right])
        self.ids[top:bottom, left:right][mask > 0] = truth

    def ground(self, outline: Sequence[tuple[float, float]], colour: Colour, truth: int | None = None) -> None:
        """A flat polygon on the ground, its corners given as (X, Z) metres; cut where it passes behind the camera."""
        project = self.camera.project
        self.polygon([project(x, 0.0, z) for x, z in outline], colour, truth)
