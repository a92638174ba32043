"""COCO's categories as `Classes`: ids with gaps, things, colours; placeholders that no annotation uses are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pixelwise.core.classes import Classes
from pixelwise.errors import ConfigError, DataError

GROUNDS = ("_background_", "__background__", "background")  # labelme's and VOC's word for what is no object


def joined(tables: Sequence[tuple[Path, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """The categories of several files, by rising id.

    Raises DataError where one id has two names, or one file has an id twice, or there is none at all.
    """
    found: dict[int, tuple[dict[str, Any], Path]] = {}
    for path, categories in tables:
        for key, count in Counter(category["id"] for category in categories).items():
            if count > 1:
                raise DataError(f"{path}: the category id {key} stands {count} times; give each category its own id.")
        for category in categories:
            first, where = found.setdefault(category["id"], (category, path))
            if first["name"] != category["name"]:
                raise DataError(
                    f"{path}: the category {category['id']} is '{category['name']}', in {where} it is "
                    f"'{first['name']}'; use one list of categories for all splits."
                )
    if not found:
        raise DataError(f"{tables[0][0]}: lists no category; add {{'id': 1, 'name': ...}} to 'categories'.")
    return [found[key][0] for key in sorted(found)]


def instance_classes(path: Path, categories: list[dict[str, Any]], used: Collection[int], notes: list[str]) -> Classes:
    """Classes of an instances file: all are things, and pixels outside all objects are nothing.

    used  ids of categories that some annotation has
    A category that none has is left out where it is named as a background (labelme writes one), or where it is only
    the parent of others (Roboflow writes one). Raises DataError naming the file where the names do not make classes.
    """
    parents = {category.get("supercategory") for category in categories}
    kept = []
    for category in categories:
        name = category["name"]
        alone = category.get("supercategory") in (None, "none", "")
        if category["id"] not in used and (name in GROUNDS or (name in parents and alone and len(categories) > 1)):
            notes.append(f"The category {category['id']} '{name}' has no annotation and is no class: left out.")
            continue
        kept.append(category)
    return _classes(path, kept or categories, [c["name"] for c in kept or categories], notes, nothing=True)


def panoptic_classes(path: Path, categories: list[dict[str, Any]], notes: list[str]) -> Classes:
    """Classes of a panoptic file, things as `isthing` says. Raises DataError where it is missing, naming the file."""
    for category in categories:
        if category.get("isthing") not in (0, 1):  # false and true are these numbers
            raise DataError(
                f"{path}: the category {category['id']} '{category['name']}' has isthing={category.get('isthing')!r}; "
                "a panoptic file says 1 or 0 for each."
            )
    things = [category["name"] for category in categories if category["isthing"]]
    return _classes(path, categories, things, notes, nothing=False)


def _classes(path: Path, categories: list[dict[str, Any]], things: list[str], notes: list[str], *,
             nothing: bool) -> Classes:  # fmt: skip
    ids = [category["id"] for category in categories]
    colours = [category.get("color") for category in categories]
    drawn = all(
        isinstance(c, list) and len(c) == 3 and all(isinstance(v, int) and 0 <= v < 256 for v in c) for c in colours
    )
    if ids != list(range(ids[0], ids[0] + len(ids))):
        notes.append(
            f"Category ids leave gaps: {len(ids)} from {ids[0]} to {ids[-1]}; labels are 0 to {len(ids) - 1} in their "
            "order."
        )
    try:
        return Classes(
            names=tuple(category["name"] for category in categories),
            things=tuple(things),
            colours=tuple(map(tuple, colours)) if drawn else (),  # type: ignore[arg-type]
            ids=tuple(ids),
            void=() if nothing or 0 in ids else (0,),
            nothing=nothing,
        )
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from None
