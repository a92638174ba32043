"""What is written of an answer: class ids, instance ids, overlay, confidence, and any format of `data/writers/`.

Each kind has a folder of its own below `out`, so that a folder of class maps can be used as masks.
Tables stand in `out` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from pixelwise.core import registry
from pixelwise.core.bands import PIXELS, Bands
from pixelwise.core.classes import Classes
from pixelwise.core.drawing import displayable, legend, overlay
from pixelwise.core.jsonfile import write_json
from pixelwise.core.segments import Segments
from pixelwise.core.types import Task
from pixelwise.data.io import write_jpeg, write_png
from pixelwise.data.maps import KINDS as MAPS
from pixelwise.data.maps import map_ending, write_map
from pixelwise.data.writer import Item, LargeItem, Resumable, open_writer
from pixelwise.data.writers.folder import MOST_IDS, ClassIds
from pixelwise.data.writers.objects import row_numbers
from pixelwise.errors import ConfigError, ImageError, nearest
from pixelwise.prediction.canvas import Canvas


@dataclass(frozen=True, kw_only=True)
class Answer(Item):
    """All that is known of one image when its answer is written.

    pixels      [C, H, W] as stored
    confidence  [H, W] uint8, 255 times the probability of the most probable channel; None where nobody asks for it
    """

    pixels: Tensor
    confidence: np.ndarray | None = None

    def shown(self) -> tuple[Tensor, Segments]:
        """Image [C, H, W] and segments as people are to see them."""
        return self.pixels, self.segments

    def sure(self) -> Iterator[np.ndarray]:
        """The confidence in bands of lines, from the top."""
        assert self.confidence is not None, "whoever makes a writer of confidence has it read off the output"
        yield self.confidence

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, kw_only=True)
class LargeAnswer(LargeItem):
    """The same of an image that does not lie in memory.

    overview    gives it reduced: image [C, h, w] and segments
    close       is called when it is written
    confidence  as of an `Answer`, on a canvas
    """

    overview: Callable[[], tuple[Tensor, Segments]]
    close: Callable[[], None]
    confidence: Canvas | None = None

    def shown(self) -> tuple[Tensor, Segments]:
        """Image and segments as people are to see them: reduced."""
        return self.overview()

    def sure(self) -> Iterator[np.ndarray]:
        """The confidence in bands of lines, from the top."""
        assert self.confidence is not None, "whoever makes a writer of confidence has it read off the output"
        height, width = self.size
        step = max(1, PIXELS // width)
        for top in range(0, height, step):
            yield self.confidence.band(top, min(top + step, height))


class Writer(Protocol):
    """Writes one kind of file: those below, and all of `data/writers/`, where BY_BANDS is told of.

    `write` returns what it wrote; `finish` writes what covers all images and returns what was lost, a sentence each.
    """

    BY_BANDS: ClassVar[bool]

    def write(self, item: Any, /) -> tuple[Path, ...]: ...

    def finish(self) -> tuple[str, ...]: ...


class Each(Resumable):
    """A kind of which every image has its own files, and nothing is lost or remembered."""

    BY_BANDS: ClassVar[bool] = True

    def note(self) -> dict[str, Any]:
        return {}

    def recall(self, note: Mapping[str, Any]) -> None:
        """Nothing is remembered."""

    def finish(self) -> tuple[str, ...]:
        return ()


@dataclass
class ClassMaps(Each):
    """classes/NAME.png or .tif: class ids on disk, see `ClassIds`; classes.txt says what is what."""

    out: Path
    classes: Classes
    maps: str = "auto"
    folder: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        self.class_ids = ClassIds(self.classes)

    def write(self, answer: Answer | LargeAnswer) -> tuple[Path, ...]:
        path = self.out / self.folder / f"{answer.name}{map_ending(self.maps, answer.image)}"
        self.class_ids.write(path, answer.bands, answer.image)
        return (path,)

    def finish(self) -> tuple[str, ...]:
        self.class_ids.write_table(self.out, nothing=self.class_ids.classes.nothing)
        return ()


@dataclass
class InstanceIds(Each):
    """instances/NAME.png or .tif: 0 where there is no object, else 1, 2, ... by falling score; NAME.json has them.

    16 bit; TIFF has 32 where there are more objects than that. Of objects that overlap the surer one shows. Stuff is no
    object.
    """

    out: Path
    classes: Classes
    maps: str = "auto"
    folder: ClassVar[str] = "instances"

    def write(self, answer: Answer | LargeAnswer) -> tuple[Path, ...]:
        bands, ending = answer.bands, map_ending(self.maps, answer.image)
        order = np.argsort(row_numbers(bands.labels, bands.scores, self.classes.is_thing))
        rows = order[self.classes.is_thing[bands.labels[order]]]
        if len(rows) > MOST_IDS and ending == ".png":
            raise ImageError(answer.name, f"has {len(rows)} objects, more than a 16-bit PNG holds ({MOST_IDS}); "
                             "write TIFF maps (--map tiff).")  # fmt: skip
        number = np.zeros(len(bands) + 2, np.uint16 if len(rows) <= MOST_IDS else np.uint32)
        number[rows] = np.arange(1, len(rows) + 1)
        path = self.out / self.folder / f"{answer.name}{ending}"
        write_map(path, bands.size, bands.through(number), number.dtype, image=answer.image)
        table = path.with_name(path.name.removesuffix(ending) + ".json")
        write_json(table, self._table(bands, rows))
        return (path,)

    def _table(self, bands: Bands, rows: np.ndarray) -> list[dict[str, Any]]:
        boxes, areas = bands.boxes.tolist(), bands.counts.tolist()
        labels, scores = bands.labels.tolist(), bands.scores.tolist()
        return [
            {"id": i, "class": self.classes.names[labels[row]], "score": round(scores[row], 4), "box": boxes[row],
             "area": areas[row]}
            for i, row in enumerate(rows.tolist(), 1)
        ]  # fmt: skip


@dataclass
class Overlay(Each):
    """overlay/NAME.jpg: the segments over the image, for people; legend.png has the colours of several classes.

    Of an image that is answered by tiles it is an overview, reduced to at most 1600 pixels of its longer side.
    """

    out: Path
    classes: Classes
    height: int = 0  # of the highest picture: the legend's letters fit it
    folder: ClassVar[str] = "overlay"

    def write(self, answer: Answer | LargeAnswer) -> tuple[Path, ...]:
        pixels, segments = answer.shown()
        picture = overlay(displayable(pixels), segments, self.classes)
        path = self.out / self.folder / f"{answer.name}.jpg"
        write_jpeg(path, picture)
        self._last = len(picture)
        self.height = max(self.height, self._last)
        return (path,)

    def note(self) -> dict[str, Any]:
        return {"height": self._last}

    def recall(self, note: Mapping[str, Any]) -> None:
        self.height = max(self.height, note["height"])

    def finish(self) -> tuple[str, ...]:
        if len(self.classes) > 1:
            write_png(self.out / self.folder / "legend.png", legend(self.classes, height=min(self.height, 1200)))
        return ()


@dataclass
class Confidence(Each):
    """confidence/NAME.png or .tif: 8 bit grey, 255 times the probability of the most probable channel at each pixel."""

    out: Path
    classes: Classes
    maps: str = "auto"
    folder: ClassVar[str] = "confidence"

    def write(self, answer: Answer | LargeAnswer) -> tuple[Path, ...]:
        path = self.out / self.folder / f"{answer.name}{map_ending(self.maps, answer.image)}"
        write_map(path, answer.size, answer.sure(), np.uint8, image=answer.image)
        return (path,)


KINDS: dict[str, Any] = {kind.folder: kind for kind in (ClassMaps, InstanceIds, Overlay, Confidence)}
NAMES = {"panoptic": "coco_panoptic"}  # a writer of data sets that has a plainer name here
USUAL = {"semantic": ("classes",), "instance": ("instances",), "panoptic": ("panoptic",)}
TASKS = {  # kinds that only some tasks answer
    "instances": ("instance", "panoptic"),
    "coco_panoptic": ("panoptic",),
}


def usual(task: Task) -> tuple[str, ...]:
    """The maps that a model of this task is asked for."""
    return USUAL[task.name]


def make_writers(kinds: Sequence[str], task: Task, out: Path, maps: str = "auto") -> dict[str, Writer]:
    """The writers by name. Raises ConfigError for a name that is unknown or foreign to the task.

    maps  "png", "tiff", or "auto": maps are TIFF where the image has a place on the earth
    """
    if maps not in MAPS:
        raise ConfigError(f"Maps cannot be written as '{maps}'; {nearest(maps, MAPS)}")
    known = (*KINDS, *NAMES, *registry.modules("writers"))
    for word in kinds:
        kind = NAMES.get(word, word)
        if kind not in known:
            raise ConfigError(f"There is no kind of answer '{kind}' to save; {nearest(kind, known)}")
        if task.name not in TASKS.get(kind, (task.name,)):
            fitting = " or ".join(TASKS[kind])
            raise ConfigError(f"'{word}' is for the task {fitting}; this one is {task.name}: choose another by --task, "
                              f"or leave '{word}' out.")  # fmt: skip
    chosen = dict.fromkeys(NAMES.get(kind, kind) for kind in kinds)
    return {kind: _make(kind, task.classes, out, maps) for kind in chosen}


def _make(kind: str, classes: Classes, out: Path, maps: str) -> Writer:
    if kind in KINDS:
        return KINDS[kind](out, classes, **({} if kind == Overlay.folder else {"maps": maps}))
    return open_writer(kind, out if registry.load("writers", kind).BESIDE else out / kind, classes)


def check_large(writers: Mapping[str, Writer], image: Path) -> None:
    """Raises ImageError where a kind cannot be written of an image that does not lie in memory."""
    whole = [kind for kind, writer in writers.items() if not writer.BY_BANDS]
    if whole:
        able = [kind for kind in (*KINDS, *registry.modules("writers")) if _by_bands(kind)]
        reason = f"is answered by tiles, and {', '.join(whole)} can be written only of a whole answer; leave that out "
        raise ImageError(image, f"{reason}(by tiles: {', '.join(able)}), or raise --tile where memory allows.")


def _by_bands(kind: str) -> bool:
    made: Any = KINDS[kind] if kind in KINDS else registry.load("writers", kind).Writer
    return bool(made.BY_BANDS)
