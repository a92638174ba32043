"""A file is written whole or not at all: beside its place first, then renamed, so that nobody reads half of one."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelwise.errors import OutputError, PixelwiseError

REASONS = {
    errno.ENOSPC: "the disk is full; make room or choose another folder",
    errno.EDQUOT: "the disk quota is used up; make room or choose another folder",
    errno.EFBIG: "the file is larger than is allowed there; choose another folder",
    errno.EACCES: "there is no permission to write there; choose another folder",
    errno.EPERM: "there is no permission to write there; choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another folder",
    errno.EISDIR: "there is a folder of that name; choose another name",
    errno.ENAMETOOLONG: "the name is too long for this disk; choose a shorter one",
}


def output_error(path: str | Path, error: OSError) -> OutputError:
    """The OutputError for a failed write: the file, the reason and what to do."""
    reason = REASONS.get(error.errno or 0, f"{error.strerror or error}; choose another folder")
    return OutputError(f"{path} cannot be written: {reason}.")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` with the same ending; at the end it takes the name `path`.

    Missing folders are made. If the block raises, `path` is left as it was and the temporary file removed.
    Raises OutputError when the system refuses (disk full, no permission), with what to do.

    >>> with atomic("out/scores.json") as part:
    ...     part.write_text("{}")
    """
    path = Path(path)
    part = path.with_name(f".{path.stem[:100]}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _flush(part)
        os.replace(part, path)
        _flush(path.parent)
    except PixelwiseError:
        raise
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with suppress(OSError):  # gone after the rename; else a leftover that must not hide the first error
            part.unlink()


def check_writable(folder: str | Path) -> None:
    """Makes the folder and writes to it, before anything slow is done. Raises OutputError where that cannot be."""
    probe = Path(folder) / ".pixelwise-probe"
    try:
        with atomic(probe) as part:
            part.touch()
        probe.unlink()
    except OSError as error:  # of the folder: nobody knows the probe
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise output_error(folder, cause) from cause


def _flush(path: Path) -> None:
    """Waits until the file (or the folder's list of names) is on the disk, so that a power cut leaves old or new."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folder, and keeps its names safe itself
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows flushes only what may be written to
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no fsync for folders
            raise
    finally:
        os.close(handle)
