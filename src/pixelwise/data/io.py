"""Images and masks from disk, checked before anyone trusts them, and files written whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from pixelwise.errors import ImageError, OutputError

MAX_PIXELS = 300_000_000  # 17,000 x 17,000; above it a header is taken for a bomb until someone says otherwise
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".npy")
CHANNELS = {"1": 1, "L": 1, "LA": 2, "P": 3, "PA": 3, "RGB": 3, "RGBA": 4, "RGBX": 3, "CMYK": 3, "YCbCr": 3,
            "LAB": 3, "HSV": 3, "I": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I;16N": 1, "La": 2, "RGBa": 4}  # fmt: skip
ORIENTATION = 0x0112  # the EXIF tag
SPLIT_ADVICE = "save it as PNG (8 or 16 bit) or as a .npy array of uint8 or uint16."

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
    def alpha(self) -> bool:
        return self.mode in ("LA", "RGBA", "PA", "La", "RGBa")


# -- headers ------------------------------------------------------------------------------------------------------------


def _bytes(path: Path) -> bytes:
    """The whole file. Raises ImageError when there is none, or nothing in it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(path, "there is no such file.") from None
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror or error}.") from None
    if not data:
        raise ImageError(path, "the file is empty (0 bytes); copy it again from its source.")
    return data


def _pillow(path: Path, data: bytes) -> Image.Image:
    """Pillow's lazy image, for any size: our own limit is checked afterwards, on the header."""
    try:
        with _open_lock:  # Pillow's limit is one global number below ours
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(io.BytesIO(data))
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except UnidentifiedImageError:
        start = data[:12]
        what = "it begins like text" if all(9 <= b < 127 for b in start) else f"it begins with {start.hex(' ')}"
        raise ImageError(path, f"is no image, whatever its ending says ({what}).") from None
    except (OSError, ValueError, SyntaxError, struct.error, EOFError) as error:
        raise ImageError(path, f"has a damaged header ({error}).") from None


def _header(path: Path, image: Image.Image, max_pixels: int) -> Header:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            path, f"its header says {width} x {height} pixels, more than the limit of {max_pixels:,}; "
            "raise max_pixels if the file can be trusted.")  # fmt: skip
    wide = image.mode.startswith("I") or _sixteen_bit(image)
    try:
        silent = image.format == "PNG" and "exif" not in image.info  # asking Pillow would decode the whole file
        orientation = 1 if silent else int(image.getexif().get(ORIENTATION, 1))
    except (OSError, ValueError, TypeError, SyntaxError, struct.error):  # a broken EXIF block turns nothing
        orientation = 1
    orientation = orientation if 1 <= orientation <= 8 else 1
    size = (width, height) if orientation >= 5 else (height, width)
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    channels = CHANNELS.get(image.mode, 0)
    channels -= image.mode in ("LA", "RGBA", "La", "RGBa")
    if image.mode == "P" and _grey_palette(image):
        channels = 1
    return Header(size, (height, width), channels * pages, "uint16" if wide else "uint8", image.mode, orientation,
                  image.format or "")  # fmt: skip


