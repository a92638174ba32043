"""What is written of an answer: class ids, instance ids, COCO panoptic, overlay, confidence. One class per kind.

Each kind has a folder of its own below `out`, so that a folder of class maps can be used as masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.drawing import displayable, overlay
from pixelwise.core.jsonfile import write_json
from pixelwise.core.outputs import Output, cut_strips
from pixelwise.core.panoptic_map import colours_of_ids
from pixelwise.core.segments import Segments
from pixelwise.core.types import Task
from pixelwise.data.io import write_png
from pixelwise.errors import ConfigError, ImageError, nearest

MOST_IDS = 65535  # what 16 bits hold


@dataclass(frozen=True)
class Answer:
    """All that is known of one image when its answer is written."""

    name: str
    pixels: Tensor  # [C, H, W] as stored
    output: Output
    segments: Segments


class Writer(Protocol):
    """Writes one kind of file. `write` returns what it wrote; `finish` writes what covers all images."""

    def write(self, answer: Answer) -> Path: ...

    def finish(self) -> None: ...


@dataclass
class ClassIds:
    """classes/NAME.png: ids on disk as in `Classes.ids`, with their colours as palette; 16 bit where one exceeds 255.

    Pixels that belong to no class get `free_ids`: known to be nothing, and unknown. classes.txt says what is what.
    """

    out: Path
    classes: Classes
    folder: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        self.nothing, self.unknown = free_ids(self.classes)
        top = max(*self.classes.ids, self.nothing, self.unknown)
        if min(self.classes.ids) < 0 or top > MOST_IDS:
            ids = list(self.classes.ids)
            raise ConfigError(f"Class ids must lie in 0..{MOST_IDS} to be written as PNG, got {ids}.")
        self.dtype = np.uint8 if top <= 255 else np.uint16

    def write(self, answer: Answer) -> Path:
        ids = np.array([*self.classes.ids, self.unknown, self.nothing], self.dtype)
        labels = np.append(answer.segments.labels.numpy(), [-2, -1])
        path = self.out / self.folder / f"{answer.name}.png"
        values = ids[labels][answer.segments.row_map().long().numpy()]
        write_png(path, values, self._palette() if self.dtype == np.uint8 else None)
        return path

    def _palette(self) -> np.ndarray:
        palette = np.zeros((256, 3), np.uint8)
        palette[self.unknown] = 224
        for key, colour in zip(self.classes.ids, self.classes.colours):
            palette[key] = colour
        return palette

    def finish(self) -> None:
        things = {n: " thing" if n in self.classes.things else "" for n in self.classes.names}
        rows = zip(self.classes.ids, self.classes.names, self.classes.colours)
        lines = ["# index name r g b word", *(f'{i} "{n}" {r} {g} {b}{things[n]}' for i, n, (r, g, b) in rows)]
        lines += [f"{self.nothing} nothing nothing"] if self.classes.nothing else []
        lines += [f"# ignore index: {self.unknown}"]
        with atomic(self.out / "classes.txt") as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def free_ids(classes: Classes) -> tuple[int, int]:
    """(nothing, unknown): ids on disk for pixels without a class, that no class has.

    Unknown is the data's void id, or 255, or the first id after those of the classes; nothing is the first free id.
    """
    taken = set(classes.ids)
    wishes = [v for v in (*classes.void, 255) if 0 <= v <= MOST_IDS and v not in taken]
    unknown = wishes[0] if wishes else max(taken) + 1
    nothing = next(i for i in range(len(taken) + 2) if i not in taken and i != unknown)
    return nothing, unknown


@dataclass
class InstanceIds:
    """instances/NAME.png: 16 bit, 0 where there is no object, else 1, 2, ... by falling score; NAME.json has them.

    Of objects that overlap the surer one shows. Stuff is no object.
    """

    out: Path
    classes: Classes
    folder: ClassVar[str] = "instances"

    def write(self, answer: Answer) -> Path:
        segments = answer.segments
        rows = np.flatnonzero(self.classes.is_thing[segments.labels.numpy()])
        rows = rows[np.argsort(-segments.scores.numpy()[rows], kind="stable")]
        if len(rows) > MOST_IDS:
            raise ImageError(answer.name, f"has {len(rows)} objects, more than a 16-bit PNG holds ({MOST_IDS}).")
        number = np.zeros(len(segments) + 2, np.uint16)
        number[rows] = np.arange(1, len(rows) + 1)
        path = self.out / self.folder / f"{answer.name}.png"
        write_png(path, number[segments.row_map().long().numpy()])
        write_json(path.with_name(path.name.removesuffix(".png") + ".json"), self._table(segments, rows))
        return path

    def _table(self, segments: Segments, rows: np.ndarray) -> list[dict[str, Any]]:
        boxes, areas = segments.boxes.int().tolist(), segments.pixel_counts.tolist()
        labels, scores = segments.labels.tolist(), segments.scores.tolist()
        return [
            {"id": i, "class": self.classes.names[labels[row]], "score": round(scores[row], 4), "box": boxes[row],
             "area": areas[row]}
            for i, row in enumerate(rows.tolist(), 1)
        ]  # fmt: skip

    def finish(self) -> None:
        pass  # every image has its own table


@dataclass
class CocoPanoptic:
    """panoptic/NAME.png and panoptic.json, as COCO defines it: id = R + 256 G + 65536 B, 0 where nothing is known."""

    out: Path
    classes: Classes
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    folder: ClassVar[str] = "panoptic"

    def write(self, answer: Answer) -> Path:
        segments, file_name = answer.segments, f"{answer.name}.png"
        ids = segments.row_map().long().numpy().clip(-1) + 1  # [H, W] row + 1
        path = self.out / self.folder / file_name
        write_png(path, colours_of_ids(ids))
        height, width = segments.size
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        labels, areas = segments.labels.tolist(), segments.pixel_counts.tolist()
        infos = [
            {"id": row + 1, "category_id": self.classes.ids[labels[row]], "iscrowd": 0, "area": areas[row],
             "bbox": [x0, y0, x1 - x0, y1 - y0], "score": round(float(segments.scores[row]), 4)}
            for row, (x0, y0, x1, y1) in enumerate(segments.boxes.int().tolist()) if areas[row]
        ]  # fmt: skip
        self.annotations.append({"image_id": image_id, "file_name": file_name, "segments_info": infos})
        return path

    def finish(self) -> None:
        rows = zip(self.classes.ids, self.classes.names, self.classes.is_thing, self.classes.colours)
        categories = [{"id": i, "name": n, "isthing": int(t), "color": list(c)} for i, n, t, c in rows]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        write_json(self.out / "panoptic.json", content)


@dataclass
class Overlay:
    """overlay/NAME.jpg: the segments over the image, for people."""

    out: Path
    classes: Classes
    folder: ClassVar[str] = "overlay"

    def write(self, answer: Answer) -> Path:
        picture = overlay(displayable(answer.pixels), answer.segments, self.classes)
        path = self.out / self.folder / f"{answer.name}.jpg"
        with atomic(path) as part:
            Image.fromarray(picture).save(part, format="JPEG", quality=92)
        return path

    def finish(self) -> None:
        pass  # nothing covers all images


@dataclass
class Confidence:
    """confidence/NAME.png: 8 bit grey, 255 times the probability of the most probable channel at each pixel."""

    out: Path
    classes: Classes
    folder: ClassVar[str] = "confidence"

    def write(self, answer: Answer) -> Path:
        strips = []
        for strip in cut_strips(answer.output.frames[0], None, self.classes.channels):
            strips.append(answer.output.probs(0, strip).amax(0).mul(255).round().byte().cpu().numpy())
        path = self.out / self.folder / f"{answer.name}.png"
        write_png(path, np.concatenate(strips))
        return path

    def finish(self) -> None:
        pass  # nothing covers all images


KINDS = {kind.folder: kind for kind in (ClassIds, InstanceIds, CocoPanoptic, Overlay, Confidence)}
USUAL = {"semantic": ("classes",), "instance": ("instances",), "panoptic": ("panoptic",)}
TASKS = {"instances": ("instance", "panoptic"), "panoptic": ("panoptic",)}  # kinds that only some tasks answer


def usual(task: Task) -> tuple[str, ...]:
    """The maps that a model of this task is asked for."""
    return USUAL[task.name]


def make_writers(kinds: Sequence[str], task: Task, out: Path) -> list[Writer]:
    """The writers by name. Raises ConfigError for a name that is unknown or foreign to the task."""
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"There is no kind of answer '{kind}' to save; {nearest(kind, KINDS)}")
        if task.name not in TASKS.get(kind, (task.name,)):
            fitting = " or ".join(TASKS[kind])
            raise ConfigError(f"'{kind}' is for models of the task {fitting}; this one's task is {task.name}.")
    return [KINDS[kind](out, task.classes) for kind in dict.fromkeys(kinds)]
