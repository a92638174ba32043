"""A folder of images and masks, as people have it; CamVid, PASCAL VOC and ADE20K are tables over it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pixelwise.core.classes import Classes
from pixelwise.data import look
from pixelwise.data.assembly import check_missing, make_data_set
from pixelwise.data.dataset import DataSet, Record
from pixelwise.data.io import MAX_PIXELS
from pixelwise.data.layout import Files, Layout, gather, split_files
from pixelwise.data.table import Table, find_table, from_classes, read_table
from pixelwise.data.truth import Maps
from pixelwise.errors import DataError

DESCRIPTION = "images/ with masks/ and/or instances/, split by splits/*.txt, by train/ val/ test/ or by name"


def recognise(root: Path) -> bool:
    """Any folder: it is asked last, and says itself what is missing."""
    return root.is_dir()


def open(
    root: Path,
    *,
    class_table: Classes | str | Path | None = None,
    channels: int | None = None,
    seed: int = 0,
    missing: Literal["refuse", "skip"] = "refuse",
    max_pixels: int = MAX_PIXELS,
) -> DataSet:
    """Opens a folder.

    class_table  what the ids mean: `Classes`, or the path of a classes.txt; None looks beside the data, then into it
    channels     of every image; None takes the most that the images have
    seed         of the split by name, where there is no other
    missing      what to do with an image without mask in a split that has masks: "refuse" it, or "skip" it and say so
    Raises DataError for what does not fit, naming the file.
    """
    return open_layout(
        Path(root),
        Layout(),
        "folder",
        classes=class_table,
        channels=channels,
        seed=seed,
        missing=missing,
        max_pixels=max_pixels,
    )


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format that is data: where its files lie and what its ids mean.

    known        what the ids mean where no class table lies beside the data
    object_void  ids of instance maps that are void
    void_colours colours of colour masks that are void
    all_things   in a class table that marks no thing, all but id 0 are things
    signs        folders of which one set must be there for the format to recognise a root
    """

    name: str
    layout: Layout
    known: Classes
    object_void: tuple[int, ...] = ()
    void_colours: tuple[tuple[int, int, int], ...] = ()
    all_things: bool = False
    signs: tuple[tuple[str, ...], ...] = ()

    def recognise(self, root: Path) -> bool:
        return any(all((root / part).is_dir() for part in signs) for signs in self.signs)

    def open(
        self,
        root: Path,
        *,
        class_table: Classes | str | Path | None = None,
        channels: int | None = None,
        seed: int = 0,
        missing: Literal["refuse", "skip"] = "refuse",
        max_pixels: int = MAX_PIXELS,
    ) -> DataSet:
        """As `pixelwise.data.formats.folder.open`."""
        root = Path(root)
        return open_layout(
            root,
            self.layout,
            self.name,
            classes=class_table if class_table is not None else self.told(root),
            channels=channels,
            seed=seed,
            missing=missing,
            max_pixels=max_pixels,
            void_objects=self.object_void,
            all_things=self.all_things,
        )

    def told(self, root: Path) -> Table | None:
        """What the ids mean: None where a class table lies beside the data and says it."""
        if find_table(root):
            return None
        known = from_classes(self.known)
        known.colours.update(dict.fromkeys(self.void_colours, self.known.void[0]))
        return known


def open_layout(
    root: Path,
    layout: Layout,
    name: str,
    *,
    classes: Classes | Table | str | Path | None,
    channels: int | None,
    seed: int,
    missing: str,
    max_pixels: int,
    void_objects: tuple[int, ...] | None = None,
    all_things: bool = False,
) -> DataSet:
    """Opens a root by a layout; the plain folder and every `Format` come here."""
    check_missing(missing)
    files = gather(root, layout)
    names = split_files(root, layout, files, seed)
    splits, unpaired = paired(files, names, missing)
    data = assemble(root, name, splits, files.notes, classes=classes, channels=channels, max_pixels=max_pixels,
                    void_objects=void_objects, all_things=all_things)  # fmt: skip
    return replace(data, unpaired=tuple(unpaired))


def assemble(
    root: Path,
    name: str,
    splits: dict[str, tuple[Record, ...]],
    notes: list[str],
    *,
    classes: Classes | Table | str | Path | None,
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
    void_objects: tuple[int, ...] | None = None,
    all_things: bool = False,
) -> DataSet:
    """The data set of these records, with what no table tells found by looking."""
    records = [r for group in splits.values() for r in group]
    table = _told(root, classes, notes)
    if table is not None and all_things and not table.told_things:
        marked = tuple(n for n, key in zip(table.classes.names, table.classes.ids) if key != 0)
        table = replace(table, classes=replace(table.classes, things=marked))
    reader = _reader(root, records, table, void_objects, max_pixels, notes)
    both = any(r.semantic and r.instances for r in records) or reader.crowd_below > 0
    only = any(r.instances for r in records)
    task = "panoptic" if both else "instance" if only else "semantic"
    return make_data_set(root, name, splits, reader, notes, classes=reader.table.classes, task=task, channels=channels,
                         max_pixels=max_pixels)  # fmt: skip