def _sixteen_bit(image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel although Pillow's mode is an 8-bit one, which would halve them in silence."""
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
        return _array_header(path, _load_array(path, max_pixels))
    return _header(path, _pillow(path, _bytes(path)), max_pixels)


# -- .npy ---------------------------------------------------------------------------------------------------------------


def _load_array(path: Path, max_pixels: int) -> np.ndarray:
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
        raise ImageError(path, f"holds {array.shape[1]} x {array.shape[0]} pixels, more than the limit of {max_pixels:,}.")
    return array


def _array_header(path: Path, array: np.ndarray) -> Header:
    size = (int(array.shape[0]), int(array.shape[1]))
    return Header(size, size, 1 if array.ndim == 2 else int(array.shape[2]), array.dtype.name, "npy", 1, "NPY")


# -- decoding -----------------------------------------------------------------------------------------------------------


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
            raise ImageError(path, f"is damaged: the checksum of its part '{name}' at byte {at} is wrong; copy it again.")
        if kind == b"IEND":
            return
        at = stop
    raise ImageError(path, f"is truncated: the PNG ends after {end} bytes without its end mark; copy it again.")


def _check_jpeg(path: Path, data: bytes) -> None:
    """The end mark must follow the last scan: neither byte pair can occur inside the coded pixels."""
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise ImageError(path, f"is truncated: the JPEG ends after {len(data)} bytes without its end mark; copy it again.")


def _decode(path: Path, data: bytes, image: Image.Image, header: Header) -> np.ndarray:
    """Stored pixels, unturned: [H, W] or [H, W, C] uint8 or uint16, alpha last where there is one."""
    if header.format == "PNG":
        _check_png(path, data)
    if header.format in ("JPEG", "MPO"):
        _check_jpeg(path, data)
        if header.mode in ("L", "RGB"):
            return _opencv(path, data, cv2.IMREAD_GRAYSCALE if header.mode == "L" else cv2.IMREAD_COLOR_RGB)
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


def _load(path: Path, image: Image.Image) -> np.ndarray:
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError) as error:
        raise ImageError(path, f"is damaged or truncated ({error}); copy it again.") from None
    if image.mode == "F":
        raise ImageError(path, f"has 32-bit float values, whose range nobody knows; {SPLIT_ADVICE}")
    pixels = np.asarray(image)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    if pixels.dtype == np.int32:
        if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
            raise ImageError(path, f"has 32-bit values from {pixels.min()} to {pixels.max()}; {SPLIT_ADVICE}")
        return pixels.astype(np.uint16)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _pages(path: Path, image: Image.Image) -> np.ndarray:
    """The pages of a TIFF as channels, when all are grey and of one size."""
    pages = []
    for page in range(image.n_frames):  # type: ignore[attr-defined]
        try:
            image.seek(page)
        except (OSError, EOFError, SyntaxError, ValueError) as error:
            raise ImageError(path, f"is damaged or truncated at page {page + 1} ({error}); copy it again.") from None
        pages.append(_load(path, image))
    if any(p.ndim != 2 or p.shape != pages[0].shape or p.dtype != pages[0].dtype for p in pages):
        shapes = sorted({f"{list(p.shape)} {p.dtype}" for p in pages})
        raise ImageError(path, f"has {len(pages)} pages that are no channels of one image ({', '.join(shapes)}); {SPLIT_ADVICE}")
    return np.stack(pages, -1)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors [H, W, ...] as EXIF orientation 1..8 asks."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return np.ascontiguousarray(pixels[rows, columns])


# -- images -------------------------------------------------------------------------------------------------------------


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS, channels: int | None = None) -> np.ndarray:
    """An image as viewers show it.

    EXIF rotation is applied; palettes, CMYK and YCbCr become RGB; 1 bit becomes 0 and 255; alpha is dropped (`channels=4`
    keeps it as a fourth channel); the pages of a grey TIFF are channels; .npy arrays are taken as they are.
    channels  wanted: grey is repeated, RGB is never reduced.
    Returns [H, W] or [H, W, C], uint8 or uint16. Raises ImageError with the reason: missing, empty, truncated, damaged, no
    image, more than `max_pixels`, float or 32-bit values, another number of channels than asked for.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        array = _load_array(path, max_pixels)
        if array.dtype not in (np.uint8, np.uint16):
            raise ImageError(path, f"holds {array.dtype} values; an image must be uint8 or uint16.")
        return with_channels(path, np.array(array), channels)
    data = _bytes(path)
    image = _pillow(path, data)
    header = _header(path, image, max_pixels)
    if not CHANNELS.get(header.mode):
        raise ImageError(path, f"has the pixel mode '{header.mode}', which is no 8 or 16 bit image; {SPLIT_ADVICE}")
    if header.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        if header.format in ("PNG", "JPEG", "MPO"):
            (_check_png if header.format == "PNG" else _check_jpeg)(path, data)
        _load(path, image)
        pixels = np.asarray(image.convert("L" if header.mode == "P" and header.channels == 1 else "RGB"))
    else:
        pixels = _decode(path, data, image, header)
        pixels = pixels * np.uint8(255) if header.mode == "1" else pixels
    if header.alpha and channels != 4:
        pixels = pixels[..., :-1]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return with_channels(path, upright(pixels, header.orientation), channels)


def with_channels(path: Path, pixels: np.ndarray, channels: int | None) -> np.ndarray:
    """Grey repeated to `channels`; any other difference is an ImageError."""
    have = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels is None or have == channels:
        return pixels
    if have == 1:
        grey = pixels if pixels.ndim == 2 else pixels[..., 0]
        return np.repeat(grey[:, :, None], channels, axis=2)
    raise ImageError(path, f"has {have} channels, the data set has {channels}; set channels={have}, or convert the image.")


# -- masks --------------------------------------------------------------------------------------------------------------


def read_mask(path: str | Path, colours: Mapping[tuple[int, int, int], int] | None = None, *,
              max_pixels: int = MAX_PIXELS) -> np.ndarray:  # fmt: skip
    """Ids [H, W] exactly as stored: palette indices, grey values (8, 16 bit), an integer .npy array; nothing is scaled.

    A colour mask goes through `colours` {(r, g, b): id}; one whose three channels are equal is grey.
    Raises ImageError as `read_image` does, and for a JPEG (its compression makes ids that nobody drew), a colour mask
    without a table, a colour that is not in the table.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        array = np.array(_load_array(path, max_pixels))
        if array.ndim != 2 or array.dtype.kind not in "ui":
            raise ImageError(path, f"holds {list(array.shape)} {array.dtype}; a mask must be [H, W] of whole numbers.")
        return array
    data = _bytes(path)
    image = _pillow(path, data)
    header = _header(path, image, max_pixels)
    if header.format in ("JPEG", "MPO") or (header.format == "WEBP" and b"VP8 " in data[:64]):
        raise ImageError(path, f"is a mask in lossy {header.format}, whose compression changes ids near every edge; "
                         "export the mask again as PNG.")  # fmt: skip
    if header.mode not in ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "I;16N"):
        raise ImageError(path, f"is a mask of pixel mode '{header.mode}'; expected palette, grey or RGB, as PNG.")
    if header.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(path, "is a mask of several pages; expected one.")
    pixels = upright(_decode(path, data, image, header), header.orientation)
    if header.mode in ("LA", "PA"):
        pixels = pixels[..., 0]
    if pixels.ndim == 3:
        return _colour_ids(path, pixels[..., :3], colours)
    return pixels


