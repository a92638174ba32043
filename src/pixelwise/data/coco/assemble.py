"""From COCO files to a data set: what was found, the splits, the records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelwise.data.assembly import check_missing, make_data_set
from pixelwise.data.coco.files import Part, Pictures, find_parts, find_pictures, own_split, record_name, unlisted
from pixelwise.data.coco.index import Index, Table, index
from pixelwise.data.coco.readers import Instances, PanopticMaps
from pixelwise.data.dataset import DataSet, Fault, Record
from pixelwise.data.layout import Files, Layout, find_lists, split_files
from pixelwise.errors import DataError


@dataclass
class Found:
    """What lies below a root; `parts`, `indexes` and `pictures` are of the same files, in this order."""

    parts: list[Part]
    indexes: list[Index]
    pictures: list[Pictures]
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unpaired: list[Path] = field(default_factory=list)

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(i.table for i in self.indexes)

    def used(self) -> set[int]:
        """The ids of all categories that some annotation has."""
        return set().union(*(i.used for i in self.indexes))


def find(root: Path, *, panoptic: bool, annotations: str | None, missing: str) -> Found:
    """Indexes the files of a root and looks for their images. Raises DataError where there is none."""
    check_missing(missing)
    parts = find_parts(root, panoptic=panoptic) if annotations is None else [_named(root, annotations, panoptic)]
    if not parts:
        what = "panoptic JSON beside a folder of its name" if panoptic else "JSON of COCO's"
        raise DataError(f"{root}: there is no {what}, at the root or in annotations/.")
    indexes = [index(part.path, panoptic=panoptic) for part in parts]
    pictures = [find_pictures(i.images, part, root) for part, i in zip(parts, indexes)]
    found = Found(parts, indexes, pictures, [fault for i in indexes for fault in i.faults])
    for i, there in zip(indexes, pictures):
        gone = [image for image, path in zip(i.images, there.paths) if path is None]
        if gone and missing == "skip":
            found.notes.append(f"{len(gone)} images of {i.path.name} are not there and are left out.")
        for image in gone:
            detail = f"image '{image.file_name}' is listed and is not there"
            found.faults.append(Fault("image-missing", i.path, detail, fatal=missing == "refuse"))
    found.faults += unlisted(pictures)
    return found


def _named(root: Path, annotations: str, panoptic: bool) -> Part:
    path = root / annotations
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; annotations names one JSON below {root}.")
    maps = path.with_suffix("")
    if panoptic and not maps.is_dir():
        raise DataError(f"{path}: there is no folder {maps} with its panoptic maps.")
    return Part(path, None, maps if panoptic else None)


def data_set(root: Path, name: str, found: Found, reader: Instances | PanopticMaps, *, seed: int, task: str,
             missing: str = "refuse") -> DataSet:  # fmt: skip
    """The data set of these records, split by files, by lists or by names. Raises DataError for two of one name."""
    records: dict[str, Record] = {}
    for record in _apart(list(_records(found, missing))):
        other = records.setdefault(record.name, record)
        if other is not record:
            raise DataError(
                f"{record.image} and {other.image} have the same name '{record.name}' in the split '{record.split}'; "
                "list each image once, and rename images that differ in their ending alone."
            )
    names: dict[str, list[str]] = {}
    if len(found.parts) == 1 and found.parts[0].split is None:
        names = _split(root, records, found, seed)
    else:
        for record in records.values():
            names.setdefault(record.split, []).append(record.name)
    order = {"train": 0, "val": 1, "test": 2}
    splits = {}
    for split, members in sorted(names.items(), key=lambda item: (order.get(item[0], 9), item[0])):
        splits[split] = tuple(replace(records[member], split=split) for member in members)
    return make_data_set(root, name, splits, reader, found.notes, classes=reader.classes, task=task,
                         max_pixels=reader.max_pixels, unpaired=tuple(found.unpaired),
                         faults=tuple(found.faults))  # fmt: skip


def _apart(records: list[Record]) -> list[Record]:
    """The same; where files of two splits have one name, all names begin with their split: train/a and val/a."""
    splits: dict[str, str] = {}
    if all(splits.setdefault(record.name, record.split) == record.split for record in records):
        return records
    return [replace(record, name=f"{record.split}/{record.name}") for record in records]


def _split(root: Path, records: dict[str, Record], found: Found, seed: int) -> dict[str, list[str]]:
    """{split: names} by lists or names. A list may name images that no file lists: the doctor tells these."""
    beside = {fault.path.stem: fault.path for fault in found.faults if fault.code == "image-unlisted"}
    files = Files(images=beside | {name: record.image for name, record in records.items()}, notes=found.notes)
    if not find_lists(root, Layout()):
        files.images = {name: record.image for name, record in records.items()}
    names = split_files(root, Layout(), files, seed)
    listed = {split: [name for name in members if name in records] for split, members in names.items()}
    return {split: members for split, members in listed.items() if members}


def _records(found: Found, missing: str) -> Iterator[Record]:
    """A record for each image that is there. Images of a file without any annotation have no truth."""
    start = 0
    for part, i, pictures in zip(found.parts, found.indexes, found.pictures):
        split = own_split(part)
        bare = not len(i.table.slices.starts)
        if bare:
            found.notes.append(f"{i.path.name} has images but no annotations: '{split}' can be predicted, not scored.")
        for row, (image, path) in enumerate(zip(i.images, pictures.paths)):
            if path is None:
                continue
            maps = None if part.maps is None or bare else _map(found, part, i, row, path, missing)
            if part.maps is not None and maps is None and not bare:
                continue
            yield Record(record_name(image), path, None, maps, split, None if bare else start + row)
        start += len(i.images)


def _map(found: Found, part: Part, i: Index, row: int, image: Path, missing: str) -> Path | None:
    """The panoptic map of an image; None, and said, where it has none or several: in this format that is an error."""
    assert part.maps is not None
    count = i.table.count(row)
    if count == 1:
        return part.maps / i.files[int(i.table.first[row])]
    if count > 1:
        detail = f"image '{i.images[row].file_name}' has {count} annotations; a panoptic file has one for each"
        found.faults.append(Fault("annotation", i.path, detail, fatal=True))
    elif missing == "skip":
        found.unpaired.append(image)
    else:
        detail = "has no annotation; a panoptic file has one for each: add it, or leave such images out by missing=skip"
        found.faults.append(Fault("image-without-mask", image, detail, fatal=True))
    return None
