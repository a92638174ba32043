"""Images read window by window, so that none lies in memory whole where its file allows.

Allowed by
  .npy arrays and TIFFs of uncompressed, contiguous rows   by themselves: they are mapped
  TIFF and BigTIFF in tiles or strips, GeoTIFF             with the extra `large` (rasterio)
  PNG without interlacing, JPEG that is not progressive    with it; these are decoded from the top, a band at a time
All else is decoded whole once: what is turned by EXIF, has a palette, CMYK or packed values, several pages, or is of
another format. Values are those of reading the file whole, but for JPEG whose chroma is stored smaller: rasterio's
libjpeg enlarges it otherwise, which moves colours by a few levels of 255. The channels are fitted to the model's by the
rules of `prediction/images.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from torch import Tensor

from pixelwise.core.sample import Preprocessing, image_tensor
from pixelwise.data.channels import fit_channels
from pixelwise.data.decode import MAX_PIXELS, TIFF, lazy_image, load_array, read_header, too_many
from pixelwise.data.io import read_image
from pixelwise.data.raster import EXTRA, Raster, available
from pixelwise.data.tiff import COMPRESSION, ORIENTATION, STRIP_BYTES, STRIP_OFFSETS, read_tags
from pixelwise.errors import ImageError

Window = tuple[int, int, int, int]  # top, left, height, width
Read = Callable[[Window], np.ndarray]  # [h, w, C] as stored
ANY = 1 << 62  # pixels: a limit for what is never held
MOST_PER_BYTE = 2000  # pixels of a file: the best compression of a blank image holds half as many
ROWS = 64  # that are decoded at once


class Windows:
    """One image whose windows can be read; used with `with`. Made by `open_windows`.

    path      of the file
    size      (H, W) in pixels
    windowed  whether windows are read from the file; False: the image was decoded whole and lies in memory
    why       what stands against windows, "" where nothing does
    """

    def __init__(self, path: Path, size: tuple[int, int], read: Read, preprocessing: Preprocessing, *, alpha: bool,
                 why: str = "", close: Callable[[], None] | None = None) -> None:  # fmt: skip
        self.path, self.size, self.windowed, self.why = path, size, not why, why
        self._read, self._preprocessing, self._close = read, preprocessing, close
        self._cut = alpha and preprocessing.channels != 4

    def read(self, window: Window) -> Tensor:
        """(top, left, height, width) inside the image -> [C, h, w] stored values in the model's channels.

        Raises ImageError for a damaged file, and what `fit_channels` raises.
        """
        pixels = self._read(window)
        return fit_channels(
            image_tensor(pixels[..., :-1] if self._cut else pixels), self._preprocessing, str(self.path)
        )

    def close(self) -> None:
        """Closes the file; further calls do nothing."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Windows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()


