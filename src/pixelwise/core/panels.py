"""Several pictures of one image on one page, with titles and a legend: what a net answers to all three tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pixelwise.core.captions import letters, text_size
from pixelwise.core.classes import Classes
from pixelwise.core.drawing import displayable, legend, overlay
from pixelwise.core.segments import Segments
from pixelwise.errors import DataError

PAPER = 255  # the white between pictures


def side_by_side(pictures: Sequence[tuple[str, np.ndarray]], *, columns: int = 0) -> np.ndarray:
    """[h, w, 3] uint8: (title, picture [H, W, 3] uint8) pairs of one size in a grid, each title above its picture.

    columns  how many side by side; 0 means as many as make the page look like a screen, wider than high
    Raises DataError for no picture and for pictures of several sizes.
    """
    sizes = {picture.shape for _, picture in pictures}
    if len(sizes) != 1:
        raise DataError(f"pictures side by side must have one size; got {sorted(sizes) or 'no picture'}.")
    height, width = pictures[0][1].shape[:2]
    high = text_size(height, width)
    bar, gap = 2 * high, high // 2
    if not columns:
        whole = [n for n in range(1, len(pictures) + 1) if len(pictures) % n == 0]  # no holes in the last row
        ratios = {n: (n * width) / (len(pictures) // n * (height + bar)) for n in whole}
        columns = min(ratios, key=lambda n: abs(np.log(ratios[n] / 1.6)))
    rows = -(-len(pictures) // columns)
    page = np.full((rows * (height + bar) + (rows + 1) * gap, columns * (width + gap) + gap, 3), PAPER, np.uint8)
    font = letters(round(high * 1.2))
    for k, (title, picture) in enumerate(pictures):
        top, left = gap + k // columns * (height + bar + gap), gap + k % columns * (width + gap)
        head = Image.new("RGB", (width, bar), "white")
        ImageDraw.Draw(head).text((0, bar / 2), title, fill="#202020", font=font, anchor="lm")
        page[top : top + bar, left : left + width] = np.asarray(head)
        page[top + bar : top + bar + height, left : left + width] = picture
    return page


def three_answers(
    image: Any, semantic: Segments, instances: Segments, panoptic: Segments, classes: Classes
) -> np.ndarray:
    """[h, w, 3] uint8: the image and the answers to the three tasks beside each other, above a legend.

    image      as `displayable` takes it, [H, W]
    semantic, panoptic  segments of `classes`; `instances` those of its things alone, as the task instance answers
    Raises DataError when the sizes differ.
    """
    things = classes.only(classes.things, nothing=True) if classes.things else classes
    page = side_by_side(
        [
            ("image", displayable(image)),
            ("semantic: a class for every pixel", overlay(image, semantic, classes)),
            ("instance: every object by itself", overlay(image, instances, things)),
            ("panoptic: classes and objects in one", overlay(image, panoptic, classes)),
        ]
    )
    below = legend(classes, height=round(page.shape[0] * 0.7), width=page.shape[1], only=semantic)
    if below.shape[1] > page.shape[1]:
        page = np.pad(page, ((0, 0), (0, below.shape[1] - page.shape[1]), (0, 0)), constant_values=PAPER)
    return np.concatenate([page, below])
