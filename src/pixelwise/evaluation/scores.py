"""`Scores`: what an evaluation found, for people (a table), for files (`to_dict`) and for programs (`metrics`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pixelwise.core.classes import Classes
from pixelwise.core.jsonfile import plain


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Scores of a model on a split, pooled over the images at their original size.

    metrics    floats, and arrays [K] by class, all in 0..1; NaN where undefined (an absent class); see `metrics`
    primary    the key in `metrics` by which models of this task are compared
    classes    those of the task; arrays by class are in their order
    per_image  (name, primary score of that image alone), in the split's order
    count      images; `seconds` the time they took, with reading
    model, data, split, tta   what was evaluated
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
            "primary": self.primary, "images": self.count, "seconds": round(self.seconds, 3), "notes": list(self.notes),
            "classes": list(self.classes.names),
            "metrics": plain(self.metrics),
            "per_image": [{"name": name, "score": plain(score)} for name, score in self.per_image],
        }  # fmt: skip

    def __rich__(self) -> RenderableType:
        images = "1 image" if self.count == 1 else f"{self.count} images"
        title = f"{self.model} on {self.data}, split {self.split}: {images}, {self.seconds:.1f} s"
        said = Text("\n".join((title, *self.notes)))
        total = Table()
        total.add_column("score")
        total.add_column("%", justify="right")
        for key, value in self.headline().items():
            total.add_row(key, _percent(value), style="bold" if key == self.primary else "")
        columns = self.by_class()
        if not columns:
            return Group(said, total)
        classes = Table()
        classes.add_column("class")
        for key in columns:
            classes.add_column(key.replace("_", " "), justify="right")  # which a narrow screen breaks in two
        for k, name in enumerate(self.classes.names):
            classes.add_row(name, *(_percent(values[k]) for values in columns.values()))
        return Group(said, total, classes)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
