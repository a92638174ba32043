"""Every error a user can cause, as one tree.

    PixelwiseError
    |-- ConfigError (ValueError)      a setting, option or name that does not exist or cannot be
    |-- DataError (ValueError)        a file, folder or annotation that is not what it must be
    |   `-- ImageError                one image or mask that cannot be read; carries its path
    |-- ModelFileError (ValueError)   a model file that is cut, edited, foreign or does not fit
    |-- OutputError (OSError)         a result that cannot be written: no room, no permission
    |-- ExportError (RuntimeError)    an exported file that does not answer as its net does; it is not kept
    |-- MissingExtraError (ImportError)   an optional package that is not installed
    `-- MemoryLimitError (MemoryError)    a batch or an image that does not fit

The command line prints the message and exits with 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

MANY = 60  # names that a sentence does not list


class PixelwiseError(Exception):
    """Base of all errors Pixelwise raises on purpose. The message says what was found, expected and what to do."""


class ConfigError(PixelwiseError, ValueError):
    """A setting, option or name that does not exist or has a value it cannot have."""


class DataError(PixelwiseError, ValueError):
    """A file, folder or annotation that is not what it must be."""


class ImageError(DataError):
    """One image or mask that cannot be read. `path` is the file, `reason` what is wrong with it."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason

    def __reduce__(self) -> tuple:  # an exception with two arguments must say how it crosses processes
        return type(self), (self.path, self.reason)


class ModelFileError(PixelwiseError, ValueError):
    """A model file that is cut short, edited, of another package, or does not fit the data."""


class OutputError(PixelwiseError, OSError):
    """A result that cannot be written."""


class ExportError(PixelwiseError, RuntimeError):
    """An exported file that does not answer as its net does. It is not kept."""


class MissingExtraError(PixelwiseError, ImportError):
    """An optional package that is needed now and not installed."""


class MemoryLimitError(PixelwiseError, MemoryError):
    """Something that does not fit into memory; the message names the setting that helps."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known word, or all of them when none is near and they are few.

    >>> nearest("unte", ["unet", "fcn"])
    "did you mean 'unet'?"
    """
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if len(known) > MANY:
        return f"there are {len(known):,}."
    return f"known: {', '.join(sorted(known))}" if known else "there is none"
