"""Segments drawn for people: colours, overlays on the image, errors against the truth, a legend. All [H, W, 3] uint8.

Shades of one class are made in OKLab (Ottosson 2020), where equal steps look equal; the colours of errors are of the
palette of Okabe and Ito (2008), which colour-blind people tell apart.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from torch import Tensor

from pixelwise.core.classes import Classes
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.errors import DataError

UNKNOWN_COLOUR = (150, 150, 150)
NOTHING_COLOUR = (22, 22, 26)
FALSE = (240, 100, 10)  # a class where there is nothing
MISSED = (60, 160, 245)  # nothing where there is a class
CONFUSED = (220, 40, 130)  # one class taken for another

# lightness, chroma factor and turn of hue (degrees) of the shades that neighbouring objects of one class take
SHADES = np.array(
    [(0, 1, 0), (0.12, 0.85, 5), (-0.13, 1, -5), (0.03, 1, 14), (-0.06, 0.9, -14), (0.2, 0.6, -8), (-0.22, 0.9, 10)],
    dtype=np.float64,
)
_TO_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                    [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
_COARSE = 384  # neighbours are sought on a map of at most so many pixels a side


def displayable(image: Any) -> np.ndarray:
    """Any image as [H, W, 3] uint8 RGB.

    image  tensor [C, H, W] (as in `Sample`) or array [H, W] or [H, W, C]; uint8, uint16, float...
    8-bit images of 1, 3 or 4 channels stay as they are (a fourth is left out). Everything else is stretched from its
    0.5th to its 99.5th percentile, RGB by one scale so that the hues stay. Of two channels the first is shown green,
    the second magenta; of five or more the first three, each with its own scale. Raises DataError for other shapes.
    """
    pixels = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if isinstance(image, Tensor) and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or 0 in pixels.shape:
        found = list(np.shape(image))
        raise DataError(f"an image must be [H, W] or [H, W, C] (a tensor [C, H, W]) to be drawn; got {found}.")
    channels = pixels.shape[2]
    kept = pixels[:, :, :3]
    if pixels.dtype != np.uint8 or channels not in (1, 3, 4):
        groups = [kept] if channels in (1, 3, 4) else [kept[:, :, c : c + 1] for c in range(kept.shape[2])]
        kept = np.concatenate([_stretch(g) for g in groups], axis=2)
    if channels == 1:
        kept = np.repeat(kept, 3, axis=2)
    elif channels == 2:
        kept = kept[:, :, [1, 0, 1]]
    return np.ascontiguousarray(kept)


def _stretch(values: np.ndarray) -> np.ndarray:
    """Any numbers -> uint8, from the 0.5th to the 99.5th percentile; what is not finite becomes 0."""
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    step = max(1, values.size // 1_000_000)  # percentiles of a million values are those of all
    sample = values[finite][::step]
    low, high = np.percentile(sample, (0.5, 99.5)) if sample.size else (0.0, 1.0)
    if high <= low:
        low, high = (float(sample.min()), float(sample.max())) if sample.size else (0.0, 1.0)
    scaled = (np.where(finite, values, low) - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def line_width(height: int, width: int) -> int:
    """Pixels of an outline inside its segment: 1 below 1500 of the longer side, 4 at 4000, so that it is seen."""
    return max(1, round(max(height, width) / 1000))


def instance_colours(segments: Segments, classes: Classes) -> np.ndarray:
    """[N, 3] uint8: every row its class's colour, objects of one class in shades so that neighbours differ."""
    labels = segments.labels.cpu().numpy()
    base = np.array(classes.colours, dtype=np.uint8).reshape(-1, 3)[labels]
    several = np.bincount(labels, minlength=len(classes))[labels] > 1
    if not several.any():
        return base
    shades = _shade_rows(segments, labels)
    return np.where(several[:, None], _shift(base, SHADES[shades]), base)


def _shade_rows(segments: Segments, labels: np.ndarray) -> np.ndarray:
    """[N] number of a shade: greedy, each row the first that no neighbour of its class has, else the rarest there."""
    neighbours: list[set[int]] = [set() for _ in labels]
    for a, b in _neighbours(segments):
        if labels[a] == labels[b]:
            neighbours[a].add(b)
            neighbours[b].add(a)
    shades = np.full(len(labels), -1)
    for row in range(len(labels)):
        taken = np.bincount([shades[n] for n in neighbours[row] if shades[n] >= 0], minlength=len(SHADES))
        shades[row] = int(taken.argmin())
    return shades


