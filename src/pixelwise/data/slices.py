"""Large JSON files without holding them: every element of a list is seen once, and read again from its place."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelwise.errors import DataError

DECODER = json.JSONDecoder()
BLANK = re.compile(r"[ \t\n\r]*")
KINDS = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false",
         type(None): "null"}  # fmt: skip


class Element(NamedTuple):
    """A value of the top-level object: the element `number` of the list `member`, or a whole member (number -1)."""

    member: str
    number: int
    value: Any
    start: int
    end: int


def kind_of(value: Any) -> str:
    """What JSON calls the value, with its article."""
    return KINDS.get(type(value), type(value).__name__)


def walk(path: Path, lists: Collection[str]) -> Iterator[Element]:
    """The values of a file's top-level object, the members named in `lists` element by element, with their bytes.

    Where `lists` has "", the top level may be a list, too, whose elements are of the member "".

    One element is held at a time, beside the text. NaN and Infinity, which JSON does not know and Python writes, are
    read as numbers: what to say of them is the reader's part. Raises DataError for a file that cannot be read, is cut
    off, or is no object, with the place.
    """
    text = _text(path)
    try:
        yield from _members(path, text, lists)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        reason = (
            f"{error.msg}, byte {error.pos:,} of {len(text):,}" if isinstance(error, json.JSONDecodeError) else error
        )
        raise DataError(f"{path}: is no whole JSON file ({reason}); copy or export it again.") from None


def _text(path: Path) -> str:
    """The file with one character a byte, so that places in the text are places in the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if not data.strip():
        raise DataError(f"{path}: the file is empty; expected JSON.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:64]:
        raise DataError(f"{path}: is no UTF-8 text; save it as UTF-8.")
    return data.decode("latin-1")


def _skip(text: str, at: int) -> int:
    match = BLANK.match(text, at)
    return match.end() if match else at


def _members(path: Path, text: str, lists: Collection[str]) -> Generator[Element, None, None]:
    at = _skip(text, 3 if text.startswith("\xef\xbb\xbf") else 0)
    if text[at] == "[" and "" in lists:
        _end(text, (yield from _elements(text, at, "")))
        return
    if text[at] != "{":
        value, _ = json.JSONDecoder().raw_decode(text, at)
        raise DataError(f"{path}: holds {kind_of(value)}, expected an object with {', '.join(sorted(lists))}.")
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        name, at = _value(text, at)
        if not isinstance(name, str):
            raise json.JSONDecodeError("a name in quotes is missing", text, at)
        at = _skip(text, _expect(text, _skip(text, at), ":"))
        if name in lists and text[at : at + 1] == "[":
            at = yield from _elements(text, at, name)
        else:
            value, end = _value(text, at)
            yield Element(name, -1, value, at, end)
            at = end
        at = _next(text, at, "}")
    _end(text, at + 1)


def _end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise json.JSONDecodeError("there is something behind the end", text, at)


def _elements(text: str, at: int, name: str) -> Generator[Element, None, int]:
    """The elements of the list that begins at `at`, an empty one as a whole; returns the place behind it."""
    start, number = at, 0
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        yield Element(name, -1, [], start, at + 1)
    while text[at : at + 1] != "]":
        value, end = _value(text, at)
        yield Element(name, number, value, at, end)
        at, number = _next(text, end, "]"), number + 1
    return at + 1


def _value(text: str, at: int) -> tuple[Any, int]:
    value, end = DECODER.raw_decode(text, at)
    part = text[at:end]
    return (value if part.isascii() else json.loads(part.encode("latin-1").decode())), end


def _expect(text: str, at: int, mark: str) -> int:
    if text[at : at + 1] != mark:
        raise json.JSONDecodeError(f"'{mark}' is missing", text, at)
    return at + 1


def _next(text: str, at: int, closing: str) -> int:
    """The place of what follows a value: the next one, or the closing bracket."""
    at = _skip(text, at)
    if text[at : at + 1] == closing:
        return at
    at = _skip(text, _expect(text, at, ","))
    if text[at : at + 1] == closing:
        raise json.JSONDecodeError("a value is missing behind the comma", text, at)
    return at


@dataclass(frozen=True, eq=False)
class Slices:
    """Elements of a JSON file by their places: 16 bytes an element, however much each holds.

    starts, ends  [A] int64 bytes
    stamp         size and time of the file when it was indexed
    """

    path: Path
    starts: np.ndarray
    ends: np.ndarray
    stamp: tuple[int, int] = field(default=(0, 0))

    @classmethod
    def of(cls, path: Path, starts: Iterable[int], ends: Iterable[int]) -> Slices:
        return cls(path, np.array(starts, np.int64), np.array(ends, np.int64), _stamp(path))

    def read(self, rows: slice) -> list[Any]:
        """The elements of these rows. Raises DataError when the file is another one than was indexed."""
        try:
            if _stamp(self.path) != self.stamp:
                raise DataError(f"{self.path}: has changed since the data set was opened; open it again.")
            with self.path.open("rb", buffering=0) as file:
                return [self._one(file, start, end) for start, end in zip(self.starts[rows], self.ends[rows])]
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error}).") from None

    def _one(self, file: Any, start: int, end: int) -> Any:
        file.seek(start)
        return json.loads(file.read(int(end - start)))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
