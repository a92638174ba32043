"""GeoJSON polygons with holes (RFC 7946): one FeatureCollection per image, for maps and slide viewers.

The coordinates of a GeoTIFF's polygons are those of its own reference system, named in the member `crs` of GeoJSON
2008, as QGIS, GDAL and geopandas read and write them; RFC 7946 itself knows longitude and latitude alone. All others
are (x, y) in pixel edges from the upper left corner of the image, y grows DOWN, and are no place on earth. A segment in
one piece is a Polygon, one in several a MultiPolygon; the first ring is the outer one, those after it are holes. Rings
are closed (the first point stands again at the end). Outer rings are counterclockwise and holes clockwise for a reader
whose y grows up, as the RFC asks of the numbers. Pixels that touch at a corner alone are of two polygons, so each is
valid.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.outlines import Polygon
from pixelwise.data import writer
from pixelwise.data.georeference import GeoReference, georeference_of
from pixelwise.data.writer import Item, LargeItem
from pixelwise.errors import ConfigError

DESCRIPTION = "GeoJSON: polygons with holes where a GeoTIFF lies, else in pixels, y down; class, score, area"
BESIDE = False  # whether answers stand beside those of other kinds, rather than in a folder of this name
UNNAMED = "Images whose reference system has no EPSG number, written in pixels"


class Writer(writer.Entering):
    """Writes NAME.geojson. Properties: class, score, crowd, area in pixels, thing.

    coordinates  "auto": a GeoTIFF's own reference system, pixels for all other images. "pixels": always pixels
    A feature is written as it is made: what is held is the outlines of one image, as numbers.
    """

    HOLDS = frozenset({"crowd", "overlaps", "scores", "nothing"})

    def __init__(self, out: Path, classes: Classes, *, coordinates: Literal["auto", "pixels"] = "auto") -> None:
        super().__init__(out, classes)
        if coordinates not in ("auto", "pixels"):
            raise ConfigError(f"coordinates is 'auto' or 'pixels', got {coordinates!r}.")
        self.coordinates = coordinates

    def make(self, item: Item | LargeItem) -> tuple[tuple[Path, ...], dict[str, Any]]:
        found, place = self.outlined(item), self._place(item)
        bands, things = found.bands, self.classes.is_thing.tolist()
        path = self.out / f"{item.name}.geojson"
        with atomic(path) as part, part.open("w", encoding="utf-8") as file:
            file.write(_head(item.size, place))
            for row, (label, area) in enumerate(zip(bands.labels.tolist(), bands.counts.tolist())):
                properties = {
                    "class": self.classes.names[label],
                    "thing": things[label],
                    "score": round(float(bands.scores[row]), 6),
                    "crowd": bool(found.crowd[row]),
                    "area": area,
                }
                start = json.dumps({"type": "Feature", "id": row + 1, "properties": properties}, ensure_ascii=False)
                file.write(f'{"," if row else ""}\n{start[:-1]}, "geometry": ')
                file.writelines(_geometry(found.outlines.polygons(row), int(found.outlines.counts[row]), place))
                file.write("}")
            file.write("\n]}\n")
        return (path,), {}

    def _place(self, item: Item | LargeItem) -> GeoReference | None:
        if self.coordinates == "pixels" or item.image is None:
            return None
        place = georeference_of(item.image)
        if place is not None and place.epsg is None:
            self.lose(UNNAMED, 1)
            return None
        return place


def _head(size: tuple[int, int], place: GeoReference | None) -> str:
    """The text before the first feature."""
    head: dict[str, Any] = {"type": "FeatureCollection", "image": {"width": size[1], "height": size[0]}}
    if place is not None:
        head["crs"] = {"type": "name", "properties": {"name": place.crs}}
    return f'{json.dumps(head)[:-1]}, "features": ['


def _geometry(polygons: Iterable[Polygon], count: int, place: GeoReference | None) -> Iterator[str]:
    """The text of one geometry, polygon by polygon."""
    yield f'{{"type": "{"Polygon" if count == 1 else "MultiPolygon"}", "coordinates": {"" if count == 1 else "["}'
    for number, polygon in enumerate(polygons):
        yield ", " if number else ""
        yield json.dumps([_closed(ring, place) for ring in polygon])
    yield "}" if count == 1 else "]}"


def _closed(ring: np.ndarray, place: GeoReference | None) -> list[list[float]]:
    points = np.concatenate([ring, ring[:1]])
    if place is None:
        return points.tolist()
    return place(points[::-1] if place.mirrors else points).tolist()
