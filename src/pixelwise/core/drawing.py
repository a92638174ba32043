"""Segments drawn for people: colour maps, overlays on the image, a legend. All [H, W, 3] uint8."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pixelwise.core.captions import letters, write_captions
from pixelwise.core.classes import Classes
from pixelwise.core.colours import instance_colours
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments, look_up
from pixelwise.errors import DataError

UNKNOWN_COLOUR = (150, 150, 150)
NOTHING_COLOUR = (22, 22, 26)
LIGHT = 150  # brightness of the ground above which dark lines are seen better than light ones


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


def colour_map(segments: Segments, classes: Classes) -> np.ndarray:
    """[H, W, 3] uint8: each pixel in the colour of its segment; unknown is grey, nothing almost black."""
    return _coloured(segments.row_map().cpu(), instance_colours(segments, classes))


def overlay(
    image: Any,
    segments: Segments,
    classes: Classes,
    *,
    alpha: float = 0.5,
    outlines: bool = True,
    captions: bool = True,
    line: int = 0,
) -> np.ndarray:
    """[H, W, 3] uint8: the image with its segments over it.

    image     as `displayable` takes it, of the segments' size
    alpha     0..1 how much of the colour covers the image; unknown pixels are hatched in grey, pixels of nothing stay
    outlines  whether borders between segments are drawn, also where one object hides behind another
    captions  whether names and scores of objects are written where they fit; the rule stands in `core.captions`
    line      width of the outlines, in pixels; 0 means `line_width`
    Raises DataError when the sizes differ.
    """
    picture = fitting(image, segments)
    colours = instance_colours(segments, classes)
    rows = segments.row_map().cpu()
    blend = cv2.addWeighted(picture, 1 - alpha, _coloured(rows, colours), alpha, 0)
    cv2.copyTo(picture, (rows == NOTHING).numpy().view(np.uint8), blend)
    paint(blend, hatched((rows == UNKNOWN).numpy()), UNKNOWN_COLOUR)
    if outlines:
        thick, line_colours = line or line_width(*segments.size), _line_colours(colours, picture, rows == NOTHING)
        for layer in segments.ids.cpu():
            rim = edges(layer.numpy(), thick) & (layer >= 0).numpy()
            cv2.copyTo(_coloured(layer, line_colours), rim.view(np.uint8), blend)
    if captions:
        write_captions(blend, segments, classes, colours)
    return blend


def _line_colours(colours: np.ndarray, picture: np.ndarray, ground: Tensor) -> np.ndarray:
    """[N, 3] uint8: each colour [N, 3] a third of the way to white, or darker where `ground` [H, W] bool is light."""
    light = cv2.mean(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), ground.numpy().view(np.uint8))[0] > LIGHT
    return colours // 5 * 3 if light else colours // 3 * 2 + 85


def _coloured(rows: Tensor, colours: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8: rows [H, W] in their colours [N, 3], unknown and nothing in theirs."""
    table = np.zeros((len(colours) + 2, 4), np.uint8)
    table[:, :3] = np.concatenate([colours, [UNKNOWN_COLOUR, NOTHING_COLOUR]])
    if rows.dtype == torch.int8:  # as bytes the two marks are 254 and 255
        full = np.zeros((256, 1, 3), np.uint8)
        full[: len(colours), 0], full[-2:, 0] = colours, table[-2:, :3]
        return cv2.applyColorMap(rows.contiguous().numpy().view(np.uint8), full)
    # one look-up of four bytes is several times faster than one of three numbers
    packed = look_up(torch.from_numpy(table.view(np.int32)[:, 0]), rows).numpy()
    return cv2.cvtColor(packed.view(np.uint8).reshape(*rows.shape, 4), cv2.COLOR_RGBA2RGB)


def paint(picture: np.ndarray, where: np.ndarray, colour: tuple[int, int, int], alpha: float = 1.0) -> None:
    """Covers the pixels `where` [H, W] bool of `picture` [H, W, 3] uint8 with `alpha` of the colour, in place."""
    if not where.any():
        return
    flat = np.full_like(picture, colour)
    if alpha < 1:
        flat = cv2.addWeighted(picture, 1 - alpha, flat, alpha, 0)
    cv2.copyTo(flat, where.view(np.uint8), picture)


def edges(rows: np.ndarray, thick: int) -> np.ndarray:
    """[H, W] bool: `thick` pixels on either side of every change of the row."""
    # only whether values differ counts, so any of OpenCV's types will do that tells them apart: the smaller the faster
    rows = rows.view(np.uint8) if rows.dtype == np.int8 else rows if rows.dtype == np.int16 else rows.astype(np.float32)
    kernel = np.ones((2 * thick + 1, 2 * thick + 1), np.uint8)
    return cv2.dilate(rows, kernel) != cv2.erode(rows, kernel)


def hatched(where: np.ndarray) -> np.ndarray:
    """[H, W] bool: diagonal stripes of `where`."""
    if not where.any():
        return where
    thick = line_width(*where.shape)
    height, width = where.shape
    stripe = np.arange(height + width) % (12 * thick) < 4 * thick
    return where & np.lib.stride_tricks.sliding_window_view(stripe, width)[:height]


def fitting(image: Any, segments: Segments) -> np.ndarray:
    """The image as `displayable` shows it. Raises DataError when its size is not that of the segments."""
    picture = displayable(image)
    if picture.shape[:2] != segments.size:
        raise DataError(f"an image of {picture.shape[:2]} (height, width) and segments of {segments.size} do not fit.")
    return picture


def legend(
    classes: Classes, *, height: int = 0, columns: int = 0, width: int = 0, only: Segments | None = None
) -> np.ndarray:
    """[h, w, 3] uint8: names of the classes beside their colours on white, in letters that fit an image of `height`.

    height   of the image that it belongs to, in pixels; 0 means letters of 16
    columns  how many names side by side; 0 means as many as look square
    width    of the legend, in pixels, filled with as many columns as it holds (at least one); 0 means as `columns` says
    only     segments: classes that own none of their pixels are left out
    """
    shown = range(len(classes))
    if only is not None:
        seen = set(only.labels[only.pixel_counts > 0].tolist())
        shown = [k for k in shown if k in seen] or shown  # type: ignore[assignment]
    names = [(classes.names[k], classes.colours[k]) for k in shown]
    size = max(12, round((height or 640) / 40))
    font = letters(size, "".join(classes.names))
    wide = max(int(font.getlength(name)) for name, _ in names)
    cell, line = wide + 3 * size, round(1.6 * size)
    fitting_columns = (width - size) // cell if width else round((len(names) * line / cell) ** 0.5)
    columns = columns or min(len(names), max(1, fitting_columns))
    rows = -(-len(names) // columns)
    page = Image.new("RGB", (max(width, columns * cell + size), rows * line + size), "white")
    draw = ImageDraw.Draw(page)
    for k, (name, colour) in enumerate(names):
        x, y = size + k // rows * cell, size // 2 + k % rows * line
        box = (x, y + line // 2 - size // 2, x + size, y + line // 2 + size // 2)
        draw.rectangle(box, fill=tuple(colour), outline="#808080")
        draw.text((x + 1.5 * size, y + line / 2), name, fill="#202020", font=font, anchor="lm")
    return np.asarray(page)
