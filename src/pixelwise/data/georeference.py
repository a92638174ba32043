"""Where on the earth the pixels of a GeoTIFF lie: GeoTIFF 1.1 (OGC 19-008r4), as far as polygons need it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelwise.data.tiff import Tag, place_of
from pixelwise.errors import ImageError

SCALE, TIE_POINTS, MATRIX, KEYS = 33550, 33922, 34264, 34735  # tags
MODEL, RASTER, GEOGRAPHIC, PROJECTED = 1024, 1025, 2048, 3072  # keys
CODES = {1: PROJECTED, 2: GEOGRAPHIC}  # the key that has the number of the reference system, by the kind of model
POINT = 2  # pixels stand for points, their middles
PRIVATE = 32767  # a system that the file describes itself
DEGREES = 4326  # longitude and latitude, GeoJSON's own
FINE = 1000  # coordinates are rounded to about this part of a pixel


@dataclass(frozen=True)
class GeoReference:
    """An affine map from pixel edges (x, y) to coordinates of a reference system: a x + b y + c, d x + e y + f.

    affine  a, b, c, d, e, f
    epsg    number of the reference system in EPSG's list; None where the file does not say one
    """

    affine: tuple[float, float, float, float, float, float]
    epsg: int | None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """[P, 2] x y in pixel edges -> [P, 2] float64 coordinates: east and north, or longitude and latitude."""
        a, b, c, d, e, f = self.affine
        x, y = points.T.astype(np.float64)
        return np.stack([a * x + b * y + c, d * x + e * y + f], 1).round(self._digits)

    @property
    def mirrors(self) -> bool:
        """Whether what is counterclockwise in the one is clockwise in the other, as where y grows down and north up."""
        a, b, _, d, e, _ = self.affine
        return a * e - b * d < 0

    @property
    def _digits(self) -> int:
        a, b, _, d, e, _ = self.affine
        return math.ceil(math.log10(FINE / math.sqrt(abs(a * e - b * d))))

    @property
    def crs(self) -> str:
        """The reference system's name as a URN. GeoJSON has x first, so longitude and latitude are OGC's CRS84."""
        assert self.epsg is not None, "whoever asks has looked"
        return "urn:ogc:def:crs:OGC:1.3:CRS84" if self.epsg == DEGREES else f"urn:ogc:def:crs:EPSG::{self.epsg}"


def georeference_of(path: Path) -> GeoReference | None:
    """Of an image file; None where it has none, or one that is no affine map."""
    try:
        tags = place_of(path)
    except (ImageError, OSError):  # reading it has said why, or will
        return None
    keys = _keys(tags)
    affine = _affine(tags)
    if affine is None:
        return None
    a, b, c, d, e, f = affine
    if keys.get(RASTER) == POINT:
        c, f = c - (a + b) / 2, f - (d + e) / 2
    code = keys.get(CODES.get(keys.get(MODEL, 0), 0), 0)
    return GeoReference((a, b, c, d, e, f), code if 0 < code < PRIVATE else None)


def _keys(tags: Mapping[int, Tag]) -> dict[int, int]:
    """GeoTIFF's keys whose values are short numbers."""
    values = tags[KEYS].values.tolist() if KEYS in tags else []
    entries = [values[at : at + 4] for at in range(4, len(values) - 3, 4)]
    return {key: value for key, place, _, value in entries if place == 0}


def _affine(tags: Mapping[int, Tag]) -> tuple[float, float, float, float, float, float] | None:
    if MATRIX in tags and len(tags[MATRIX].values) == 16:
        a, b, _, c, d, e, _, f = tags[MATRIX].values[:8].tolist()
    elif SCALE in tags and TIE_POINTS in tags and len(tags[SCALE].values) >= 2 and len(tags[TIE_POINTS].values) >= 6:
        wide, high = tags[SCALE].values[:2].tolist()
        column, line, _, east, north = tags[TIE_POINTS].values[:5].tolist()
        a, b, c, d, e, f = wide, 0.0, east - column * wide, 0.0, -abs(high), north + line * abs(high)
    else:
        return None
    if not np.isfinite([a, b, c, d, e, f]).all() or a * e == b * d:
        return None
    return a, b, c, d, e, f
