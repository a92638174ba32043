"""The answer for an image of any size, tile by tile: memory depends on the image's width, not on its height, but for a
table of some 40 bytes for each object that a tile finds."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.outputs import Output, Window
from pixelwise.core.segments import Segments, smallest_int
from pixelwise.errors import ConfigError
from pixelwise.nn.peak import forward_bytes
from pixelwise.nn.receptive import Halo, halo_of
from pixelwise.prediction.blending import Blending
from pixelwise.prediction.canvas import Canvas, MemoryCanvas
from pixelwise.prediction.levels import levelled
from pixelwise.prediction.pieces import Table
from pixelwise.prediction.seams import Seams
from pixelwise.prediction.tiling import Tile, Tiling, choose_tiling
from pixelwise.views import View

MEMORY = 1 << 29  # bytes that a tile and what is held between tiles may take: with the program less than 2 GB
WHOLE = 1 << 32  # bytes up to which an image is seen whole
GUESS = 4096.0  # bytes a pixel of nets that tell only by computing
SMALL = 1 << 20  # pixels that are not worth asking
State = dict[str, np.ndarray]


class Joiner(Protocol):
    """What makes one answer of tiles that are added in their order."""

    def add(self, tile: Tile, output: Output, canvas: Canvas) -> None: ...

    def table(self) -> Table: ...

    def state(self) -> State: ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None: ...


@dataclass(frozen=True)
class Progress:
    """Where tiling stands after a tile.

    done, total   tiles
    state         after the last tile of a row: gives plain arrays by name from which `start=` goes on; else None. They
                  are to be used at once: the next tile writes to them
    """

    done: int
    total: int
    state: Callable[[], State] | None


def answer_by_tiles(predictor: Any, read: Callable[[Window], Tensor], size: tuple[int, int], canvas: Canvas, *,
                    tiling: Tiling | None = None, on_tile: Callable[[Progress], None] | None = None,
                    start: Mapping[str, np.ndarray] | None = None,
                    confidence: Canvas | None = None) -> Table:  # fmt: skip
    """Answers an image (H, W) tile by tile, writes provisional rows to the canvas, returns what they come to be.

    predictor a `Predictor`: its net, views, members and task; engines are told how many tiles come
    read      (top, left, height, width) -> [C, h, w] stored pixels of that window, as `Predictor.pixels` gives them
    tiling    None: see `tiling_for`
    on_tile   called after every tile
    start     what `Progress.state` gave: all rows of tiles before it are on the canvas and are not computed again. The
              tiling must be the same one
    confidence  a canvas of bytes that `confidence` of the answer is written to as well
    Every pixel is written once, in no particular order within a row of tiles; what lies above the next row of tiles'
    windows is not written again. `Table.final` makes final rows of what was written. An exact tiling gives the class
    map of the whole image to the bit where the net's arithmetic does not depend on the size of its input, as in
    float64; in float32 and below, convolutions of another size may add up in another order, and labels differ where
    two classes tie to the last bits. Objects are those of the whole image where they are connected components of that
    map; their scores are means over their pieces, by area.
    Raises ConfigError where `start` belongs to another image or tiling.
    """
    tiling = tiling or tiling_for(predictor, size)
    joiner: Joiner = (Blending if tiling.blended else Seams)(predictor.task, tiling, size, confidence)
    first = 0 if start is None else _resumed(joiner, start, size, tiling)
    rows, columns = tiling.counts(size)
    predictor = levelled(predictor, read, size)
    shapes = {tile.window[2:] for tiles in tiling.rows(size) for tile in tiles}
    predictor.expect((rows - first) * columns, len(shapes))
    for tiles in islice(tiling.rows(size), first, None):
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


def _state(joiner: Joiner, size: tuple[int, int], tiling: Tiling, row: int) -> Callable[[], State]:
    return lambda: {"about": _about(size, tiling), "row": np.array(row), **joiner.state()}


def _resumed(joiner: Joiner, start: Mapping[str, np.ndarray], size: tuple[int, int], tiling: Tiling) -> int:
    """The row of tiles to go on with."""
    if not np.array_equal(start["about"], _about(size, tiling)):
        raise ConfigError(f"The work to be resumed was done on {start['about'].tolist()}, this is {size} by {tiling}: "
                          "begin anew.")  # fmt: skip
    joiner.restore(start)
    return int(start["row"])


# -- how to tile for a predictor --------------------------------------------------------------------------------------

_FACTS: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()  # of nets, found out once


def tiling_for(predictor: Any, size: tuple[int, int], memory: int = MEMORY, side: int | None = None) -> Tiling:
    """The tiling for an image (H, W): exact where the nets have a halo and the views keep to it.

    memory  bytes that a tile may take in a net, with what is held between tiles
    side    pixels a side of tiles; None: as memory allows, or what a net expects that takes images of one size
    """
    task, rules = predictor.task, [member.card.preprocessing.size for member in members_of(predictor)]
    only = None if side else min((rule.short for rule in rules if rule is not None), default=None)
    return choose_tiling(size, halo_for(predictor), joins=bool(task.countable.any()), channels=len(task.classes) + 1,
                         per_pixel=per_pixel(predictor), memory=memory, side=side or only,
                         fits=only is None)  # fmt: skip


def members_of(predictor: Any) -> tuple[Any, ...]:
    """The predictors of an ensemble, or the one."""
    return tuple(getattr(predictor, "members", (predictor,)))


def halo_for(predictor: Any) -> Halo | None:
    """What covers the halos of all nets; None where one has none, or a view or a size rule changes the scale."""
    members, halos = members_of(predictor), []
    for member in members:
        if member.card.preprocessing.size is not None or any(view.scale != 1 for view in member.views):
            return None
        halos.append(_fact(member, "halo", halo_of))
    known = [halo for halo in halos if halo is not None]
    if len(known) < len(halos):
        return None
    # mirrored, an image whose side is no multiple of the stride lies otherwise on the net's grid than its windows
    upright = all(view == View() for member in members for view in member.views)
    stride = math.lcm(*(halo.stride for halo in known))
    return Halo(max(halo.pixels for halo in known), stride, upright and all(halo.any_size for halo in known))


def per_pixel(predictor: Any) -> float:
    """Bytes that the hungriest net takes for a pixel of its input."""
    return max(float(_fact(member, "bytes", _bytes)) * max(view.scale for view in member.views) ** 2
               for member in members_of(predictor))  # fmt: skip


def too_large(predictor: Any, size: tuple[int, int], most: int = WHOLE) -> bool:
    """Whether an image (H, W) would take more than so many bytes in a net at once, and so is answered by tiles."""
    if any(member.card.preprocessing.size is not None for member in members_of(predictor)):
        return False  # whatever its size, the net sees a small one
    return size[0] * size[1] > SMALL and size[0] * size[1] * per_pixel(predictor) > most


def _fact(member: Any, name: str, find: Callable[[Any, int], Any]) -> Any:
    known = _FACTS.setdefault(member.net, {})
    if name not in known:
        known[name] = find(member.net, member.card.preprocessing.channels)
    return known[name]


def _bytes(net: Any, channels: int) -> float:
    found = forward_bytes(net, channels, (512, 512))
    return GUESS if found is None else found / 512**2


def segments_by_tiles(predictor: Any, pixels: Tensor, tiling: Tiling | None = None) -> Segments:
    """The answer for an image [C, H, W] of stored pixels that is in memory, by tiles.

    Objects lie in one layer: where they overlap, the surest of their tile shows. At most so many objects as a task
    keeps of an image (`Instance.keep`) are kept of each tile.
    """
    size = (int(pixels.shape[1]), int(pixels.shape[2]))

    def read(window: Window) -> Tensor:
        top, left, height, width = window
        return pixels[:, top : top + height, left : left + width]

    most = None if predictor.task.countable.any() else len(predictor.task.classes)
    canvas = MemoryCanvas(size, most)
    table = answer_by_tiles(predictor, read, size, canvas, tiling=tiling)
    ids, kind = torch.from_numpy(canvas.rows), smallest_int(len(table.labels))
    if ids.dtype != kind:
        ids = torch.empty(size, dtype=kind)
    rows = max(1, SMALL // size[1])
    for top in range(0, size[0], rows):  # in place where the type is the same
        ids[top : top + rows] = torch.from_numpy(table.final(canvas.band(top, min(top + rows, size[0]))))
    return Segments(ids, table.labels, scores=table.scores)
