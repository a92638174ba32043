"""Copy-paste (Ghiasi et al. 2020, 2012.07177): objects of another image, jittered by themselves, laid over this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from pixelwise.core.sample import Sample, image_tensor
from pixelwise.core.segments import BOX, MASK, NOTHING, Segments, smallest_int
from pixelwise.data.warp import (
    Pick,
    Transform,
    check_range,
    count_rows,
    forget_boxes,
    keep_rows,
    measure_masks,
    pixels_of,
)
from pixelwise.errors import ConfigError, DataError


@dataclass(frozen=True)
class CopyPaste:
    """With `probability`, pastes a random subset of another sample's objects where that sample shows them.

    jitter       what is done to the other sample first; it must give the size of the sample at hand (a crop last)
    blend        standard deviation, in pixels, of a Gaussian over the edge of what is pasted; 0 cuts hard, which the
                 paper finds to be as good
    min_visible  objects of which less than this share is left become UNKNOWN; covered ones are gone in any case
    things       [K] bool, labels whose objects are pasted and dropped; empty means all

    One object up to all are pasted, every number equally likely. Crowds, boxes, tags and scribbles never are: nobody
    told where such objects end. A sample without truth, and one that picks a sample without objects, stays as it is.
    """

    jitter: Transform
    probability: float = 0.5
    blend: float = 0.0
    min_visible: float = 0.0
    things: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        check_range(self, ("probability", "min_visible"))
        if not 0 <= self.blend < 1000:
            raise ConfigError(f"CopyPaste: blend must be at least 0 pixels, got {self.blend}.")

    def __call__(self, sample: Sample, rng: np.random.Generator, pick: Pick) -> Sample:
        if rng.random() >= self.probability or sample.truth is None:
            return sample
        source = self.jitter(pick(rng), rng, pick)
        if source.truth is None:
            return sample
        objects = whole_objects(source.truth, self.things)
        if not len(objects):
            return sample
        rows = rng.choice(objects, int(rng.integers(1, len(objects) + 1)), replace=False)
        return paste(sample, source, rows, blend=self.blend, min_visible=self.min_visible, things=self.things)


def whole_objects(truth: Segments, things: Sequence[bool] = ()) -> np.ndarray:
    """Row numbers of the things that own pixels and whose outline is known: masks that are no crowd."""
    fit = (count_rows(truth.ids.numpy(), len(truth)) > 0) & ~truth.crowd.numpy()
    if things:
        fit &= np.array(things)[truth.labels.numpy()]
    if truth.kind is not None:
        fit &= truth.kind.numpy() == MASK
    return np.flatnonzero(fit)


def paste(
    sample: Sample,
    source: Sample,
    rows: np.ndarray,
    *,
    blend: float = 0.0,
    min_visible: float = 0.0,
    things: Sequence[bool] = (),
) -> Sample:
    """The sample with the objects `rows` of `source` over it; both must have truth and be of one size.

    What is pasted hides whatever was there, in every layer, void too. Rows that had pixels and have none left are gone;
    those left with less than `min_visible` of what they had (box rows: of their box) become UNKNOWN. `given_areas`
    shrink with what is hidden. The pasted rows come last, in the order of `rows`; `keys` go, since they are of two
    files. Raises DataError where size, channels or depth of the two differ.
    """
    _check(sample, source)
    assert sample.truth is not None
    assert source.truth is not None
    host, theirs = sample.truth, source.truth
    ids, covered = _merge(host, theirs, rows)
    pixels = _blend(pixels_of(sample), pixels_of(source), covered, blend)
    truth = _drop_hidden(ids, covered, host, _join(host, theirs, rows), min_visible, things)
    return replace(sample, image=image_tensor(pixels), truth=truth)


def _check(sample: Sample, source: Sample) -> None:
    a, b = sample.image, source.image
    if a.shape != b.shape or a.dtype != b.dtype:
        raise DataError(
            f"Objects of '{source.name}' ({list(b.shape)} {b.dtype}) cannot be pasted into '{sample.name}' "
            f"({list(a.shape)} {a.dtype}): channels, height, width and depth must agree."
        )


def _merge(host: Segments, theirs: Segments, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ids [L, H, W] with the pasted rows behind the host's, and [H, W] bool where something is pasted."""
    kind = np.dtype(str(smallest_int(len(host) + len(rows))).removeprefix("torch."))
    lookup = np.full(len(theirs) + 2, NOTHING, kind)
    lookup[rows] = len(host) + np.arange(len(rows))
    pasted = lookup[theirs.ids.numpy()]
    covered = (pasted >= 0).any(0)
    layers = max(len(host.ids), len(pasted))
    ids = np.full((layers, *host.size), NOTHING, kind)
    ids[: len(host.ids)] = host.ids.numpy()
    for layer in range(layers):
        np.copyto(ids[layer], pasted[layer] if layer < len(pasted) else NOTHING, where=covered)
    return ids, covered


