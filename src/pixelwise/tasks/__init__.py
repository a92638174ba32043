"""The three tasks: one type of answer, three ways to ask."""

from __future__ import annotations

from typing import Any

from pixelwise.core.classes import Classes
from pixelwise.errors import ConfigError, nearest
from pixelwise.tasks.instance import Instance
from pixelwise.tasks.panoptic import Panoptic
from pixelwise.tasks.semantic import Semantic

TASKS: dict[str, type[Semantic] | type[Instance] | type[Panoptic]] = {
    "semantic": Semantic,
    "instance": Instance,
    "panoptic": Panoptic,
}

__all__ = ["TASKS", "Instance", "Panoptic", "Semantic", "make_task"]


def make_task(name: str, classes: Classes, **options: Any) -> Semantic | Instance | Panoptic:
    """A task by its name, over the classes of the data. Raises ConfigError for a name that does not exist."""
    if name not in TASKS:
        raise ConfigError(f"There is no task '{name}'; {nearest(name, TASKS)}")
    return TASKS[name](classes, **options)
