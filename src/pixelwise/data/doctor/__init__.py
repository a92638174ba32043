"""The doctor: what is in a data set, what is wrong with it, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pixelwise.core import registry
from pixelwise.core.panoptic_truth import Decisions
from pixelwise.data.dataset import DataSet, Record
from pixelwise.data.doctor.census import Census, judge
from pixelwise.data.doctor.contents import Contents, look_inside
from pixelwise.data.doctor.faults import Faults, Finding
from pixelwise.data.doctor.findings import Findings
from pixelwise.data.doctor.headers import read_headers
from pixelwise.data.doctor.inventory import assembled, take_inventory, untold
from pixelwise.data.doctor.splits import same_files, same_pixels
from pixelwise.data.io import MAX_PIXELS
from pixelwise.data.look import some
from pixelwise.errors import DataError

__all__ = ["Finding", "Findings", "admit", "examine"]

SAMPLE = 24  # masks that the quick part reads
CLOSED = ("unreadable", "gigantic", "lossy-mask")  # files with these are not decoded
AHEAD = 256  # records handed to the threads at a time, so that a million of them need no million of futures


def examine(
    root: str | Path, *, format: str | None = None, quick: bool = False, options: Mapping[str, Any] | None = None
) -> Findings:
    """Examines a data set: every fault of every file is collected, none stops the others.

    format  a name of `pixelwise list formats`; found by looking by default
    quick   only what needs no decoding of every image: names, pairs, headers, ends of files, equal files of one name in
            two splits, and the ids of a sample of masks
    options the format's own, as for `open_data`; with missing="skip" an image without a mask is no fault
    Raises DataError for a path that does not exist or holds no data set at all, ConfigError for an unknown format.

    >>> findings = examine("data/streets")
    >>> findings.ok, [f.code for f in findings.findings]
    (True, ['imbalance'])
    """
    root = Path(root)
    faults = Faults(root)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options = dict(options or {})
    inventory = take_inventory(root, format, faults, options)
    registry.check_options(registry.load("formats", inventory.format).open, options, f"Format '{inventory.format}'")
    limit = int(options.get("max_pixels", MAX_PIXELS))
    headers = read_headers(inventory.records, threads, faults, limit)
    same_files(inventory.records, faults)
    closed = faults.files(CLOSED)
    differing = faults.files(("size-differs",))
    dataset = assembled(inventory, closed | differing, faults)
    censuses: dict[str, Census] = {}
    decisions = Decisions()
    digests = []
    records = _some(inventory.records) if quick else inventory.records
    for contents in _look(dataset, records, faults.files(CLOSED), threads, images=not quick):
        record = contents.record
        for fault in contents.faults:
            if not (fault.code == "truth" and differing & {record.semantic, record.instances}):
                faults.add(fault.code, fault.path, fault.detail, **fault.words)
        decisions += contents.decisions
        if contents.digest is not None:
            digests.append((contents.digest, record))
        if dataset is not None and contents.pixels is not None:
            censuses.setdefault(record.split, Census.empty(len(dataset.classes))).add(contents)
    for line in decisions.lines():
        faults.add("joined", None, line)
    if not quick:
        same_pixels(digests, faults)
        if dataset is not None:
            judge(censuses, dataset.classes, faults)
    labelled = {split for split, group in inventory.splits.items() if any(record.labelled for record in group)}
    if labelled and "train" not in labelled:
        faults.add("no-train", None, f"there are {', '.join(inventory.splits)}")
    if "val" not in inventory.splits and inventory.splits:
        faults.add("no-split", None, "no 'val', so that training keeps its last model and chooses none")
    return Findings(
        root=root,
        format=inventory.format,
        quick=quick,
        findings=faults.findings(),
        notes=tuple(untold(inventory.notes if dataset is None else dataset.notes)),
        splits={split: len(group) for split, group in inventory.splits.items()},
        headers=headers,
        censuses=censuses,
        classes=None if dataset is None else dataset.classes,
        dataset=dataset,
    )


def admit(
    root: str | Path, format: str | None, say: Callable[[str], None], options: Mapping[str, Any] | None = None
) -> DataSet:
    """Opens a data set to train on, after its quick examination: each warning is said in a line.

    options  the format's own; missing="skip" leaves images without masks out, which else are an error
    Raises DataError with the first faults where there are errors, and as `examine` does.
    """
    findings = examine(root, format=format, quick=True, options=options)
    for warning in findings.of("warning"):
        say(f"warning   {warning.line()}")
    errors = [error for error in findings.of("error") if error.code != "no-train"]  # another split may be named
    if errors or findings.dataset is None:
        told = "; ".join(error.line() for error in errors[:3]) + ("; ..." if len(errors) > 3 else "")
        raise DataError(f"{root} cannot be trained on: {told}. To see what to do: pixelwise check {root}")
    return findings.dataset


def _some(records: list[Record]) -> list[Record]:
    """The records of a sample of masks."""
    labelled = [r for r in records if r.labelled]
    chosen = set(some([r.image for r in labelled], SAMPLE))
    return [r for r in labelled if r.image in chosen]


def _look(
    dataset: DataSet | None, records: list[Record], closed: set[Path], threads: int, *, images: bool
) -> Iterator[Contents]:
    """Looks inside the records, in threads, with a bar on a terminal."""
    columns = (TextColumn("reading"), BarColumn(28), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    silent = not (images and console.is_terminal)
    with (
        ThreadPoolExecutor(threads) as pool,
        Progress(*columns, console=console, transient=True, disable=silent) as bar,
    ):
        task, queue = bar.add_task("reading", total=len(records)), iter(records)
        while chunk := list(islice(queue, AHEAD)):
            for contents in pool.map(lambda r: look_inside(dataset, r, closed, image=images), chunk):
                bar.advance(task)
                yield contents
