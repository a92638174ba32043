"""Tiles one after the other, each answering for its core; what they find of one object is joined where they meet.

Every tile gives provisional rows to the objects it sees; two neighbours' rows that agree in the strip that both are
trusted with become one (`prediction.neighbours`). So an object that many tiles cross is joined along their chain, also
where it passes the corner of four: it lies in the strips of the two others. Rows of objects that no core shows own no
pixel, and vanish. A label that is not countable has one row in the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from pixelwise.core.outputs import Output, Window
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.core.types import Task
from pixelwise.prediction.canvas import Canvas
from pixelwise.prediction.confidence import confidence
from pixelwise.prediction.neighbours import agreeing, torn
from pixelwise.prediction.pieces import Pieces, Table
from pixelwise.prediction.tiling import Tile, Tiling

Seen = tuple[Window, np.ndarray]  # a part of the image and the provisional rows [L, h, w] there


class Seams:
    """What is still open between tiles: `add` each in its order, then read the `table`.

    sure  a canvas for the confidence of the answer, or None
    """

    def __init__(self, task: Task, tiling: Tiling, size: tuple[int, int], sure: Canvas | None = None) -> None:
        self.task, self.tiling, self.sure = task, tiling, sure
        self.pieces = Pieces(len(task.classes))
        self.joins = bool(task.countable.any())
        self.tops = [tiles[0].trusted[0] for tiles in tiling.rows(size)]  # of what each row of tiles is trusted with
        self.left: Seen | None = None
        self.above: list[Seen] = []  # of the row of tiles above, its strip with the row below
        self.below: list[Seen] = []  # of this one

    def add(self, tile: Tile, output: Output, canvas: Canvas) -> None:
        """Writes the tile's core to the canvas and joins its objects to those of the tiles before it."""
        partial = self.task.partial(output, 0)
        found = partial.segments.to("cpu")
        ids, sources = self._trusted(found, tile)
        rows = self._numbered(found.labels.numpy()[sources], partial.least_area.numpy()[sources],
                              partial.least_score.numpy()[sources])  # fmt: skip
        self.pieces.rest = partial.rest
        core = cut(ids, tile.core, tile.trusted)
        self.pieces.cover(rows, _pixels(core, len(rows)), found.scores.numpy()[sources])
        table = np.concatenate([np.array([UNKNOWN, NOTHING], np.int32), rows])
        shown = Segments(torch.from_numpy(core), torch.from_numpy(rows)).row_map().numpy()
        canvas.put(tile.core[0], tile.core[1], table[shown.astype(np.intp) - UNKNOWN])
        if self.sure is not None:
            top, left, height, width = tile.core
            inside = (top - tile.window[0], left - tile.window[1], height, width)
            self.sure.put(top, left, confidence(output, self.task.classes.channels, inside))
        if self.joins:
            self._join(tile, table[ids.astype(np.intp) - UNKNOWN])

    def _trusted(self, found: Segments, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """[L, h, w] rows in the trusted part of the window, and which row of `found` each of them was."""
        ids, sources = found.ids.numpy(), np.arange(len(found))
        if tile.trusted == tile.window:
            return ids, sources
        inner = cut(ids, tile.trusted, tile.window)
        single = np.flatnonzero(self.task.countable[found.labels.numpy()])
        if not self.tiling.exact or not len(single):
            return inner, sources
        outside = ids.copy()
        cut(outside, tile.trusted, tile.window)[:] = NOTHING
        inner, more = torn(inner.astype(np.int32), single, np.unique(outside), len(found))
        return inner, np.concatenate([sources, more])

    def _numbered(self, label: np.ndarray, least_area: np.ndarray, least_score: np.ndarray) -> np.ndarray:
        """[N] int32 provisional rows of what a tile has found: new ones for objects."""
        rows = label.astype(np.int32)
        new = self.task.countable[label]
        rows[new] = self.pieces.add(label[new], least_area[new], least_score[new])
        for name, values in (("least_area", least_area), ("least_score", least_score)):
            self.pieces[name][label[~new]] = values[~new]
        return rows

    def _join(self, tile: Tile, rows: np.ndarray) -> None:
        """Joins a tile's provisional rows [L, h, w] in its trusted part to those of its neighbours."""
        here = (tile.trusted, rows)
        if tile.column == 0:
            self.above, self.below, self.left = self.below, [], None
        for beside in (self.left, self.above[tile.column] if tile.row else None):
            if beside is not None:
                self._agree(beside, here)
        self.left = here
        if tile.row + 1 < len(self.tops):
            top, left, height, width = tile.trusted
            part = (self.tops[tile.row + 1], left, top + height - self.tops[tile.row + 1], width)
            self.below.append((part, cut(rows, part, tile.trusted).copy()))

    def _agree(self, one: Seen, other: Seen) -> None:
        part = _both(one[0], other[0])
        before, beside = (cut(rows, part, place) for place, rows in (one, other))
        for a, b in agreeing(before, beside, self.pieces["label"], self.pieces.first):
            self.pieces.join(a, b)

    def table(self) -> Table:
        """The segments of the whole image."""
        return self.pieces.table()

    def state(self) -> dict[str, np.ndarray]:
        """After the last tile of a row: all that the rest depends on."""
        strips = {f"strip{j}": rows for j, (_, rows) in enumerate(self.below)}
        places = {f"place{j}": np.array(place) for j, (place, _) in enumerate(self.below)}
        return {**self.pieces.state(), **strips, **places}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from what `state` gave."""
        self.pieces = Pieces.restored(state)
        count = sum(name.startswith("strip") for name in state)
        self.below = [(_window(state[f"place{j}"]), np.asarray(state[f"strip{j}"])) for j in range(count)]


def cut(rows: np.ndarray, part: Window, whole: Window) -> np.ndarray:
    """[..., h, w] that show `whole` -> the part of it; both in pixels of the image."""
    top, left = part[0] - whole[0], part[1] - whole[1]
    return rows[..., top : top + part[2], left : left + part[3]]


def _both(one: Window, other: Window) -> Window:
    """What two windows share."""
    top, left = max(one[0], other[0]), max(one[1], other[1])
    bottom, right = (min(w[k] + w[k + 2] for w in (one, other)) for k in (0, 1))
    return top, left, bottom - top, right - left


def _pixels(ids: np.ndarray, count: int) -> np.ndarray:
    """[N] how many pixels each row owns."""
    shifted = (layer.ravel().astype(np.intp) - UNKNOWN for layer in ids)
    return np.sum([np.bincount(layer, minlength=count + 2)[2:] for layer in shifted], 0)


def _window(place: np.ndarray) -> Window:
    top, left, height, width = (int(n) for n in place)
    return top, left, height, width
