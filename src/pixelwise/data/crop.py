"""Random crops that are not all road, and that look where the rare classes are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pixelwise.core.sample import Sample
from pixelwise.core.segments import UNKNOWN
from pixelwise.data.geometry import Placement, translation
from pixelwise.data.warp import Geometric, check_range, check_size, count_rows, warp_ids

LATTICE = 40  # points along the longer side at which a crop's classes are counted


@dataclass(frozen=True)
class RandomCrop(Geometric):
    """Cuts out `size` (height, width); a smaller image lies somewhere inside it, mirrored around, ids UNKNOWN there.

    max_class_share   where one class (or nothing) has more than this share of the known pixels, another place is drawn,
                      at most `tries` times, and the last one taken; counted on a lattice of about 1,000 points
    focus             probability that the crop shows a pixel of a class drawn by `weights` among those in the image;
                      without weights a pixel of a segment (an object), each segment equally likely
    weights           [K] one number per label, e.g. one over the class's share
    min_visible, things   see `Placement`
    Raises ConfigError for shares and probabilities outside 0..1.
    """

    size: tuple[int, int]
    max_class_share: float = 1.0
    tries: int = 10
    focus: float = 0.0
    weights: tuple[float, ...] = ()
    min_visible: float = 0.0
    things: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        check_size(self.size)
        check_range(self, ("max_class_share", "focus", "min_visible"))

    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        p = replace(p, min_visible=self.min_visible, things=self.things)
        point = self._focus_point(p, sample, rng) if rng.random() < self.focus else None
        for _ in range(max(1, self.tries)):
            crop = self._draw(p, rng, point)
            if self.max_class_share >= 1 or sample.truth is None or self._mixed(crop, sample):
                break
        return crop

    def _draw(self, p: Placement, rng: np.random.Generator, point: tuple[float, float] | None) -> Placement:
        """A place for the crop; with `point` (x, y) one that shows it wherever the image's border allows."""
        corner = []
        for axis, at in ((1, 0), (0, 1)):  # x, then y
            room = p.size[axis] - self.size[axis]
            low, high = min(0, room), max(0, room)
            if point is not None and room > 0:
                centre = int(np.floor(point[at]))
                low, high = (int(np.clip(v, 0, room)) for v in (centre - self.size[axis] + 1, centre))
            corner.append(int(rng.integers(low, high + 1)))
        return p.then(translation(corner[0], corner[1]), self.size)

    def _mixed(self, crop: Placement, sample: Sample) -> bool:
        assert sample.truth is not None
        step = max(1, max(self.size) // LATTICE)
        rows = warp_ids(sample.truth.ids[:1].numpy(), crop, step)
        rows = rows[rows != UNKNOWN]
        if not len(rows):
            return False
        labels = sample.truth.labels.numpy()
        shares = np.bincount(np.append(labels, labels.max(initial=-1) + 1)[rows])  # NOTHING, -1, reads the last
        return bool(shares.max() <= self.max_class_share * shares.sum())

    def _focus_point(self, p: Placement, sample: Sample, rng: np.random.Generator) -> tuple[float, float] | None:
        """A random pixel (x, y in `p`) of what the focus is on; None where the image has nothing of it."""
        if sample.truth is None or not len(sample.truth):
            return None
        ids, labels = sample.truth.ids.numpy(), sample.truth.labels.numpy()
        counts = count_rows(ids, len(labels))
        chance = (counts > 0).astype(float)
        if self.weights:
            per_class = np.bincount(labels, counts, minlength=len(self.weights))
            wanted = np.array(self.weights) * (per_class > 0)
            # a class's weight is shared among its rows by their pixels
            chance = wanted[labels] * counts / np.maximum(per_class[labels], 1)
        if chance.sum() <= 0:
            return None
        row = rng.choice(len(chance), p=chance / chance.sum())
        _, ys, xs = np.nonzero(ids == row)
        at = rng.integers(len(ys))
        x, y = p.to_output(np.array([xs[at] + 0.5]), np.array([ys[at] + 0.5]))
        return float(x[0]), float(y[0])
