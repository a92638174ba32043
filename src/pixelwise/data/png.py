"""PNG files written as the rows come, so that no map need lie in memory whole (ISO/IEC 15948, PNG 1.2).

Maps of segments are smooth: what counts is how one row differs from the row above. So every row is filtered by the row
above it (filter 2, "up"), which leaves zeros but for the borders, and zlib is asked for runs alone (Z_RLE): on such
maps that is both faster and smaller than the search for repetitions that PNG writers do by default.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG's number for grey, grey and alpha, RGB, RGBA
PALETTE = 3
UP = 2  # the filter
PIECE = 1 << 20  # bytes that are filtered at once
CHUNK = 1 << 16  # bytes of an IDAT chunk, about
LONGEST = (1 << 31) - 1  # pixels a side that the format can say


class PngStream:
    """Writes a PNG into an open file, some rows at a time from the top.

    file      open for writing, binary
    size      (H, W) in pixels
    dtype     uint8 or uint16
    channels  1 grey, 2 grey and alpha, 3 RGB, 4 RGBA
    palette   [up to 256, 3] uint8 RGB: the one channel of uint8 holds indices into it

    >>> with open("map.png", "wb") as file:
    ...     stream = PngStream(file, (2, 3), np.uint8)
    ...     stream.write(np.zeros((2, 3), np.uint8))
    ...     stream.finish()
    """

    def __init__(self, file: BinaryIO, size: tuple[int, int], dtype: type | np.dtype, *, channels: int = 1,
                 palette: np.ndarray | None = None) -> None:  # fmt: skip
        self.file, self.size, self.dtype, self.channels = file, size, np.dtype(dtype), channels
        fits = min(size) > 0 and max(size) <= LONGEST and self.dtype in (np.uint8, np.uint16)
        indices = palette is None or (channels, self.dtype) == (1, np.uint8)
        if not fits or not indices or channels not in COLOUR_TYPES:
            raise ValueError(f"a PNG cannot hold {size} {dtype}, {channels} channels, palette {palette is not None}.")
        self._above = np.zeros(size[1] * channels * self.dtype.itemsize, np.uint8)  # the row above, as bytes
        self._packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, zlib.Z_RLE)
        self._packed = bytearray()
        self.rows = 0  # written so far
        kind = COLOUR_TYPES[channels] if palette is None else PALETTE
        file.write(SIGNATURE)
        head = struct.pack(">IIBBBBB", size[1], size[0], 8 * self.dtype.itemsize, kind, 0, 0, 0)
        self._chunk(b"IHDR", head)
        if palette is not None:
            full = np.zeros((256, 3), np.uint8)
            full[: len(palette)] = palette
            self._chunk(b"PLTE", full.tobytes())

    def write(self, rows: np.ndarray) -> None:
        """The next rows, [h, W] or [h, W, C] of the dtype; h may be any number. Raises ValueError for another shape."""
        wanted = (self.size[1],) if self.channels == 1 and rows.ndim == 2 else (self.size[1], self.channels)
        if rows.shape[1:] != wanted or rows.dtype != self.dtype or self.rows + len(rows) > self.size[0]:
            raise ValueError(f"rows of {rows.shape} {rows.dtype} after {self.rows} of a PNG of {self.size}.")
        step = max(1, PIECE // len(self._above))
        for top in range(0, len(rows), step):
            self._filtered(rows[top : top + step])
        self.rows += len(rows)

    def _filtered(self, rows: np.ndarray) -> None:
        ordered = np.ascontiguousarray(rows, self.dtype.newbyteorder(">"))
        plain = ordered.view(np.uint8).reshape(len(rows), -1)
        lines = np.empty((len(rows), 1 + plain.shape[1]), np.uint8)
        lines[:, 0] = UP
        np.subtract(plain[0], self._above, out=lines[0, 1:])
        np.subtract(plain[1:], plain[:-1], out=lines[1:, 1:])
        self._above = plain[-1].copy()
        self._packed += self._packer.compress(lines.data)
        if len(self._packed) >= CHUNK:
            self._chunk(b"IDAT", bytes(self._packed))
            self._packed.clear()

    def finish(self) -> None:
        """Writes what is left and the end mark. Raises ValueError where rows are missing."""
        if self.rows != self.size[0]:
            raise ValueError(f"{self.rows} rows of a PNG of {self.size} were written.")
        self._chunk(b"IDAT", bytes(self._packed) + self._packer.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, kind: bytes, data: bytes) -> None:
        check = zlib.crc32(data, zlib.crc32(kind))
        self.file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check))
