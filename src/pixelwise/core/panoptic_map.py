"""Panoptic truth as data sets store it: COCO's colour PNG with a table, and instance maps with or without class maps.

COCO panoptic (Kirillov et al. 2018, 1801.00868): the segment at a pixel has the id R + 256 G + 65536 B; 0 is unknown; a
table `segments_info` gives each id its category. Here `Segments.keys` are those ids. Every function works on arrays;
reading and writing files is the readers' part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pixelwise.core.bands import Bands
from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.errors import DataError

MOST_INSTANCES = 1000  # ids class * 1000 + number, as Cityscapes counts them


def ids_of_colours(colours: Any) -> np.ndarray:
    """[H, W, 3] uint8 RGB -> [H, W] int32 ids R + 256 G + 65536 B. Raises DataError for another shape or type."""
    colours = np.asarray(colours)
    if colours.ndim != 3 or colours.shape[2] != 3 or colours.dtype != np.uint8:
        raise DataError(f"a panoptic PNG must be [H, W, 3] uint8 RGB, got {list(colours.shape)} {colours.dtype}.")
    wide = colours.astype(np.int32)
    return wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16)


def colours_of_ids(ids: Any) -> np.ndarray:
    """[H, W] ids 0..2^24-1 -> [H, W, 3] uint8 RGB. Raises DataError for ids that three bytes cannot hold."""
    ids = np.asarray(ids)
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= 1 << 24):
        raise DataError(f"panoptic ids must be 0..{(1 << 24) - 1}, found {int(ids.min())}..{int(ids.max())}.")
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1).astype(np.uint8)


def from_panoptic(colours: Any, segments_info: Sequence[Mapping[str, Any]], classes: Classes) -> Segments:
    """COCO's panoptic PNG [H, W, 3] and its table -> Segments, rows in the table's order; `classes.ids` are categories.

    Pixels of id 0 and of categories in `classes.void` are UNKNOWN. `areas` and `boxes` are as annotated where every
    segment has them. Raises DataError for an id that the table lacks or has twice, a segment of the table that owns no
    pixel, or a category that is neither a class nor void.
    """
    ids = ids_of_colours(colours)
    label_of = {category: label for label, category in enumerate(classes.ids)}
    void: list[int] = [0]
    table: dict[int, int] = {}
    rows: list[Mapping[str, Any]] = []
    for info in segments_info:
        key, category = _numbers(info)
        if key in table or key in void:
            raise DataError(f"segments_info: the id {key} is there twice, or is 0, which stands for unknown.")
        if category in label_of:
            table[key] = label_of[category]
            rows.append(info)
        elif category in classes.void:
            void.append(key)
        else:
            raise DataError(f"segments_info: segment {key} has the category {category}, neither a class nor void.")
    columns: dict[str, Any] = {"crowd": np.array([bool(info.get("iscrowd", 0)) for info in rows], bool)}
    if rows and all("area" in info for info in rows):
        columns["given_areas"] = _floats([info["area"] for info in rows], "area", (len(rows),))
    if rows and all("bbox" in info for info in rows):
        x, y, w, h = _floats([info["bbox"] for info in rows], "bbox", (len(rows), 4)).T
        columns["given_boxes"] = np.stack([x, y, x + w, y + h], 1)
    segments = Segments.from_ids(ids, table, void=void, **columns)
    unseen = segments.keys[segments.pixel_counts == 0].tolist() if segments.keys is not None else []
    if unseen:
        raise DataError(f"segments_info: the ids {unseen[:5]} own no pixel of the map.")
    return segments


def _numbers(info: Any) -> tuple[int, int]:
    """The id and the category of a row of the table."""
    try:
        key, category = info["id"], info["category_id"]
    except (TypeError, KeyError):
        raise DataError(f"segments_info: the row {info!r:.80} lacks 'id' or 'category_id'.") from None
    if not all(isinstance(v, int | np.integer) for v in (key, category)) or not 0 <= key < 1 << 24:
        raise DataError(
            f"segments_info: id {key!r} and category_id {category!r} must be whole numbers, ids below 2^24."
        )
    return int(key), int(category)


def _floats(values: list[Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        found = np.array(values, np.float32)
    except (TypeError, ValueError):
        found = np.zeros(0, np.float32)
    if found.shape != shape or not np.isfinite(found).all():
        raise DataError(
            f"segments_info: '{name}' of some segment is no finite number (or not four of them, for a bbox)."
        )
    return found


def to_panoptic(segments: Segments, classes: Classes) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Segments -> COCO's panoptic PNG [H, W, 3] uint8 and its table `segments_info`, of the segments that own pixels.

    Ids are the `keys` where those can stand in such a file (all different, 1 to 2^24 - 1), else `instance_ids`, or
    1, 2, ... where a class has too many segments for these. Of overlapping segments the lowest layer shows; area and
    box are of the pixels that show. Unknown pixels and nothing become 0: the format has one word for both.
    """
    given = None if segments.keys is None else segments.keys.cpu().numpy()
    keys = panoptic_keys(segments.labels.cpu().numpy(), classes, given)
    shown = Segments(segments.row_map().cpu(), segments.labels.cpu())
    table = segments_info(keys, Bands.of(shown), classes, segments.crowd.cpu().numpy())
    return colours_of_ids(np.append(keys, [0, 0])[shown.ids[0].numpy()]), table


