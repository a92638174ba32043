"""Levels of the whole image for its tiles: where preprocessing stretches images between percentiles of their own, those
of a tile would be others, and differ from tile to tile."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.outputs import Window
from pixelwise.core.sample import Preprocessing

PIECE = 512  # pixels a side of what is read at once


def levelled(predictor: Any, read: Callable[[Window], Tensor], size: tuple[int, int]) -> Any:
    """The predictor for tiles of one image (H, W): the same one, or a copy that knows the whole image's percentiles.

    The image is then read once more, piece by piece. Its members are treated alike.
    """
    members = tuple(getattr(predictor, "members", (predictor,)))
    wanted = {m.card.preprocessing.percentiles for m in members} - {None}
    if not wanted:
        return predictor
    counts = _counts(read, size)
    made = tuple(_fixed(member, counts) for member in members)
    made[0].members = made
    return made[0]


def _counts(read: Callable[[Window], Tensor], size: tuple[int, int]) -> Tensor:
    """[V] int64: how many numbers of the image, over all channels, have each stored value."""
    total = torch.zeros(1, dtype=torch.int64)
    for top in range(0, size[0], PIECE):
        for left in range(0, size[1], PIECE):
            part = read((top, left, min(PIECE, size[0] - top), min(PIECE, size[1] - left)))
            found = torch.bincount(part.flatten().int(), minlength=len(total))
            found[: len(total)] += total
            total = found
    return total


def _fixed(member: Any, counts: Tensor) -> Any:
    made, card = copy.copy(member), member.card
    made.card = replace(card, preprocessing=fixed(card.preprocessing, counts))
    return made


def fixed(rule: Preprocessing, counts: Tensor) -> Preprocessing:
    """The same preprocessing with the percentiles of an image whose stored values were counted, [V], as its range."""
    if rule.percentiles is None:
        return rule
    low, high = percentiles_of(counts, rule.percentiles)
    width = max(1.0, high - low)
    mean = tuple((low + m * width) / rule.range for m in rule.mean)
    return replace(rule, percentiles=None, mean=mean, std=tuple(s * width / rule.range for s in rule.std))


def percentiles_of(counts: Tensor, wanted: tuple[float, float]) -> list[float]:
    """What `core.sample.percentiles` says of an image with these counts of stored values."""
    below = counts.cumsum(0).numpy()
    place = np.array(wanted) / 100 * (int(below[-1]) - 1)
    under, over = (below.searchsorted(np.floor(place) + k) for k in (1, 2))
    over = np.minimum(over, below.searchsorted(below[-1]))
    return [float(np.float32(v)) for v in under + (over - under) * (place - np.floor(place))]
