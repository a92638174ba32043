"""One decoded sample as one file: a header of JSON, then pixels, ids and the table's columns as they lie in memory.

    8 bytes   MAGIC
    4 + 4     length and CRC-32 of the header, little-endian
    header    {"key", "size", "dtype", ...}: see `write_entry`
    image     from the next multiple of 4,096 on, [H, W, C]
    ids       likewise, [L, H, W]; then the columns, one behind the other

The file is mapped, so that of the image only those pages are read that are looked at. Every `BAND` rows have a
checksum, which is compared when one of them is first looked at in a process; so has the truth.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from pixelwise.core.sample import Sample
from pixelwise.core.segments import COLUMNS, Segments

MAGIC = b"PXWITEM1"
BAND = 32  # rows of the image that share a checksum
PAGE = 4096
LONGEST = 1 << 24  # bytes of a header; a longer one is damage


class Damaged(Exception):
    """An entry that does not hold what was written: it is made anew."""


def write_entry(file: BinaryIO, key: str, sample: Sample) -> None:
    """Writes a whole entry. Raises OSError as the system gives reason to."""
    pixels = np.ascontiguousarray(sample.rows(0, sample.size[0]))  # [H, W, C]
    header: dict[str, Any] = {"key": key, "image": _form(pixels), "complete": sample.complete,
                              "bands": [_check(pixels[y : y + BAND]) for y in range(0, len(pixels), BAND)]}  # fmt: skip
    arrays: dict[str, np.ndarray] = {}
    if sample.truth is not None:
        arrays = {"ids": np.ascontiguousarray(sample.truth.ids.numpy())}
        arrays |= {n: getattr(sample.truth, n).numpy() for n in COLUMNS if getattr(sample.truth, n) is not None}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        header["truth"] = {name: _form(array) for name, array in arrays.items()}
        header["check"] = _check(*arrays.values())
    text = json.dumps(header).encode()
    file.write(MAGIC + struct.pack("<II", len(text), zlib.crc32(text)) + text)
    file.write(bytes(-(16 + len(text)) % PAGE))
    file.write(pixels.data)
    file.write(bytes(-pixels.nbytes % PAGE))
    for array in arrays.values():
        file.write(array.data)


def _form(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": array.dtype.name}


def _check(*arrays: np.ndarray) -> int:
    value = 0
    for array in arrays:
        value = zlib.crc32(array.data if array.nbytes else b"", value)
    return value


class Entry:
    """An entry open for reading: `Parts` of a stored sample, and no more of the file than is asked for.

    seen    [bands + 1] what was already compared in this process (the last is the truth); shared by all readings of one
            entry
    """

    def __init__(self, path: Path, key: str, seen: dict[str, bytearray]) -> None:
        """Raises FileNotFoundError where there is none, Damaged where it is not whole or has another key."""
        with path.open("rb") as file:
            start = file.read(16)
            if len(start) < 16 or start[:8] != MAGIC:
                raise Damaged("no entry")
            length, check = struct.unpack("<II", start[8:])
            text = file.read(length) if length <= LONGEST else b""
            if len(text) != length or zlib.crc32(text) != check:
                raise Damaged("header")
            self.header = json.loads(text)
            if self.header["key"] != key:
                raise Damaged("another key")
            self._lay_out(16 + length)
            self.used = os.fstat(file.fileno()).st_mtime
            # a private mapping may be written to, which torch wants; the file never changes
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if len(self.map) != self.end:
            raise Damaged("length")
        self.complete: bool = self.header["complete"]
        self.seen = seen.setdefault(f"{path.name} {check}", bytearray(len(self.header["bands"]) + 1))

    def _lay_out(self, at: int) -> None:
        """Where each array begins."""
        at += -at % PAGE
        self.places = {"image": at}
        at += _nbytes(self.header["image"])
        at += -at % PAGE
        for name, form in self.header.get("truth", {}).items():
            self.places[name] = at
            at += _nbytes(form)
        self.end = at

    def _array(self, name: str, form: dict[str, Any]) -> np.ndarray:
        return np.ndarray(form["shape"], form["dtype"], self.map, self.places[name])

    @property
    def size(self) -> tuple[int, int]:
        height, width, _ = self.header["image"]["shape"]
        return int(height), int(width)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Raises Damaged."""
        image = self._array("image", self.header["image"])
        for band in range(start // BAND, -(-stop // BAND)):
            if not self.seen[band]:
                if _check(image[band * BAND : (band + 1) * BAND]) != self.header["bands"][band]:
                    raise Damaged("pixels")
                self.seen[band] = 1
        return image[start:stop]

    def truth(self) -> Segments | None:
        """Raises Damaged."""
        if "truth" not in self.header:
            return None
        arrays = {name: self._array(name, form) for name, form in self.header["truth"].items()}
        if not self.seen[-1]:
            if _check(*arrays.values()) != self.header["check"]:
                raise Damaged("truth")
            self.seen[-1] = 1
        # columns need not lie where their type wants them, and are small
        return Segments(**{n: torch.from_numpy(a if n == "ids" else a.copy()) for n, a in arrays.items()})


def _nbytes(form: dict[str, Any]) -> int:
    return int(np.prod(form["shape"], dtype=np.int64)) * np.dtype(form["dtype"]).itemsize
