"""A contact sheet of drawn streets: every picture above its truth."""

import cv2
import numpy as np
import numpy.typing as npt

from pixelwise.data.streets.cityscapes import colour_map
from pixelwise.data.streets.scene import Scene, draw_scene

GUTTER = 6  # pixels of white between cells


def overlay(scene: Scene, strength: float = 0.6) -> npt.NDArray[np.uint8]:
    """The picture under its semantic colours, every thing outlined in white: `[H, W, 3]` uint8 RGB."""
    colours = colour_map(scene.label_ids)
    blend = np.asarray(cv2.addWeighted(scene.image, 1 - strength, colours, strength, 0), np.uint8)
    ids = scene.instance_ids
    edge = np.zeros(ids.shape, bool)
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[1:] |= ids[1:] != ids[:-1]
    blend[edge & (ids >= 1000)] = 255
    return blend


def contact_sheet(
    seed: int, rows: int, cols: int, size: tuple[int, int] = (256, 512), *, split: str = "train", truth: bool = True
) -> npt.NDArray[np.uint8]:
    """The first `rows * cols` scenes of a split as one picture, `[H', W', 3]` uint8 RGB.

    Each scene of `size` (height, width) stands above its overlay, or alone with `truth=False`. Raises ConfigError as
    `draw_scene` does.
    """
    height, width = size
    high = height * (2 if truth else 1)
    sheet = np.full((rows * (high + GUTTER) - GUTTER, cols * (width + GUTTER) - GUTTER, 3), 255, np.uint8)
    for index in range(rows * cols):
        scene = draw_scene(seed, index, size, split)
        cell = np.concatenate([scene.image, overlay(scene)]) if truth else scene.image
        top, left = index // cols * (high + GUTTER), index % cols * (width + GUTTER)
        sheet[top : top + high, left : left + width] = cell
    return sheet
