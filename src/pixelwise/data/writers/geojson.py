"""GeoJSON polygons (RFC 7946) in pixel coordinates: one FeatureCollection per image, for maps and slide viewers.

Coordinates are (x, y) in pixel edges from the upper left corner of the image, y grows DOWN; they are no place on
earth. A segment in one piece is a Polygon, one in several a MultiPolygon; the first ring is the outer one, those after
it are holes. Rings are closed (the first point stands again at the end). Outer rings are counterclockwise and holes
clockwise for a reader whose y grows up, as the RFC asks of the numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.core.atomic import atomic
from pixelwise.core.polygons import to_shapes
from pixelwise.data import writer
from pixelwise.data.writer import Item

DESCRIPTION = "GeoJSON: polygons with holes in pixel coordinates, y down; class, score and area as properties"
BESIDE = False  # whether answers stand beside those of other kinds, rather than in a folder of this name


class Writer(writer.Writer):
    """Writes NAME.geojson. Properties: class, score, crowd, area in pixels, thing."""

    HOLDS = frozenset({"crowd", "overlaps", "scores", "nothing"})

    def write(self, item: Item) -> tuple[Path, ...]:
        segments = self.held(item.segments)
        height, width = segments.size
        areas, things = segments.pixel_counts.tolist(), self.classes.is_thing.tolist()
        features = [
            {
                "type": "Feature",
                "id": row + 1,
                "geometry": _geometry(shape),
                "properties": {
                    "class": self.classes.names[label],
                    "thing": things[label],
                    "score": round(float(segments.scores[row]), 6),
                    "crowd": bool(segments.crowd[row]),
                    "area": areas[row],
                },
            }
            for row, (label, shape) in enumerate(zip(segments.labels.tolist(), to_shapes(segments)))
        ]
        content = {"type": "FeatureCollection", "image": {"width": width, "height": height}, "features": features}
        path = self.out / f"{item.name}.geojson"
        with atomic(path) as part:
            part.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return (path,)


def _geometry(shape: list[list[np.ndarray]]) -> dict[str, Any]:
    polygons = [
        [_closed(ring, clockwise=number > 0) for number, ring in enumerate(polygon)] for polygon in shape
    ]  # fmt: skip
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _closed(ring: np.ndarray, *, clockwise: bool) -> list[list[int]]:
    x, y = ring.T.astype(np.int64)
    area = int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())  # twice; above 0 is counterclockwise with y up
    if (area < 0) != clockwise:
        ring = ring[::-1]
    return np.concatenate([ring, ring[:1]]).tolist()
