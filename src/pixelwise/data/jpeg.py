"""The upper rows of a JPEG alone (ITU-T T.81): the file is told to be lower than it is, so that decoders stop there.

What lies above the crop must be decoded all the same, since each code begins where the last one ends.
"""

from __future__ import annotations

import struct

BASELINE, EXTENDED = 0xC0, 0xC1  # Huffman, coded block by block from the top: the frames that can be cut
OTHER = {*range(0xC2, 0xD0)} - {0xC4, 0xC8, 0xCC}  # progressive, lossless, arithmetic
SCAN, INTERVAL = 0xDA, 0xDD
BLOCK = 8


def upper_rows(data: bytes, end: int, rows: int) -> bytes | None:
    """A JPEG of at least the first `rows` rows, with the whole one's pixels; None where it pays or goes not.

    end   where its end mark begins
    A unit of blocks below the rows is kept, since colour stored at half the size is spread over its neighbours. What
    follows is not cut off, but the end mark is: decoders that meet it before all is read print a warning.
    """
    at, frame = 2, 0
    while at + 4 <= end and data[at] == 0xFF:
        kind = data[at + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in (BASELINE, EXTENDED):
            frame = at
        elif kind in OTHER or (kind == INTERVAL and data[at + 4 : at + 6] != b"\0\0"):  # restart marks would be met
            return None
        elif kind == SCAN:
            return _shortened(data, end, rows, frame, data[at + 4]) if frame else None
        at += 2 + length
    return None


def _shortened(data: bytes, end: int, rows: int, frame: int, scanned: int) -> bytes | None:
    height, _, components = struct.unpack_from(">HHB", data, frame + 5)
    if scanned != components:  # a scan for each channel: all of them are needed
        return None
    unit = BLOCK * max(data[frame + 11 + 3 * i] & 15 for i in range(components))
    wanted = -(-rows // unit) * unit + unit
    if wanted >= height:
        return None
    return data[: frame + 5] + struct.pack(">H", wanted) + data[frame + 7 : end]
