"""Decoded samples kept in a folder that several processes and trainings share."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.core.sample import Sample
from pixelwise.core.segments import Segments
from pixelwise.data.cache import Keyed, Source, sample_bytes
from pixelwise.data.entry import Damaged, Entry, write_entry
from pixelwise.data.stored import Stored
from pixelwise.kernels.compiled import user_cache

MARGIN = 2 << 30  # bytes of the disk that stay free, and at least a twentieth of it
USED_AGAIN = 600.0  # seconds after which an entry that is read is marked as used again
LEFT_OVER = 3600.0  # seconds after which an unfinished file is nobody's any more
LOOK_AGAIN = 60.0  # seconds until a full cache is looked at again


class Disk:
    """Keeps samples in a folder, each in a file of its own (`entry.Entry`), made when the sample is first read.

    folder    default: `default_folder()`. Any number of processes may use it at once: an entry takes its name when it
              is whole, there are no locks, and what a killed process leaves is swept up later
    limit     bytes that all entries together may take, also those of other data sets; default: half of what is free
    margin    bytes of the disk that are left free whatever the limit says
    When it is full, entries that nobody has used since this cache was opened make room, the longest unused first; when
    there are none, what is kept stays and the rest is read from its files each time: in random order, throwing out what
    is wanted next would keep nothing. Where the folder cannot be written to, or the disk is full all the same, reading
    goes on without it and `complaint` says so once.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None, margin: int | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder).absolute()
        self.limit, self.margin = limit, margin
        self.opened = time.time()
        self._seen: dict[str, bytearray] = {}  # what was compared with its checksum in this process
        self._used: int | None = None  # bytes, as far as this process knows
        self._wait = 0.0
        self._trouble = torch.zeros(1, dtype=torch.int32).share_memory_()  # workers tell the trainer: an errno
        self._told = False

    def fill(self, source: Source, records: Sequence[Any]) -> None:
        self.prepare()

    def prepare(self) -> None:
        """Makes the folder and writes to it, so that a folder that refuses is known at once."""
        if self._trouble:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._new_file() as part:
                part.touch()
            self.limit = self.room() if self.limit is None else self.limit
        except OSError as error:
            self._stop(error)

    def room(self) -> int:
        """Bytes that the entries may take where nobody said: half of what is free beside them."""
        return (shutil.disk_usage(self.folder).free + sum(f.size for f in self._files())) // 2

    def read(self, source: Source, record: Any) -> Sample:
        key = source.key(record) if isinstance(source, Keyed) else None
        if key is None:
            return source.read(record)
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.item"
        found = self._find(path, key)
        if found is not None:
            return Stored(
                name=record.name, complete=found.complete, parts=_Kept(self, found, path, key, source, record)
            )
        return self.make(path, key, source, record)

    def _find(self, path: Path, key: str) -> Entry | None:
        try:
            entry = Entry(path, key, self._seen)
        except (Damaged, OSError, ValueError) as error:  # an empty file cannot be mapped: ValueError
            if not isinstance(error, FileNotFoundError):
                self.drop(path)
            return None
        if time.time() - entry.used > USED_AGAIN:
            with contextlib.suppress(OSError):  # a folder that may only be read
                os.utime(path)
        return entry

    def drop(self, path: Path) -> None:
        """Removes an entry, if it may be."""
        with contextlib.suppress(OSError):
            path.unlink()

    def make(self, path: Path, key: str, source: Source, record: Any) -> Sample:
        """Reads the sample and keeps it, where there is room. Raises what reading raises."""
        sample = source.read(record)
        need = sample_bytes(sample) + (16 << 10)  # header, table and the ends of pages
        if self._used is None:
            self.prepare()
        if self._trouble or time.monotonic() < self._wait:
            return sample
        try:
            if self._make_room(need):
                self._write(path, key, sample)
        except OSError as error:
            self._stop(error)
        return sample

    def _write(self, path: Path, key: str, sample: Sample) -> None:
        """Whole or not at all. Not flushed to the disk: what a power cut leaves is found out by its checksums."""
        with self._new_file() as part:
            with part.open("xb") as file:
                write_entry(file, key, sample)
            size = part.stat().st_size
            try:
                os.replace(part, path)
            except PermissionError:  # Windows replaces no file that another process reads: it is the same
                if not path.exists():
                    raise
        self._used = (self._used or 0) + size
        assert self.limit is not None
        if self._used > 0.9 * self.limit and self._sweep(0) > self.limit:  # others have written, too
            self.drop(path)

    @contextlib.contextmanager
    def _new_file(self) -> Any:
        """A name of one's own; what is left of it at the end goes."""
        part = self.folder / f".{os.getpid()}-{secrets.token_hex(6)}.part"
        try:
            yield part
        finally:
            self.drop(part)

    # -- the bound ----------------------------------------------------------------------------------------------------

    def _make_room(self, need: int) -> bool:
        """Whether `need` more bytes may be written, perhaps after others went."""
        if self.limit is None:
            self.limit = self.room()
        if self._used is None or self._used + need > 0.9 * self.limit or self._lacking(need) > 0:
            self._used = self._sweep(need)
            if self._used + need > self.limit or self._lacking(need) > 0:
                self._wait = time.monotonic() + LOOK_AGAIN
                return False
        return True

    def _lacking(self, need: int) -> int:
        """Bytes that the disk has too few."""
        disk = shutil.disk_usage(self.folder)
        margin = max(MARGIN, disk.total // 20) if self.margin is None else self.margin
        return max(0, need + margin - disk.free)

    def _sweep(self, need: int) -> int:
        """Removes what nobody finished, and entries unused since this cache was opened where `need` bytes lack.

        Returns the bytes of all that stays.
        """
        assert self.limit is not None
        files = self._files()
        for file in [f for f in files if f.path.suffix == ".part" and time.time() - f.used > LEFT_OVER]:
            self.drop(file.path)
            files.remove(file)
        total, lacking = sum(f.size for f in files), self._lacking(need)
        for file in sorted(files, key=lambda f: f.used):
            short = max(total + need - self.limit, lacking)
            if short <= 0 or file.used >= self.opened or file.path.suffix != ".item":
                break
            self.drop(file.path)
            total, lacking = total - file.size, lacking - file.size
        return total

    def _files(self) -> list[_File]:
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith((".item", ".part")):
                    with contextlib.suppress(OSError):  # gone since
                        state = entry.stat(follow_symlinks=False)
                        found.append(_File(Path(entry.path), state.st_size, state.st_mtime))
        return found

    # -- going on without ---------------------------------------------------------------------------------------------

    def _stop(self, error: OSError) -> None:
        self._trouble[0] = error.errno or errno.EIO

    def complaint(self) -> str | None:
        if self._told or not self._trouble:
            return None
        self._told = True
        reason = os.strerror(int(self._trouble))
        return (f"The cache {self.folder} takes nothing more ({reason}): images that are not in it are read from their "
                "files each time.")  # fmt: skip


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    used: float  # seconds since 1970


class _Kept:
    """The parts of an entry; where one is damaged, the sample is read from its files and the entry made anew."""

    def __init__(self, cache: Disk, entry: Entry, path: Path, key: str, source: Source, record: Any) -> None:
        self.size = entry.size
        self._entry: Entry | None = entry
        self._cache, self._where = cache, (path, key, source, record)
        self._sample: Sample | None = None

    def _anew(self) -> Sample:
        if self._sample is None:
            self._entry = None
            self._cache.drop(self._where[0])
            self._sample = self._cache.make(*self._where)
        return self._sample

    def rows(self, start: int, stop: int) -> np.ndarray:
        if self._entry is not None:
            with contextlib.suppress(Damaged):
                return self._entry.rows(start, stop)
        return self._anew().rows(start, stop)

    def truth(self) -> Segments | None:
        if self._entry is not None:
            with contextlib.suppress(Damaged):
                return self._entry.truth()
        return self._anew().truth


def default_folder() -> Path:
    """Below the user's own folder for what can be made again."""
    return user_cache() / "decoded"