def paired(files: Files, names: dict[str, list[str]], missing: str) -> tuple[dict[str, tuple[Record, ...]], list[Path]]:
    """Records by split. An image without a map that others of its split have is refused or left out."""
    splits: dict[str, tuple[Record, ...]] = {}
    unpaired: list[Path] = []
    for split, members in names.items():
        records = [Record(n, files.images[n], files.masks.get(n), files.instances.get(n), split) for n in members]
        masks, objects = any(r.semantic for r in records), any(r.instances for r in records)
        whole = [r for r in records if bool(r.semantic) == masks and bool(r.instances) == objects]
        part = [r.image for r in records if bool(r.semantic) != masks or bool(r.instances) != objects]
        if part and missing == "refuse":
            more = f" and {len(part) - 1} more" if len(part) > 1 else ""
            kinds = " and ".join(["mask"] * masks + ["instance map"] * objects)
            raise DataError(
                f"{part[0]}{more}: no {kinds} of that name, though other images of the split '{split}' have one. "
                "Add it, remove the image, or leave such images out by the format's option missing=skip."
            )
        if part:
            files.notes.append(
                f"{len(part)} images of the split '{split}' have no mask and are left out, the first {part[0]}."
            )
        if not masks and not objects:
            files.notes.append(f"The split '{split}' has images but no masks: it can be predicted, not scored.")
        unpaired += part
        splits[split] = tuple(whole)
    return {split: group for split, group in splits.items() if group}, unpaired


def _told(root: Path, classes: Classes | Table | str | Path | None, notes: list[str]) -> Table | None:
    """The class table that was given or lies beside the data."""
    if isinstance(classes, Table):
        return classes
    if isinstance(classes, Classes):
        return from_classes(classes)
    if classes is not None:
        return read_table(classes)
    path = find_table(root)
    if path is not None and path.name not in ("classes.txt", "classes.json"):
        notes.append(f"Class names are read from {path.name}.")
    return read_table(path) if path else None


def _reader(
    root: Path,
    records: list[Record],
    table: Table | None,
    void_objects: tuple[int, ...] | None,
    max_pixels: int,
    notes: list[str],
) -> Maps:
    """The reader of these records; what no table tells is found by looking."""
    maps = [r.semantic for r in records if r.semantic]
    objects = [r.instances for r in records if r.instances]
    aliases: dict[int, int] = {}
    carried = bare = 0
    try:
        void = void_objects or ()
        seen = look.look_at_maps(objects, None, max_pixels) if objects else None
        if seen and void_objects is None:
            void = look.object_void(seen, notes)
        if maps:
            ids = (
                look.look_at_maps(maps, table.colours or None if table else None, max_pixels)
                if table is None or _binary(table)
                else None
            )
            if table is None and ids is not None:
                table, aliases = look.classes_from_maps(ids, notes)
            elif ids is not None and ids.ids in ([0, 255], [255]):
                notes.append("The masks hold 0 and 255 and the class table has the ids 0 and 1: 255 is read as 1.")
                aliases = {255: 1}
            assert table is not None
            if table.colours:
                look.palette_note(maps, table, notes)
            if objects and not table.classes.things:
                table = _things_under(records, Maps(table=table, aliases=aliases, max_pixels=max_pixels), void, notes)
        elif seen:
            table, carried, bare = look.classes_from_objects(seen, void, table, notes)
    except DataError as error:
        raise error if str(root) in str(error) else DataError(f"{root}: {error}") from None
    assert table is not None
    return Maps(table=table, aliases=aliases, carried=carried, crowd_below=bare, object_void=void,
                max_pixels=max_pixels)  # fmt: skip


def _binary(table: Table) -> bool:
    """Whether masks of 0 and 255 could be meant: two classes 0 and 1, and nobody said that 255 is void."""
    return sorted((*table.classes.ids, *table.nothing)) == [0, 1] and not table.told_void


def _things_under(records: list[Record], maps: Maps, void: tuple[int, ...], notes: list[str]) -> Table:
    """Things are the classes under instances, where the table does not say."""
    reader = replace(maps, object_void=void)
    chosen = set(look.some([r.instances for r in records if r.semantic and r.instances], 200))
    found: set[int] = set()
    for record in records:
        if record.semantic and record.instances in chosen:
            found |= set(reader.classes_under(record))
    classes = maps.table.classes
    things = tuple(n for k, n in enumerate(classes.names) if k in found)
    notes.append(
        f"No class is marked as a thing; {', '.join(things)} lie under instances in {len(chosen)} maps and are "
        "taken for things."
    )
    return replace(maps.table, classes=replace(classes, things=things))
