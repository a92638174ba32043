"""PNG maps of one byte a pixel, decoded about twice as fast as libraries do: inflated whole, filters undone at once."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from pixelwise.kernels import compiled
from pixelwise.kernels.unfilter import unfilter

GREY, PALETTE = 0, 3  # colour types with one channel


def decode_map(data: bytes) -> np.ndarray | None:
    """[H, W] uint8 of a PNG whose chunks were checked: grey values or palette indices as stored.

    None for other depths, for interlaced files and where there is no Numba: other decoders do those. Raises ValueError
    or zlib.error for damage.
    """
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if depth != 8 or kind not in (GREY, PALETTE) or interlaced or compiled.numba is None:
        return None
    raw = zlib.decompress(b"".join(_parts(data)), bufsize=height * (width + 1))
    if len(raw) != height * (width + 1):
        raise ValueError(f"{len(raw)} bytes of pixels, expected {height * (width + 1)}")
    out = np.empty((height, width), np.uint8)
    if not unfilter(np.frombuffer(raw, np.uint8).reshape(height, width + 1), out):
        raise ValueError("an unknown filter")
    return out


def _parts(data: bytes) -> list[memoryview]:
    """What the IDAT chunks hold."""
    view, at, parts = memoryview(data), 8, []
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IDAT":
            parts.append(view[at + 8 : at + 8 + length])
        at += 12 + length
    return parts
