"""Colours of segments: shades of the class's colour where a picture shows classes, distinct hues where it has only one.

Shades are made in OKLab (Ottosson 2020), where equal steps look equal.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments

# lightness, chroma factor and turn of hue (degrees) of the shades that neighbouring objects of one class take
SHADES = np.array(
    [(0, 1, 0), (0.12, 0.85, 5), (-0.13, 1, -5), (0.04, 1, 14), (-0.06, 0.9, -14), (0.2, 0.6, -8), (-0.22, 0.9, 10)],
    dtype=np.float64,
)
LIGHTNESS = (0.47, 0.73)  # shades lie around the class's own lightness, but within reach of both darker and lighter
# hues that differ on light and on dark ground, also for most colour-blind people by their lightness
HUES = np.array(
    [(0, 140, 230), (250, 140, 20), (60, 190, 90), (215, 60, 150), (245, 215, 50), (130, 80, 205), (40, 200, 205),
     (215, 55, 50), (155, 195, 250), (150, 110, 60), (175, 225, 140)], np.uint8,
)  # fmt: skip
_TO_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                    [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
_COARSE = 384  # neighbours are sought on a map of at most so many pixels a side


def instance_colours(segments: Segments, classes: Classes) -> np.ndarray:
    """[N, 3] uint8: a colour for every row, such that neighbouring objects of one class differ.

    With several classes each row has its class's colour, objects of one class in shades of it. Where all there is to
    tell apart is the objects of the only class, they take HUES.
    """
    labels = segments.labels.cpu().numpy()
    base = np.array(classes.colours, dtype=np.uint8).reshape(-1, 3)[labels]
    thing = classes.is_thing[labels]
    several = (np.bincount(labels, minlength=len(classes))[labels] > 1) & thing
    if not several.any():
        return base
    if len(classes) == 1:
        return HUES[_greedy(segments, labels, len(HUES), spread=True)]
    shades = _greedy(segments, labels, len(SHADES))
    return np.where(several[:, None], _shift(base, shades), base)


def _greedy(segments: Segments, labels: np.ndarray, count: int, *, spread: bool = False) -> np.ndarray:
    """[N] number 0..count-1: for each row in turn the first that no neighbour of its class has, else the rarest there.

    With `spread`, of those that are free the one that fewest rows have so far.
    """
    neighbours: list[set[int]] = [set() for _ in labels]
    for a, b in _neighbours(segments):
        if labels[a] == labels[b]:
            neighbours[a].add(b)
            neighbours[b].add(a)
    chosen, used = np.full(len(labels), -1), np.zeros(count)
    for row in range(len(labels)):
        taken = np.bincount([chosen[n] for n in neighbours[row] if chosen[n] >= 0], minlength=count)
        cost = taken * (len(labels) + 1) + (used if spread else 0)
        chosen[row] = int(cost.argmin())
        used[chosen[row]] += 1
    return chosen


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


def _shift(colours: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """[N, 3] uint8: colours [N, 3] in the SHADES that `numbers` [N] name; number 0 leaves them as they are."""
    shades = SHADES[numbers]
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T
    # black and white have no darker or lighter shades of their own
    lightness = np.clip(lab[:, 0], *LIGHTNESS) + shades[:, 0]
    turn = np.exp(1j * np.deg2rad(shades[:, 2])) * shades[:, 1]
    chroma = (lab[:, 1] + 1j * lab[:, 2]) * turn
    lab = np.stack([lightness, chroma.real, chroma.imag], 1)
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T
    linear = np.clip(linear, 0, 1)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.where(numbers[:, None] > 0, np.rint(srgb * 255), colours).astype(np.uint8)
