"""Images and masks from disk, checked before anyone trusts them, and files written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from pixelwise.core.atomic import atomic
from pixelwise.data.decode import (
    ADVICE,
    CHANNELS,
    ENDINGS,
    MAX_PIXELS,
    Header,
    decode,
    load_array,
    load_file,
    read_header,
    upright,
)
from pixelwise.data.png import PngStream
from pixelwise.errors import ImageError, OutputError

__all__ = [
    "ENDINGS",
    "MAX_PIXELS",
    "Header",
    "read_header",
    "read_image",
    "read_mask",
    "write_jpeg",
    "write_png",
]

# -- images -----------------------------------------------------------------------------------------------------------


def read_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, channels: int | None = None, rows: int | None = None
) -> np.ndarray:
    """An image as viewers show it.

    EXIF rotation is applied; palettes, CMYK and YCbCr become RGB; 1 bit becomes 0 and 255; alpha is dropped
    (`channels=4` keeps it as a fourth channel); the pages of a grey TIFF are channels; .npy arrays are taken as they
    are.
    channels  wanted: grey is repeated, RGB is never reduced.
    rows      so many from the top are enough: there may be more, and where that is cheaper there are not all
    Returns [H, W] or [H, W, C], uint8 or uint16. Raises ImageError with the reason: missing, empty, truncated, damaged,
    no image, more than `max_pixels`, float or 32-bit values, another number of channels than asked for.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        array = load_array(path, max_pixels)
        if array.dtype not in (np.uint8, np.uint16):
            raise ImageError(path, f"holds {array.dtype} values; an image must be uint8 or uint16.")
        return with_channels(path, np.array(array[:rows]), channels)
    data, image, header = load_file(path, max_pixels)
    if not CHANNELS.get(header.mode):
        raise ImageError(path, f"has the pixel mode '{header.mode}', which is no 8 or 16 bit image; {ADVICE}")
    pixels = decode(path, data, image, header, rows=rows if header.turn == 1 else None)
    if header.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        pixels = np.asarray(image.convert("L" if header.mode == "P" and header.channels == 1 else "RGB"))
    elif header.mode == "1":
        pixels = pixels * np.uint8(255)
    if header.alpha and channels != 4:
        pixels = pixels[..., :-1]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return with_channels(path, upright(pixels, header.turn), channels)


def with_channels(path: Path, pixels: np.ndarray, channels: int | None) -> np.ndarray:
    """Grey repeated to `channels`; any other difference is an ImageError."""
    have = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels is None or have == channels:
        return pixels
    if have == 1:
        grey = pixels if pixels.ndim == 2 else pixels[..., 0]
        return np.repeat(grey[:, :, None], channels, axis=2)
    raise ImageError(
        path, f"has {have} channels, the data set has {channels}; set channels={have}, or convert the image."
    )


# -- masks ------------------------------------------------------------------------------------------------------------


def read_mask(
    path: str | Path, colours: Mapping[tuple[int, int, int], int] | None = None, *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Ids [H, W] exactly as stored: palette indices, grey values (8, 16 bit), an integer .npy array; none is scaled.

    A colour mask goes through `colours` {(r, g, b): id}; one whose three channels are equal is grey.
    Raises ImageError as `read_image` does, and for a JPEG (its compression makes ids that nobody drew), a colour mask
    without a table, a colour that is not in the table.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        array = np.array(load_array(path, max_pixels))
        if array.ndim != 2 or array.dtype.kind not in "ui":
            raise ImageError(path, f"holds {list(array.shape)} {array.dtype}; a mask must be [H, W] of whole numbers.")
        return array
    data, image, header = load_file(path, max_pixels)
    if header.format in ("JPEG", "MPO") or (header.format == "WEBP" and b"VP8 " in data[:64]):
        raise ImageError(
            path,
            f"is a mask in lossy {header.format}, whose compression changes ids near every edge; "
            "export the mask again as PNG.",
        )
    if header.mode not in ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "I;16N"):
        raise ImageError(path, f"is a mask of pixel mode '{header.mode}'; expected palette, grey or RGB, as PNG.")
    if header.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(path, "is a mask of several pages; expected one.")
    pixels = upright(decode(path, data, image, header, indices=True), header.turn)
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
        raise ImageError(
            path,
            "is a colour mask and nothing says which colour is which class; write a classes.txt beside "
            "the data with a line `index name r g b` for each class.",
        )
    lookup = _colour_table(tuple(sorted(colours.items())))
    packed = pixels[..., 0].astype(np.int32) << 16 | pixels[..., 1].astype(np.int32) << 8 | pixels[..., 2]
    ids = lookup[packed]
    strange = ids < 0
    if strange.any():
        found, counts = np.unique(packed[strange], return_counts=True)
        order = np.argsort(-counts)[:5]
        named = ", ".join(
            f"{(c >> 16, c >> 8 & 255, c & 255)} ({n} pixels)"
            for c, n in zip(found[order].tolist(), counts[order].tolist())
        )
        raise ImageError(
            path,
            f"has {len(found)} colours that no class of the table has: {named}; add them to classes.txt "
            "(as `void` where they mean nothing), or export the mask without smoothing.",
        )
    return ids


@lru_cache(maxsize=2)
def _colour_table(colours: tuple[tuple[tuple[int, int, int], int], ...]) -> np.ndarray:
    """[2^24] int32 id of every colour, -1 for those that are none."""
    table = np.full(1 << 24, -1, np.int32)
    for (r, g, b), key in colours:
        table[r << 16 | g << 8 | b] = key
    return table


# -- writing ----------------------------------------------------------------------------------------------------------


def write_png(path: str | Path, array: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Writes [H, W] uint8 or uint16, or [H, W, 3 or 4] uint8, whole or not at all.

    palette  [up to 256, 3] RGB: the map is then written as palette indices. Raises OutputError.
    """
    array = np.asarray(array)
    flat, deep = array.ndim == 2, array.ndim == 3 and array.shape[2] in (1, 3, 4)
    wanted = (flat and array.dtype in (np.uint8, np.uint16)) or (deep and array.dtype == np.uint8)
    if not wanted or 0 in array.shape or (palette is not None and (array.ndim != 2 or array.dtype != np.uint8)):
        raise OutputError(
            f"{path}: a PNG takes [H, W] uint8 or uint16 or [H, W, 3] uint8, got {list(array.shape)} {array.dtype}."
        )
    channels = 1 if array.ndim == 2 else array.shape[2]
    with atomic(path) as temporary, temporary.open("wb") as file:
        stream = PngStream(file, array.shape[:2], array.dtype, channels=channels, palette=palette)
        stream.write(array)
        stream.finish()


def write_jpeg(path: str | Path, picture: np.ndarray, quality: int = 92) -> None:
    """Writes [H, W, 3] uint8 RGB, whole or not at all. Raises OutputError, also for more than 65,535 pixels a side."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not 0 < max(picture.shape) <= 65535:
        raise OutputError(f"{path}: a JPEG takes [H, W, 3] uint8 up to 65,535 a side, got {list(picture.shape)}.")
    code = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    with atomic(path) as temporary:
        temporary.write_bytes(code.tobytes())
