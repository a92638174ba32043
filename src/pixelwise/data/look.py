"""What is found by looking where nobody told: class ids, void, things, channels. All of it is said in notes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise.core.classes import Classes
from pixelwise.data.io import MAX_PIXELS, read_header, read_mask
from pixelwise.data.table import Colour, Table
from pixelwise.errors import DataError, ImageError

LOOK_FILES, LOOK_PIXELS = 500, 200_000_000  # how much is looked at, at most


def some(paths: Iterable[Path], limit: int = LOOK_FILES) -> list[Path]:
    """At most `limit` of them, the same ones whatever is added later: those whose names hash lowest."""
    paths = list(paths)
    if len(paths) <= limit:
        return paths
    return sorted(paths, key=lambda p: hashlib.blake2b(p.name.encode(), digest_size=8).digest())[:limit]


@dataclass
class Seen:
    """Ids found in maps: {id: pixels}, the palette of the first palette file, and how many files were looked at."""

    counts: Counter[int] = field(default_factory=Counter)
    palette: dict[int, Colour] = field(default_factory=dict)
    files: int = 0
    of: int = 0
    wide: bool = False

    @property
    def ids(self) -> list[int]:
        return sorted(self.counts)

    @property
    def scope(self) -> str:
        return f"all {self.of}" if self.files == self.of else f"{self.files} of {self.of}"


def look_at_maps(paths: Sequence[Path], colours: dict[Colour, int] | None, max_pixels: int = MAX_PIXELS) -> Seen:
    """Counts the ids of some maps. Those that cannot be read are left to `DataSet.read`, unless there is no other."""
    seen, pixels, first_error = Seen(of=len(paths)), 0, None
    for path in some(paths):
        try:
            ids = read_mask(path, colours, max_pixels=max_pixels)
        except ImageError as error:
            first_error = first_error or error
            continue
        seen.wide |= ids.dtype.itemsize > 1
        found, counts = np.unique(ids, return_counts=True) if ids.dtype.itemsize > 1 else _count_bytes(ids)
        seen.counts.update(dict(zip(found.tolist(), counts.tolist())))
        seen.files += 1
        pixels += ids.size
        if not seen.palette and path.suffix.lower() == ".png":
            seen.palette = _palette(path)
        if pixels > LOOK_PIXELS:
            break
    if first_error and not seen.files:
        raise first_error
    return seen


def _count_bytes(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(ids.ravel(), minlength=256)
    found = np.flatnonzero(counts)
    return found, counts[found]


def _palette(path: Path) -> dict[int, Colour]:
    try:
        with Image.open(path) as image:
            flat = image.getpalette() if image.mode == "P" else None
    except (OSError, ValueError, SyntaxError):  # told with its reason when the file is read
        return {}
    return {i: tuple(flat[3 * i : 3 * i + 3]) for i in range(len(flat) // 3)} if flat else {}  # type: ignore[misc]


def palette_note(paths: Sequence[Path], table: Table, notes: list[str]) -> None:
    """Says when a mask's palette gives an index the colour of another class: one of the two is wrong."""
    for path in some(paths, 1):
        palette = _palette(path) if path.suffix.lower() == ".png" and path.stat().st_size else {}
        names = dict(zip(table.classes.ids, table.classes.names))
        for index, colour in palette.items():
            other = table.colours.get(colour)
            if index in names and other in names and other != index:
                notes.append(
                    f"{path.name} has index {index} ('{names[index]}') in the colour that the class table gives to "
                    f"'{names[other]}'; ids are read as indices, so check that they are meant."
                )
                return


def classes_from_maps(seen: Seen, notes: list[str]) -> tuple[Table, dict[int, int]]:
    """Classes of class maps that no table describes, and aliases of ids. Says what was found."""
    ids = seen.ids
    if ids == [0, 255] or ids == [255]:
        notes.append(
            f"No class table: {seen.scope} masks hold only 0 and 255, taken for two classes, background and foreground."
        )
        return Table(classes=Classes(names=("background", "foreground"), void=())), {255: 1}
    void = [255] if 255 in ids and not seen.wide else []
    kept = [i for i in ids if i not in void and i >= 0]
    void += [i for i in ids if i < 0]
    if len(kept) > 256:
        raise DataError(
            f"{len(kept)} different ids in the masks, up to {kept[-1]}: these look like object ids or like pictures. "
            "Put object ids into a folder named instances/, or write a classes.txt."
        )
    if not kept:
        raise DataError(
            f"the masks hold only {ids}: no class can be found in them; write a classes.txt with `index name` lines."
        )
    spread = len(kept) > 1 and kept[-1] > 2 * len(kept) + 8
    colours = [seen.palette.get(i) for i in kept]
    use = all(c is not None for c in colours) and len(set(colours)) == len(colours)
    classes = Classes(
        names=tuple(f"class {i}" for i in kept),
        ids=tuple(kept),
        void=tuple(void) or (255,),
        colours=tuple(c for c in colours if c is not None) if use else (),
    )
    said = f"No class table: found {len(kept)} classes, ids {_short(kept)}, by looking at {seen.scope} masks"
    said += f"; {' and '.join(map(str, void))} is taken for void." if void else "; none is void."
    notes.append(said + " A classes.txt with `index name r g b` lines names them.")
    if spread:
        notes.append(
            f"The ids {_short(kept)} leave gaps; if they are grey values of a drawing rather than class ids, name them "
            "in classes.txt."
        )
    return Table(classes=classes, told_void=False), {}