def open_windows(path: str | Path, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> Windows:
    """Opens an image for reading by windows, if its file allows; else decodes it whole, once.

    max_pixels  limit for what is decoded whole: against a file that claims more than memory holds. What is read by
                windows may be larger, as long as the file's own size makes it believable
    Raises ImageError as `read_image` does; where only the extra `large` is missing, it says so.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return _array(path, preprocessing)
    found = _rows_of_tiff(path, preprocessing)
    if found is not None:
        return found
    why, alpha = _against(path)
    if not why:
        raster = Raster(path)
        if not raster.odd:
            _check_claim(raster, max_pixels)
            return _raster(raster, preprocessing, "alpha" in raster.kinds or alpha)
        raster.close()
        why = raster.odd
    return _whole(path, preprocessing, max_pixels, why)


def _check_claim(raster: Raster, max_pixels: int) -> None:
    """Raises ImageError for more pixels than the limit in a file too small to hold them: it would take days."""
    height, width = raster.size
    if height * width > max(max_pixels, MOST_PER_BYTE * raster.path.stat().st_size):
        raster.close()
        raise ImageError(raster.path, too_many(width, height, max_pixels))


def raster_pixels(path: Path, preprocessing: Preprocessing, max_pixels: int) -> Tensor | None:
    """[C, H, W] of a TIFF that Pillow does not know or takes amiss: five bands, overviews; None where that is not so.

    Needs the extra `large`.
    """
    try:
        tags = read_tags(path) if available() else {}
        if not tags or _against(path)[0]:
            return None
        raster = Raster(path)
    except (ImageError, OSError):
        return None  # reading it has said what is wrong
    with _raster(raster, preprocessing, "alpha" in raster.kinds) as windows:
        height, width = windows.size
        return None if raster.odd or height * width > max_pixels else windows.read((0, 0, height, width))


def _whole(path: Path, preprocessing: Preprocessing, max_pixels: int, why: str) -> Windows:
    wanted = 4 if preprocessing.channels == 4 else None
    try:
        pixels = read_image(path, max_pixels=max_pixels, channels=wanted)
    except ImageError as error:
        if why == MISSING:
            raise ImageError(path, f"{error.reason} {MISSING}") from None
        raise
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels

    def read(window: Window) -> np.ndarray:
        top, left, height, width = window
        return pixels[top : top + height, left : left + width]

    return Windows(path, pixels.shape[:2], read, preprocessing, alpha=False, why=why)


MISSING = f"Files like it can be read by windows: {EXTRA}"


def _against(path: Path) -> tuple[str, bool]:
    """(what a file's own header says against windows, whether it has alpha)."""
    with _opened(path) as file:
        start = file.read(4)
    if start in TIFF:
        tags = read_tags(path)
        turned = ORIENTATION in tags and int(tags[ORIENTATION].values[0]) != 1
        return ("it is turned" if turned else "" if available() else MISSING), False
    header = read_header(path, max_pixels=ANY)
    kinds = {"PNG": ("L", "LA", "RGB", "RGBA", "I;16", "I"), "JPEG": ("L", "RGB"), "MPO": ("L", "RGB")}
    if header.format not in kinds:
        return f"it is of the format {header.format or header.mode}", False
    if header.mode not in kinds[header.format]:
        return f"its colours are {header.mode}", False
    if header.orientation != 1:
        return "it is turned by EXIF", False
    with _opened(path) as file, lazy_image(path, file) as image:
        if image.info.get("progressive") or image.info.get("interlace") or getattr(image, "is_animated", False):
            return "it is progressive, interlaced or animated", False
    return ("" if available() else MISSING), header.alpha


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError:
        read_header(path)  # raises it as an ImageError
        raise


# -- sources ----------------------------------------------------------------------------------------------------------


def _array(path: Path, preprocessing: Preprocessing) -> Windows:
    array = load_array(path, ANY)
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(path, f"holds {array.dtype} values; an image must be uint8 or uint16.")

    def read(window: Window) -> np.ndarray:  # mapped anew each time: pages of earlier windows do not stay
        return _cut(load_array(path, ANY), window)

    return Windows(path, (int(array.shape[0]), int(array.shape[1])), read, preprocessing, alpha=False)


def _rows_of_tiff(path: Path, preprocessing: Preprocessing) -> Windows | None:
    """A TIFF whose rows lie uncompressed one after the other, as an array would; None for all others."""
    try:
        tags = {number: tag.values.tolist() for number, tag in read_tags(path).items() if tag.kind != 2}
    except OSError:
        return None
    first = {number: values[0] for number, values in tags.items() if values}
    plain = first.get(COMPRESSION) == 1 and STRIP_OFFSETS in first and first.get(ORIENTATION, 1) == 1
    channels, bits, photometric = first.get(277, 1), tags.get(258, [1]), first.get(262)
    if not plain or photometric not in (1, 2) or {*bits} not in ({8}, {16}) or first.get(284, 1) != 1:
        return None
    if first.get(339, 1) != 1 or channels not in (1, 3):
        return None
    offsets, lengths = tags[STRIP_OFFSETS], tags.get(STRIP_BYTES, [])
    height, width, depth = first[257], first[256], bits[0] // 8
    contiguous = all(a + n == b for a, n, b in zip(offsets, lengths, offsets[1:]))
    if not contiguous or sum(lengths) != height * width * channels * depth or _pages(path):
        return None
    if offsets[0] + sum(lengths) > path.stat().st_size:
        raise ImageError(path, "is truncated: its last rows are missing; copy it again.")
    with path.open("rb") as file:
        order = "<" if file.read(2) == b"II" else ">"
    shape, dtype = (height, width, channels), np.dtype(f"{order}u{depth}")

    def read(window: Window) -> np.ndarray:
        return _cut(np.memmap(path, dtype, "r", offsets[0], shape), window)

    return Windows(path, (height, width), read, preprocessing, alpha=False)


def _pages(path: Path) -> bool:
    """Whether a TIFF has further pages, which may be channels of the image."""
    with _opened(path) as file, lazy_image(path, file) as image:
        return getattr(image, "n_frames", 1) > 1


def _cut(array: np.ndarray, window: Window) -> np.ndarray:
    """[h, w, C] a copy in the machine's byte order."""
    top, left, height, width = window
    array = array[:, :, None] if array.ndim == 2 else array
    part = array[top : top + height, left : left + width]
    return np.array(part, part.dtype.newbyteorder("="))


def _raster(raster: Raster, preprocessing: Preprocessing, alpha: bool) -> Windows:
    tiled = raster.block[1] < raster.size[1]
    planes = raster.read if tiled else Band(raster).read

    def read(window: Window) -> np.ndarray:
        return np.moveaxis(planes(window), 0, -1)

    return Windows(raster.path, raster.size, read, preprocessing, alpha=alpha, close=raster.close)


class Band:
    """The rows that the windows of one row of tiles need, for files that are decoded from the top.

    Windows of the same rows cost one decoding, those further down what is new, those further up all again.
    """

    def __init__(self, raster: Raster) -> None:
        self.raster, self.top, self.bottom = raster, 0, 0
        self.planes = np.empty((raster.bands, 0, raster.size[1]), raster.dtype)

    def read(self, window: Window) -> np.ndarray:
        """[C, h, w] of (top, left, height, width)."""
        top, left, height, width = window
        if not self.top <= top <= top + height <= self.bottom:
            self._fill(top, top + height)
        return self.planes[:, top - self.top : top - self.top + height, left : left + width].copy()

    def _fill(self, top: int, bottom: int) -> None:
        if bottom - top > self.planes.shape[1]:
            grown = np.empty((self.planes.shape[0], bottom - top, self.planes.shape[2]), self.planes.dtype)
            grown[:, : self.planes.shape[1]] = self.planes
            self.planes = grown
        kept = range(max(top, self.top), min(bottom, self.bottom))
        if len(kept) and kept.start == top:
            for plane in self.planes:  # one at a time: NumPy copies what overlaps
                plane[: len(kept)] = plane[kept.start - self.top : kept.stop - self.top]
            at = kept.stop
        else:
            at = top
        self.top, self.bottom = top, top  # what is held is nothing if reading fails
        for start in range(at, bottom, ROWS):
            rows = min(ROWS, bottom - start)
            part = self.raster.read((start, 0, rows, self.raster.size[1]))
            self.planes[:, start - top : start - top + rows] = part
        self.bottom = bottom
