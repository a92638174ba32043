"""Class maps and instance maps on disk -> `Segments`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from pixelwise.core.panoptic_truth import UNTOLD, Decisions, Merge
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments, smallest_int
from pixelwise.data.dataset import Record
from pixelwise.data.io import MAX_PIXELS, read_mask
from pixelwise.data.table import Table
from pixelwise.errors import DataError

STRANGE = -3  # in a look-up table: an id that stands in no class table
MIXED = 0.1  # an instance of which more than this share lies on another class is an error


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Reads the truth of a record from its PNGs.

    table    what the ids mean
    aliases  {id on disk: id of the table}, e.g. {255: 1} for masks of 0 and 255
    carried  0, or the factor by which instance ids carry their class: id = class * factor + n
    object_void   ids of the instance map that are unknown (VOC's boundaries 255)
    crowd_below   with `carried`: ids below it are a class without a number: stuff, or a group of things (Cityscapes)
    """

    table: Table
    aliases: dict[int, int] = field(default_factory=dict)
    carried: int = 0
    object_void: tuple[int, ...] = ()
    crowd_below: int = 0
    max_pixels: int = MAX_PIXELS

    def __call__(self, record: Record) -> Segments:
        if record.instances is None:
            assert record.semantic is not None
            return self.semantic(record)
        if record.semantic is None:
            return self.objects(record)
        return self.panoptic(record)

    # -- class maps ---------------------------------------------------------------------------------------------------

    @cached_property
    def _lookup(self) -> np.ndarray:
        """[65536] int16 label of every id, or NOTHING, UNKNOWN, STRANGE."""
        lookup = np.full(65536, STRANGE, np.int16)
        classes = self.table.classes
        rows = {**dict.fromkeys(classes.void, UNKNOWN), **dict.fromkeys(self.table.nothing, NOTHING)}
        rows.update({key: label for label, key in enumerate(classes.ids)})
        rows.update({alias: rows[key] for alias, key in self.aliases.items()})
        for key, row in rows.items():
            if 0 <= key < 65536:
                lookup[key] = row
        return lookup

    @cached_property
    def _small(self) -> np.ndarray:
        """[256] the same for 8-bit maps, in the type that `Segments.ids` wants."""
        return _narrow(self._lookup[:256], len(self.table.classes))

    def labels(self, path: Path | None) -> np.ndarray:
        """[H, W] int8 or int16: label, NOTHING or UNKNOWN. Raises DataError for an id that no table knows."""
        assert path is not None
        ids = read_mask(path, self.table.colours or None, max_pixels=self.max_pixels)
        if ids.dtype == np.uint8:
            labels = cv2.LUT(ids, self._small)
        else:
            inside = (ids >= 0) & (ids < 65536)
            labels = np.where(inside, self._lookup[np.where(inside, ids, 0)], self._outside(ids))
        if labels.size and labels.min() == STRANGE:
            self._refuse(path, ids, labels == STRANGE)
        return labels

    def _outside(self, ids: np.ndarray) -> np.ndarray:
        """Ids that no 16 bits hold (-1, -2 of arrays) may still be void or nothing."""
        void = np.isin(ids, self.table.classes.void)
        return np.where(void, UNKNOWN, np.where(np.isin(ids, self.table.nothing), NOTHING, STRANGE)).astype(np.int16)

    def _refuse(self, path: Path | None, ids: np.ndarray, strange: np.ndarray) -> None:
        found, counts = np.unique(ids[strange], return_counts=True)
        named = ", ".join(f"{i} ({n} pixels)" for i, n in list(zip(found.tolist(), counts.tolist()))[:5])
        classes = self.table.classes
        raise DataError(
            f"{path}: ids that the class table does not know: {named}. It knows {_ranges(classes.ids)} as classes and "
            f"{_ranges(classes.void) or 'none'} as void; add them to classes.txt (`id name`, or `id name void`)."
        )

    def semantic(self, record: Record) -> Segments:
        """One row per class, also those that own no pixel. A thing's row is a crowd: nobody told its objects apart."""
        classes = self.table.classes
        labels = torch.from_numpy(self.labels(record.semantic)).to(smallest_int(len(classes)))
        keys = torch.tensor(classes.ids, dtype=torch.int64)
        return Segments(labels, torch.arange(len(classes)), crowd=torch.from_numpy(classes.is_thing), keys=keys)

    # -- instance maps ------------------------------------------------------------------------------------------------

    def _ids(self, path: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """An instance map as index [H, W], the ids found [n], and the table position[index] in 0..n-1."""
        assert path is not None
        ids = read_mask(path, max_pixels=self.max_pixels)
        if ids.dtype.kind == "i" and ids.size and ids.min() < 0:
            raise DataError(
                f"{path}: the instance id {ids.min()} ({int((ids < 0).sum())} pixels below 0); ids count from 1, and 0 "
                "is no object."
            )
        if ids.dtype.itemsize > 2:
            found, index = np.unique(ids, return_inverse=True)
            return index.reshape(ids.shape), found, np.arange(len(found))
        present = np.bincount(ids.ravel()) > 0
        return ids, np.flatnonzero(present), np.cumsum(present) - 1

    def objects(self, record: Record) -> Segments:
        """Truth from an instance map alone: 0 is nothing, or the class of id 0 where the table has one."""
        index, found, position = self._ids(record.instances)
        row = np.empty(len(found), np.int32)
        labels: list[int] = []
        keys: list[int] = []
        crowd: list[bool] = []
        for at, key in enumerate(found.tolist()):
            label, group = self._meaning(key)
            if label == STRANGE:
                self._refuse_object(record, key, int((position[index] == at).sum()))
            row[at] = len(labels) if label >= 0 else label
            if label >= 0:
                labels.append(label)
                keys.append(key)
                crowd.append(group)
        ids = torch.from_numpy(_narrow(row, len(labels))[position][index])
        return Segments(ids, _int64(labels), crowd=torch.tensor(crowd, dtype=torch.bool), keys=_int64(keys))

    def _meaning(self, key: int) -> tuple[int, bool]:
        """The label (or NOTHING, UNKNOWN, STRANGE) of an instance id, and whether it is a crowd."""
        classes = self.table.classes
        if key in self.object_void:
            return UNKNOWN, False
        if key == 0:
            label = int(self._lookup[0])
            return (NOTHING if label == STRANGE else label), False
        if not self.carried:
            return next(iter(np.flatnonzero(classes.is_thing).tolist()), 0), False
        bare = key < self.crowd_below
        kind = key if bare else key // self.carried
        label = int(self._lookup[kind]) if kind < len(self._lookup) else STRANGE
        return label, bare and label >= 0 and bool(classes.is_thing[label])

    def _refuse_object(self, record: Record, key: int, count: int) -> None:
        kind = key if key < self.crowd_below else key // self.carried
        raise DataError(
            f"{record.instances}: the id {key} ({count} pixels) means class {kind}, which the class table does not "
            f"know; it knows {_ranges(self.table.classes.ids)}."
        )

    # -- both ---------------------------------------------------------------------------------------------------------

    def panoptic(self, record: Record) -> Segments:
        """Stuff from the class map, things from the instance map, joined as `pixelwise.core.panoptic_truth` does.

        The class of an instance is the one under most of its pixels; more than `MIXED` of others is an error. Unknown
        in the class map stays unknown. Pixels of a thing class outside all instances are a crowd of that class.
        """
        merged, keys = self._merge(record)
        self._check_mixed(record, keys, merged.counts[:-1, 2:])
        return merged.segments(np.zeros(len(keys), bool), keys)

    def decisions(self, record: Record) -> Decisions:
        """What had to be decided to join the record's two maps, nothing where it has but one."""
        if not record.semantic or not record.instances:
            return Decisions()
        merged, _ = self._merge(record)
        return merged.decisions(holes=int((merged.holes() >= 0).sum()))

    def _merge(self, record: Record) -> tuple[Merge, np.ndarray]:
        """The two maps joined, and the ids [N] of the instances."""
        labels = self.labels(record.semantic)
        index, found, position = self._ids(record.instances)
        if index.shape != labels.shape:
            raise DataError(
                f"{record.instances} is {index.shape[1]} x {index.shape[0]} pixels, {record.semantic} is "
                f"{labels.shape[1]} x {labels.shape[0]} (width x height); export them at one size."
            )
        single = (found != 0) & ~np.isin(found, self.object_void)
        row = np.where(single, np.cumsum(single) - 1, NOTHING).astype(np.int32)
        keys = found[single].astype(np.int64)
        return Merge(labels, row[position][index], np.full(len(keys), UNTOLD), self.table.classes), keys

    def classes_under(self, record: Record) -> list[int]:
        """The labels that lie under most of some instance."""
        found = np.unique(self._merge(record)[0].labels)
        return found[found >= 0].tolist()

    def _check_mixed(self, record: Record, keys: np.ndarray, on_class: np.ndarray) -> None:
        """Every instance must lie on one class, and that a thing."""
        classes = self.table.classes
        total, best = on_class.sum(1), on_class.argmax(1) if on_class.size else np.zeros(0, int)
        for key, counts, area, label in zip(keys.tolist(), on_class, total.tolist(), best.tolist()):
            if area and counts[label] < (1 - MIXED) * area:
                parts = ", ".join(f"{classes.names[c]} {counts[c]}" for c in np.flatnonzero(counts))
                raise DataError(
                    f"{record.instances}: the instance {key} lies on several classes of {record.semantic} (pixels: "
                    f"{parts}); give each object its own id."
                )
            if area and classes.things and not classes.is_thing[label]:
                raise DataError(
                    f"{record.instances}: the instance {key} ({area} pixels) lies on '{classes.names[label]}', which "
                    "is no thing; write the word `thing` behind that class in classes.txt, or remove it."
                )


def _narrow(rows: np.ndarray, count: int) -> np.ndarray:
    """The same in the smallest integer that `Segments.ids` takes for `count` rows."""
    return rows.astype(np.int8 if count <= 127 else np.int16 if count <= 32767 else np.int32)


def _int64(values: list[int] | np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.int64))


def _ranges(ids: tuple[int, ...]) -> str:
    """(0, 1, 2, 5) -> '0 to 2, 5'."""
    parts: list[list[int]] = []
    for i in sorted(ids):
        if parts and i == parts[-1][-1] + 1:
            parts[-1].append(i)
        else:
            parts.append([i])
    return ", ".join(f"{p[0]} to {p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)
