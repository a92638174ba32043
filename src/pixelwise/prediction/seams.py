"""Tiles one after the other, each answering for its core; what they find of one object is joined where they meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pixelwise.core.outputs import Output, Window
from pixelwise.core.segments import Segments
from pixelwise.core.types import Task
from pixelwise.prediction.pieces import Pieces, Table
from pixelwise.prediction.tiling import Tile, Tiling


class Seams:
    """What is still open between tiles: `add` each in its order, then read the `table`.

    Provisional rows are those of `Pieces`: for labels that are not countable the label itself.
    """

    def __init__(self, task: Task, tiling: Tiling, size: tuple[int, int]) -> None:
        self.task, self.tiling, self.size = task, tiling, size
        self.pieces = Pieces(len(task.classes))

    def add(self, tile: Tile, output: Output, canvas: Any) -> None:
        """Writes the tile's core to the canvas."""
        partial = self.task.partial(output, 0)
        found = partial.segments.to("cpu")
        self.pieces.rest = partial.rest
        rows = self._rows(found, partial.least_area.numpy(), partial.least_score.numpy())
        core = _cut(found.ids.numpy(), tile.core, tile.window)
        self._count(core, rows, found.scores.numpy())
        shown = Segments(torch.from_numpy(core), found.labels).row_map().numpy()
        table = np.concatenate([np.array([-2, -1], np.int32), rows])
        canvas.put(tile.core[0], tile.core[1], table[shown.astype(np.int64) + 2])

    def _rows(self, found: Segments, least_area: np.ndarray, least_score: np.ndarray) -> np.ndarray:
        """[N] int32 provisional rows of the segments of a tile."""
        label = found.labels.numpy()
        rows = label.astype(np.int32)
        new = self.task.countable[label]
        rows[new] = self.pieces.add(label[new], least_area[new], least_score[new])
        for name, values in (("least_area", least_area), ("least_score", least_score)):
            self.pieces[name][label[~new]] = values[~new]
        return rows

    def _count(self, core: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        pixels = np.zeros(len(rows), np.int64)
        for layer in core:
            pixels += np.bincount(layer.ravel().astype(np.int64) + 2, minlength=len(rows) + 2)[2:]
        self.pieces.cover(rows, pixels, scores)

    def table(self) -> Table:
        return self.pieces.table()

    def state(self) -> dict[str, np.ndarray]:
        return self.pieces.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.pieces = Pieces.restored(state)


def _cut(ids: np.ndarray, part: Window, window: Window) -> np.ndarray:
    """[L, h, w] of a window -> the part of it, both in pixels of the image."""
    top, left = part[0] - window[0], part[1] - window[1]
    return ids[:, top : top + part[2], left : left + part[3]]
