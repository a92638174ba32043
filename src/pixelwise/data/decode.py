"""What lies in an image file: its header, whether anything is missing, and its pixels as stored."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from pixelwise.data.jpeg import upper_rows
from pixelwise.data.scanlines import decode_map
from pixelwise.errors import ImageError

MAX_PIXELS = 300_000_000  # 17,000 x 17,000; above it a header is taken for a bomb until someone says otherwise
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".npy")
CHANNELS = {
    "1": 1,
    "L": 1,
    "LA": 2,
    "P": 3,
    "PA": 3,
    "RGB": 3,
    "RGBA": 4,
    "RGBX": 3,
    "CMYK": 3,
    "YCbCr": 3,
    "LAB": 3,
    "HSV": 3,
    "I": 1,
    "I;16": 1,
    "I;16B": 1,
    "I;16L": 1,
    "I;16N": 1,
    "La": 2,
    "RGBa": 4,
}
ORIENTATION = 0x0112  # the EXIF tag
ADVICE = "save it as PNG (8 or 16 bit) or as a .npy array of uint8 or uint16."

JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in coded pixels only FF 00 and restart marks occur
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EMPTY = "the file is empty (0 bytes); copy it again from its source."

_open_lock = threading.Lock()


@dataclass(frozen=True)
class Header:
    """What a file says of itself before a pixel is decoded.

    size         (height, width) as viewers show it, so after the EXIF rotation
    stored       (height, width) as stored
    channels     colour channels without alpha
    dtype        "uint8" or "uint16"
    mode         Pillow's word ("P", "RGBA", "I;16", ...), "npy" for an array
    orientation  EXIF orientation 1..8
    format       "PNG", "JPEG", "TIFF", "NPY", ...
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    channels: int
    dtype: str
    mode: str
    orientation: int
    format: str

    @property
    def turn(self) -> int:
        """The EXIF turn that decoders leave to us: all formats but TIFF."""
        return 1 if self.format == "TIFF" else self.orientation

    @property
    def alpha(self) -> bool:
        return self.mode in ("LA", "RGBA", "PA", "La", "RGBa")


# -- headers ----------------------------------------------------------------------------------------------------------


def _unreadable(path: Path, error: OSError) -> ImageError:
    missing = isinstance(error, FileNotFoundError)
    return ImageError(path, "there is no such file." if missing else f"cannot be read: {error.strerror or error}.")


def _bytes(path: Path) -> bytes:
    """The whole file. Raises ImageError when there is none, or nothing in it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    if not data:
        raise ImageError(path, EMPTY)
    return embedded_image(path, data) if path.suffix.lower() == ".json" else data


def embedded_image(path: Path, data: bytes) -> bytes:
    """The image file inside a labelme file, base64 as `imageData`. Raises ImageError where there is none."""
    try:
        return base64.b64decode(json.loads(data)["imageData"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImageError(path, f"holds no image: imageData is missing or damaged ({error}).") from None


def lazy_image(path: Path, file: BinaryIO) -> Image.Image:
    """Pillow's lazy image, for any size: our own limit is checked afterwards, on the header."""
    try:
        with _open_lock:  # Pillow's limit is one global number below ours
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(12)
        if start.startswith(TIFF):  # of floats, or packed in a rare way: Pillow says no more
            raise ImageError(path, f"is a TIFF of a kind that cannot be read; {ADVICE}") from None
        what = "it begins like text" if all(9 <= b < 127 for b in start) else f"it begins with {start.hex(' ')}"
        raise ImageError(path, f"is no image, whatever its ending says ({what}).") from None
    except (OSError, ValueError, SyntaxError, struct.error, EOFError) as error:
        raise ImageError(path, f"has a damaged header ({error}).") from None


def too_many(width: int, height: int, limit: int) -> str:
    return (
        f"has {width} x {height} pixels, more than the limit of {limit:,}; raise max_pixels if the file can be trusted."
    )


