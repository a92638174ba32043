"""The same image in two splits, or twice in one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable
from pathlib import Path

from pixelwise.data.dataset import Record
from pixelwise.data.doctor.faults import Faults


def same_files(records: Iterable[Record], faults: Faults) -> None:
    """Quick: one file in two splits, or two files of one name, one size and the same bytes."""
    named: dict[Hashable, list[Record]] = defaultdict(list)
    for record in records:
        if record.image.is_file():
            named[record.image.name, record.image.stat().st_size].append(record)
    for group in named.values():
        if len({r.split for r in group}) > 1:
            told = {path: _digest(path) for path in {r.image for r in group}}
            _tell(((told[r.image], r) for r in group), faults)


def same_pixels(digests: Iterable[tuple[bytes, Record]], faults: Faults) -> None:
    """Full: equal pixels, whatever the file is called and however it is stored."""
    _tell(digests, faults)


def _tell(digests: Iterable[tuple[bytes, Record]], faults: Faults) -> None:
    groups: dict[bytes, list[Record]] = defaultdict(list)
    for digest, record in digests:
        groups[digest].append(record)
    for group in groups.values():
        if len(group) < 2:
            continue
        first = group[0]
        for other in group[1:]:
            named = other.image.name if other.image != first.image else "the same file"
            where = f"in '{first.split}'; also in '{other.split}' as {named}"
            code = "split-leak" if other.split != first.split else "duplicate"
            faults.add(code, first.image, where if code == "split-leak" else f"in '{first.split}', also as {named}")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
