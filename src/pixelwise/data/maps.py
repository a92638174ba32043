"""Maps of ids as files, written band by band: PNG, or tiled TIFF that keeps the place of its image on the earth."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pixelwise.core.atomic import atomic
from pixelwise.data.png import PngStream
from pixelwise.data.tiff import TiffStream, place_of
from pixelwise.errors import ImageError

KINDS = ("auto", "png", "tiff")  # auto: TIFF for images that have a place on the earth


def map_ending(kind: str, image: Path | None) -> str:
    """ ".png" or ".tif" for the map of an image."""
    if kind == "auto":
        return ".tif" if image is not None and _placed(image) else ".png"
    return ".tif" if kind == "tiff" else ".png"


def write_map(path: Path, size: tuple[int, int], bands: Iterable[np.ndarray], dtype: type | np.dtype, *,
              palette: np.ndarray | None = None, image: Path | None = None) -> None:  # fmt: skip
    """Writes [H, W] uint8, uint16 (TIFF alone: uint32), or [H, W, 3] uint8 (PNG alone), whole or not at all.

    path     ends with .png or .tif
    bands    rows from the top, as many at once as may be
    palette  [up to 256, 3] uint8 RGB: 8-bit values are indices into it
    image    whose place on the earth a TIFF takes over
    Raises OutputError.
    """
    stream: PngStream | TiffStream | None = None
    with atomic(path) as part, part.open("wb") as file:
        for band in bands:
            if stream is None and path.suffix == ".tif":
                place = place_of(image) if image is not None and _placed(image) else None
                stream = TiffStream(file, size, dtype, palette=palette, place=place)
            elif stream is None:
                channels = band.shape[2] if band.ndim == 3 else 1
                stream = PngStream(file, size, dtype, channels=channels, palette=palette)
            stream.write(band.astype(dtype, copy=False))
        assert stream is not None, "a map has at least one row"
        stream.finish()


def _placed(image: Path) -> bool:
    try:
        return bool(place_of(image))
    except (ImageError, OSError):  # reading it has said why, or will
        return False
