"""What is inside the files of one record: each is decoded once, and what is wrong is told in full."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pixelwise.core.panoptic_truth import Decisions
from pixelwise.core.segments import Segments
from pixelwise.data.coco.joined import Joined
from pixelwise.data.dataset import DataSet, Fault, Record, TableReader
from pixelwise.data.doctor.kinds import KINDS
from pixelwise.data.doctor.objects import look_at_objects
from pixelwise.data.io import read_header, read_image, read_mask
from pixelwise.data.statistics import count_pixels
from pixelwise.data.table import Colour, Table
from pixelwise.data.truth import Maps
from pixelwise.errors import DataError, ImageError


@dataclass
class Contents:
    """What one record holds: pixels [K] and objects [K] of each class, pixels unknown and of no class.

    digest  of the decoded image, to find it again elsewhere
    decisions  what joining a class map and an instance map needed
    """

    record: Record
    faults: list[Fault] = field(default_factory=list)
    digest: bytes | None = None
    pixels: np.ndarray | None = None
    objects: np.ndarray | None = None
    void: int = 0
    nothing: int = 0
    decisions: Decisions = field(default_factory=Decisions)


def look_inside(dataset: DataSet | None, record: Record, closed: Collection[Path], *, image: bool) -> Contents:
    """Reads the truth, and the image too where asked; not the files in `closed`, of which all is known.

    Without a data set each file is only decoded.
    """
    contents = Contents(record)
    if image and record.image not in closed:
        try:
            pixels = read_image(record.image) if dataset is None else dataset.read_pixels(record)
            contents.digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, person=_shape(pixels)).digest()
        except ImageError as error:
            contents.faults.append(Fault("unreadable", error.path, error.reason))
    maps = [path for path in (record.semantic, record.instances) if path and path not in closed]
    if dataset is None or len(maps) < bool(record.semantic) + bool(record.instances):
        known = replace(record, semantic=record.semantic if record.semantic in maps else None,
                        instances=record.instances if record.instances in maps else None)  # fmt: skip
        reader = dataset.reader if dataset is not None else None
        aliases = reader.aliases if isinstance(reader, Maps) else ()
        contents.faults += diagnose_record(reader.table if isinstance(reader, Maps) else None, known, aliases)
    elif record.labelled:
        try:
            truth = dataset.reader(record)
            contents.faults += _told_size(truth, record)
            _count(contents, truth, dataset)
            contents.faults += look_at_objects(truth, record, dataset, thorough=image)
            if image and isinstance(dataset.reader, Maps | Joined) and record.semantic:
                contents.decisions = dataset.reader.decisions(record)
        except DataError as error:
            contents.faults += diagnose(dataset, record, error)
        else:
            contents.faults += dataset.reader.faults(record) if isinstance(dataset.reader, TableReader) else ()
    return contents


def _shape(pixels: np.ndarray) -> bytes:
    return "x".join(map(str, pixels.shape)).encode()[:16]


def _told_size(truth: Segments, record: Record) -> list[Fault]:
    """Whether a table gives its image another size than the image has; that of a map is known from its header."""
    if record.semantic or record.instances:
        return []
    size = read_header(record.image).size
    if truth.size == size:
        return []
    detail = f"its annotation is for {truth.size[1]} x {truth.size[0]} pixels, it has {size[1]} x {size[0]}"
    return [Fault("size-differs", record.image, detail)]


def _count(contents: Contents, truth: Segments, dataset: DataSet) -> None:
    k, labels = len(dataset.classes), truth.labels.numpy()
    counts, contents.void, contents.nothing = count_pixels(truth)
    contents.pixels = np.bincount(labels, weights=counts, minlength=k).astype(np.int64)
    single = dataset.classes.is_thing[labels] & ~truth.crowd.numpy() & (counts > 0)
    contents.objects = np.bincount(labels[single], minlength=k)
    path = contents.record.semantic or contents.record.instances or contents.record.image
    ground = np.array([key == 0 for key in dataset.classes.ids]) & ~dataset.classes.is_thing
    if not contents.pixels.sum() and not contents.nothing:
        contents.faults.append(Fault("all-void", path))
    elif dataset.default_task == "instance" and not contents.objects.sum():
        contents.faults.append(Fault("no-object", path))
    elif not contents.pixels[~ground].sum():
        contents.faults.append(Fault("empty-mask", path))


def diagnose(dataset: DataSet, record: Record, error: DataError) -> list[Fault]:
    """Why the truth of a record was refused: every fault of its files, not only the first."""
    faults = []
    if isinstance(dataset.reader, Maps):
        faults = diagnose_record(dataset.reader.table, record, dataset.reader.aliases)
    elif isinstance(dataset.reader, TableReader):
        faults = list(dataset.reader.faults(record))
    if not any(KINDS[fault.code].severity == "error" for fault in faults):
        files = (dataset.truth_file(record), record.instances, record.semantic)
        named = [p for p in files if p and str(error).startswith(str(p))]
        path = named[0] if named else record.semantic or record.instances or record.image
        code = "unreadable" if isinstance(error, ImageError) else "truth"
        faults.append(Fault(code, path, str(error).removeprefix(str(path)).lstrip(": ")))
    return faults


def diagnose_record(table: Table | None, record: Record, aliases: Collection[int] = ()) -> list[Fault]:
    """What is wrong with each of a record's maps: whether it can be read, and ids that the table does not know."""
    faults = []
    colours = table.colours or None if table else None
    if record.semantic:
        faults += diagnose_map(record.semantic, colours)
        if table and not faults:
            faults += _unknown_ids(table, aliases, record.semantic, colours)
    if record.instances:
        faults += diagnose_map(record.instances, None)
    return faults