def _header(path: Path, image: Image.Image, max_pixels: int) -> Header:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(path, too_many(width, height, max_pixels))
    wide = image.mode.startswith("I") or _sixteen_bit(image)
    try:
        silent = image.format == "PNG" and "exif" not in image.info  # asking Pillow would decode the whole file
        orientation = 1 if silent else int(image.getexif().get(ORIENTATION, 1))
    except (OSError, ValueError, TypeError, SyntaxError, struct.error):  # a broken EXIF block turns nothing
        orientation = 1
    orientation = orientation if 1 <= orientation <= 8 else 1
    size, stored = (height, width), (height, width)
    if orientation >= 5 and image.format == "TIFF":  # Pillow shows a TIFF turned already, OpenCV too
        stored = (width, height)
    elif orientation >= 5:
        size = (width, height)
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    channels = CHANNELS.get(image.mode, 0)
    channels -= image.mode in ("LA", "RGBA", "La", "RGBa")
    if image.mode == "P" and _grey_palette(image):
        channels = 1
    return Header(
        size,
        stored,
        channels * pages,
        "uint16" if wide else "uint8",
        image.mode,
        orientation,
        image.format or "",
    )


def _sixteen_bit(image: Any) -> bool:
    """Whether the file has 16 bits a channel where Pillow's mode has 8: Pillow would halve them in silence."""
    if image.format == "PNG":
        return any(tile[3] in ("RGB;16B", "RGBA;16B", "LA;16B") for tile in image.tile if isinstance(tile[3], str))
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8
    return False


