"""Which files there are and what belongs together, whatever is wrong with some of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from pixelwise.core import registry
from pixelwise.data.assembly import check_missing
from pixelwise.data.dataset import DataSet, Record, open_data, open_leniently, recognise
from pixelwise.data.doctor.contents import diagnose_record
from pixelwise.data.doctor.faults import Faults
from pixelwise.data.formats.folder import Format, assemble, paired
from pixelwise.data.io import MAX_PIXELS
from pixelwise.data.layout import Files, Layout, gather, split_files
from pixelwise.data.look import some
from pixelwise.data.table import find_table, read_table
from pixelwise.errors import DataError, PixelwiseError

TOLD = (  # notes of the readers of which a finding says more
    "are left out, the first",
    "stand in several split lists",
    "Images differ in channels",
    "Some images have 8 and some 16 bits",
    "have an alpha channel",
)


@dataclass
class Inventory:
    """The records by split, before anything was read; `dataset` where the format opens as a whole."""

    root: Path
    format: str
    splits: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    dataset: DataSet | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def records(self) -> list[Record]:
        return [record for group in self.splits.values() for record in group]


def take_inventory(root: Path, format: str | None, faults: Faults, options: Mapping[str, Any]) -> Inventory:
    """Finds and pairs the files. Raises PixelwiseError where the path is no folder or holds no data set at all."""
    if not root.is_dir():
        open_data(root, format)  # says what is wrong with the path
    name = format or recognise(root)
    module = registry.load("formats", name)
    layout = _layout(name, module)
    if layout is None:
        return _opened(root, name, module, faults, options)
    collected: list[tuple[Path, str]] = []
    files = gather(root, layout, Files(faults=collected))
    names = split_files(root, layout, files, seed=int(options.get("seed", 0)))
    splits, unpaired = paired(files, names, missing="skip")
    for path, message in collected:
        code = "layout" if path == root else "split-list" if path.suffix == ".txt" else "same-name"
        faults.add(code, None if path == root else path, _without(message, path))
    for path in files.lonely:
        faults.add("mask-without-image", path)
    for path in _refused(unpaired, options):
        faults.add("image-without-mask", path)
    return Inventory(root, name, splits, files.notes, options=options)


def _refused(unpaired: Iterable[Path], options: Mapping[str, Any]) -> Iterable[Path]:
    """Images without a mask, unless they are to be skipped. Raises ConfigError for another word."""
    missing = options.get("missing", "refuse")
    check_missing(missing)
    return unpaired if missing == "refuse" else ()


def _without(message: str, path: Path) -> str:
    """The message without the file's name at its start: that stands before it already."""
    return message.removeprefix(str(path)).lstrip(":, ")


def _layout(name: str, module: ModuleType) -> Layout | None:
    form = getattr(module, "FORMAT", None)
    return Layout() if name == "folder" else form.layout if isinstance(form, Format) else None


def _opened(root: Path, name: str, module: ModuleType, faults: Faults, options: Mapping[str, Any]) -> Inventory:
    """A format that brings its own reader is opened as a whole."""
    skips = "missing" in inspect.signature(module.open).parameters
    try:
        dataset = open_leniently(root, name, **{**options, **({"missing": "skip"} if skips else {})})
    except DataError as error:
        faults.add("layout", None, str(error))
        return Inventory(root, name)
    for path in _refused(dataset.unpaired, options):
        faults.add("image-without-mask", path)
    for fault in dataset.faults:
        if fault.code == "image-missing" and options.get("missing") == "skip":
            continue
        faults.add(fault.code, fault.path, fault.detail, **fault.words)
    return Inventory(root, name, dataset.splits, list(dataset.notes), dataset, options)


def untold(notes: Iterable[str]) -> list[str]:
    """The notes that no finding repeats."""
    return [note for note in notes if not any(words in note for words in TOLD)]


def assembled(inventory: Inventory, bad: set[Path], faults: Faults) -> DataSet | None:
    """The data set of the records without `bad` files; None, and the reason among the faults, where there is none."""
    splits = {split: tuple(r for r in group if not bad & {r.image, r.semantic, r.instances})
              for split, group in inventory.splits.items()}  # fmt: skip
    if inventory.dataset is not None:
        return replace(inventory.dataset, splits=splits)
    if not any(r.labelled for group in splits.values() for r in group):
        return None
    table = _table_file(inventory)
    if table is not None:
        faults.table = table.name
        try:
            read_table(table)
        except PixelwiseError as error:
            faults.add("class-table", table, _without(str(error), table))
            return None
    try:
        return _assemble(inventory, splits)
    except DataError:  # a map that the classes are sought in may be bad: go on without those that are
        return _without_bad_maps(inventory, splits, faults)


def _table_file(inventory: Inventory) -> Path | None:
    """The class table that was named, or the one beside the data."""
    named = inventory.options.get("class_table")
    return Path(str(named)) if named is not None else find_table(inventory.root)


def _assemble(inventory: Inventory, splits: dict[str, tuple[Record, ...]]) -> DataSet:
    form = getattr(registry.load("formats", inventory.format), "FORMAT", None)
    root, name, notes, options = inventory.root, inventory.format, list(inventory.notes), inventory.options
    common = {"channels": options.get("channels"), "max_pixels": options.get("max_pixels", MAX_PIXELS)}
    named = options.get("class_table")
    if isinstance(form, Format):
        classes = form.told(root) if named is None else named
        return assemble(root, name, splits, notes, classes=classes, void_objects=form.object_void,
                        all_things=form.all_things, **common)  # fmt: skip
    return assemble(root, name, splits, notes, classes=named, **common)


def _without_bad_maps(inventory: Inventory, splits: dict[str, tuple[Record, ...]], faults: Faults) -> DataSet | None:
    """The data set without the records whose maps cannot be read, among those that the classes are sought in."""
    path = _table_file(inventory)
    table = read_table(path) if path else None
    records = [r for group in splits.values() for r in group if r.labelled]
    chosen = {*some([r.semantic for r in records if r.semantic]), *some([r.instances for r in records if r.instances])}
    bad = set()
    for record in (r for r in records if chosen & {r.semantic, r.instances}):
        for fault in diagnose_record(table, record):
            faults.add(fault.code, fault.path, fault.detail, **fault.words)
            bad.add(fault.path)
    kept = {split: tuple(r for r in group if not bad & {r.semantic, r.instances}) for split, group in splits.items()}
    if not any(r.labelled for group in kept.values() for r in group):
        return None
    try:
        return _assemble(inventory, kept)
    except DataError as error:
        faults.add("no-class", None, _without(str(error), inventory.root))
        return None
