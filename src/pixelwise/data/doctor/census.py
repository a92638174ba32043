"""How often each class comes, how many objects an image has, and what of that will trouble a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixelwise.core.classes import Classes
from pixelwise.data.doctor.contents import Contents
from pixelwise.data.doctor.faults import Faults

STRONG = 100  # commonest to rarest class, from which on plain cross-entropy overlooks the rare one


@dataclass
class Census:
    """Sums over the masks of a split: pixels, images and objects [K] int64 of each class, void left out.

    per_image  objects in each image
    """

    pixels: np.ndarray
    images: np.ndarray
    objects: np.ndarray
    per_image: list[int] = field(default_factory=list)
    void: int = 0
    nothing: int = 0
    masks: int = 0

    @classmethod
    def empty(cls, k: int) -> Census:
        return cls(np.zeros(k, np.int64), np.zeros(k, np.int64), np.zeros(k, np.int64))

    def add(self, contents: Contents) -> None:
        assert contents.pixels is not None
        assert contents.objects is not None
        self.pixels += contents.pixels
        self.images += contents.pixels > 0
        self.objects += contents.objects
        self.per_image.append(int(contents.objects.sum()))
        self.void += contents.void
        self.nothing += contents.nothing
        self.masks += 1

    @property
    def shares(self) -> np.ndarray:
        """[K] share of each class in the known pixels."""
        known = int(self.pixels.sum()) + self.nothing
        return self.pixels / max(known, 1)

    def to_dict(self) -> dict[str, Any]:
        return {"masks": self.masks, "pixels": self.pixels.tolist(), "images": self.images.tolist(),
                "objects": self.objects.tolist(), "objects_per_image": self.per_image, "void": self.void,
                "nothing": self.nothing}  # fmt: skip


def judge(censuses: dict[str, Census], classes: Classes, faults: Faults) -> None:
    """Classes that never come, and strong imbalance; of the training split, or of the only one."""
    main = "train" if "train" in censuses else next(iter(censuses), None)
    if main is None:
        return
    for split, census in censuses.items():
        for k in np.flatnonzero(census.pixels == 0):
            where = "" if split == main else f" in '{split}'"
            faults.add("absent-class" if split == main else "absent-elsewhere", None, f"{classes.names[k]}{where}")
    shares = censuses[main].shares
    present = np.flatnonzero(shares)
    if len(present) > 1:
        rare, common = present[shares[present].argmin()], present[shares[present].argmax()]
        ratio = shares[common] / shares[rare]
        if ratio >= STRONG:
            faults.add("imbalance", None, f"'{classes.names[common]}' has {ratio:,.0f} times the pixels of "
                                          f"'{classes.names[rare]}'")  # fmt: skip
