"""One pass over a split: pixels and images per class, objects, channel mean and deviation, sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.core.segments import Segments
from pixelwise.data.dataset import DataSet
from pixelwise.errors import DataError


@dataclass(frozen=True)
class Statistics:
    """What a split holds.

    pixel_counts  [K] int64 pixels of each class, void left out
    image_counts  [K] int64 images that show it
    seen_counts   [K] int64 known pixels (of any class) of the images that show it
    object_counts [K] int64 objects of each class (crowds left out); 0 for stuff
    objects       per image how many objects, in the records' order
    mean, std     [C] float64 in 0..1 of the stored range, over all pixels of all images
    sizes         {(height, width): images}
    images        how many were read
    void, nothing pixels that are unknown, and known to be of no class
    """

    pixel_counts: np.ndarray
    image_counts: np.ndarray
    seen_counts: np.ndarray
    object_counts: np.ndarray
    objects: tuple[int, ...]
    mean: np.ndarray
    std: np.ndarray
    sizes: dict[tuple[int, int], int]
    images: int
    void: int = 0
    nothing: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "images": self.images,
            "pixel_counts": self.pixel_counts.tolist(),
            "image_counts": self.image_counts.tolist(),
            "seen_counts": self.seen_counts.tolist(),
            "object_counts": self.object_counts.tolist(),
            "objects": list(self.objects),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "sizes": [[h, w, n] for (h, w), n in sorted(self.sizes.items())],
            "void": self.void,
            "nothing": self.nothing,
        }


def statistics(dataset: DataSet, split: str = "train", limit: int | None = None) -> Statistics:
    """Reads the images of a split once, `limit` of them spread evenly where given.

    Raises DataError for an unknown split and for files that cannot be read.
    """
    records = dataset.records(split)
    if limit is not None and limit < len(records):
        if limit < 1:
            raise DataError(f"statistics need at least one image, got limit={limit}.")
        records = tuple(records[i] for i in np.linspace(0, len(records) - 1, limit).round().astype(int))
    k, top = len(dataset.classes), 65535 if dataset.dtype == "uint16" else 255
    pixel_counts, image_counts, seen_counts, object_counts = (np.zeros(k, np.int64) for _ in range(4))
    histogram = np.zeros((dataset.channels, top + 1), np.int64)  # exact sums at any size
    sizes: Counter[tuple[int, int]] = Counter()
    objects, void, nothing = [], 0, 0
    is_thing = dataset.classes.is_thing
    for record in records:
        sample = dataset.read(record)
        sizes[sample.size] += 1
        for c, channel in enumerate(sample.image.numpy()):
            histogram[c] += np.bincount(channel.ravel(), minlength=top + 1)
        truth = sample.truth
        if truth is None:
            continue
        labels = truth.labels.numpy()
        counts, unknown, bare = count_pixels(truth)
        mine = np.bincount(labels, weights=counts, minlength=k).astype(np.int64)
        pixel_counts += mine
        image_counts += mine > 0
        seen_counts += np.where(mine > 0, mine.sum() + bare, 0)
        single = is_thing[labels] & ~truth.crowd.numpy() & (counts > 0)
        object_counts += np.bincount(labels[single], minlength=k)
        objects.append(int(single.sum()))
        void += unknown
        nothing += bare
    values = np.arange(top + 1) / top
    total = histogram.sum(1)
    mean = histogram @ values / total
    std = np.sqrt(np.maximum(histogram @ values**2 / total - mean**2, 0))
    return Statistics(pixel_counts, image_counts, seen_counts, object_counts, tuple(objects), mean, std, dict(sizes),
                      len(records), void, nothing)  # fmt: skip


def count_pixels(truth: Segments) -> tuple[np.ndarray, int, int]:
    """Pixels of each row [N], unknown pixels, and pixels known to be nothing."""
    layers, n = truth.ids.numpy(), len(truth)
    shifted = layers.astype(np.int32) + 2  # NOTHING and UNKNOWN become 1 and 0
    counts = np.bincount(shifted.ravel(), minlength=n + 2)
    if len(layers) == 1:
        return counts[2:], int(counts[0]), int(counts[1])
    unknown = int(truth.unknown.sum())
    return counts[2:], unknown, layers[0].size - unknown - int((layers >= 0).any(0).sum())