def _blend(pixels: np.ndarray, over: np.ndarray, covered: np.ndarray, sigma: float) -> np.ndarray:
    """[H, W, C]: `over` where `covered`, across its edge both by the share that a Gaussian of `sigma` leaves of it."""
    out = pixels.copy()
    cv2.copyTo(over, covered.view(np.uint8), out)
    if sigma > 0:
        share = cv2.GaussianBlur(covered.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        edge = np.flatnonzero((share > 0.002) & (share < 0.998))  # elsewhere it is less than half a level of 8 bits
        part, flat = share.ravel()[edge, None], (-1, pixels.shape[2])
        mixed = pixels.reshape(flat)[edge] * (1 - part) + over.reshape(flat)[edge] * part
        out.reshape(flat)[edge] = np.rint(mixed).astype(pixels.dtype)
    return out


def _join(host: Segments, theirs: Segments, rows: np.ndarray) -> dict[str, Tensor | None]:
    """The table's columns of the host's rows and, behind them, of the pasted ones."""
    at = torch.from_numpy(np.asarray(rows, np.int64))
    columns: dict[str, Tensor | None] = {"keys": None}
    for name in ("labels", "scores", "crowd"):
        columns[name] = torch.cat([getattr(host, name), getattr(theirs, name)[at]])
    if host.given_areas is not None or theirs.given_areas is not None:
        columns["given_areas"] = torch.cat([host.areas, theirs.areas[at]])
    if host.kind is not None:
        columns["kind"] = torch.cat([host.kind, host.kind.new_full((len(at),), MASK)])
    if host.given_boxes is not None:
        columns["given_boxes"] = torch.cat([host.given_boxes, host.given_boxes.new_zeros((len(at), 4))])
    return columns


def _drop_hidden(
    ids: np.ndarray,
    covered: np.ndarray,
    host: Segments,
    columns: dict[str, Tensor | None],
    min_visible: float,
    things: Sequence[bool],
) -> Segments:
    """Without the host's rows of which too little is left to see."""
    labels = columns["labels"]
    assert labels is not None
    total, n = len(labels), len(host)
    before, lost = count_rows(host.ids.numpy(), n), count_rows(host.ids.numpy()[:, covered], n)
    share = np.ones(total)
    share[:n] = 1 - lost / np.maximum(before, 1)
    box_row = np.zeros(total, bool)
    if host.kind is not None and host.given_boxes is not None:
        box_row[:n] = host.kind.numpy() == BOX
        share[box_row] = 1 - _covered_share(covered, host.given_boxes.numpy()[box_row[:n]])
    seen = share > 0
    hidden = seen & (share < min_visible)
    if things:
        hidden &= np.array(things)[labels.numpy()]
    if (hidden & box_row).any() and host.given_boxes is not None:
        forget_boxes(ids, host.given_boxes.numpy()[(hidden & box_row)[:n]])
    areas = columns.get("given_areas")
    if areas is not None:
        columns["given_areas"] = areas * torch.from_numpy(share).float()
    return measure_masks(keep_rows(ids, seen & ~hidden, hidden, columns))


def _covered_share(covered: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """[M] share of the pixels of each box [M, 4] that are covered, 0 for boxes without a pixel."""
    sums = cv2.integral(covered.astype(np.uint8))  # [H+1, W+1]
    height, width = covered.shape
    x0, y0, x1, y1 = np.round(boxes).astype(int).T.clip(0)
    x0, x1, y0, y1 = x0.clip(max=width), x1.clip(max=width), y0.clip(max=height), y1.clip(max=height)
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return inside / np.maximum((x1 - x0) * (y1 - y0), 1)