def is_grey(pixels: np.ndarray) -> bool:
    """Whether the three channels of [H, W, 3] are equal everywhere."""
    first = pixels[..., 0]
    return bool(np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]))


def _colour_ids(path: Path, pixels: np.ndarray, colours: Mapping[tuple[int, int, int], int] | None) -> np.ndarray:
    if colours is None or pixels.dtype != np.uint8:
        if is_grey(pixels):
            return np.ascontiguousarray(pixels[..., 0])
        raise ImageError(path, "is a colour mask and nothing says which colour is which class; write a classes.txt beside "
                         "the data with a line `index name r g b` for each class.")  # fmt: skip
    lookup = _colour_table(tuple(sorted(colours.items())))
    packed = pixels[..., 0].astype(np.int32) << 16 | pixels[..., 1].astype(np.int32) << 8 | pixels[..., 2]
    ids = lookup[packed]
    strange = ids < 0
    if strange.any():
        found, counts = np.unique(packed[strange], return_counts=True)
        order = np.argsort(-counts)[:5]
        named = ", ".join(f"{(c >> 16, c >> 8 & 255, c & 255)} ({n} pixels)"
                          for c, n in zip(found[order].tolist(), counts[order].tolist()))  # fmt: skip
        raise ImageError(path, f"has {len(found)} colours that no class of the table has: {named}; add them to classes.txt "
                         "(as `void` where they mean nothing), or export the mask without smoothing.")  # fmt: skip
    return ids


@lru_cache(maxsize=2)
def _colour_table(colours: tuple[tuple[tuple[int, int, int], int], ...]) -> np.ndarray:
    """[2^24] int32 id of every colour, -1 for those that are none."""
    table = np.full(1 << 24, -1, np.int32)
    for (r, g, b), key in colours:
        table[r << 16 | g << 8 | b] = key
    return table


# -- writing ------------------------------------------------------------------------------------------------------------

REMEDIES = {
    errno.ENOSPC: "the disk is full; free some room or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some room or write elsewhere",
    errno.EACCES: "no permission; choose a folder that you may write to",
    errno.EPERM: "no permission; choose a folder that you may write to",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "there is a folder of that name",
    errno.ENAMETOOLONG: "the name is too long",
}


def output_error(path: str | Path, error: OSError) -> OutputError:
    """The OutputError for a failed write, with what to do."""
    reason = REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"{path} cannot be written: {reason}.")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; when the block ends well the file is renamed, else it is removed.

    So `path` is either whole or as it was. Missing folders are made. Raises OutputError for any OSError.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OutputError:
        raise
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_png(path: str | Path, array: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Writes [H, W] uint8 or uint16, or [H, W, 3 or 4] uint8, whole or not at all.

    palette  [up to 256, 3] RGB: the map is then written as palette indices. Raises OutputError.
    """
    array = np.ascontiguousarray(array)
    wanted = (array.ndim == 2 and array.dtype in (np.uint8, np.uint16)) or (array.ndim == 3 and array.dtype == np.uint8)
    if not wanted or (palette is not None and (array.ndim != 2 or array.dtype != np.uint8)):
        raise OutputError(f"{path}: a PNG takes [H, W] uint8 or uint16 or [H, W, 3] uint8, got {list(array.shape)} {array.dtype}.")
    image = Image.fromarray(array)
    if palette is not None:
        full = np.zeros((256, 3), np.uint8)  # a shorter one makes Pillow cut the indices to fewer bits
        full[: len(palette)] = palette
        image.putpalette(full.reshape(-1).tolist())
    with atomic(path) as temporary:
        image.save(temporary, format="PNG", compress_level=4)
