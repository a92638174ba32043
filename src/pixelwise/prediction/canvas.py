"""Where the answer of a large image is put together, tile by tile: in memory, or on a scratch file of any size."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from pixelwise.core.atomic import output_error


class Canvas(Protocol):
    """A map of rows (H, W) that is written in pieces and read in bands of lines.

    `put` writes int32 rows [h, w] with their upper left pixel at (top, left); `band` gives the lines top..bottom as
    [bottom - top, W] integers. What was never put is not defined.
    """

    size: tuple[int, int]

    def put(self, top: int, left: int, rows: np.ndarray) -> None: ...

    def band(self, top: int, bottom: int) -> np.ndarray: ...


class MemoryCanvas:
    """A canvas in memory; `most` as for one on a file."""

    def __init__(self, size: tuple[int, int], most: int | None = None) -> None:
        self.size, self.rows = size, np.zeros(size, _kind(most))

    def put(self, top: int, left: int, rows: np.ndarray) -> None:
        self.rows[top : top + rows.shape[0], left : left + rows.shape[1]] = rows

    def band(self, top: int, bottom: int) -> np.ndarray:
        return self.rows[top:bottom]


class ScratchCanvas:
    """A canvas on a file, of which nothing stays in memory but what the system caches.

    path   of the file; one of the right size that is there already is gone on with
    most   the largest row there can be, None where nobody knows: it says how many bytes a pixel takes
    dtype  of what is put, where it is no rows
    All its room is claimed at once, so that a full disk shows before the work. Raises OutputError where the system
    refuses. Used by several threads.
    """

    def __init__(self, path: Path, size: tuple[int, int], most: int | None = None, *,
                 dtype: type | None = None) -> None:  # fmt: skip
        self.path, self.size = path, size
        self.dtype = _kind(most) if dtype is None else np.dtype(dtype)
        self._bytes = size[0] * size[1] * self.dtype.itemsize
        self._one_at_a_time = threading.Lock()  # a place in the file is sought, then written
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.fresh = not path.exists() or path.stat().st_size != self._bytes
            self._file = path.open("w+b" if self.fresh else "r+b", buffering=0)
            if self.fresh:
                self._claim()
        except OSError as error:
            self.remove()
            raise output_error(path, error) from error

    def _claim(self) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file.fileno(), 0, self._bytes)
        else:
            self._file.truncate(self._bytes)

    def put(self, top: int, left: int, rows: np.ndarray) -> None:
        rows = np.ascontiguousarray(rows, self.dtype)
        pieces = [rows] if rows.shape[1] == self.size[1] else list(rows)
        with self._one_at_a_time:
            for line, piece in enumerate(pieces):
                self._put(((top + line) * self.size[1] + left) * self.dtype.itemsize, piece)

    def _put(self, place: int, piece: np.ndarray) -> None:
        view = piece.data.cast("B")
        try:
            self._file.seek(place)
            while len(view):
                view = view[self._file.write(view) :]
        except OSError as error:
            raise output_error(self.path, error) from error

    def band(self, top: int, bottom: int) -> np.ndarray:
        found = np.empty((bottom - top, self.size[1]), self.dtype)
        view, at = found.data.cast("B"), 0
        with self._one_at_a_time:
            self._file.seek(top * self.size[1] * self.dtype.itemsize)
            while at < len(view):
                got = self._file.readinto(view[at:])
                if not got:
                    raise output_error(self.path, OSError("the scratch file became shorter"))
                at += got
        return found

    def flush(self) -> None:
        """Waits until all is on the disk, so that a state that is written next tells the truth after a power cut."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Keeps the file, to be gone on with."""
        self._file.close()

    def remove(self) -> None:
        """Closes and deletes the file."""
        if hasattr(self, "_file"):
            self._file.close()
        with suppress(OSError):
            self.path.unlink()


def _kind(most: int | None) -> np.dtype:
    """The smallest signed integer type that holds rows up to `most`."""
    kinds = [kind for kind in (np.int8, np.int16) if most is not None and most <= np.iinfo(kind).max]
    return np.dtype(kinds[0] if kinds else np.int32)
