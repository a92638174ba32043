"""Tiled TIFF and BigTIFF of one channel, written as the rows come, with the place on the earth of another TIFF.

TIFF 6.0 (Adobe 1992), BigTIFF (2007) and GeoTIFF 1.1 (OGC 19-008r4). Tiles are deflated under horizontal differences.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pixelwise.errors import ImageError

TILE = 256  # pixels a side
TYPES = {1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "u8", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 11: "f4", 12: "f8",
         13: "u4", 16: "u8", 17: "i8", 18: "u8"}  # fmt: skip  # of TIFF -> NumPy; rationals as pairs are left whole
SHORT, LONG, LONG8 = 3, 4, 16
PLACE = (33550, 33922, 34264, 34735, 34736, 34737, 50844)  # GeoTIFF's tags, and the rational polynomials of satellites
ORIENTATION, COMPRESSION, STRIP_OFFSETS, STRIP_BYTES, PAGE_KIND = 274, 259, 273, 279, 254


@dataclass(frozen=True)
class Tag:
    """One entry of a TIFF's directory: its type and its values."""

    kind: int
    values: np.ndarray


def read_tags(path: Path) -> dict[int, Tag]:
    """The first directory of a TIFF; {} for any other file. Raises ImageError for one that is cut off."""
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not order or len(head) < 8 or head[2:4] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
            return {}
        try:
            return _directory(file, head, order)
        except (struct.error, ValueError) as error:
            raise ImageError(path, f"has a damaged header ({error}).") from None


