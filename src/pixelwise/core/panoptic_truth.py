"""The panoptic builder: one panoptic truth from a class map and the masks of objects, and what had to be decided.

Class maps and object masks come from different hands and contradict each other. Each contradiction has one rule here,
and `Decisions` counts how often it was needed, so that it can be said instead of being silently so.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from pixelwise.core.classes import Classes
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments, smallest_int
from pixelwise.errors import ConfigError, DataError

UNTOLD = -1  # the label of an object whose class is that of most pixels under it
CHOICES = {"overlap": ("smaller", "first", "last"), "outside": ("crowd", "unknown"), "over": ("map", "objects"),
           "holes": ("map", "objects")}  # fmt: skip


@dataclass(frozen=True)
class Decisions:
    """How often a rule of `build` was needed; pixels, but for `lost` and `stuff_objects`. They add up over images.

    overlaps       claimed by several objects
    outside        of a thing class, in no object
    holes          of those: enclosed by an object of their class
    other_class    in an object, of another class by the map: the object is believed
    unknown_under  in an object, unknown by the map
    unlabelled     unknown in the end
    lost           objects that own no pixel in the end
    stuff_objects  objects of a stuff class, joined to its one segment
    """

    overlaps: int = 0
    outside: int = 0
    holes: int = 0
    other_class: int = 0
    unknown_under: int = 0
    unlabelled: int = 0
    lost: int = 0
    stuff_objects: int = 0

    def __add__(self, other: Decisions) -> Decisions:
        return Decisions(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def lines(self, overlap: str = "smaller", outside: str = "crowd", over: str = "map",
              holes: str = "map") -> list[str]:  # fmt: skip
        """A sentence for each decision that was needed; the arguments are the rules that `build` was given.

        >>> Decisions(overlaps=3, lost=1).lines()
        ['pixels of several objects, given to the smaller one: 3', 'objects that own no pixel in the end, left out: 1']
        """
        given = {"smaller": "the smaller one", "first": "the first one", "last": "the last one"}[overlap]
        told = "a crowd of that class" if outside == "crowd" else "now unknown"
        under = "left unknown" if over == "map" else "given to the object"
        inner = "left as all others outside" if holes == "map" else "given to the object"
        said = {
            f"pixels of several objects, given to {given}": self.overlaps,
            f"pixels of a thing class in no object, {told}": self.outside,
            f"pixels in a hole of an object, of its class by the map, {inner}": self.holes,
            "pixels of an object, of another class by the map, given to the object": self.other_class,
            f"pixels of an object, unknown by the map, {under}": self.unknown_under,
            "pixels unknown in the end, which count in no score": self.unlabelled,
            "objects that own no pixel in the end, left out": self.lost,
            "objects of a stuff class, joined to its one segment": self.stuff_objects,
        }
        return [f"{what}: {count:,}" for what, count in said.items() if count]


def build(
    semantic: Segments,
    objects: Segments,
    classes: Classes,
    *,
    overlap: Literal["smaller", "first", "last"] = "smaller",
    outside: Literal["crowd", "unknown"] = "crowd",
    over: Literal["map", "objects"] = "map",
    holes: Literal["map", "objects"] = "map",
) -> tuple[Segments, Decisions]:
    """Panoptic truth, one layer: a row per class for what is in no object, then a row per object.

    semantic  the class map; where its segments overlap the lowest layer shows
    objects   masks that may overlap, in any layers; a label `UNTOLD` (-1) is that of most pixels under the object
    overlap   which of several objects owns a pixel; a crowd always comes last
    outside   pixels of a thing class in no object: a crowd of that class, neither missed nor false, or unknown
    over      pixels of an object that the map leaves unknown: the map is believed (VOC's boundaries), or the objects
              (maps that label stuff alone)
    holes     pixels enclosed by an object, in no object, of its class by the map: as all outside, or the object's
    `keys` are class ids and the objects' keys, where they have any. Raises DataError for two sizes and labels that are
    no class, ConfigError for an unknown rule.

    >>> ground = Segments(np.array([[0, 0, 1, 1, 1]], np.int8), labels=[0, 1])
    >>> car = Segments(np.array([[-1, -1, -1, 0, 0]], np.int8), labels=[1])
    >>> truth, decisions = build(ground, car, Classes(names=("road", "car"), things=("car",)))
    >>> truth.ids.tolist(), truth.labels.tolist(), truth.crowd.tolist(), decisions.outside
    ([[[0, 0, 1, 2, 2]]], [0, 1, 1], [False, True, False], 1)
    """
    for name, word in (("overlap", overlap), ("outside", outside), ("over", over), ("holes", holes)):
        if word not in CHOICES[name]:
            raise ConfigError(f"{name} is {' or '.join(map(repr, CHOICES[name]))}, got {word!r}.")
    if semantic.size != objects.size:
        raise DataError(
            f"the class map is {list(semantic.size)}, the objects are {list(objects.size)} (height, width)."
        )
    owner, overlaps = _owners(objects, overlap)
    ground = semantic.class_map(UNKNOWN, nothing=NOTHING).cpu().numpy()
    merged = Merge(ground, owner, objects.labels.cpu().numpy(), classes, outside=outside, over=over)
    enclosed = merged.holes()
    if holes == "objects" and (enclosed >= 0).any():
        owner = np.where(enclosed >= 0, enclosed, owner)
        merged = Merge(ground, owner, merged.labels, classes, outside=outside, over=over)
    keys = None if objects.keys is None else objects.keys.cpu().numpy()
    truth = merged.segments(objects.crowd.cpu().numpy(), keys)
    return truth, merged.decisions(overlaps, int((enclosed >= 0).sum()))


def _owners(objects: Segments, rule: str) -> tuple[np.ndarray, int]:
    """[H, W] the row that owns each pixel, NOTHING or UNKNOWN; and how many pixels several rows claim."""
    layers, n = objects.ids.cpu().numpy().astype(np.int64), len(objects)
    if len(layers) == 1:
        return layers[0], 0
    order = np.argsort(objects.pixel_counts.cpu().numpy(), kind="stable") if rule == "smaller" else np.arange(n)
    order = order[::-1] if rule == "last" else order
    order = order[np.argsort(objects.crowd.cpu().numpy()[order], kind="stable")]
    rank = np.empty(n + 2, np.int64)
    rank[order], rank[n:] = np.arange(n), n  # the two marks index from the end
    best = rank[layers].min(0)
    owner = np.append(order, NOTHING)[best]
    unknown = (best == n) & (layers == UNKNOWN).any(0)
    return np.where(unknown, UNKNOWN, owner), int(((layers >= 0).sum(0) > 1).sum())


class Merge:
    """A class map and a map of owners joined, by the pairs that occur.

    ground  [H, W] label of each pixel, NOTHING or UNKNOWN
    owner   [H, W] object 0..N-1 of each pixel, or below 0
    labels  [N] class of each object, UNTOLD (-1) for that of most pixels under it; those found are in `labels`
    counts  [N+1, 2+K] pixels of each object by what the map says (unknown, nothing, classes); the last is no object
    """

    def __init__(self, ground: np.ndarray, owner: np.ndarray, labels: np.ndarray, classes: Classes, *,
                 outside: str = "crowd", over: str = "map") -> None:  # fmt: skip
        self.ground, self.classes, self.outside, self.over = ground, classes, outside, over
        n, k = len(labels), len(classes)
        if len(labels) and not UNTOLD <= labels.min() <= labels.max() < k:
            raise DataError(f"objects have the labels {labels.min()} to {labels.max()}; the classes are 0 to {k - 1}.")
        at = np.append(np.arange(n + 1) * (k + 2) + 2, np.full(1, n * (k + 2) + 2)).astype(np.int32)
        self.pairs = at[owner] + ground  # [H, W]; the marks -1 and -2 of `owner` index from the end: no object
        self.counts = np.bincount(self.pairs.ravel(), minlength=(n + 1) * (k + 2)).reshape(n + 1, k + 2)
        votes = self.counts[:n, 2:]
        told = votes.argmax(1) if n else np.zeros(0, np.int64)
        self.labels = np.where(labels >= 0, labels, np.where(votes.any(1), told, UNTOLD))
        self.owner = owner

    @property
    def is_object(self) -> np.ndarray:
        """[N] bool: of a thing class; the others are stuff, or of no class that anything tells."""
        return np.append(self.classes.is_thing, False)[self.labels]

    @property
    def seen(self) -> np.ndarray:
        """[N] bool: has pixels that it may keep."""
        return np.any(self.counts[:-1, 0 if self.over == "objects" else 1 :], axis=1)

    def holes(self) -> np.ndarray:
        """[H, W] the object that encloses a pixel of its class that is in no object, NOTHING elsewhere."""
        found = np.full(self.ground.shape, NOTHING, np.int64)
        bare = np.append(self.classes.is_thing, [False, False])[self.ground] & (self.owner < 0)
        if not bare.any():
            return found
        boxes = ndimage.find_objects((self.owner + 1).clip(0), max_label=len(self.labels))
        for row in np.flatnonzero(self.is_object):
            box = boxes[row]
            if box is None or not bare[box].any():
                continue
            mask = self.owner[box] == row
            inside = ndimage.binary_fill_holes(mask) & ~mask & bare[box] & (self.ground[box] == self.labels[row])
            found[box][inside] = row
        return found

    def segments(self, crowd: np.ndarray, keys: np.ndarray | None) -> Segments:
        """Rows of classes, then of objects that own a pixel; `crowd` and `keys` are of the objects."""
        n, things = len(self.labels), self.classes.is_thing
        own = self.is_object
        kept, stuff = own & self.seen, ~own & (self.labels >= 0)
        plain = self.counts[n, 2:] > 0  # [K] bool: classes that need a row of their own
        plain[self.labels[stuff & self.seen]] = True
        if self.outside == "unknown":
            plain[things] = False
        present = np.flatnonzero(plain)
        class_row = np.full(len(things) + 2, UNKNOWN, np.int64)
        class_row[present], class_row[-1] = np.arange(len(present)), NOTHING
        row = np.tile(np.roll(class_row, 2), (n + 1, 1))  # [N+1, 2+K]: unknown, nothing, classes
        row[:n][kept] = (len(present) + np.arange(int(kept.sum())))[:, None]
        row[:n][stuff] = class_row[self.labels[stuff]][:, None]
        if self.over == "map":
            row[:, 0] = UNKNOWN
        total = len(present) + int(kept.sum())
        ids = row.astype(str(smallest_int(total)).removeprefix("torch."))
        class_keys = np.array(self.classes.ids, np.int64)[present]
        all_keys = None if keys is None else torch.from_numpy(np.concatenate([class_keys, keys[kept]]))
        return Segments(
            torch.from_numpy(ids.ravel()[self.pairs]),
            torch.from_numpy(np.concatenate([present, self.labels[kept]])),
            crowd=torch.from_numpy(np.concatenate([things[present], crowd[kept]])),
            keys=all_keys,
        )

    def decisions(self, overlaps: int = 0, holes: int = 0) -> Decisions:
        n, things = len(self.labels), self.classes.is_thing
        own, rows = self.is_object, np.arange(n)
        on_classes = self.counts[:n, 2:]
        agreed = np.where(self.labels >= 0, on_classes[rows, self.labels], on_classes.sum(1))
        unknown, bare, told_unknown = (
            self.counts[:n, 0],
            int(self.counts[n, 2:][things].sum()),
            self.outside == "unknown",
        )
        return Decisions(
            overlaps=overlaps,
            outside=bare,
            holes=holes,
            other_class=int((on_classes.sum(1) - agreed).sum()),
            unknown_under=int(unknown.sum()),
            unlabelled=int(self.counts[n, 0] + (unknown.sum() if self.over == "map" else 0)) + bare * told_unknown,
            lost=int((own & ~self.seen).sum() + (self.labels < 0).sum()),
            stuff_objects=int((~own & (self.labels >= 0)).sum()),
        )
