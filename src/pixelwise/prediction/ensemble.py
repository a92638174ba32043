"""Which models may answer together: what an ensemble's members must share, and how their labels are matched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import ModelCard
from pixelwise.core.outputs import Output
from pixelwise.errors import ConfigError
from pixelwise.tasks import make_task
from pixelwise.views import Renumbered, View

LISTED = 5  # names in a sentence


def check_alike(first: tuple[str | Path, ModelCard], other: tuple[str | Path, ModelCard]) -> None:
    """Raises ConfigError, saying what differs, unless two models (file, card) answer the same question of the same
    pixels: the task, the names of the classes, which of them are things, channels and range of stored pixels.

    The order of the classes, and how pixels are normalised and resized, is each model's own.
    """
    (path, card), (path_too, card_too) = first, other
    differs = [*_task(card, card_too), *_classes(card, card_too), *_pixels(card, card_too)]
    if differs:
        raise ConfigError(
            f"{path_too} cannot be joined with {path}: {'; '.join(differs)}. "
            "Models that answer together need the same task, the same classes and the same kind of images."
        )


def labels_of(card: ModelCard) -> Classes:
    """What the channels of a model's net stand for: the classes of the task that it was trained for."""
    return make_task(card.task, card.classes).classes


def order_of(wanted: Classes, own: Classes) -> tuple[int, ...] | None:
    """The channel of a net with classes `own` for each that is wanted; None where they stand in the same order."""
    if wanted.names == own.names:
        return None
    order = [own.names.index(name) for name in wanted.names]
    return (*order, len(order)) if own.nothing else tuple(order)


def in_order(seen: Iterable[tuple[View, Output]], order: tuple[int, ...] | None) -> Iterator[tuple[View, Output]]:
    """The same views with their labels in that order; no output is held on to."""
    for view, output in seen:
        yield view, output if order is None else Renumbered(output, order)
        del output


def _task(one: ModelCard, other: ModelCard) -> list[str]:
    return [f"it was trained for {other.task}, not {one.task}"] if one.task != other.task else []


def _classes(one: ModelCard, other: ModelCard) -> list[str]:
    names, names_too = one.classes.names, other.classes.names
    lacks = [name for name in names if name not in names_too]
    more = [name for name in names_too if name not in names]
    said = [f"it {verb} {_some(found)}" for verb, found in (("lacks", lacks), ("has besides", more)) if found]
    things = [name for name in names if (name in one.classes.things) != (name in other.classes.things)]
    if not said and things:
        said.append(f"the models do not agree whether {_some(things)} can be counted")
    if not said and one.outputs != other.outputs:
        said.append(f"its net has {other.outputs} channels, not {one.outputs}, for pixels without a class")
    return said


def _pixels(one: ModelCard, other: ModelCard) -> list[str]:
    kind, kind_too = one.preprocessing, other.preprocessing
    said = []
    if kind.channels != kind_too.channels:
        said.append(f"it takes {kind_too.channels} channels, not {kind.channels}")
    if kind.range != kind_too.range:
        said.append(f"its images go up to {kind_too.range:g}, not {kind.range:g}")
    return said


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
