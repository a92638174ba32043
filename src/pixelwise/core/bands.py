"""`Bands`: segments of an image whose map may be too large for memory, read a band of lines at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.kernels.extent import COUNT, SUM_X, SUM_Y, X0, Y1, add_extent, blank

PIXELS = 1 << 20  # of a band


@dataclass(frozen=True, eq=False)
class Bands:
    """N segments of one image (H, W) that do not overlap.

    labels, scores   [N] int64, float32 in 0..1
    read             (top, bottom) -> [bottom - top, W] integers: a row 0..N-1, NOTHING or UNKNOWN
    whole            the Segments that these are, or None
    Iterating gives the map band by band from the top.
    """

    size: tuple[int, int]
    labels: np.ndarray
    scores: np.ndarray
    read: Callable[[int, int], np.ndarray]
    whole: Segments | None = None

    @classmethod
    def of(cls, segments: Segments) -> Bands:
        """Segments in memory; where they overlap the lowest layer shows, boxes and counts are of all their pixels."""
        rows = segments.row_map().cpu().numpy()
        labels, scores = segments.labels.cpu().numpy(), segments.scores.cpu().numpy()
        return cls(segments.size, labels, scores, lambda top, bottom: rows[top:bottom], segments)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[np.ndarray]:
        step = max(1, PIXELS // self.size[1])
        for top in range(0, self.size[0], step):
            yield self.read(top, min(top + step, self.size[0]))

    def through(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """The map band by band, `values[row]` at each pixel; `values` [N+2] ends with those of UNKNOWN and NOTHING."""
        turned = np.roll(values, 2, 0)
        for band in self:
            yield turned[band.astype(np.int32) + 2]

    def renumbered(self, rows: np.ndarray) -> Bands:
        """The same map with other rows: `rows` [N] says which of 0..M-1 each becomes, or NOTHING or UNKNOWN.

        Labels and scores of the M are those of the first that becomes each.
        """
        turned = np.concatenate([np.array([UNKNOWN, NOTHING]), rows]).astype(np.int32)
        first = firsts(rows)
        return Bands(self.size, self.labels[first], self.scores[first],
                     lambda top, bottom: turned[self.read(top, bottom).astype(np.int32) + 2])  # fmt: skip

    def marked(self, rows: np.ndarray) -> Bands:
        """One segment: all pixels whose `rows` [N+2] is 0; its last two values are those of UNKNOWN and NOTHING."""
        one, turned = np.zeros(1, np.int64), np.roll(rows, 2)
        return Bands(self.size, one, np.ones(1, np.float32),
                     lambda top, bottom: turned[self.read(top, bottom).astype(np.int32) + 2])  # fmt: skip

    @cached_property
    def _extent(self) -> np.ndarray:
        """[N + 2, 7]: see `kernels.extent`. One pass over the map."""
        found, top = blank(len(self)), 0
        for band in self:
            add_extent(band, top, found)
            top += len(band)
        found[found[:, COUNT] == 0] = 0
        return found

    @property
    def counts(self) -> np.ndarray:
        """[N] int64 pixels that each owns."""
        return self._extent[:-2, COUNT] if self.whole is None else self.whole.pixel_counts.cpu().numpy()

    @property
    def boxes(self) -> np.ndarray:
        """[N, 4] int64 x0 y0 x1 y1 around the pixels, 0 for none."""
        return self._extent[:-2, X0 : Y1 + 1] if self.whole is None else self.whole.boxes.cpu().numpy().astype(np.int64)

    @property
    def middles(self) -> np.ndarray:
        """[N, 2] float64 x y, the mean of the middles of the pixels that show; NaN for none."""
        found = self._extent[:-2]
        with np.errstate(invalid="ignore"):
            return found[:, SUM_X : SUM_Y + 1] / found[:, COUNT : COUNT + 1] + 0.5

    @property
    def unclaimed(self) -> tuple[int, int]:
        """Pixels that are unknown, and that are known to be nothing."""
        return int(self._extent[-2, COUNT]), int(self._extent[-1, COUNT])


def firsts(rows: np.ndarray) -> np.ndarray:
    """[M] where each of 0..M-1 first stands in `rows` [N]; negative marks do not count."""
    kept, first = np.unique(rows, return_index=True)
    return first[kept >= 0]
