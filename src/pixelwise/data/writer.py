"""`Writer`: one format to write segments in, an image at a time; what the format cannot hold is counted and said.

A file in `data/writers/` holds one, named `Writer`, with a DESCRIPTION and BESIDE. `convert` copies data sets with it,
`predict --save NAME` writes answers with it. Nothing is kept per image but codes and rows, so a set of any size can be
written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from pixelwise.core import registry
from pixelwise.core.bands import Bands
from pixelwise.core.classes import Classes
from pixelwise.core.outlines import Outlines
from pixelwise.core.segments import BOX, MASK, NOTHING, UNKNOWN, Segments
from pixelwise.data.layout import SPLIT_NAMES
from pixelwise.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image and its segments.

    name   relative path with / between folders, without ending; unique among all that is written
    split  "train", "val", ...; "" where there are no splits, as for answers
    image  its file, or None
    ending of the image's file where it is written
    """

    name: str
    segments: Segments
    split: str = ""
    image: Path | None = None
    ending: str = ".png"

    @property
    def bands(self) -> Bands:
        """What shows of the segments, to be read band by band."""
        return Bands.of(self.segments)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.segments.size


@dataclass(frozen=True, kw_only=True)
class LargeItem:
    """An image too large for its map to lie in memory: as `Item`, but the segments are `bands` alone."""

    name: str
    bands: Bands
    split: str = ""
    image: Path | None = None
    ending: str = ".png"

    @property
    def size(self) -> tuple[int, int]:
        return self.bands.size


class Resumable(ABC):
    """A writer that tells all that it remembers of an image, so that an interrupted run need not write it again."""

    @abstractmethod
    def note(self) -> dict[str, Any]:
        """What the last `write` added to what is remembered, as plain JSON; `recall` adds it again."""

    @abstractmethod
    def recall(self, note: Mapping[str, Any]) -> None:
        """Remembers an image as if it had just been written."""


@dataclass(frozen=True, eq=False)
class Outlined:
    """The segments of an item that a format of polygons holds, those without pixels left out.

    bands         labels, scores, counts of pixels
    crowd         [N] bool
    keys          [N] int64 ids on disk, or None
    areas, boxes  [N] and [N, 4] x0 y0 x1 y1 as annotated, else of the pixels
    """

    bands: Bands
    crowd: np.ndarray
    keys: np.ndarray | None
    areas: np.ndarray
    boxes: np.ndarray

    @cached_property
    def outlines(self) -> Outlines:
        """Their polygons, in one pass over the map."""
        return Outlines.of(self.bands)

    def unknown(self) -> tuple[np.ndarray, np.ndarray]:
        """The box around the unknown pixels and the bool crop [h, w] in it."""
        whole, size, one = self.bands.whole, self.bands.size, np.zeros(1, np.int64)
        if whole is not None:
            rows = whole.unknown.cpu().numpy().astype(np.int8) - np.int8(1)
            return Outlines.of(Bands(size, one, one, lambda top, bottom: rows[top:bottom])).window(0)
        mark = np.full(len(self.bands) + 2, -1, np.int8)
        mark[UNKNOWN] = 0
        return Outlines.of(self.bands.marked(mark)).window(0)


