"""One pass over a COCO file: its images and categories, and where the annotations of each image lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelwise.data.dataset import Fault
from pixelwise.data.slices import Slices, kind_of, walk
from pixelwise.errors import DataError

LISTS = ("images", "annotations", "categories")
Key = int | str


class Listed(NamedTuple):
    """An image of the file; height and width are 0 where the file does not say."""

    key: Key
    file_name: str
    height: int
    width: int


@dataclass
class Tally:
    """Faults of single elements, one of each code, with the first place and how many there are."""

    path: Path
    _found: dict[str, list[Any]] = field(default_factory=dict)  # code: [fatal, first detail, count]

    def add(self, code: str, detail: str, *, fatal: bool) -> None:
        self._found.setdefault(code, [fatal, detail, 0])[2] += 1

    def faults(self) -> list[Fault]:
        return [Fault(code, self.path, detail + (f" ({count:,} such in all)" if count > 1 else ""), fatal=fatal)
                for code, (fatal, detail, count) in self._found.items()]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Table:
    """The annotations of a file, image by image, in a few bytes each: it goes to the workers.

    slices  annotations, those of an image beside each other, in the file's order
    first   [I+1] int64: those of image i are first[i] to first[i+1]
    sizes   [I, 2] int32 height and width, 0 where the file does not say
    """

    slices: Slices
    first: np.ndarray
    sizes: np.ndarray

    def annotations(self, image: int) -> list[dict[str, Any]]:
        """Raises DataError when the file has changed."""
        return self.slices.read(slice(int(self.first[image]), int(self.first[image + 1])))

    def count(self, image: int) -> int:
        return int(self.first[image + 1] - self.first[image])


@dataclass(frozen=True)
class Index:
    """What a COCO file holds. `faults` are of single elements, which are left out.

    used   ids of the categories that some annotation has
    files  the map of each annotation of the table, in a panoptic file
    """

    path: Path
    images: list[Listed]
    categories: list[dict[str, Any]]
    table: Table
    used: frozenset[int]
    files: list[str]
    faults: list[Fault]


@dataclass
class _Pass:
    """What is gathered on the way; annotations may stand before the images that they belong to."""

    tally: Tally
    images: list[Listed] = field(default_factory=list)
    rows: dict[Key, int] = field(default_factory=dict)
    categories: list[dict[str, Any]] = field(default_factory=list)
    owners: list[Key] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def index(path: Path, *, panoptic: bool = False) -> Index:
    """Reads a file once. Raises DataError where it is no COCO file at all."""
    state = _Pass(Tally(path))
    for element in walk(path, LISTS):
        state.seen.add(element.member)
        if element.number < 0 and element.member in LISTS and element.value != []:
            raise DataError(f"{path}: '{element.member}' is {kind_of(element.value)}, expected a list.")
        if element.number < 0 or element.member not in LISTS:
            continue
        if fault := TAKE[element.member](state, element.value, element.start, element.end, panoptic):
            state.tally.add(
                "annotation", f"{element.member}[{element.number}]{_id_of(element.value)}: {fault}", fatal=True
            )
    missing = [name for name in ("images", "categories") if name not in state.seen]
    if missing:
        there = ", ".join(sorted(state.seen)) or "nothing"
        raise DataError(f"{path}: has no '{missing[0]}'; a COCO file has {', '.join(LISTS)}, this one has {there}.")
    if not state.images:
        faults = state.tally.faults()
        raise DataError(f"{path}: {faults[0].detail if faults else 'lists no image.'}")
    table, files = _table(state, panoptic)
    return Index(path, state.images, state.categories, table, frozenset(state.kinds), files, state.tally.faults())


def _id_of(value: Any) -> str:
    return f" (id {value['id']!r})" if isinstance(value, dict) and "id" in value else ""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(value: Any, wanted: dict[str, tuple[Callable[[Any], bool], str]]) -> str:
    """Why the element is not what it must be, or ''."""
    if not isinstance(value, dict):
        return f"is {kind_of(value)}, expected an object"
    for name, (fits, what) in wanted.items():
        if name not in value:
            return f"has no '{name}'"
        if not fits(value[name]):
            return f"'{name}' is {value[name]!r:.40}, expected {what}"
    return ""


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


KEY = (lambda v: _whole(v) or _text(v), "a whole number or a text")
NUMBER = (lambda v: _whole(v) and abs(v) < 1 << 62, "a whole number")
NAME = (_text, "a text")
LIST = (lambda v: isinstance(v, list), "a list")


def _take_image(state: _Pass, value: Any, start: int, end: int, panoptic: bool) -> str:
    if fault := _wrong(value, {"id": KEY, "file_name": NAME}):
        return fault
    size = [value.get(name) or 0 for name in ("height", "width")]
    if not all(_whole(v) and 0 <= v < 1 << 31 for v in size):
        return f"its height and width are {size}, expected whole numbers"
    if value["id"] in state.rows:
        return "the id is there already"
    state.rows[value["id"]] = len(state.images)
    state.images.append(Listed(value["id"], value["file_name"], *size))
    return ""


def _take_category(state: _Pass, value: Any, start: int, end: int, panoptic: bool) -> str:
    fault = _wrong(value, {"id": NUMBER, "name": NAME})
    if not fault:
        state.categories.append(value)
    return fault


def _take_annotation(state: _Pass, value: Any, start: int, end: int, panoptic: bool) -> str:
    wanted = {"image_id": KEY, "file_name": NAME, "segments_info": LIST} if panoptic else INSTANCE
    if fault := _wrong(value, wanted):
        return fault
    state.owners.append(value["image_id"])
    if panoptic:
        state.files.append(value["file_name"])
    else:
        state.ids.append(value["id"])
        state.kinds.append(value["category_id"])
    state.starts.append(start)
    state.ends.append(end)
    return ""


INSTANCE = {"image_id": KEY, "id": NUMBER, "category_id": NUMBER}
TAKE = {"images": _take_image, "annotations": _take_annotation, "categories": _take_category}


def _table(state: _Pass, panoptic: bool) -> tuple[Table, list[str]]:
    """The annotations sorted by image, without those that belong to none or are of no category."""
    owner = _owners(state)
    known = np.full(len(owner), True)
    if not panoptic:
        known = _known_categories(state)
        _unique_ids(state)
    kept = np.flatnonzero((owner >= 0) & known)
    order = kept[np.argsort(owner[kept], kind="stable")]
    first = np.searchsorted(owner[order], np.arange(len(state.images) + 1))
    starts, ends = np.array(state.starts, np.int64)[order], np.array(state.ends, np.int64)[order]
    sizes = np.array([(i.height, i.width) for i in state.images], np.int32)
    files = [state.files[i] for i in order.tolist()] if panoptic else []
    return Table(Slices.of(state.tally.path, starts, ends), first, sizes), files


def _owners(state: _Pass) -> np.ndarray:
    """[A] int64: the image that each annotation belongs to, -1 for none."""
    owner = np.array([state.rows.get(key, -1) for key in state.owners], np.int64)
    lost = np.flatnonzero(owner < 0)
    if len(lost):
        word = f"{len(lost):,} annotations, the first of image {state.owners[lost[0]]!r}"
        state.tally.add("orphans", word, fatal=len(lost) == len(owner))
    return owner


def _known_categories(state: _Pass) -> np.ndarray:
    """[A] bool"""
    kinds = np.array(state.kinds, np.int64)
    known = np.isin(kinds, np.array([category["id"] for category in state.categories], np.int64))
    if not known.all():
        found = np.unique(kinds[~known]).tolist()
        word = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        state.tally.add(
            "annotation", f"{(~known).sum():,} annotations of categories that are not listed: {word}", fatal=True
        )
    return known


def _unique_ids(state: _Pass) -> None:
    found, counts = np.unique(np.array(state.ids, np.int64), return_counts=True)
    twice = found[counts > 1]
    if len(twice):
        word = f"{len(twice):,} ids, the first {twice[0]} ({counts[counts > 1][0]} times)"
        state.tally.add("duplicate-id", word, fatal=False)
