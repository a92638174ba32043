"""The one door to rasterio (GDAL; the extra `large`): image files read window by window."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import ImageError, MissingExtraError

EXTRA = "pip install 'pixelwise[large]'"
DRIVERS = {b"II": "GTiff", b"MM": "GTiff", b"\xff\xd8": "JPEG", b"\x89P": "PNG"}  # by a file's first two bytes
CACHE = 16 << 20  # bytes of GDAL's own cache of blocks
DAMAGED = "is damaged or truncated"


def available() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("rasterio") is not None


@contextmanager
def _gdal() -> Iterator[Any]:
    """rasterio, set so that it keeps little, writes no files beside ours, and takes a file that ends early for damaged.

    Raises MissingExtraError where it is not installed.
    """
    if not available():
        raise MissingExtraError(f"Reading by windows needs rasterio: {EXTRA}")
    import rasterio

    settings = {"GDAL_CACHEMAX": CACHE, "GDAL_PAM_ENABLED": "NO", "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES"}
    with warnings.catch_warnings(), rasterio.Env(**settings):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield rasterio


class Raster:
    """An image file whose windows can be read one by one.

    size      (H, W) in pixels, as stored
    bands     how many, alpha among them
    dtype     of NumPy
    kinds     per band "gray", "red", "green", "blue", "alpha", "undefined", "palette", ...
    block     (height, width) of the pieces in which the file stores pixels
    odd       why its values are not plain stored values, "" where they are
    Raises ImageError for what is no image, MissingExtraError without rasterio.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._one_at_a_time = threading.Lock()  # GDAL's files must not be read by two threads
        with path.open("rb") as beginning, _gdal() as rasterio:
            try:
                driver = DRIVERS.get(beginning.read(2), "GTiff")  # none that looks for further files
                self._file = rasterio.open(path.absolute(), driver=driver, sharing=False)
            except rasterio.errors.RasterioError as error:
                raise ImageError(path, f"cannot be read by windows ({error}).") from None
            file = self._file
            self.size, self.bands, self.dtype = (file.height, file.width), file.count, file.dtypes[0]
            self.kinds = tuple(kind.name for kind in file.colorinterp)
            self.block: tuple[int, int] = file.block_shapes[0]
            self.odd = self._oddity()

    def _oddity(self) -> str:
        file, structure = self._file, self._file.tags(ns="IMAGE_STRUCTURE")
        if file.subdatasets:
            return "it has several pages"
        if len({*file.dtypes}) > 1 or self.dtype not in ("uint8", "uint16"):
            return f"it holds {', '.join(sorted({*file.dtypes}))} values"
        if "NBITS" in structure or "MINISWHITE" in structure:
            return "its values are packed or inverted"
        if not {*self.kinds} <= {"gray", "red", "green", "blue", "alpha", "undefined"}:
            return f"its colours are {', '.join(dict.fromkeys(self.kinds))}"
        height, width = self.block
        if height * width * self.bands * np.dtype(self.dtype).itemsize > 1 << 27 and file.compression is not None:
            return f"it is compressed in pieces of {height} x {width} pixels"
        return ""

    def read(self, window: tuple[int, int, int, int], out: np.ndarray | None = None) -> np.ndarray:
        """[C, h, w] of (top, left, height, width), as stored. Raises ImageError for a damaged file."""
        top, left, height, width = window
        with self._one_at_a_time, _gdal() as rasterio:
            try:
                part = rasterio.windows.Window(left, top, width, height)
                found: np.ndarray = self._file.read(window=part, out=out)
            except rasterio.errors.RasterioError as error:
                cause = error.__cause__ or error
                raise ImageError(self.path, f"{DAMAGED} ({cause}); copy it again.") from None
        return found

    def close(self) -> None:
        self._file.close()
