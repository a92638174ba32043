"""`Scores`: what an evaluation found, for people (a table), for files (`to_dict`) and for programs (`metrics`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from pixelwise.core.classes import Classes
from pixelwise.core.jsonfile import plain

NAME_WIDTH = 20  # of a class on the screen


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Scores of a model on a split, pooled over the images at their original size.

    metrics    floats, and arrays [K] by class, all in 0..1; NaN where undefined (an absent class); see `metrics`
    primary    the key in `metrics` by which models of this task are compared
    classes    those of the task; arrays by class are in their order
    per_image  (name, primary score of that image alone), in the split's order
    objects    (true, answered) numbers of objects of these images; 0 and 0 where the answers are class maps
    count      images; `seconds` the time they took, with reading
    model, data, split, tta   what was evaluated
    device, engine, precision  what computed it; "" where nobody said
    """

    task: str
    primary: str
    classes: Classes
    metrics: dict[str, Any]
    per_image: tuple[tuple[str, float], ...]
    count: int
    seconds: float
    model: str
    data: str
    split: str
    tta: str = "none"
    device: str = ""
    engine: str = ""
    precision: str = ""
    objects: tuple[tuple[int, int], ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    def __getitem__(self, key: str) -> Any:
        """`scores["miou"]`."""
        return self.metrics[key]

    @property
    def score(self) -> float:
        """The primary score."""
        return float(self.metrics[self.primary])

    def worst(self, count: int = 6) -> list[tuple[str, float]]:
        """Images with the lowest scores, the lowest first; those without a score (NaN) are left out."""
        known = [pair for pair in self.per_image if not math.isnan(pair[1])]
        return sorted(known, key=lambda pair: pair[1])[:count]

    def best(self, count: int = 6) -> list[tuple[str, float]]:
        """Images with the highest scores, the highest first."""
        known = [pair for pair in self.per_image if not math.isnan(pair[1])]
        return sorted(known, key=lambda pair: -pair[1])[:count]

    def headline(self) -> dict[str, float]:
        """The scores that are one number."""
        return {k: float(v) for k, v in self.metrics.items() if isinstance(v, float | np.floating)}

    def by_class(self) -> dict[str, np.ndarray]:
        """The scores [K] that have a value in 0..1 for each class, under their names without "_per_class"."""
        shape = (len(self.classes),)
        return {
            key.removesuffix("_per_class"): value
            for key, value in self.metrics.items()
            if isinstance(value, np.ndarray) and value.shape == shape and value.dtype.kind == "f"
            and not key.endswith("_per_threshold")  # as many thresholds as classes are no classes
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        return {
            "model": self.model, "data": self.data, "split": self.split, "tta": self.tta, "task": self.task,
            "device": self.device, "engine": self.engine, "precision": self.precision,
            "primary": self.primary, "images": self.count, "seconds": round(self.seconds, 3), "notes": list(self.notes),
            "classes": list(self.classes.names),
            "metrics": plain(self.metrics),
            "per_image": self._images(),
        }  # fmt: skip

    def _images(self) -> list[dict[str, Any]]:
        images = [{"name": name, "score": plain(score)} for name, score in self.per_image]
        for image, (true, found) in zip(images, self.objects):
            if self.task != "semantic":
                image |= {"objects": true, "found": found}
        return images

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What was scored, the totals, and a table per class, in several parts where the screen is narrow."""
        images = "1 image" if self.count == 1 else f"{self.count} images"
        title = f"{self.model} on {self.data}, split {self.split}: {images}, {self.seconds:.1f} s"
        yield Text("\n".join((title, *self.notes)))
        total = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        total.add_column("score")
        total.add_column("%", justify="right")
        for key, value in self.headline().items():
            total.add_row(key, _percent(value), style="bold" if key == self.primary else "")
        yield total
        names = [name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…" for name in self.classes.names]
        left = max(map(cell_len, ("class", *names)))
        columns = self.by_class()
        for keys in _parts(list(columns), options.max_width - left - 2):
            classes = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            classes.add_column("class", no_wrap=True)
            for key in keys:
                classes.add_column(key.replace("_", "\n"), justify="right", no_wrap=True)
            for k, name in enumerate(names):
                classes.add_row(name, *(_percent(columns[key][k]) for key in keys))
            yield classes


def _parts(keys: list[str], room: int) -> list[list[str]]:
    """The columns in groups that fit beside the names; a column is as wide as its longest word and the gap."""
    parts: list[list[str]] = []
    used = room + 1  # so that the first column opens a part
    for key in keys:
        width = max(len("100.00"), *map(len, key.split("_"))) + 3
        if used + width > room:
            parts.append([])
            used = 0
        parts[-1].append(key)
        used += width
    return parts


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
