"""`convert`: a data set of any format that is read, written in any format that is written, an image at a time."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pixelwise.core import registry
from pixelwise.core.atomic import atomic, check_writable, output_error
from pixelwise.data.dataset import DataSet, Record, open_data
from pixelwise.data.decode import embedded_image, read_header
from pixelwise.data.writer import Item, Writer, open_writer
from pixelwise.errors import ConfigError, DataError, OutputError

ENDING_OF = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}  # of an image that has no file of its own


@dataclass(frozen=True)
class Conversion:
    """What was done.

    written  images of each split
    segments how many were read
    images   how many image files were copied or linked
    lost     what the format could not hold, a sentence each with its count
    """

    out: Path
    written: dict[str, int] = field(default_factory=dict)
    segments: int = 0
    images: int = 0
    lost: tuple[str, ...] = ()


def convert(data: DataSet | str | Path, to: str, out: str | Path, *, format: str | None = None,
            options: Mapping[str, Any] | None = None, to_options: Mapping[str, Any] | None = None,
            splits: Iterable[str] = (), images: Literal["copy", "link", "none"] = "copy",
            on_image: Callable[[int, int], None] | None = None) -> Conversion:  # fmt: skip
    """Writes a data set in another format. The folder `out` is there whole, or not at all.

    data        a data set, or its folder, opened by `format` and `options` as `open_data` does
    to          a name of `pixelwise list writers`; `to_options` are its own
    out         a folder that is not there, or empty
    splits      which splits; all by default
    images      "copy" them as they are, "link" to them, or "none": only annotations
    on_image    called (number done, number in all) after each image
    Images that nobody annotated are left out, and that is said. Raises ConfigError for unknown words, DataError for
    truth that cannot be read or does not fit its image, OutputError for a folder that holds anything or cannot be
    written.
    """
    out = Path(out).absolute()
    if images not in ("copy", "link", "none"):
        raise ConfigError(f"images is 'copy', 'link' or 'none', got {images!r}.")
    registry.load("writers", to)  # a wrong name is said before the data are opened
    if not isinstance(data, DataSet):
        data = open_data(data, format, **(options or {}))
    _check_place(data.root, out)
    chosen = tuple(splits) or tuple(data.splits)
    records = [record for split in dict.fromkeys(chosen) for record in data.records(split)]
    part = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    check_writable(part)
    try:
        writer = open_writer(to, part, data.classes, **(to_options or {}))
        done = _write(data, records, writer, images, on_image)
        lost = (*_left_out(records, done), *writer.finish())
        if out.is_dir():
            out.rmdir()
        part.replace(out)
    except OSError as error:
        raise error if isinstance(error, OutputError) else output_error(out, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)  # gone after the rename
    return Conversion(out, done.written, done.segments, done.images, lost)


def _check_place(root: Path, out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out}: holds files already; name a folder that is new or empty.")
    inside, outside = out.resolve(), root.resolve()
    if outside == inside or outside in inside.parents:
        raise OutputError(f"{out}: lies inside the data set {root}; name a folder beside it.")


@dataclass
class _Done:
    written: dict[str, int] = field(default_factory=dict)
    segments: int = 0
    images: int = 0


def _write(data: DataSet, records: list[Record], writer: Writer, images: str,
           on_image: Callable[[int, int], None] | None) -> _Done:  # fmt: skip
    done = _Done()
    for number, record in enumerate(records, 1):
        if record.labelled:
            item = _item(data, record)
            place = None if images == "none" else writer.place(item)
            writer.write(item)
            if place is not None:
                _put(record.image, place, images)
                done.images += 1
            done.written[record.split] = done.written.get(record.split, 0) + 1
            done.segments += int((item.segments.pixel_counts > 0).sum())
        if on_image is not None:
            on_image(number, len(records))
    return done


def _item(data: DataSet, record: Record) -> Item:
    """The truth without decoding the image, whose header says whether they fit."""
    truth = data.reader(record)
    header = read_header(record.image, max_pixels=data.max_pixels)
    size = header.size
    if truth.size != size:
        raise DataError(
            f"{data.truth_file(record)}: the truth is {truth.size[1]} x {truth.size[0]} pixels, its image "
            f"{record.image} is {size[1]} x {size[0]} (width x height)."
        )
    inside = record.image.suffix.lower() == ".json"
    ending = ENDING_OF.get(header.format, f".{header.format.lower()}") if inside else record.image.suffix
    return Item(name=record.name, segments=truth, split=record.split, image=record.image, ending=ending)


def _put(source: Path, place: Path, images: str) -> None:
    """Copies an image, or links to it; one inside a labelme file is written out."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix.lower() == ".json":
        with atomic(place) as part:
            part.write_bytes(embedded_image(source, source.read_bytes()))
    elif images == "link":
        place.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, place)


def _left_out(records: list[Record], done: _Done) -> tuple[str, ...]:
    bare = len(records) - sum(done.written.values())
    return (f"Images without annotations, left out: {bare}.",) if bare else ()