def _unknown_ids(
    table: Table, aliases: Collection[int], path: Path, colours: Mapping[Colour, int] | None
) -> list[Fault]:
    """Ids [H, W] that neither class, void, nothing nor alias explains, with their pixels."""
    known = {*table.classes.ids, *table.classes.void, *table.nothing, *aliases}
    found, counts = np.unique(read_mask(path, colours), return_counts=True)
    strange = [(i, n) for i, n in zip(found.tolist(), counts.tolist()) if i not in known]
    if not strange:
        return []
    listed = ", ".join(f"id {i}: {n:,} pixels" for i, n in strange[:5]) + (", ..." if len(strange) > 5 else "")
    return [Fault("unknown-ids", path, listed, {"id": str(strange[0][0])})]


def diagnose_map(path: Path, colours: Mapping[Colour, int] | None) -> list[Fault]:
    """Why a map of ids cannot be read; nothing where it can."""
    try:
        read_mask(path, colours)
        return []
    except ImageError as error:
        refused = error
    try:
        header = read_header(path)
        if header.format in ("JPEG", "MPO") or "lossy" in refused.reason:
            return [Fault("lossy-mask", path, header.format)]
        coloured = header.mode in ("RGB", "RGBA")
        pixels = read_image(path, channels=None) if coloured else np.zeros(0)
    except ImageError as error:
        return [Fault("unreadable", path, error.reason)]
    if not coloured or pixels.dtype != np.uint8:
        return [Fault("unreadable", path, refused.reason)]
    if colours:
        return [Fault("unknown-colours", path, refused.reason.split("; add")[0])]
    return [Fault("colour-mask", path, _colours(pixels))]


def _colours(pixels: np.ndarray) -> str:
    """The commonest colours of [H, W, 3]."""
    packed = (pixels.astype(np.int64) @ np.array([65536, 256, 1])).ravel()
    found, counts = np.unique(packed, return_counts=True)
    common = Counter(dict(zip(found.tolist(), counts.tolist()))).most_common(3)
    listed = ", ".join(f"({c >> 16} {c >> 8 & 255} {c & 255}) {100 * n / packed.size:.0f} %" for c, n in common)
    return f"{len(found)} colours: {listed}" + (", ..." if len(found) > 3 else "")
