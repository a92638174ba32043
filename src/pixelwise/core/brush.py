"""Label Studio's run-length code for brush strokes, a stream of bits: the format of the library rle-pack (thi.ng).

The head is 32 bits with the number of values, 5 with the bits of a value less 1, and four times 4 with the bits of a
length less 1. Then blocks follow: 1 bit (1: a run of one value, 0: values one by one), 2 bits that choose among the
four sizes, the length less 1 in as many bits, then the value, or the values. The values of an image are those of RGBA
pixels row after row; the mask is where alpha is above 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelwise.errors import DataError

HEAD = 32 + 5 + 4 * 4


def decode(code: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Bytes 0..255 -> the mask [H, W] bool of `size` (H, W).

    Raises DataError for bytes that are none, a code that is cut off, or one of another size.
    """
    height, width = int(size[0]), int(size[1])
    try:
        data = np.array(code, np.uint8)
    except (TypeError, ValueError, OverflowError):
        raise DataError("a brush code must be a list of bytes, 0 to 255.") from None
    bits = np.unpackbits(data)
    if data.ndim != 1 or len(bits) < HEAD:
        raise DataError(f"a brush code of {data.size} bytes has no whole head ({HEAD} bits).")
    number, word = _number(bits, 0, 32), _number(bits, 32, 5) + 1
    if number != height * width * 4:
        raise DataError(f"a brush code has {number} values, the image of {width} x {height} has {height * width * 4}.")
    sizes = [_number(bits, 37 + 4 * k, 4) + 1 for k in range(4)]
    return _values(bits, number, word, sizes).reshape(height, width, 4)[..., 3] > 0


def _number(bits: np.ndarray, at: int, count: int) -> int:
    """The number in `count` bits, the highest first. Raises DataError where they end before."""
    part = bits[at : at + count]
    if len(part) < count:
        raise DataError("a brush code is cut off in the middle.")
    return int("".join(map(str, part.tolist())), 2)


def _values(bits: np.ndarray, number: int, word: int, sizes: Sequence[int]) -> np.ndarray:
    """[number] all values, block after block."""
    out = np.zeros(number, np.uint32)
    at, filled = HEAD, 0
    while filled < number:
        run, width = _number(bits, at, 1), sizes[_number(bits, at + 1, 2)]
        length = _number(bits, at + 3, width) + 1
        at += 3 + width
        count = 1 if run else length
        part = bits[at : at + count * word].reshape(-1, word) if at + count * word <= len(bits) else None
        if part is None or filled + length > number:
            raise DataError("a brush code is cut off, or longer than it says.")
        out[filled : filled + length] = part @ (1 << np.arange(word - 1, -1, -1, dtype=np.uint32))
        at, filled = at + count * word, filled + length
    return out
