"""`open_data`: any folder that a format knows -> a `DataSet` of records, read one `Sample` at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pixelwise import __version__
from pixelwise.core import registry
from pixelwise.core.classes import Classes
from pixelwise.core.sample import Sample, image_tensor
from pixelwise.core.segments import Segments
from pixelwise.data.io import MAX_PIXELS, read_header, read_image
from pixelwise.data.stored import Stored
from pixelwise.errors import DataError, ImageError


@dataclass(frozen=True)
class Record:
    """One image and the files of its truth.

    name       relative path below the images' folder without the ending; unique in the set
    semantic   the class map, `instances` the map of ids, where there are such files
    entry      the key of its annotation in the format's own tables (JSON), where the truth is no file of its own
    """

    name: str
    image: Path
    semantic: Path | None = None
    instances: Path | None = None
    split: str = "train"
    entry: str | int | None = None

    @property
    def labelled(self) -> bool:
        return self.semantic is not None or self.instances is not None or self.entry is not None


Reader = Callable[[Record], Segments]


@dataclass(frozen=True)
class Fault:
    """One file and what is wrong with it, for the doctor.

    code    a name of the table in `pixelwise.data.doctor.kinds`
    words   fill the blanks of the remedy
    fatal   `open_data` refuses the data set for it; the doctor lists it with all others
    """

    code: str
    path: Path
    detail: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    fatal: bool = False


@runtime_checkable
class TableReader(Protocol):
    """A reader of truth that stands in tables (JSON, text) rather than in maps; a record's `entry` says where."""

    def __call__(self, record: Record) -> Segments:
        """Raises DataError naming the file, the entry and what is wrong with it."""
        ...

    def file(self, record: Record) -> Path:
        """The file in which the truth of the record stands."""
        ...

    def faults(self, record: Record) -> Sequence[Fault]:
        """Everything that is wrong with a record's truth or needed a decision, the reasons of a refusal among it."""
        ...


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set on disk. Pickles, so that workers get their own.

    splits    {"train" | "val" | "test" | ...: records}
    notes     what was found by looking rather than told, a sentence each
    channels  every sample has so many; grey images are repeated where others are RGB
    dtype     "uint8" or "uint16"; 8-bit images of a 16-bit set are scaled by 257, so that white stays white
    reader    Record -> Segments: how this format's truth is read; not called for records without truth
    unpaired  images that were left out because they have no mask (only with missing="skip")
    faults    what was wrong with the files as a whole; no fatal one where it comes from `open_data`
    options   the format's, as they were given
    """

    root: Path
    format: str
    classes: Classes
    splits: dict[str, tuple[Record, ...]]
    reader: Reader
    notes: tuple[str, ...] = ()
    channels: int = 3
    dtype: str = "uint8"
    default_task: str = "semantic"
    max_pixels: int = MAX_PIXELS
    unpaired: tuple[Path, ...] = field(default=(), repr=False)
    faults: tuple[Fault, ...] = field(default=(), repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(records) for records in self.splits.values())

    def __iter__(self) -> Iterator[Record]:
        for records in self.splits.values():
            yield from records

    def records(self, split: str) -> tuple[Record, ...]:
        """Raises DataError naming the splits there are."""
        if split not in self.splits:
            sizes = ", ".join(f"{name} (images: {len(records)})" for name, records in self.splits.items())
            raise DataError(
                f"{self.root} has no split '{split}'. It has {sizes}. Choose one of these, or write its images' names, "
                f"one a line, to {self.root / 'splits' / split}.txt."
            )
        return self.splits[split]

    def without_instances(self) -> DataSet:
        """The same with the class maps alone where there are any: several times faster to read, for semantic tasks."""

        def plain(record: Record) -> Record:
            return replace(record, instances=None, entry=None) if record.semantic else record

        return replace(self, splits={split: tuple(map(plain, group)) for split, group in self.splits.items()})

    def read(self, record: Record) -> Sample:
        """Image and truth, checked against each other.

        Returns a Sample of `channels` x H x W; `truth` is None for a record without files of truth.
        Raises ImageError for a file that cannot be read, DataError for sizes that differ and for ids that are in no
        table, naming file, id and count.
        """
        files = _Files(self, record)
        return Sample(image_tensor(files.rows(0, files.size[0])), files.truth(), record.name)

    def open(self, record: Record) -> Sample:
        """As `read`, but image and truth are read when they are asked for, and rows of the image alone where that does.

        Raises ImageError for an image whose header cannot be read; all else that `read` raises comes when it is read.
        """
        return Stored(name=record.name, parts=_Files(self, record))

    def key(self, record: Record) -> str | None:
        """Another text where `read` may give another sample: files, their sizes and times, and how they are read.

        None where nobody can tell: a file is missing, or the truth has a reader that tells no one what it reads.
        """
        kind = self._kind
        files = [record.image, record.semantic, record.instances]
        if isinstance(self.reader, TableReader) and record.entry is not None:
            files.append(self.reader.file(record))
        try:
            stamps = [None if path is None else _stamp(path) for path in files]
        except OSError:
            return None
        return None if kind is None else json.dumps([kind, record.entry, stamps])

    @cached_property
    def _kind(self) -> str | None:
        """What decides beside the files what a reading gives; None for a reader that cannot be told from another."""
        reader = f"{type(self.reader).__module__}.{type(self.reader).__qualname__}"
        if not isinstance(self.reader, TableReader):
            if not is_dataclass(self.reader):
                return None
            reader = repr(self.reader)
        options = sorted((name, repr(value)) for name, value in self.options.items())
        how = [__version__, self.format, self.channels, self.dtype, self.classes.to_dict(), reader, options]
        return json.dumps(how, sort_keys=True)

    def truth_file(self, record: Record) -> Path:
        """The file that a word about the record's truth should name."""
        told = self.reader.file(record) if isinstance(self.reader, TableReader) else None
        return told or record.semantic or record.instances or record.image

    def read_pixels(self, record: Record, rows: int | None = None) -> np.ndarray:
        """The image alone, [H, W, C] or [H, W] in the set's channels and dtype; with `rows` perhaps not all below."""
        pixels = read_image(record.image, max_pixels=self.max_pixels, channels=self.channels, rows=rows)
        if pixels.dtype == np.uint8 and self.dtype == "uint16":
            return pixels.astype(np.uint16) * np.uint16(257)
        if pixels.dtype != np.dtype(self.dtype):
            raise ImageError(record.image, f"has {pixels.dtype} values, the data set has {self.dtype}.")
        return pixels


