"""Pixelwise's own layout: images/, masks/ of class ids, instances/ of object ids, classes.txt and splits/SPLIT.txt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.core.atomic import atomic
from pixelwise.core.bands import Bands
from pixelwise.core.classes import Classes
from pixelwise.data import writer
from pixelwise.data.maps import write_map
from pixelwise.data.table import free_ids, write_table
from pixelwise.data.writer import Item, LargeItem
from pixelwise.errors import ConfigError, DataError

DESCRIPTION = "images/, masks/ (class ids), instances/ (object ids), classes.txt, splits/*.txt, as `folder` reads it"
BESIDE = False  # whether answers stand beside those of other kinds, rather than in a folder of this name
MOST_IDS = 65535  # what 16 bits hold; in an instance map the last one is void


class ClassIds:
    """Class ids on disk as a picture: as in `Classes.ids`, 8 bit with the classes' colours as palette, or 16 bit.

    Pixels that belong to no class get `free_ids`: known to be nothing, and unknown. Raises ConfigError for ids that no
    PNG holds.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.nothing, self.unknown = free_ids(classes)
        top = max(*classes.ids, self.nothing, self.unknown)
        if min(classes.ids) < 0 or top > MOST_IDS:
            raise ConfigError(f"Class ids must lie in 0..{MOST_IDS} to be written as PNG, got {list(classes.ids)}.")
        self.dtype = np.uint8 if top <= 255 else np.uint16

    def write(self, path: Path, bands: Bands, image: Path | None = None) -> None:
        """Writes .png or .tif, as `path` ends; a TIFF takes over the place of the `image` on the earth."""
        ids = np.array([*self.classes.ids, self.unknown, self.nothing], self.dtype)
        values = ids[np.append(bands.labels, [-2, -1])]
        palette = self._palette() if self.dtype == np.uint8 else None
        write_map(path, bands.size, bands.through(values), self.dtype, palette=palette, image=image)

    def _palette(self) -> np.ndarray:
        palette = np.zeros((256, 3), np.uint8)
        palette[self.unknown] = 224
        for key, colour in zip(self.classes.ids, self.classes.colours):
            palette[key] = colour
        return palette

    def write_table(self, folder: Path, *, nothing: bool) -> None:
        """classes.txt: what is what. `nothing` says whether any pixel may be that."""
        path = folder / "classes.txt"
        write_table(path, self.classes, unknown=self.unknown, nothing=self.nothing if nothing else None)


class Writer(writer.Entering):
    """Writes the layout that `folder` reads.

    instances/ is there where the classes have things: an id for each, its key where it fits, else its number. Pixels of
    a thing outside all instances are a crowd, so crowds of one class are one; so is the stuff of one class.
    """

    HOLDS = frozenset({"crowd", "unknown", "nothing"})

    def __init__(self, out: Path, classes: Classes) -> None:
        super().__init__(out, classes)
        self.class_ids = ClassIds(classes)
        self.nothing = classes.nothing
        self.lists: dict[str, list[str]] = {}

    def place(self, item: Item) -> Path:
        return self.out / "images" / f"{item.name}{item.ending}"

    def make(self, item: Item | LargeItem) -> tuple[tuple[Path, ...], dict[str, Any]]:
        found = self.outlined(item)
        labels, crowd, bands = found.bands.labels, found.crowd, found.bands
        thing = self.classes.is_thing[labels]
        for what, rows in (("Crowd regions", thing & crowd), ("Segments of stuff", ~thing)):
            self.lose(f"{what} joined with another of their class", int(rows.sum()) - len(np.unique(labels[rows])))
        entry = {"split": item.split, "name": item.name, "nothing": bands.unclaimed[1] > 0}
        masks = self.out / "masks" / f"{item.name}.png"
        self.class_ids.write(masks, bands)
        if not self.classes.things:
            return (masks,), entry
        numbers = np.append(_numbers(item, thing & ~crowd, found.keys), [0, 0]).astype(np.uint16)
        instances = self.out / "instances" / f"{item.name}.png"
        write_map(instances, item.size, bands.through(numbers), np.uint16)
        return (masks, instances), entry

    def enter(self, entry: Mapping[str, Any]) -> None:
        self.nothing |= entry["nothing"]
        self.lists.setdefault(entry["split"], []).append(entry["name"])

    def finish(self) -> tuple[str, ...]:
        self.class_ids.write_table(self.out, nothing=self.nothing)
        write_lists(self.out / "splits", self.lists)
        return super().finish()


def write_lists(folder: Path, lists: dict[str, list[str]]) -> None:
    """SPLIT.txt with a name a line, for each split that has a name."""
    for split, names in lists.items():
        if split:
            with atomic(folder / f"{split}.txt") as part:
                part.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _numbers(item: Item | LargeItem, told: np.ndarray, keys: np.ndarray | None) -> np.ndarray:
    """[N] int64 id of each row that is `told` [N] as one object, else 0: its key where all fit, else 1, 2, ...

    Raises DataError for more objects than a map holds.
    """
    count = int(told.sum())
    if count >= MOST_IDS:
        raise DataError(f"the image '{item.name}' has {count} objects, more than a 16-bit map holds ({MOST_IDS - 1}).")
    own = None if keys is None else keys[told]
    if own is None or len(np.unique(own)) < count or not ((own > 0) & (own < MOST_IDS)).all():
        own = np.arange(1, count + 1)
    numbers = np.zeros(len(told), np.int64)
    numbers[told] = own
    return numbers
