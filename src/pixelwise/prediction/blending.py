"""Overlapping windows blended into one map of probabilities, for nets whose answer depends on the whole image.

Each window counts with Gaussian weights of an eighth of its side around its middle (nnU-Net, Isensee et al. 2021,
10.1038/s41592-020-01008-z, Methods, "Inference"), as the answer is best there. Weights are products of one of the row
and one of the column, so windows are blended across first, then the rows of windows down. A window is gone through by
strips of rows, and what no later window covers is decided and let go: what is held is what a window shares with the
next, in float32, and what a row of windows shares with the next, in float16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.outputs import Candidates, Frame, Output, Window, components, cut_strips
from pixelwise.core.types import Task
from pixelwise.prediction.canvas import Canvas
from pixelwise.prediction.confidence import confidence
from pixelwise.prediction.pieces import Pieces, Table
from pixelwise.prediction.tiling import Tile, Tiling

SPREAD = 8  # a window's side in standard deviations


def gaussian(length: int) -> Tensor:
    """[length] float32 weights along a window, 1 in its middle."""
    at = torch.arange(length, dtype=torch.float64) + 0.5 - length / 2
    return torch.exp(-0.5 * (at * SPREAD / length) ** 2).float()


class Blending:
    """What is still open between windows: `add` each in its order, then read the `table`. For tasks that count nothing.

    across   [K, h, o] sums of weighted probabilities of the row of windows, where the next window goes on
    above    [K, o, W] float16 blended probabilities of the rows of windows above, where this one goes on, `weight` [o]
             the sum of their weights there
    sure     a canvas for the confidence of the answer, or None
    """

    def __init__(self, task: Task, tiling: Tiling, size: tuple[int, int], sure: Canvas | None = None) -> None:
        self.task, self.size, self.sure = task, size, sure
        self.rows = [tiles[0].window for tiles in tiling.rows(size)]
        self.columns = [tile.window for tile in next(tiling.rows(size))]
        self.deepest = max((a[0] + a[2] - b[0] for a, b in pairwise(self.rows)), default=0)
        self.pieces = Pieces(len(task.classes))
        self.activation = "softmax"
        self.across: Tensor | None = None
        self.above: Tensor | None = None
        self.below: Tensor | None = None
        self.held: Tensor | None = None  # of which `above` and `below` are the first rows
        self.weight = self.next_weight = torch.zeros(0)

    def add(self, tile: Tile, output: Output, canvas: Canvas) -> None:
        """Blends a window in and writes what is decided by it to the canvas."""
        _, left, height, width = tile.window
        self.activation = getattr(output, "activation", "softmax")
        if tile.column == 0:
            self._next_row()
        stop = self.columns[tile.column + 1][1] if tile.column + 1 < len(self.columns) else left + width
        own, total, rest = gaussian(width), self._weights_across(left, stop), None
        for strip in cut_strips(Frame.whole(height, width), None, len(self.task.classes) + 1):
            sums = output.probs(0, strip).cpu() * own  # [K, h, W]
            rows = slice(strip[0], strip[0] + strip[2])
            if self.across is not None:
                sums[:, :, : self.across.shape[2]] += self.across[:, rows]
            if rest is None:
                rest = sums.new_zeros(len(sums), height, left + width - stop)
            rest[:, rows] = sums[:, :, stop - left :]
            self._blend_down(tile, sums[:, :, : stop - left] / total, strip[0], canvas)
        self.across = rest

    def _next_row(self) -> None:
        """The row of windows above is done: what it left open is what this one goes on with."""
        self.across, self.above, self.below = None, self.below, None
        self.weight = self.next_weight

    def _weights_across(self, start: int, stop: int) -> Tensor:
        """[stop - start] the sum of the weights of all windows of the row in these columns."""
        return _weights([(window[1], window[3]) for window in self.columns], start, stop)

    def _blend_down(self, tile: Tile, done: Tensor, start: int, canvas: Canvas) -> None:
        """Joins blended columns [K, h, w] of the window's rows from `start` on with those of the rows above; decides
        the rows that no window below has, holds the others."""
        top, left, height, _ = tile.window
        rows, weight = done.shape[1], gaussian(height)
        shared = 0 if self.above is None else min(max(self.above.shape[1] - start, 0), rows)
        if shared:
            assert self.above is not None
            both = slice(start, start + shared)
            old, new = self.weight[both, None], weight[both, None]
            done[:, :shared] *= new
            done[:, :shared] += self.above[:, both, left : left + done.shape[2]].float() * old
            done[:, :shared] /= old + new
        last = tile.row + 1 == len(self.rows)
        open_from = height if last else self.rows[tile.row + 1][0] - top
        decided = min(max(open_from - start, 0), rows)
        if decided:
            self._decide(done[:, :decided], top + start, left, canvas)
        if decided < rows:
            self._keep(done[:, decided:], weight, open_from, start + decided, left)

    def _keep(self, part: Tensor, weight: Tensor, open_from: int, start: int, left: int) -> None:
        """Holds the window's rows from `start` on for the row of windows below, which begins at `open_from`."""
        if self.below is None:
            if self.held is None:
                self.held = torch.zeros(len(part), self.deepest, self.size[1], dtype=torch.float16)
            self.below = self.held[:, : len(weight) - open_from]  # rows of `above` are read before they are written
            self.next_weight, held = weight[open_from:].clone(), self.weight[open_from:]
            self.next_weight[: len(held)] += held
        assert self.below is not None
        at = start - open_from
        self.below[:, at : at + part.shape[1], left : left + part.shape[2]] = part

    def _decide(self, probs: Tensor, top: int, left: int, canvas: Canvas) -> None:
        blended = Blended(probs, self.activation)
        if self.sure is not None:
            self.sure.put(top, left, confidence(blended, len(probs)))
        partial = self.task.partial(blended, 0)
        segments, label = partial.segments.to("cpu"), partial.segments.labels.cpu().numpy()
        self.pieces.rest = partial.rest
        for name, values in (("least_area", partial.least_area), ("least_score", partial.least_score)):
            self.pieces[name][label] = values.numpy()
        self.pieces.cover(label, segments.pixel_counts.numpy(), segments.scores.numpy())
        canvas.put(top, left, segments.row_map().numpy().astype(np.int32))

    def table(self) -> Table:
        """The segments of the whole image."""
        return self.pieces.table()

    def state(self) -> dict[str, np.ndarray]:
        """After the last window of a row: all that the rest depends on; no copy."""
        strip = torch.zeros(0, 0, 0) if self.below is None else self.below
        return {**self.pieces.state(), "below": strip.numpy(), "weight": self.next_weight.numpy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from what `state` gave."""
        self.pieces = Pieces.restored(state)
        if state["below"].size:
            classes, rows, width = state["below"].shape
            self.held = torch.zeros(classes, self.deepest, width, dtype=torch.float16)
            self.below = self.held[:, :rows]
            self.below.copy_(torch.from_numpy(state["below"]))
        self.next_weight = torch.from_numpy(state["weight"])


def _weights(windows: Sequence[tuple[int, int]], start: int, stop: int) -> Tensor:
    """[stop - start] the sum of the Gaussian weights of windows (begin, length) there."""
    total = torch.zeros(stop - start)
    for begin, length in windows:
        low, high = max(begin, start), min(begin + length, stop)
        if low < high:
            total[low - start : high - start] += gaussian(length)[low - begin : high - begin]
    return total


@dataclass(frozen=True, eq=False)
class Blended:
    """Probabilities [K, H, W] as an output: of one image, at its own size."""

    maps: Tensor
    activation: str = "softmax"
    aux: tuple[tuple[str, float, Any], ...] = ()

    @property
    def frames(self) -> tuple[Frame, ...]:
        return (Frame.whole(*self.maps.shape[1:]),)

    def probs(self, i: int, window: Window | None = None) -> Tensor:
        """[K, H, W] float32 in 0..1."""
        if window is None:
            return self.maps
        top, left, height, width = window
        return self.maps[:, top : top + height, left : left + width]

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] int64 the most probable channel; where classes stand alone K, nothing, if none exceeds 0.5."""
        best = self.probs(i, window).max(0)
        alone = self.activation == "sigmoid"
        return best.indices.masked_fill(best.values <= 0.5, len(self.maps)) if alone else best.indices

    def candidates(self, i: int) -> Candidates:
        """Connected components of the class map."""
        return components(self, i, len(self.maps))