def _grey_palette(image: Image.Image) -> bool:
    palette = np.array(image.getpalette() or [], dtype=np.uint8)
    palette = palette[: len(palette) // 3 * 3].reshape(-1, 3)
    return len(palette) > 0 and bool((palette == palette[:, :1]).all())


def read_header(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Size, channels and depth without decoding. Raises ImageError as `read_image` does for what a header shows."""
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return _array_header(path, load_array(path, max_pixels))
    if path.suffix.lower() == ".json":
        return load_file(path, max_pixels)[2]
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise ImageError(path, EMPTY)
            return _header(path, lazy_image(path, file), max_pixels)
    except OSError as error:
        raise _unreadable(path, error) from None


def load_file(path: Path, max_pixels: int) -> tuple[bytes, Image.Image, Header]:
    """The bytes, Pillow's lazy image and the header, checked against `max_pixels`; nothing is decoded."""
    data = _bytes(path)
    image = lazy_image(path, io.BytesIO(data))
    return data, image, _header(path, image, max_pixels)


# -- .npy -------------------------------------------------------------------------------------------------------------


def load_array(path: Path, max_pixels: int) -> np.ndarray:
    """An array [H, W] or [H, W, C], mapped and not yet read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ImageError(path, "there is no such file.") from None
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(path, f"is no plain .npy array ({error}).") from None
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(path, f"holds an array of shape {list(array.shape)}; expected [H, W] or [H, W, C].")
    if array.shape[0] * array.shape[1] > max_pixels:
        raise ImageError(path, too_many(array.shape[1], array.shape[0], max_pixels))
    return array


def _array_header(path: Path, array: np.ndarray) -> Header:
    size = (int(array.shape[0]), int(array.shape[1]))
    return Header(size, size, 1 if array.ndim == 2 else int(array.shape[2]), array.dtype.name, "npy", 1, "NPY")


# -- decoding ---------------------------------------------------------------------------------------------------------


def _check_png(path: Path, data: bytes) -> None:
    """Walks the chunks and their checksums: decoders fill what is missing with black and say nothing."""
    at, end = 8, len(data)
    while at + 12 <= end:
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        stop = at + 12 + length
        if stop > end:
            break
        if zlib.crc32(data[at + 4 : stop - 4]) != struct.unpack_from(">I", data, stop - 4)[0]:
            name = kind.decode("latin-1")
            raise ImageError(
                path, f"is damaged: the checksum of its part '{name}' (byte {at}) is wrong; copy it again."
            )
        if kind == b"IEND":
            return
        at = stop
    raise ImageError(path, f"is truncated: the PNG ends after {end} bytes without its end mark; copy it again.")


def _check_jpeg(path: Path, data: bytes) -> int:
    """Walks the segments and scans to the end mark; what follows it (a phone's film, say) does not count.

    Returns where the mark begins.
    """
    at = 2
    while match := JPEG_MARKER.search(data, at):
        kind = data[match.start() + 1]
        if kind == 0xD9:
            return match.start()
        at = match.end()
        if kind != 0x01:  # all others but this one say how long they are
            at += int.from_bytes(data[at : at + 2], "big")
    reason = f"is truncated: the JPEG ends after {len(data)} bytes without its end mark; copy it again."
    raise ImageError(path, reason)


def decode(path: Path, data: bytes, image: Image.Image, header: Header, *, rows: int | None = None,
           indices: bool = False) -> np.ndarray:  # fmt: skip
    """Stored pixels, unturned: [H, W] or [H, W, C] uint8 or uint16, alpha last where there is one.

    rows     so many from the top are enough; there may be more
    indices  whether a palette's are all that is wanted of `image`: else Pillow loads it, to convert it
    """
    if getattr(image, "is_animated", False) and header.format not in ("TIFF", "MPO"):
        raise ImageError(path, f"is an animation of {getattr(image, 'n_frames', 2)} pictures; expected one.")
    if header.format == "PNG":
        _check_png(path, data)
        if header.mode == "RGB" and header.dtype == "uint8":  # a third faster than Pillow
            return _opencv(path, data, cv2.IMREAD_COLOR_RGB)
        if header.mode == "L" or (header.mode == "P" and indices):
            return _map(path, data, image)
    if header.format in ("JPEG", "MPO"):
        end = _check_jpeg(path, data)
        if header.mode in ("L", "RGB"):  # twice as fast as Pillow, to the same values
            upper = None if rows is None else upper_rows(data, end, rows)
            return _opencv(path, upper or data, cv2.IMREAD_GRAYSCALE if header.mode == "L" else cv2.IMREAD_COLOR_RGB)
    if header.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        return _pages(path, image)
    if header.dtype == "uint16" and header.mode in ("RGB", "RGBA", "LA"):
        pixels = _opencv(path, data, cv2.IMREAD_UNCHANGED)
        return np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]) if pixels.ndim == 3 else pixels
    return _load(path, image)


def _opencv(path: Path, data: bytes, flag: int) -> np.ndarray:
    if flag != cv2.IMREAD_UNCHANGED:
        flag |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise ImageError(path, f"cannot be decoded ({error.err or error}).") from None
    if pixels is None:
        raise ImageError(path, "is damaged: its header is fine but its pixels cannot be decoded; copy it again.")
    return pixels


def _map(path: Path, data: bytes, image: Image.Image) -> np.ndarray:
    try:
        pixels = decode_map(data)
    except (ValueError, zlib.error) as error:
        raise ImageError(path, f"is damaged or truncated ({error}); copy it again.") from None
    return _load(path, image) if pixels is None else pixels


def _load(path: Path, image: Image.Image) -> np.ndarray:
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError) as error:
        raise ImageError(path, f"is damaged or truncated ({error}); copy it again.") from None
    if image.mode == "F":
        raise ImageError(path, f"has 32-bit float values, whose range nobody knows; {ADVICE}")
    pixels = np.asarray(image)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    if pixels.dtype == np.int32:
        if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
            raise ImageError(path, f"has 32-bit values from {pixels.min()} to {pixels.max()}; {ADVICE}")
        return pixels.astype(np.uint16)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _pages(path: Path, image: Any) -> np.ndarray:
    """The pages of a TIFF as channels, when all are grey and of one size."""
    pages = []
    for page in range(image.n_frames):
        try:
            image.seek(page)
        except (OSError, EOFError, SyntaxError, ValueError) as error:
            raise ImageError(path, f"is damaged or truncated at page {page + 1} ({error}); copy it again.") from None
        pages.append(_load(path, image))
    if any(p.ndim != 2 or p.shape != pages[0].shape or p.dtype != pages[0].dtype for p in pages):
        shapes = sorted({f"{list(p.shape)} {p.dtype}" for p in pages})
        found = ", ".join(shapes)
        raise ImageError(path, f"has {len(pages)} pages that are no channels of one image ({found}); {ADVICE}")
    return np.stack(pages, -1)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors [H, W, ...] as EXIF orientation 1..8 asks."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return np.ascontiguousarray(pixels[rows, columns])
