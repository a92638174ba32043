"""The confusion matrix as a person reads it: shares of the truth, tinted, and the commonest mistakes in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pixelwise.core.classes import Classes
from pixelwise.report.pictures import png
from pixelwise.report.tables import css

CELLS = 40  # classes up to which the matrix is a table; above it is a picture
COUNTED = 20  # classes up to which its cells show counts too


@dataclass(frozen=True)
class Confusion:
    """Rows are the truth, columns the prediction.

    names, colours  of both
    cells           rows of (share of the row 0..1, count, strength of the tint 0..1)
    counted         whether there is room to show the counts
    worst           (truth, prediction, share, count) of the commonest mistakes
    """

    names: list[str]
    colours: list[str]
    cells: list[list[tuple[float, int, float]]]
    counted: bool
    worst: list[tuple[str, str, float, int]]


def confusion(counts: Any, classes: Classes) -> Confusion | None:
    """The matrix [K+1, K+1] normalised by the truth, without "nothing" where that never occurs; None without counts."""
    if counts is None:
        return None
    table = np.asarray(counts, dtype=np.int64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not table.sum():
        return None
    names = [*classes.names, "nothing"][: len(table)]
    colours = [*(css(c) for c in classes.colours), "#808080"][: len(table)]
    if len(names) > len(classes) and not table[-1].sum() and not table[:, -1].sum():
        table, names, colours = table[:-1, :-1], names[:-1], colours[:-1]
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    cells = [[(float(s), int(n), _strength(s)) for s, n in zip(*row)] for row in zip(share, table)]
    if len(cells) > len(classes) and not table[-1].sum():  # some answers are no class, but no truth is
        cells.pop()
    wrong = np.where(np.eye(len(table), dtype=bool), 0, table)
    order = [divmod(int(i), len(table)) for i in np.argsort(-wrong, axis=None, kind="stable")[:8]]
    worst = [(names[t], names[p], float(share[t, p]), int(table[t, p])) for t, p in order if wrong[t, p]]
    return Confusion(names, colours, cells, len(names) <= COUNTED + 1, worst)


def _strength(share: float) -> float:
    """How strongly a cell is tinted, 0..1: a square root, so that mistakes of a few percent are seen."""
    return round(float(share) ** 0.5, 3)


def picture(table: Confusion | None) -> str | None:
    """A matrix too large for a table as a data URI: the tint of each cell, the diagonal green, mistakes red."""
    if table is None or len(table.names) <= CELLS + 1:
        return None
    strength = np.array([[cell[2] for cell in row] for row in table.cells])[:, :, None]  # [rows, columns, 1]
    tint = np.where(np.eye(*strength.shape[:2])[:, :, None] > 0, (10.0, 127.0, 120.0), (211.0, 83.0, 29.0))
    cells = np.rint(255 + (tint - 255) * strength).astype(np.uint8)
    zoom = max(1, 800 // len(cells))
    return png(cv2.resize(cells, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST))
