"""Class names and colours that a file brings along beside its weights, as mmsegmentation writes them under "meta"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pixelwise.core.classes import Classes
from pixelwise.errors import ConfigError, ModelFileError

Colours = tuple[tuple[int, int, int], ...]
GIVE = "Give the classes yourself (--classes classes.txt)."
LISTED = 4  # names in an error message


def told_classes(found: Any, outputs: int, published: Classes | None, where: str) -> Classes | None:
    """The classes that a file's own words name, or None where it names none.

    found      all that the file holds: {"meta": {"CLASSES": names, "PALETTE": colours}} of mmsegmentation before 1.0,
               {"meta": {"dataset_meta": {"classes": names, "palette": colours}}} since
    outputs    how many classes its net tells apart
    published  the label set with as many classes: taken where its names are the same, since it knows more (which are
               things, the ids on disk)
    Raises ModelFileError where names and outputs, or names and colours, are not as many.
    """
    names, values = _told(found)
    if not names:
        return None
    if len(names) != outputs:
        binary = ""
        if (outputs, len(names)) == (1, 2):
            binary = (f" It says yes to one class above a threshold, which is 0.5 here and 0.3 by default there: give "
                      f"that class alone, {names[1]}.")  # fmt: skip
        raise ModelFileError(f"{where}: its meta names {len(names)} classes ({_some(names)}), but its net tells "
                             f"{outputs} apart.{binary} {GIVE}")  # fmt: skip
    colours = _colours(values, where)
    if colours and len(colours) != len(names):
        raise ModelFileError(f"{where}: its meta has {len(names)} class names but {len(colours)} colours. {GIVE}")
    try:
        if published is not None and published.names == names:
            return replace(published, colours=colours or published.colours)
        return Classes(names=names, colours=colours)
    except ConfigError as error:
        raise ModelFileError(f"{where}: the classes in its meta cannot be: {error} {GIVE}") from error


def _told(found: Any) -> tuple[tuple[str, ...], Any]:
    """Names, none if there are none, and what stands there for colours."""
    meta = found.get("meta") if isinstance(found, Mapping) else None
    if not isinstance(meta, Mapping):
        return (), None
    inner = meta.get("dataset_meta")
    about, words = (inner, ("classes", "palette")) if isinstance(inner, Mapping) else (meta, ("CLASSES", "PALETTE"))
    names, colours = (about.get(word) for word in words)
    if not isinstance(names, list | tuple):
        return (), None
    return tuple(str(name).strip() for name in names), colours  # mmsegmentation's ADE20K has a "bed "


def _colours(values: Any, where: str) -> Colours:
    if values is None:
        return ()
    try:
        return tuple((int(red), int(green), int(blue)) for red, green, blue in values)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{where}: the palette in its meta is no list of three numbers a class: {error}. "
                             f"{GIVE}") from error  # fmt: skip


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
