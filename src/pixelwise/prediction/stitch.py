"""The answer for an image of any size, tile by tile: memory depends on the image's width, never on its height."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.outputs import Output, Window
from pixelwise.core.types import Task
from pixelwise.errors import ConfigError
from pixelwise.nn.receptive import Halo, halo_of
from pixelwise.prediction.pieces import Canvas, Table
from pixelwise.prediction.seams import Seams
from pixelwise.prediction.tiling import Tiling, choose_tiling

MEMORY = 1 << 30  # bytes that a tile may take in the net
State = dict[str, np.ndarray]


class Predicts(Protocol):
    """What is needed of a `Predictor`."""

    net: Any
    card: Any
    task: Task
    views: Any

    def forward(self, pixels: Tensor) -> Output: ...


@dataclass(frozen=True)
class Progress:
    """Where tiling stands after a tile.

    done, total   tiles
    state         after the last tile of a row: gives plain arrays by name from which `start=` goes on; else None
    """

    done: int
    total: int
    state: Callable[[], State] | None


def answer_by_tiles(predictor: Predicts, read: Callable[[Window], Tensor], size: tuple[int, int], canvas: Canvas, *,
                    tiling: Tiling | None = None, on_tile: Callable[[Progress], None] | None = None,
                    start: Mapping[str, np.ndarray] | None = None) -> Table:  # fmt: skip
    """Answers an image (H, W) tile by tile, writes provisional rows to the canvas, returns what they come to be.

    read      (top, left, height, width) -> [C, h, w] stored pixels of that window, as `Predictor.pixels` gives them
    tiling    None: see `tiling_for`
    on_tile   called after every tile
    start     what `Progress.state` gave: all rows of tiles before it are on the canvas and are not computed again. The
              tiling must be the same one
    Every pixel is written once, in no particular order within a row of tiles; with blended windows rows above the
    tiles still open are final. `Table.final` makes final rows of them.
    Raises ConfigError where `start` belongs to another image or tiling.
    """
    tiling = tiling or tiling_for(predictor, size)
    joiner = Seams(predictor.task, tiling, size)
    first = 0 if start is None else _resumed(joiner, start, size, tiling)
    rows, columns = tiling.counts(size)
    for tiles in list(tiling.rows(size))[first:]:
        for tile in tiles:
            with torch.no_grad():
                joiner.add(tile, predictor.forward(read(tile.window)), canvas)
            if on_tile is not None:
                done = tile.row * columns + tile.column + 1
                state = _state(joiner, size, tiling, tile.row + 1) if tile is tiles[-1] else None
                on_tile(Progress(done, rows * columns, state))
    return joiner.table()


def _about(size: tuple[int, int], tiling: Tiling) -> np.ndarray:
    return np.array([*size, *(int(value) for value in astuple(tiling))], np.int64)


def _state(joiner: Any, size: tuple[int, int], tiling: Tiling, row: int) -> Callable[[], State]:
    return lambda: {"about": _about(size, tiling), "row": np.array(row), **joiner.state()}


def _resumed(joiner: Any, start: Mapping[str, np.ndarray], size: tuple[int, int], tiling: Tiling) -> int:
    """The row of tiles to go on with."""
    if not np.array_equal(start["about"], _about(size, tiling)):
        raise ConfigError(f"The work to be resumed was done on {start['about'].tolist()}, this is {size} by {tiling}: "
                          "begin anew.")  # fmt: skip
    joiner.restore(start)
    return int(start["row"])


# -- how to tile for a predictor --------------------------------------------------------------------------------------

_HALOS: weakref.WeakKeyDictionary[Any, Halo | None] = weakref.WeakKeyDictionary()


def tiling_for(predictor: Predicts, size: tuple[int, int], memory: int = MEMORY) -> Tiling:
    """The tiling for an image (H, W): exact where the net has a halo and the views keep to it."""
    task = predictor.task
    channels = len(task.classes)
    return choose_tiling(size, halo_for(predictor, size), joins=bool(task.countable.any()), channels=channels,
                         per_pixel=2000.0, memory=memory)  # fmt: skip


def halo_for(predictor: Predicts, size: tuple[int, int]) -> Halo | None:
    """The halo of the predictor's net, None where a view or the size rule changes the scale, or lies otherwise."""
    plain = all(view.scale == 1 for view in predictor.views)
    if not plain or predictor.card.preprocessing.size is not None:
        return None
    net = predictor.net
    if net not in _HALOS:
        _HALOS[net] = halo_of(net, predictor.card.preprocessing.channels)
    return _HALOS[net]
