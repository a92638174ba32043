"""How an image that is too large to be seen at once is cut into tiles, and which pixels of each are answered.

A tile's window is read, its core is answered; the cores share the image out among themselves. Near those edges of a
window that are not the image's, the net sees less than there is: `margin` pixels there are not trusted. For a net that
looks no further than a halo (`nn.receptive`), a margin of the halo makes the answer that of the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pixelwise.core.outputs import Window
from pixelwise.errors import ConfigError
from pixelwise.nn.receptive import Halo

STRIP = 64  # pixels that both neighbours see rightly where objects are joined, with a halo
SHARED = 4  # without one, neighbours share a window's side / SHARED where objects are joined
LARGEST, LEAST = 2048, 128  # pixels a side of windows
FOR_HALO = 5  # times the memory for exact tiles: HRNet looks 495 pixels far and needs 2.3 GB
CACHED, ENOUGH = 384, 16  # larger windows than this do not pay: caches hold less of them, when one part in 16 is halo


@dataclass(frozen=True)
class Tile:
    """One tile; all parts are (top, left, height, width) in pixels of the image.

    row, column   where it stands among the tiles
    window        what is read
    trusted       the part of the window where the net sees all that it would in the whole image, or most of it
    core          the part that this tile answers for
    """

    row: int
    column: int
    window: Window
    trusted: Window
    core: Window


@dataclass(frozen=True)
class Tiling:
    """How windows lie on an image.

    side     pixels a side of every window, but for smaller images and what is left at the right and bottom border
    overlap  pixels that neighbouring windows share at least
    margin   pixels at a window's inner edges that are not trusted, at most half the overlap
    stride   windows begin and cores end at multiples of it
    exact    the margin covers the net's halo: class maps are those of the whole image
    blended  what overlaps is a weighted mean of probabilities
    Raises ConfigError for windows that overlap too much, or are no multiples of the stride.
    """

    side: int
    overlap: int
    margin: int = 0
    stride: int = 1
    exact: bool = False
    blended: bool = False

    def __post_init__(self) -> None:
        if min(self.side, self.stride) < 1 or min(self.overlap, self.margin) < 0:
            raise ConfigError(f"{self}: side and stride must be at least 1, overlap and margin at least 0.")
        if any(n % self.stride for n in (self.side, self.overlap, self.margin)):
            raise ConfigError(f"{self}: side, overlap and margin must be multiples of the stride.")
        if self.overlap >= self.side or 2 * self.margin > self.overlap:
            raise ConfigError(f"{self}: the overlap must be smaller than the side, the margin at most half of it.")

    @property
    def step(self) -> int:
        """Pixels from the beginning of one window to that of the next."""
        return self.side - self.overlap

    def counts(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tiles on an image (H, W)."""
        return len(self._starts(size[0])), len(self._starts(size[1]))

    def rows(self, size: tuple[int, int]) -> Iterator[list[Tile]]:
        """The tiles of an image (H, W), row by row; the last of each direction are shifted inwards."""
        across = self._spans(size[1])
        for i, down in enumerate(self._spans(size[0])):
            yield [Tile(i, j, *(_window(a, b) for a, b in zip(down, other))) for j, other in enumerate(across)]

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        last = -(-(length - self.side) // self.stride) * self.stride
        return [*range(0, last, self.step), last]

    def _spans(self, length: int) -> list[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
        """(start, stop) of windows, of their trusted parts and of their cores along one direction."""
        starts = self._starts(length)
        stops = [min(start + self.side, length) for start in starts]
        inner = [start + self.margin for start in starts]
        outer = [stop - self.margin for stop in stops]
        inner[0], outer[-1] = 0, length
        # halfway through what both neighbours are trusted with
        cuts = [a + (b - a) // 2 // self.stride * self.stride for a, b in zip(inner[1:], outer)]
        return list(zip(zip(starts, stops), zip(inner, outer), zip([0, *cuts], [*cuts, length])))


def _window(down: tuple[int, int], across: tuple[int, int]) -> Window:
    return down[0], across[0], down[1] - down[0], across[1] - across[0]


def choose_tiling(size: tuple[int, int], halo: Halo | None, *, joins: bool, channels: int, per_pixel: float,
                  memory: int, side: int | None = None, fits: bool = True) -> Tiling:  # fmt: skip
    """A tiling for an image (H, W).

    halo       of the net, None where it has none or the views do not keep to it
    joins      whether there are objects to be joined where tiles meet
    channels   maps of probabilities, where they are to be blended
    per_pixel  bytes that the net takes for a pixel of its input
    memory     bytes that it may take, with what is held between windows; FOR_HALO times as many where a halo needs room
    side       of the windows; None: as memory allows
    fits       whether blended windows may be smaller, so that they share the image's height out evenly: what the last
               one has too much would be held for the whole width
    Exact where a halo holds for images of this size and windows of four halos fit into that memory, or twice the side
    asked for: then they are that large, or larger as needed. Blended windows begin half a side after each other, as in
    nnU-Net, or later where the strip that stays open would take more than a third of `memory`; objects are joined in a
    quarter of the side.
    """
    room = int((memory / per_pixel) ** 0.5)
    if halo is not None and (halo.any_size or not any(n % halo.stride for n in size)):
        margin = _up(halo.pixels, halo.stride)
        overlap = 2 * margin + (_up(STRIP, halo.stride) if joins else 0)
        wanted = side or max(min(room, LARGEST, max(CACHED, ENOUGH * overlap)), LEAST)
        own = _up(max(wanted, 2 * overlap), halo.stride)
        most = FOR_HALO**0.5 * room if side is None else 2 * side
        if own <= max(most, LEAST):
            return Tiling(own, overlap, margin, halo.stride, exact=True)
    if joins:
        own = side or _down(max(min(room, LARGEST), 2 * LEAST), 64)
        overlap = min(_up(own // SHARED, 4), own - 1)
        return Tiling(own, overlap, overlap // 4)
    open_rows = max(1, memory // 3 // (2 * channels * size[1]))  # of a strip in float16, see `prediction.blending`
    own = side or _down(max(min(int(0.7 * room), 8 * open_rows, LARGEST), 2 * LEAST), 64)  # half of `memory`
    overlap = min(own // 2, max(open_rows, own // 8))
    if fits and size[0] > own:
        count = -(-(size[0] - overlap) // (own - overlap))
        own = -(-(size[0] + (count - 1) * overlap) // count)
    return Tiling(own, min(overlap, own // 2), blended=True)


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def _down(n: int, unit: int) -> int:
    return max(unit, n // unit * unit)
