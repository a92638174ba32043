"""Which models may answer together: what an ensemble's members must share."""

from __future__ import annotations

from pathlib import Path

from pixelwise.core.modelfile import ModelCard
from pixelwise.errors import ConfigError

LISTED = 5  # names in a sentence


def check_alike(first: tuple[str | Path, ModelCard], other: tuple[str | Path, ModelCard]) -> None:
    """Raises ConfigError, saying what differs, unless two models (file, card) answer the same question of the same
    pixels: the task, the classes by name and order, which of them are things, channels and range of stored pixels.

    How pixels are normalised and resized is each model's own.
    """
    (path, card), (path_too, card_too) = first, other
    differs = [*_task(card, card_too), *_classes(card, card_too), *_pixels(card, card_too)]
    if differs:
        raise ConfigError(
            f"{path_too} cannot be joined with {path}: {'; '.join(differs)}. "
            "Models that answer together need the same task, the same classes in one order and the same kind of images."
        )


def _task(one: ModelCard, other: ModelCard) -> list[str]:
    return [f"it was trained for {other.task}, not {one.task}"] if one.task != other.task else []


def _classes(one: ModelCard, other: ModelCard) -> list[str]:
    names, names_too = one.classes.names, other.classes.names
    if names == names_too:
        sides = zip(names, one.classes.is_thing, other.classes.is_thing)
        things = [name for name, thing, thing_too in sides if thing != thing_too]
        return [f"the models do not agree whether {_some(things)} can be counted"] if things else []
    lacks = [name for name in names if name not in names_too]
    more = [name for name in names_too if name not in names]
    said = [f"it {verb} {_some(found)}" for verb, found in (("lacks", lacks), ("has besides", more)) if found]
    if said:
        return said
    k = next(k for k, (name, name_too) in enumerate(zip(names, names_too)) if name != name_too)
    return [f"its classes stand in another order: class {k} is {names_too[k]}, not {names[k]}"]


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