def _directory(file: BinaryIO, head: bytes, order: str) -> dict[int, Tag]:
    big = 43 in head[2:4]
    word = "Q" if big else "I"  # of offsets and counts
    file.seek(struct.unpack(order + word, head[8:16] if big else head[4:8])[0])
    (entries,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    size, tags = (20 if big else 12), {}
    table = file.read(min(entries, 65535) * size)
    for at in range(0, len(table) - size + 1, size):
        number, kind = struct.unpack_from(order + "HH", table, at)
        (count,) = struct.unpack_from(order + word, table, at + 4)
        if kind not in TYPES or count > 1 << 26:
            continue
        dtype = np.dtype(TYPES[kind]).newbyteorder(order)  # type: ignore[arg-type]
        inside, length = (8 if big else 4), count * dtype.itemsize
        data = table[at + size - inside : at + size]
        if length > inside:
            file.seek(struct.unpack(order + word, data)[0])
            data = file.read(length)
        values = np.frombuffer(data[:length], dtype)
        tags[number] = Tag(kind, values.astype(dtype.newbyteorder("=")) if kind != 2 else values)
    return tags


def place_of(path: Path) -> dict[int, Tag]:
    """The tags that say where on the earth an image lies, for TiffStream; {} where none do."""
    tags = read_tags(path)
    found = {number: tags[number] for number in PLACE if number in tags}
    return found if {33550, 34264, 33922, 50844} & {*found} else {}


class TiffStream:
    """Writes a TIFF into an open file, some rows at a time from the top; BigTIFF where 4 GB may not hold it.

    file     open for writing, binary, at its start
    size     (H, W) in pixels
    dtype    uint8, uint16 or uint32
    palette  [up to 256, 3] uint8 RGB, for uint8: the values are indices into it
    place    as `place_of` gives it
    Holds a row of tiles.
    """

    def __init__(self, file: BinaryIO, size: tuple[int, int], dtype: type | np.dtype, *,
                 palette: np.ndarray | None = None, place: Mapping[int, Tag] | None = None) -> None:  # fmt: skip
        self.file, self.size, self.dtype, self.palette = file, size, np.dtype(dtype), palette
        fits = min(size) > 0 and max(size) < 1 << 31 and self.dtype in (np.uint8, np.uint16, np.uint32)
        if not fits or (palette is not None and self.dtype != np.uint8):
            raise ValueError(f"a TIFF cannot hold {size} {dtype}, palette {palette is not None}.")
        self.place = dict(place or {})
        self.across = -(-size[1] // TILE)
        tiles = self.across * -(-size[0] // TILE)
        self.big = tiles * (TILE * TILE * self.dtype.itemsize * 1.01 + 64) + 1e6 > 1 << 32
        self._held = np.zeros((TILE, self.across * TILE), self.dtype)  # rows until a row of tiles is full
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self.rows = 0  # written so far
        self._at = file.write(b"II+\0\x08\0\0\0" + bytes(8) if self.big else b"II*\0" + bytes(4))

    def write(self, rows: np.ndarray) -> None:
        """The next rows [h, W] of the dtype; h may be any number. Raises ValueError for another shape."""
        if rows.shape[1:] != self.size[1:] or rows.dtype != self.dtype or self.rows + len(rows) > self.size[0]:
            raise ValueError(f"rows of {rows.shape} {rows.dtype} after {self.rows} of a TIFF of {self.size}.")
        while len(rows):
            at = self.rows % TILE
            count = min(TILE - at, len(rows))
            self._held[at : at + count, : self.size[1]] = rows[:count]
            self.rows, rows = self.rows + count, rows[count:]
            if self.rows % TILE == 0 or self.rows == self.size[0]:
                self._tiles()

    def _tiles(self) -> None:
        for left in range(0, self._held.shape[1], TILE):
            tile = self._held[:, left : left + TILE].astype(self.dtype.newbyteorder("<"))
            tile[:, 1:] -= tile[:, :-1].copy()
            packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
            data = packer.compress(tile.data) + packer.flush()
            self._offsets.append(self._append(data))
            self._lengths.append(len(data))
        self._held[:] = 0

    def _append(self, data: bytes) -> int:
        """Writes at an even place, as TIFF asks, and returns it."""
        place = self._at
        self.file.write(data + bytes(len(data) % 2))
        self._at += len(data) + len(data) % 2
        return place

    def finish(self) -> None:
        """Writes the directory. Raises ValueError where rows are missing."""
        if self.rows != self.size[0]:
            raise ValueError(f"{self.rows} rows of a TIFF of {self.size} were written.")
        tags = {**self._tags(), **self.place}
        pack, inside, word = ("<HHQ", 8, "<Q") if self.big else ("<HHI", 4, "<I")
        table = struct.pack("<Q" if self.big else "<H", len(tags))
        for number, tag in sorted(tags.items()):
            data = tag.values.astype(tag.values.dtype.newbyteorder("<")).tobytes()
            count = len(data) // np.dtype(TYPES[tag.kind]).itemsize
            if len(data) > inside:
                data = struct.pack(word, self._append(data))
            table += struct.pack(pack, number, tag.kind, count) + data.ljust(inside, b"\0")
        start = self._append(table + bytes(inside))
        self.file.seek(8 if self.big else 4)
        self.file.write(struct.pack(word, start))

    def _tags(self) -> dict[int, Tag]:
        where = LONG8 if self.big else LONG
        tags = {
            256: _numbers(LONG, [self.size[1]]),
            257: _numbers(LONG, [self.size[0]]),
            258: _numbers(SHORT, [8 * self.dtype.itemsize]),
            COMPRESSION: _numbers(SHORT, [8]),  # deflate
            262: _numbers(SHORT, [1 if self.palette is None else 3]),
            277: _numbers(SHORT, [1]),
            317: _numbers(SHORT, [2]),  # horizontal differences
            322: _numbers(SHORT, [TILE]),
            323: _numbers(SHORT, [TILE]),
            324: _numbers(where, self._offsets),
            325: _numbers(LONG, self._lengths),
            339: _numbers(SHORT, [1]),  # unsigned
        }
        if self.palette is not None:
            full = np.zeros((256, 3), np.uint16)
            full[: len(self.palette)] = self.palette
            tags[320] = _numbers(SHORT, (full * 257).T.ravel())
        return tags


def _numbers(kind: int, values: Iterable[int] | np.ndarray) -> Tag:
    return Tag(kind, np.asarray(list(values), TYPES[kind]))