def _short(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) if len(ids) <= 12 else f"{', '.join(map(str, ids[:10]))} ... {ids[-1]}"


def object_void(seen: Seen, notes: list[str]) -> tuple[int, ...]:
    """255 of 8-bit instance maps is void (VOC's boundaries) unless ids count up to it; 65535 of 16-bit ones too."""
    top = 65535 if seen.wide else 255
    if top in seen.counts and top - 1 not in seen.counts:
        notes.append(
            f"The instance id {top} is taken for void: no id just below it occurs in {seen.scope} instance maps."
        )
        return (top,)
    return ()


def carried_class(seen: Seen, void: Sequence[int], table: Table | None) -> tuple[int, int]:
    """1000 where all instance ids are class * 1000 + n (with n below 1000 and known classes), else 0.

    And the bound below which an id is a class itself, as in Cityscapes' instanceIds: 1000 where a table knows all
    classes, those of the ids below it and those that the others carry; else 0.
    """
    ids = [i for i in seen.ids if i > 0 and i not in void]
    kinds = {i // 1000 for i in ids if i >= 1000}
    if not kinds or len(kinds) > 100 or (table is not None and not kinds <= set(table.classes.ids)):
        return 0, 0
    bare = {i for i in ids if i < 1000}
    if not bare:
        return 1000, 0
    known = table is not None and bare <= {*table.classes.ids, *table.classes.void, *table.nothing}
    return (1000, 1000) if known else (0, 0)


def classes_from_objects(
    seen: Seen, void: Sequence[int], table: Table | None, notes: list[str]
) -> tuple[Table, int, int]:
    """The classes of instance maps that have no class maps, and whether the ids carry them (see `carried_class`)."""
    factor, bare = carried_class(seen, void, table)
    if factor and table is None:
        kinds = sorted({i // factor for i in seen.ids if i > 0 and i not in void})
        names = tuple(f"class {i}" for i in kinds)
        notes.append(
            f"Instance ids are read as class * {factor} + number: {len(kinds)} classes, {_short(kinds)}, all things."
        )
        return Table(classes=Classes(names=names, things=names, ids=tuple(kinds), nothing=True)), factor, bare
    if table is None:
        notes.append("No class table and no class maps: all objects are of one class, 'object'; 0 is known to be none.")
        return Table(classes=Classes(names=("object",), things=("object",), ids=(1,), nothing=True)), 0, 0
    classes = table.classes
    others = [n for n, i in zip(classes.names, classes.ids) if i != 0]
    things = classes.things or tuple(others)
    if bare:
        carried = {i // factor for i in seen.ids if i >= factor}
        things = classes.things or tuple(n for n, i in zip(classes.names, classes.ids) if i in carried)
        notes.append(
            f"Instance ids are read as class * {factor} + number, those below {bare} as a class without a number: "
            "stuff, or a crowd of things."
        )
    elif factor:
        notes.append(f"Instance ids are read as class * {factor} + number.")
    elif len(things) != 1:
        raise DataError(
            f"instance ids {_short([i for i in seen.ids if i][:6])} do not say the class, and the class table has "
            f"{len(things)} things ({', '.join(things)}); add class maps in masks/, or use ids class * 1000 + number."
        )
    if not classes.things:
        notes.append(f"The class table marks no thing; with instance maps, {', '.join(things)} are taken for things.")
    ground = 0 in classes.ids
    made = Classes(
        names=classes.names,
        things=things,
        colours=classes.colours,
        ids=classes.ids,
        void=classes.void,
        nothing=not ground,
    )
    return (
        Table(
            classes=made,
            nothing=table.nothing,
            colours=table.colours,
            told_things=table.told_things,
            told_void=table.told_void,
        ),
        factor,
        bare,
    )


@dataclass(frozen=True)
class Pictures:
    """Channels and depth of the images, by header."""

    channels: int
    dtype: str


def look_at_images(paths: Sequence[Path], notes: list[str], max_pixels: int = MAX_PIXELS) -> Pictures:
    """The most channels and the greatest depth among some images; mixtures are said.

    Files that cannot be read are left to `DataSet.read`, unless there is no other.
    """
    kinds: Counter[tuple[int, str]] = Counter()
    alpha, first_error = 0, None
    for path in some(paths):
        try:
            header = read_header(path, max_pixels=max_pixels)
        except ImageError as error:
            first_error = first_error or error
            continue
        kinds[header.channels, header.dtype] += 1
        alpha += header.alpha
    if not kinds:
        raise first_error or DataError("no image to look at.")
    channels, dtype = max(c for c, _ in kinds), max((d for _, d in kinds), key=lambda d: d == "uint16")
    counts = Counter({c: sum(n for (k, _), n in kinds.items() if k == c) for c, _ in kinds})
    if len(counts) > 1:
        mix = ", ".join(f"{n} with {c}" for c, n in sorted(counts.items()))
        notes.append(f"Images differ in channels ({mix}): all are read with {channels}, grey ones repeated.")
    if len({d for _, d in kinds}) > 1:
        notes.append("Some images have 8 and some 16 bits: all are read as 16 bit, 8-bit values times 257.")
    if alpha:
        notes.append(f"{alpha} images have an alpha channel, which is dropped (channels=4 keeps it).")
    return Pictures(channels, dtype)