class Writer(ABC):
    """The base of all formats: counts what is lost and leaves it out.

    HOLDS says what the format has a word for, of
        crowd     regions of many objects that nobody told apart
        unknown   pixels that are unknown, as against pixels known to be nothing
        nothing   pixels known to be nothing, as against unknown ones
        overlaps  pixels of several segments
        scores    how sure an answer is
        boxes     rows that have a box and no pixels
    BY_BANDS says whether `write` takes a LargeItem too. A writer that can resume is `Resumable` as well.
    """

    HOLDS: ClassVar[frozenset[str]] = frozenset()
    BY_BANDS: ClassVar[bool] = False

    def __init__(self, out: Path, classes: Classes) -> None:
        self.out, self.classes = Path(out), classes
        self.lost: dict[str, int] = {}
        self._taken: dict[str, str] = {}

    @abstractmethod
    def write(self, item: Item) -> tuple[Path, ...]:
        """Writes what belongs to this image alone; returns the files."""

    def finish(self) -> tuple[str, ...]:
        """Writes what covers all images; returns what was lost, a sentence each with its count."""
        return tuple(f"{what}: {count}." for what, count in self.lost.items())

    def place(self, item: Item) -> Path | None:
        """Where the image itself lies in this format; None for formats without images."""
        return None

    def lose(self, what: str, count: int) -> None:
        """Adds to what is lost."""
        if count:
            self.lost[what] = self.lost.get(what, 0) + int(count)

    def inner(self, item: Item | LargeItem) -> str:
        """The name below the folder of its split: 'train/a' of the split train is 'a'.

        Raises DataError where two images would get one place.
        """
        first, _, rest = item.name.partition("/")
        name = rest if rest and SPLIT_NAMES.get(first.lower(), first) == item.split else item.name
        key = f"{item.split}/{name}".casefold()
        if self._taken.setdefault(key, item.name) != item.name:
            raise DataError(
                f"The images '{item.name}' and '{self._taken[key]}' of the split '{item.split}' would both be written "
                f"as '{name}'; rename one of them."
            )
        return name

    def held(self, segments: Segments) -> Segments:
        """The rows that the format can hold, those without pixels left out; counts all that it cannot."""
        given, segments = len(segments), segments.compact()
        self.lose("Objects without a pixel, left out", given - len(segments))
        keep = np.ones(len(segments), bool)
        if segments.kind is not None:
            weak = ~np.isin(segments.kind.numpy(), (MASK, BOX) if "boxes" in self.HOLDS else (MASK,))
            self.lose("Boxes, scribbles and tags without a mask, left out", weak.sum())
            keep &= ~weak
        if "crowd" not in self.HOLDS:
            crowd = segments.crowd.numpy() & keep
            self.lose("Crowd regions, left out", crowd.sum())
            keep &= ~crowd
        segments = segments.keep(torch.from_numpy(keep))
        if "scores" not in self.HOLDS:
            self.lose("Scores, left out", int((segments.scores != 1).sum()))
        if "unknown" not in self.HOLDS:
            self.lose("Unknown pixels, now nothing", int(segments.unknown.sum()))
        if "nothing" not in self.HOLDS:
            self.lose("Pixels known to be nothing, now unknown", int((segments.row_map() == NOTHING).sum()))
        if "overlaps" not in self.HOLDS and len(segments.ids) > 1:
            self.lose("Pixels of several segments, kept in the first alone", _covered_twice(segments))
            segments = _flat(segments)
        return segments

    def outlined(self, item: Item | LargeItem) -> Outlined:
        """The same with polygons, also of an item whose map is read by bands."""
        if isinstance(item, LargeItem):
            bands = self._held_bands(item.bands)
            return Outlined(bands, np.zeros(len(bands), bool), None, bands.counts, bands.boxes)
        segments = self.held(item.segments)
        keys = None if segments.keys is None else segments.keys.numpy()
        return Outlined(Bands.of(segments), segments.crowd.numpy(), keys, segments.areas.numpy(),
                        segments.boxes.numpy())  # fmt: skip

    def _held_bands(self, bands: Bands) -> Bands:
        """As `held`; there are neither crowds nor overlaps in bands."""
        owns = bands.counts > 0
        self.lose("Objects without a pixel, left out", int(len(bands) - np.count_nonzero(owns)))
        unknown, nothing = bands.unclaimed
        if not owns.all():
            bands = bands.renumbered(np.where(owns, np.cumsum(owns) - 1, NOTHING))
        if "scores" not in self.HOLDS:
            self.lose("Scores, left out", int(np.count_nonzero(bands.scores != 1)))
        if "unknown" not in self.HOLDS:
            self.lose("Unknown pixels, now nothing", unknown)
        if "nothing" not in self.HOLDS:
            self.lose("Pixels known to be nothing, now unknown", nothing)
        return bands


class Entering(Resumable, Writer):
    """The base of formats that remember an entry of each image: `make` makes it, `enter` remembers it."""

    BY_BANDS = True
    _note: dict[str, Any]

    @abstractmethod
    def make(self, item: Item | LargeItem) -> tuple[tuple[Path, ...], dict[str, Any]]:
        """Writes what belongs to this image alone; returns the files and the entry, plain JSON."""

    def enter(self, entry: Mapping[str, Any]) -> None:
        """Remembers an entry; what is lost by that may be counted here."""

    def write(self, item: Item | LargeItem) -> tuple[Path, ...]:
        before = dict(self.lost)
        files, entry = self.make(item)
        lost = {what: count - before.get(what, 0) for what, count in self.lost.items()}
        self._note = {"entry": entry, "lost": lost}
        self.enter(entry)
        return files

    def note(self) -> dict[str, Any]:
        return self._note

    def recall(self, note: Mapping[str, Any]) -> None:
        for what, count in note["lost"].items():
            self.lose(what, count)
        self.enter(note["entry"])


def _covered_twice(segments: Segments) -> int:
    return int(((segments.ids >= 0).sum(0) > 1).sum())


def _flat(segments: Segments) -> Segments:
    """One layer: what shows. Areas and boxes are then those of the pixels."""
    shown = replace(segments, ids=segments.row_map()[None], given_areas=None, given_boxes=None)
    return shown.compact()


def open_writer(name: str, out: str | Path, classes: Classes, **options: Any) -> Writer:
    """A writer by name. Raises ConfigError for an unknown name or option, naming the nearest right one."""
    module = registry.load("writers", name)
    registry.check_options(module.Writer, options, f"Writer '{name}'")
    return module.Writer(Path(out), classes, **options)
