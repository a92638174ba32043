"""How an exported file agrees with the net in float32, on images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pixelwise.core.modelfile import ModelCard
from pixelwise.errors import DataError
from pixelwise.export.contract import Deployed
from pixelwise.export.running import Run, stored

MOST = 6  # images looked at, evenly spread
TIE = 1e-3  # difference of two labels' logits, relative to the largest, that float32 may turn
CLOSE = 1e-3  # relative difference of raw numbers
DRAWN = ((256, 384), (250, 379))  # sizes of the streets
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


@dataclass(frozen=True)
class Agreement:
    """images  that were looked at      pixels  or objects or numbers, compared
    equal   share of them that is equal (pixels) or close, 0..1
    ties    pixels that differ where two labels are equally likely in float32
    """

    images: int
    pixels: int
    equal: float
    ties: int
    what: str

    @property
    def good(self) -> bool:
        """Whether all that differs are ties; one number in a thousand, or one object, may be moved over a threshold."""
        if self.what == "pixels":
            return round((1 - self.equal) * self.pixels) <= self.ties
        return round((1 - self.equal) * self.pixels) <= max(self.what == "objects", CLOSE * self.pixels)

    def __str__(self) -> str:
        if not self.pixels:
            said = f"no {self.what} on {self.images} images, so nothing was compared"
            return f"{said}: name images that show some by --images"
        ties = f", {self.ties} of the others are ties" if self.ties else ""
        return f"{self.equal:.4%} of {self.pixels:,} {self.what} of {self.images} images equal{ties}"


def measure(run: Run, deployed: Deployed, net: nn.Module, card: ModelCard, about: Mapping[str, Any],
            images: str | Path | None) -> Agreement:  # fmt: skip
    """Runs the file and the net on the images of a folder; None: on drawn streets. Raises DataError where there is no
    image that the net takes."""
    what = "pixels" if deployed.dense is not None else "objects" if "boxes" in deployed.names else "numbers"
    seen = equal = total = ties = 0
    for image in _pictures(images, card):
        pixels = stored(image, about)
        if min(pixels.shape[1:3]) < about["input"]["least"]:
            continue
        found = run(pixels)
        both = COMPARED[what](found, pixels, deployed)
        equal, total, ties, seen = equal + both[0], total + both[1], ties + both[2], seen + 1
    if not seen:
        raise DataError(
            f"{images} has no image of at least {about['input']['least']} pixels a side to try the file on."
        )
    return Agreement(seen, total, equal / total if total else 1.0, ties, what)


@torch.no_grad()
def _pixels(found: Mapping[str, np.ndarray], pixels: np.ndarray, deployed: Deployed) -> tuple[int, int, int]:
    """Equal pixels, all pixels, and those that differ in a tie."""
    assert deployed.dense is not None
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    logits = deployed.inner(deployed.preprocessing(images)).logits
    corners = deployed.dense.align_corners
    full = F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=corners)[0]
    if deployed.dense.activation == "sigmoid":
        full = torch.cat([full, torch.zeros_like(full[:1])])
    given = torch.from_numpy(found["labels"][0].astype(np.int64))
    apart = full.amax(0) - full.gather(0, given[None])[0]
    differ = given != full.argmax(0)
    tied = differ & (apart <= TIE * full.abs().max())
    return int((~differ).sum()), differ.numel(), int(tied.sum())


@torch.no_grad()
def _numbers(found: Mapping[str, np.ndarray], pixels: np.ndarray, deployed: Deployed) -> tuple[int, int, int]:
    """Numbers that are close, and all; a tensor of another shape agrees nowhere."""
    expected = deployed(torch.from_numpy(pixels))
    close = total = 0
    for one, other in zip(expected, found.values(), strict=True):
        total += one.numel()
        if tuple(one.shape) == other.shape and one.numel():
            allowed = CLOSE * max(1.0, float(one.float().abs().max()))
            close += int(np.isclose(one.numpy(), other, rtol=CLOSE, atol=allowed).sum())
    return close, total, 0


@torch.no_grad()
def _objects(found: Mapping[str, np.ndarray], pixels: np.ndarray, deployed: Deployed) -> tuple[int, int, int]:
    """Objects of the net for which the file has one of the same label, box (to half a pixel), score (to a hundredth)
    and mask (to a hundredth of its cells); of how many. Further ones of the file count as unequal."""
    seen = deployed.preprocessing(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    expected: Any = deployed.inner.net(seen)
    left, equal = list(range(len(found["scores"]))), 0
    rows = zip(expected.boxes[0].numpy(), expected.scores[0].numpy(), expected.labels[0].numpy(),
               expected.masks[0].numpy(), strict=True)  # fmt: skip
    for box, score, label, mask in rows:
        for j in left:
            same = found["labels"][j] == label and abs(found["scores"][j] - score) <= 0.01
            if same and np.abs(found["boxes"][j] - box).max() <= 0.5:
                equal += bool(((found["masks"][j] >= 0.5) == (mask >= 0.5)).mean() >= 0.99)
                left.remove(j)
                break
    return equal, len(expected.scores[0]) + len(left), 0


def _pictures(folder: str | Path | None, card: ModelCard) -> list[Any]:
    """Images to try a file on. Raises DataError for a folder without, and for channels that cannot be drawn."""
    if folder is None:
        if card.preprocessing.channels not in (1, 3):
            raise DataError(f"Images of {card.preprocessing.channels} channels cannot be drawn: name some by --images.")
        from pixelwise.data.streets import draw_scene

        return [draw_scene(0, index, size).image for index, size in enumerate(DRAWN)]
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in IMAGES)
    if not paths:
        raise DataError(f"{folder} has no image ({', '.join(IMAGES)}) to try the file on.")
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(MOST, len(paths))).round().astype(int))]


COMPARED = {"pixels": _pixels, "objects": _objects, "numbers": _numbers}
