"""One COCO annotation -> its pixels, box and area; what is wrong with it is said as the field's tools take it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixelwise.core import polygons
from pixelwise.core.segments import BOX, MASK
from pixelwise.data.slices import kind_of
from pixelwise.errors import DataError

LEAST = 6  # numbers of a polygon of three points
SLACK = 1.0  # pixels that a polygon may leave its image without a word: annotators' tools round


@dataclass
class Drawn:
    """An object as annotated.

    box         [4] x0 y0 x1 y1 as annotated, None where it is not given or empty
    area        as annotated, None where it is not given
    kind        MASK, or BOX where no outline is given
    complaints  codes of the doctor that apply
    """

    window: polygons.Window
    box: np.ndarray | None
    area: float | None
    kind: int = MASK
    complaints: list[str] = field(default_factory=list)


def draw(annotation: Mapping[str, Any], size: Sequence[int]) -> Drawn:
    """The object of an annotation in an image of (H, W), polygons by COCO's rule.

    Polygons of fewer than three points are left out, as detectron2 does. An object without outline keeps its box
    alone. Raises DataError, without a place, for what no tool can read.
    """
    segmentation = annotation.get("segmentation")
    box, complaints = _box(annotation.get("bbox")), []
    if box is not None and not (box[2:] > box[:2]).all():
        box = None
        complaints.append("empty-box")
    if isinstance(segmentation, list):
        parts = [_part(part) for part in segmentation]
        segmentation = [part for part in parts if len(part) >= LEAST]
        if len(segmentation) < len(parts):
            complaints.append("short-polygon")
    elif segmentation is not None and not isinstance(segmentation, dict):
        raise DataError(f"its segmentation is {kind_of(segmentation)}, expected polygons or a run-length code.")
    area = _number(annotation.get("area"), "area")
    if segmentation:
        return Drawn(polygons.coco_window(segmentation, size), box, area, complaints=complaints)
    if box is None and not complaints:
        raise DataError("it has neither a segmentation nor a bbox.")
    empty = (0, 0, 0, 0), np.zeros((0, 0), bool)
    return Drawn(empty, box, area, MASK if box is None else BOX, complaints)


def _part(part: Any) -> list[float]:
    if not isinstance(part, list):
        raise DataError(f"its segmentation holds {kind_of(part)}; expected lists of numbers x, y, x, y, ...")
    if len(part) % 2:
        raise DataError(f"a polygon has {len(part)} numbers; x and y of each point make an even number.")
    return part


def _box(value: Any) -> np.ndarray | None:
    """x, y, width, height -> x0 y0 x1 y1 float64."""
    if value is None or value == []:
        return None
    fits = isinstance(value, list) and len(value) == 4 and all(isinstance(v, int | float) for v in value)
    if not fits or not all(map(math.isfinite, value)):
        raise DataError(f"its bbox is {value!r:.60}, expected the finite numbers x, y, width, height.")
    x, y, width, height = value
    return np.array([x, y, x + width, y + height])


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise DataError(f"its {name} is {value!r:.40}, expected a finite number of at least 0.")
    return float(value)


def odd_polygons(annotation: Mapping[str, Any], size: Sequence[int]) -> list[str]:
    """Codes of the doctor for an annotation that `draw` takes: polygons that cross themselves or leave the image."""
    codes = []
    segmentation = annotation.get("segmentation")
    rings = [part for part in segmentation if len(part) >= LEAST] if isinstance(segmentation, list) else []
    if any(polygons.crosses_itself(ring) for ring in rings):
        codes.append("self-crossing")
    points = np.array([v for ring in rings for v in ring], float).reshape(-1, 2)
    if len(points) and ((points < -SLACK) | (points > np.array([size[1], size[0]]) + SLACK)).any():
        codes.append("outside")
    return codes
