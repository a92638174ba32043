"""Names and scores written on a picture of segments, where they fit without clutter.

The rule: an object is named when its class has at most MOST objects in the picture and its box is about as large as the
text; stuff is named inside itself, where the text has room. Nothing is written over another text: large segments come
first, objects before stuff. So a few people are named, and hundreds of nuclei are not. Class maps, which have one row a
class, have a legend instead.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments

MOST = 25  # objects of a class beyond which none of them is named
OVERHANG = 1.4  # a text may be so much wider than the box of its object
FONTS = ("NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "wqy-microhei.ttc", "msyh.ttc", "PingFang.ttc",
         "Hiragino Sans GB.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf")  # fmt: skip
_COARSE = 512  # room inside stuff is sought on a map of at most so many pixels a side
Box = tuple[int, int, int, int]  # x0 y0 x1 y1
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def text_size(height: int, width: int) -> int:
    """Height of letters: 11 pixels up to 700 of the longer side, then 1.6 percent of it, so that they can be read."""
    return max(11, round(max(height, width) * 0.016))


@cache
def letters(size: int, text: str = "") -> Font:
    """The font that pictures are written in, `size` pixels high.

    Pillow's own knows little beyond English; for a text with other letters it is the first of FONTS that is installed
    and has them.
    """
    usual = letters(size) if text else ImageFont.load_default(size)
    if text.isascii() or _has(usual, text):
        return usual
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:  # not installed
            continue
        if _has(font, text):
            return font
    return usual


def _has(font: Font, text: str) -> bool:
    """Whether the font has every letter of the text, rather than the box that stands for what is missing."""
    missing = bytes(font.getmask("\U0010ffff"))
    return all(c.isspace() or bytes(font.getmask(c)) != missing for c in set(text))


def write_captions(
    picture: np.ndarray, segments: Segments, classes: Classes, colours: np.ndarray, *, height: int = 0
) -> list[int]:
    """Writes into `picture` [H, W, 3] uint8 in place, and returns the rows that are named.

    colours  [N, 3] uint8, those of the rows
    height   of the letters, in pixels; 0 means `text_size`
    Objects have their text above their highest point, else just inside it or below the lowest: name and score, or where
    both have no room the name alone (the score, if there is only one class). Scores are said unless all are 1, as those
    of truth are.
    """
    if is_class_map(segments, classes):
        return []
    font = letters(height or text_size(*segments.size), "".join(classes.names))
    placed: dict[int, Box] = {}
    counts = segments.pixel_counts.numpy(force=True)
    labels = segments.labels.numpy(force=True)
    thing = classes.is_thing[labels]
    told_apart = thing & ~segments.crowd.numpy(force=True)
    few = np.bincount(labels[told_apart], minlength=len(classes))[labels] <= MOST
    scored = bool((segments.scores != 1).any())
    order = np.argsort(-counts, kind="stable")
    boxes = segments.boxes.round().int().tolist()
    for row in order[(told_apart & few & (counts > 0))[order]].tolist():
        name, score = classes.names[labels[row]], float(segments.scores[row])
        short = f"{score:.2f}" if len(classes) == 1 else name
        points = _ends(segments, row, boxes[row])
        for text in (f"{name} {score:.2f}", short) if scored else (name,):
            box = _beside(boxes[row], points, _plate_size(text, font), segments.size, list(placed.values()))
            if box is not None:
                placed[row] = box
                _write(picture, box, text, colours[row], font)
                break
    stuff = order[(~thing & (counts > 0))[order]].tolist() if classes.things else []
    room = _Room(segments, list(placed.values())) if stuff else None
    for row in stuff:
        box = room.take(row, _plate_size(classes.names[labels[row]], font)) if room else None
        if box is not None:
            placed[row] = box
            _write(picture, box, classes.names[labels[row]], colours[row], font)
    return list(placed)


def is_class_map(segments: Segments, classes: Classes) -> bool:
    """Whether the rows are the classes in their order, as the semantic task has them, rather than objects."""
    return len(classes) > 1 and segments.labels.tolist() == list(range(len(classes)))


def _plate_size(text: str, font: Font) -> tuple[int, int]:
    """(width, height) of a text with its margin; the height is that of any text of the font."""
    x0, _, x1, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Ag")
    margin = max(1, round((bottom - top) * 0.25))
    return round(x1 - x0) + 2 * margin + 1, round(bottom - top) + 2 * margin


def _ends(segments: Segments, row: int, box: Box) -> tuple[int, int]:
    """x of the middle of an object's top and of its bottom: of the highest and the lowest tenth of its box."""
    x0, y0, x1, y1 = box
    window = (segments.ids[:, y0:y1, x0:x1] == row).any(0).numpy(force=True)
    part = max(1, len(window) // 10)
    middles = []
    for rows in (window[:part], window[-part:]):
        columns = np.flatnonzero(rows.any(0))
        middles.append(x0 + int((columns[0] + columns[-1]) // 2 if len(columns) else (x1 - x0) // 2))
    return middles[0], middles[1]


def _beside(
    box: Box, points: tuple[int, int], plate: tuple[int, int], size: tuple[int, int], taken: list[Box]
) -> Box | None:
    """A place for the plate at its object: above, inside the top or below; None where it does not fit."""
    (x0, y0, x1, y1), (wide, high), (height, width) = box, plate, size
    if wide > OVERHANG * (x1 - x0) or 1.5 * high > y1 - y0 or wide > width:
        return None
    for top, x in ((y0 - high, points[0]), (y0, points[0]), (y1, points[1])):
        left = min(max(0, x - wide // 2), width - wide)
        place = (left, top, left + wide, top + high)
        if top >= 0 and top + high <= height and not any(_touch(place, other) for other in taken):
            return place
    return None


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


class _Room:
    """Where stuff has room for its name, on a coarse map that knows what is taken."""

    def __init__(self, segments: Segments, taken: list[Box]) -> None:
        self.step = max(1, -(-max(segments.size) // _COARSE))
        half = self.step // 2
        self.rows = segments.row_map()[half :: self.step, half :: self.step].cpu().numpy().astype(np.int32)
        for box in taken:
            self._block(box)

    def _block(self, box: Box) -> None:
        x0, y0, x1, y1 = (v // self.step for v in box)
        self.rows[y0 : y1 + 1, x0 : x1 + 1] = -1

    def take(self, row: int, plate: tuple[int, int]) -> Box | None:
        """The place for a plate inside a segment, far from its edge and now taken; None where there is none."""
        kernel = np.ones((plate[1] // self.step + 2, plate[0] // self.step + 2), np.uint8)
        mask = np.pad((self.rows == row).astype(np.uint8), 1)  # beyond the image there is no room
        free = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        if not free.any():
            return None
        y, x = np.unravel_index(int(cv2.distanceTransform(free, cv2.DIST_L2, 3).argmax()), free.shape)
        left, top = int((x - 1) * self.step - plate[0] // 2), int((y - 1) * self.step - plate[1] // 2)
        box = (max(0, left), max(0, top), max(0, left) + plate[0], max(0, top) + plate[1])
        self._block(box)
        return box


def _write(picture: np.ndarray, box: Box, text: str, colour: np.ndarray, font: Font) -> None:
    """A plate of the segment's colour with black or white letters, whichever stands out more (WCAG 2's luminance)."""
    x0, y0, x1, y1 = box
    linear = (colour / 255.0) ** 2.2
    dark = float(linear @ (0.2126, 0.7152, 0.0722)) < 0.18
    letters, rim = ("white", "#ffffff") if dark else ("black", "#000000")
    plate = Image.new("RGB", (x1 - x0, y1 - y0), tuple(int(v) for v in colour))
    draw = ImageDraw.Draw(plate)
    if y1 - y0 > 24:  # a rim of one pixel would only blur small letters
        draw.rectangle((0, 0, x1 - x0 - 1, y1 - y0 - 1), outline=rim, width=max(1, (y1 - y0) // 40))
    draw.text(((x1 - x0) / 2, (y1 - y0) / 2), text, fill=letters, font=font, anchor="mm")
    window = picture[y0:y1, x0:x1]
    window[:] = np.asarray(plate)[: window.shape[0], : window.shape[1]]
