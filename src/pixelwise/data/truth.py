"""Class maps and instance maps on disk -> `Segments`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
        return self._lookup[:256].astype(np.int8 if len(self.table.classes) <= 127 else np.int16)

    def labels(self, path: Path | None) -> np.ndarray:
        """[H, W] int8 or int16: label, NOTHING or UNKNOWN. Raises DataError for an id that no table knows."""
        assert path is not None
        ids = read_mask(path, self.table.colours or None, max_pixels=self.max_pixels)
        if ids.dtype == np.uint8:
            labels = np.take(self._small, ids)
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
        """The map of an instance file: ids [H, W], the ids found [n], and which of them each pixel has [H, W]."""
        assert path is not None
        ids = read_mask(path, max_pixels=self.max_pixels)
        if ids.size and ids.min() >= 0 and ids.max() < 65536:
            present = np.bincount(ids.ravel(), minlength=1) > 0
            return ids, np.flatnonzero(present), (np.cumsum(present) - 1)[ids]
        found, inverse = np.unique(ids, return_inverse=True)
        return ids, found, inverse.reshape(ids.shape)

    def objects(self, record: Record) -> Segments:
        """Truth from an instance map alone: 0 is nothing, or the class of id 0 where the table has one."""
        ids, found, inverse = self._ids(record.instances)
        classes = self.table.classes
        label_of = {key: label for label, key in enumerate(classes.ids)}
        ground = label_of.get(0, UNKNOWN if 0 in classes.void else NOTHING)
        thing = next(iter(np.flatnonzero(classes.is_thing).tolist()), 0)
        row = np.empty(len(found), np.int32)
        labels: list[int] = []
        keys: list[int] = []
        crowd: list[bool] = []
        for at, key in enumerate(found.tolist()):
            if key in self.object_void:
                row[at] = UNKNOWN
                continue
            if key == 0 and ground < 0:
                row[at] = ground
                continue
            label = ground if key == 0 else thing
            group = False
            if self.carried and key:
                bare = key < max(self.crowd_below, 1)
                kind = key if bare else key // self.carried
                if kind in classes.void or kind in self.table.nothing:
                    row[at] = UNKNOWN if kind in classes.void else NOTHING
                    continue
                if kind not in label_of:
                    self._strange_object(record, key, kind, int((ids == key).sum()))
                label = label_of[kind]
                group = bare and bool(classes.is_thing[label])
            row[at] = len(labels)
            labels.append(label)
            keys.append(key)
            crowd.append(group)
        rows = torch.from_numpy(row[inverse]).to(smallest_int(len(labels)))
        return Segments(rows, _int64(labels), crowd=torch.tensor(crowd, dtype=torch.bool), keys=_int64(keys))

    def _strange_object(self, record: Record, key: int, kind: int, count: int) -> None:
        raise DataError(
            f"{record.instances}: the id {key} ({count} pixels) means class {kind}, which the class table does "
            f"not know; it knows {_ranges(self.table.classes.ids)}."
        )

    def panoptic(self, record: Record) -> Segments:
        """Stuff from the class map, things from the instance map.

        The class of an instance is the one under most of its pixels; more than `MIXED` of others is an error. Unknown
        in the class map stays unknown. Pixels of a thing class outside all instances are a crowd of that class.
        """
        labels, found, inverse, counts, ground = self._overlap(record)
        classes, n, k = self.table.classes, len(found), len(self.table.classes)
        on_class = counts[~ground, 2:]  # [objects, K]
        self._check_mixed(record, found[~ground], on_class)
        owner = np.full(n, -1, np.int64)
        owned = on_class.sum(1) > 0
        objects = np.flatnonzero(~ground)[owned]
        under = counts[ground, 2:].sum(0)  # class pixels outside all instances
        bare = np.flatnonzero(under)
        owner[objects] = len(bare) + np.arange(len(objects))
        row_of_label = np.full(k + 2, -1, np.int64)
        row_of_label[:2] = UNKNOWN, NOTHING
        row_of_label[2 + bare] = np.arange(len(bare))
        rows = np.where((owner[inverse] >= 0) & (labels != UNKNOWN), owner[inverse], row_of_label[labels + 2])
        object_labels = on_class[owned].argmax(1)
        crowd = np.concatenate([classes.is_thing[bare], np.zeros(len(objects), bool)])
        keys = np.concatenate([np.array(classes.ids, np.int64)[bare], found[objects]])
        ids = torch.from_numpy(rows).to(smallest_int(len(keys)))
        labels = np.concatenate([bare, object_labels])
        return Segments(ids, _int64(labels), crowd=torch.from_numpy(crowd), keys=_int64(keys))

    def _overlap(self, record: Record) -> tuple[np.ndarray, ...]:
        """Labels [H, W]; ids found [n]; which each pixel has [H, W]; pixels by id and label [n, 2+K]; ground [n]."""
        labels = self.labels(record.semantic).astype(np.int64)
        _, found, inverse = self._ids(record.instances)
        if inverse.shape != labels.shape:
            raise DataError(
                f"{record.instances} is {inverse.shape[1]} x {inverse.shape[0]} pixels, {record.semantic} is "
                f"{labels.shape[1]} x {labels.shape[0]} (width x height); export them at one size."
            )
        k, n = len(self.table.classes), len(found)
        counts = np.bincount((inverse * (k + 2) + labels + 2).ravel(), minlength=n * (k + 2)).reshape(n, k + 2)
        return labels, found, inverse, counts, (found == 0) | np.isin(found, self.object_void)

    def classes_under(self, record: Record) -> list[int]:
        """The labels that lie under most of some instance."""
        _, _, _, counts, ground = self._overlap(record)
        on_class = counts[~ground, 2:]
        return np.unique(on_class[on_class.sum(1) > 0].argmax(1)).tolist() if on_class.size else []

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