class _Files:
    """The files of a record as parts of a sample: see `Stored`."""

    def __init__(self, dataset: DataSet, record: Record) -> None:
        self.dataset, self.record = dataset, record

    @cached_property
    def size(self) -> tuple[int, int]:
        return read_header(self.record.image, max_pixels=self.dataset.max_pixels).size

    def rows(self, start: int, stop: int) -> np.ndarray:
        pixels = self.dataset.read_pixels(self.record, stop)[start:stop]
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def truth(self) -> Segments | None:
        """Raises DataError also where the image has another size."""
        if not self.record.labelled:
            return None
        truth = self.dataset.reader(self.record)
        if truth.size != self.size:
            raise _size_error(self.record, self.dataset.truth_file(self.record), self.size, truth.size)
        return truth


def _stamp(path: Path) -> list[Any]:
    found = path.stat()
    return [os.path.abspath(path), found.st_size, found.st_mtime_ns]


def _size_error(record: Record, path: Path, image: tuple[int, int], mask: tuple[int, int]) -> DataError:
    turned = image == mask[::-1]
    word = "mask" if record.semantic or record.instances else "annotation"
    hint = (
        f"It would fit the image before its EXIF rotation, which viewers apply: turn the {word}, or strip the tag from "
        "the image."
        if turned
        else "Export them at one size."
    )
    return DataError(
        f"{path}: the {word} is {mask[1]} x {mask[0]} pixels, its image {record.image} is {image[1]} x {image[0]} "
        f"(width x height). {hint}"
    )


def open_data(root: str | Path, format: str | None = None, **options: Any) -> DataSet:
    """Opens a data set.

    format   a name of `pixelwise list formats`; None asks each format whether it recognises the folder, the plain
             folder reader last
    options  the format's own, by name
    Raises DataError for a path that does not exist or is no folder, and for faults that the format does not forgive;
    ConfigError for an unknown format or option.
    """
    data = open_leniently(root, format, **options)
    fatal = [fault for fault in data.faults if fault.fatal]
    if fatal:
        more = f" And {len(fatal) - 1} more faults: pixelwise check {root} lists them." if len(fatal) > 1 else ""
        raise DataError(f"{fatal[0].path}: {fatal[0].detail}{more}")
    return data


def open_leniently(root: str | Path, format: str | None = None, **options: Any) -> DataSet:
    """As `open_data`, but what is wrong with single entries stands in `faults`, fatal or not, and they are left out."""
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root}: there is no such folder.")
    if not root.is_dir():
        raise DataError(f"{root}: is a file; a data set is a folder with images and masks.")
    if format is None:
        format = recognise(root)
    module = registry.load("formats", format)
    registry.check_options(module.open, options, f"Format '{format}'")
    return replace(module.open(root, **options), options=options)


def recognise(root: Path) -> str:
    """The name of the format of a folder. Raises DataError when several claim it."""
    claims = [
        name
        for name in registry.modules("formats")
        if name != "folder" and registry.load("formats", name).recognise(root)
    ]
    if len(claims) > 1:
        raise DataError(f"{root} looks like {' and like '.join(claims)}; say which one with the option format.")
    return claims[0] if claims else "folder"