def panoptic_keys(labels: np.ndarray, classes: Classes, keys: np.ndarray | None = None) -> np.ndarray:
    """[N] int64 ids 1..2^24 - 1, all different, for segments of these labels [N]: as `to_panoptic` chooses them."""
    if keys is not None and len(np.unique(keys)) == len(keys) and (keys >= 1).all() and (keys < 1 << 24).all():
        return keys
    crowded = len(labels) and int(np.bincount(labels).max()) >= MOST_INSTANCES
    return np.arange(1, len(labels) + 1) if crowded else instance_ids(labels, classes)


def segments_info(
    keys: np.ndarray, bands: Bands, classes: Classes, crowd: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """COCO's table of the segments that own pixels."""
    counts, boxes, labels = bands.counts.tolist(), bands.boxes.tolist(), bands.labels.tolist()
    table = []
    for row in np.flatnonzero(bands.counts).tolist():
        x0, y0, x1, y1 = boxes[row]
        table.append({"id": int(keys[row]), "category_id": classes.ids[labels[row]], "area": counts[row],
                      "bbox": [x0, y0, x1 - x0, y1 - y0],
                      "iscrowd": int(crowd is not None and crowd[row])})  # fmt: skip
    return table


def instance_ids(labels: np.ndarray, classes: Classes, most: int = MOST_INSTANCES) -> np.ndarray:
    """[N] int64 id on disk of segments of these labels [N]: class id * 1000 + its number within the class, from 1 on.

    Numbers start at 1 so that no row has the id 0. Raises DataError for more than 999 rows of one class and for class
    ids below 0.
    """
    ids = np.zeros(len(labels), np.int64)
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        if len(rows) >= most or classes.ids[label] < 0:
            raise DataError(
                f"class '{classes.names[label]}' (id {classes.ids[label]}) with {len(rows)} segments does not fit into "
                f"ids class * {most} + number."
            )
        ids[rows] = classes.ids[label] * most + np.arange(1, len(rows) + 1)
    return ids


def to_maps(segments: Segments, classes: Classes, *, void: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """Segments -> instance map [H, W] int32 and class map [H, W] int64 of labels, void, or -1 for nothing.

    Things that are no crowd are numbered from 1 in the order of the rows; all other pixels are 0. Where segments
    overlap the lowest layer shows.
    """
    told = classes.is_thing[segments.labels.cpu().numpy()] & ~segments.crowd.cpu().numpy()
    numbers = np.where(told, np.cumsum(told), 0)
    instances = np.append(numbers, [0, 0])[segments.row_map().cpu().numpy()].astype(np.int32)
    return instances, segments.class_map(void, nothing=-1).cpu().numpy()