def _neighbours(segments: Segments) -> list[tuple[int, int]]:
    """Pairs of rows that lie side by side with no third between them, or overlap."""
    step = max(1, -(-max(segments.size) // _COARSE))
    layers = segments.ids[:, step // 2 :: step, step // 2 :: step].cpu().numpy().astype(np.int64)
    pairs = []
    if 0 not in layers.shape:
        rows = layers[0]
        for layer in layers[1:]:
            pairs.append(np.stack([layers[0][layer >= 0], layer[layer >= 0]], 1))
            rows = np.where(rows >= 0, rows, layer)
        if (rows >= 0).any():  # every free pixel goes to its nearest row: rows that then touch are neighbours
            y, x = ndimage.distance_transform_edt(rows < 0, return_distances=False, return_indices=True)
            rows = rows[y, x]
        pairs += [np.stack([rows[:, 1:].ravel(), rows[:, :-1].ravel()], 1)]
        pairs += [np.stack([rows[1:].ravel(), rows[:-1].ravel()], 1)]
    found = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    found = np.unique(found[(found[:, 0] != found[:, 1]) & (found >= 0).all(1)], axis=0)
    return [(int(a), int(b)) for a, b in found]


def _shift(colours: np.ndarray, shades: np.ndarray) -> np.ndarray:
    """[N, 3] uint8 with lightness, chroma and hue of each changed by a row of SHADES, in OKLab."""
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T
    lightness = np.clip(lab[:, 0] + shades[:, 0], 0.25, 0.93)
    turn = np.exp(1j * np.deg2rad(shades[:, 2])) * shades[:, 1]
    chroma = (lab[:, 1] + 1j * lab[:, 2]) * turn
    lab = np.stack([lightness, chroma.real, chroma.imag], 1)
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T
    linear = np.clip(linear, 0, 1)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(srgb * 255).astype(np.uint8)


def colour_map(segments: Segments, classes: Classes) -> np.ndarray:
    """[H, W, 3] uint8: each pixel in the colour of its segment; unknown is grey, nothing almost black."""
    # the two marks index from the end: UNKNOWN -2 is the last but one, NOTHING -1 the last
    table = np.concatenate([instance_colours(segments, classes), [UNKNOWN_COLOUR, NOTHING_COLOUR]]).astype(np.uint8)
    return table[segments.row_map().long().cpu().numpy()]


def overlay(
    image: Any, segments: Segments, classes: Classes, *, alpha: float = 0.5, outlines: bool = True
) -> np.ndarray:
    """[H, W, 3] uint8: the image with its segments over it.

    image     as `displayable` takes it, of the segments' size
    alpha     0..1 how much of the colour covers the image; unknown pixels are hatched in grey, pixels of nothing stay
    outlines  whether borders between segments are drawn, also where one object hides behind another
    Raises DataError when the sizes differ.
    """
    picture = _same_size(image, segments)
    rows = segments.row_map().cpu().numpy()
    colours = np.concatenate([instance_colours(segments, classes), [UNKNOWN_COLOUR, NOTHING_COLOUR]]).astype(np.uint8)
    blend = cv2.addWeighted(picture, 1 - alpha, colours[rows], alpha, 0)
    blend[rows == NOTHING] = picture[rows == NOTHING]
    blend[_hatched(rows == UNKNOWN)] = UNKNOWN_COLOUR
    if outlines:
        thick = line_width(*segments.size)
        for layer in segments.ids.cpu().numpy():
            line = _edges(layer, thick) & (layer >= 0)
            blend[line] = colours[layer[line]] // 3 * 2 + 85  # the colour itself, a third of the way to white
    return blend


def error_overlay(image: Any, prediction: Segments, truth: Segments, classes: Classes | None = None) -> np.ndarray:
    """[H, W, 3] uint8: the image in grey, and in colour what is wrong: FALSE, MISSED and CONFUSED pixels.

    Pixels whose truth is unknown are hatched. With `classes` the objects of things that found no partner (no overlap
    above IoU 0.5 in their class) are outlined, false ones and missed ones. Raises DataError when the sizes differ.
    """
    picture = _same_size(image, truth)
    _same_size(image, prediction)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    out = np.repeat((grey * 0.7 + 38).astype(np.uint8)[:, :, None], 3, axis=2)
    told = truth.class_map(UNKNOWN, NOTHING).long().numpy(force=True)
    said = prediction.class_map(UNKNOWN, NOTHING).long().numpy(force=True)
    said = np.where(said == UNKNOWN, NOTHING, said)
    kinds = (
        (FALSE, (told == NOTHING) & (said != NOTHING)),
        (MISSED, (told >= 0) & (said == NOTHING)),
        (CONFUSED, (told >= 0) & (said >= 0) & (told != said)),
    )
    for colour, where in kinds:
        out[where] = out[where] // 4 + np.array(colour, np.uint8) // 4 * 3
    out[told == UNKNOWN] = out[told == UNKNOWN] // 2 + 75
    out[_hatched(told == UNKNOWN)] = UNKNOWN_COLOUR
    if classes is not None:
        _outline_unmatched(out, prediction, truth, classes)
    return out


def _outline_unmatched(out: np.ndarray, prediction: Segments, truth: Segments, classes: Classes) -> None:
    """Draws, in place, the borders of things without a partner: FALSE predicted ones, MISSED true ones."""
    overlap = _iou(prediction, truth) > 0.5
    overlap &= prediction.labels.numpy(force=True)[:, None] == truth.labels.numpy(force=True)[None]
    thick = line_width(*truth.size)
    for colour, segments, matched in ((MISSED, truth, overlap.any(0)), (FALSE, prediction, overlap.any(1))):
        lonely = ~matched & classes.is_thing[segments.labels.numpy(force=True)] & ~segments.crowd.numpy(force=True)
        for layer in segments.ids.cpu().numpy():
            out[_edges(layer, thick) & (layer >= 0) & np.append(lonely, [False, False])[layer]] = colour


def _iou(first: Segments, second: Segments) -> np.ndarray:
    """[N, M] float64 overlap of every segment of one with every one of the other; layers count each by itself."""
    both = np.zeros((len(first), len(second)), np.int64)
    for a in first.ids.cpu().numpy():
        for b in second.ids.cpu().numpy():
            seen = (a >= 0) & (b >= 0)
            pairs = a[seen].astype(np.int64) * len(second) + b[seen]
            both += np.bincount(pairs, minlength=both.size).reshape(both.shape)
    areas = first.pixel_counts.numpy(force=True)[:, None] + second.pixel_counts.numpy(force=True)[None]
    return both / np.maximum(areas - both, 1)


def _edges(rows: np.ndarray, thick: int) -> np.ndarray:
    """[H, W] bool: `thick` pixels on either side of every change of the row."""
    rows = rows.astype(np.float32)  # exact for every row there can be; the morphology of OpenCV knows no int32
    kernel = np.ones((2 * thick + 1, 2 * thick + 1), np.uint8)
    return cv2.dilate(rows, kernel) != cv2.erode(rows, kernel)


def _hatched(where: np.ndarray) -> np.ndarray:
    """[H, W] bool: diagonal stripes of `where`."""
    thick = line_width(*where.shape)
    ys, xs = np.arange(where.shape[0])[:, None], np.arange(where.shape[1])[None]
    return where & ((ys + xs) % (12 * thick) < 4 * thick)


def _same_size(image: Any, segments: Segments) -> np.ndarray:
    picture = displayable(image)
    if picture.shape[:2] != segments.size:
        raise DataError(f"an image of {picture.shape[:2]} (height, width) and segments of {segments.size} do not fit.")
    return picture


def legend(classes: Classes, *, height: int = 0, columns: int = 0) -> np.ndarray:
    """[h, w, 3] uint8: names of the classes beside their colours on white, in letters that fit an image of `height`.

    height   of the image that it belongs to, in pixels; 0 means letters of 16
    columns  how many names side by side; 0 means as many as look square
    """
    size = max(12, round((height or 640) / 40))
    font = ImageFont.load_default(size)
    wide = max(int(font.getlength(name)) for name in classes.names)
    columns = columns or max(1, round((len(classes) * 1.6 * size / (wide + 3 * size)) ** 0.5))
    rows = -(-len(classes) // columns)
    cell, line = wide + 3 * size, round(1.6 * size)
    page = Image.new("RGB", (columns * cell + size, rows * line + size), "white")
    draw = ImageDraw.Draw(page)
    for k, (name, colour) in enumerate(zip(classes.names, classes.colours)):
        x, y = size + k // rows * cell, size // 2 + k % rows * line
        box = (x, y + line // 2 - size // 2, x + size, y + line // 2 + size // 2)
        draw.rectangle(box, fill=tuple(colour), outline="#808080")
        draw.text((x + 1.5 * size, y + line / 2), name, fill="#202020", font=font, anchor="lm")
    return np.asarray(page)
