"""What is written of an answer: class ids, instance ids, overlay, confidence, and any format of `data/writers/`.

Each kind has a folder of its own below `out`, so that a folder of class maps can be used as masks.
Tables stand in `out` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from pixelwise.core import registry
from pixelwise.core.classes import Classes
from pixelwise.core.drawing import displayable, legend, overlay
from pixelwise.core.jsonfile import write_json
from pixelwise.core.outputs import Output, cut_strips
from pixelwise.core.segments import Segments
from pixelwise.core.types import Task
from pixelwise.data.io import write_jpeg, write_png
from pixelwise.data.writer import Item, open_writer
from pixelwise.data.writers.folder import MOST_IDS, ClassIds
from pixelwise.data.writers.objects import numbers
from pixelwise.errors import ConfigError, ImageError, nearest


@dataclass(frozen=True, kw_only=True)
class Answer(Item):
    """All that is known of one image when its answer is written.

    pixels      [C, H, W] as stored
    confidence  [H, W] uint8, 255 times the probability of the most probable channel; None where nobody asks for it
    """

    pixels: Tensor
    confidence: np.ndarray | None = None


class Writer(Protocol):
    """Writes one kind of file: those below, and all of `data/writers/`.

    `write` returns what it wrote; `finish` writes what covers all images and returns what was lost, a sentence each.
    """

    def write(self, item: Answer, /) -> tuple[Path, ...]: ...

    def finish(self) -> tuple[str, ...]: ...


class Each:
    """A kind of which every image has its own files, and nothing is lost."""

    def finish(self) -> tuple[str, ...]:
        return ()


class ClassMaps:
    """classes/NAME.png: class ids on disk, see `ClassIds`; classes.txt says what is what."""

    folder = "classes"

    def __init__(self, out: Path, classes: Classes) -> None:
        self.out, self.class_ids = out, ClassIds(classes)

    def write(self, answer: Answer) -> tuple[Path, ...]:
        path = self.out / self.folder / f"{answer.name}.png"
        self.class_ids.write(path, answer.segments)
        return (path,)

    def finish(self) -> tuple[str, ...]:
        self.class_ids.write_table(self.out, nothing=self.class_ids.classes.nothing)
        return ()


@dataclass
class InstanceIds(Each):
    """instances/NAME.png: 16 bit, 0 where there is no object, else 1, 2, ... by falling score; NAME.json has them.

    Of objects that overlap the surer one shows. Stuff is no object.
    """

    out: Path
    classes: Classes
    folder: ClassVar[str] = "instances"

    def write(self, answer: Answer) -> tuple[Path, ...]:
        segments = answer.segments
        order = np.argsort(numbers(segments, self.classes.is_thing))
        rows = order[self.classes.is_thing[segments.labels.numpy()[order]]]
        if len(rows) > MOST_IDS:
            raise ImageError(answer.name, f"has {len(rows)} objects, more than a 16-bit PNG holds ({MOST_IDS}).")
        number = np.zeros(len(segments) + 2, np.uint16)
        number[rows] = np.arange(1, len(rows) + 1)
        path = self.out / self.folder / f"{answer.name}.png"
        write_png(path, number[segments.row_map().long().numpy()])
        write_json(path.with_name(path.name.removesuffix(".png") + ".json"), self._table(segments, rows))
        return (path,)

    def _table(self, segments: Segments, rows: np.ndarray) -> list[dict[str, Any]]:
        boxes, areas = segments.boxes.int().tolist(), segments.pixel_counts.tolist()
        labels, scores = segments.labels.tolist(), segments.scores.tolist()
        return [
            {"id": i, "class": self.classes.names[labels[row]], "score": round(scores[row], 4), "box": boxes[row],
             "area": areas[row]}
            for i, row in enumerate(rows.tolist(), 1)
        ]  # fmt: skip


@dataclass
class Overlay(Each):
    """overlay/NAME.jpg: the segments over the image, for people; legend.png has the colours of several classes."""

    out: Path
    classes: Classes
    height: int = 0  # of the highest picture: the legend's letters fit it
    folder: ClassVar[str] = "overlay"

    def write(self, answer: Answer) -> tuple[Path, ...]:
        picture = overlay(displayable(answer.pixels), answer.segments, self.classes)
        path = self.out / self.folder / f"{answer.name}.jpg"
        write_jpeg(path, picture)
        self.height = max(self.height, len(picture))
        return (path,)

    def finish(self) -> tuple[str, ...]:
        if len(self.classes) > 1:
            write_png(self.out / self.folder / "legend.png", legend(self.classes, height=min(self.height, 1200)))
        return ()


@dataclass
class Confidence(Each):
    """confidence/NAME.png: 8 bit grey, 255 times the probability of the most probable channel at each pixel."""

    out: Path
    classes: Classes
    folder: ClassVar[str] = "confidence"

    def write(self, answer: Answer) -> tuple[Path, ...]:
        assert answer.confidence is not None, "whoever makes a writer of confidence has it read off the output"
        path = self.out / self.folder / f"{answer.name}.png"
        write_png(path, answer.confidence)
        return (path,)


def confidence(output: Output, channels: int) -> np.ndarray:
    """[H, W] uint8: 255 times the probability of the most probable of `channels` at each pixel of image 0."""
    strips = (output.probs(0, strip).amax(0) for strip in cut_strips(output.frames[0], None, channels))
    return np.concatenate([strip.mul(255).round().byte().cpu().numpy() for strip in strips])


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


def make_writers(kinds: Sequence[str], task: Task, out: Path) -> dict[str, Writer]:
    """The writers by name. Raises ConfigError for a name that is unknown or foreign to the task."""
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
    return {kind: _make(kind, task.classes, out) for kind in chosen}


def _make(kind: str, classes: Classes, out: Path) -> Writer:
    if kind in KINDS:
        return KINDS[kind](out, classes)
    return open_writer(kind, out if registry.load("writers", kind).BESIDE else out / kind, classes)
