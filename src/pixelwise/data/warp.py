"""Image and truth through one `Placement`: only what the output shows is computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.sample import Sample, image_tensor
from pixelwise.core.segments import BOX, NOTHING, TAG, UNKNOWN, Segments, smallest_int
from pixelwise.data.geometry import Placement
from pixelwise.data.resample import rows_seen, warp_image
from pixelwise.errors import ConfigError
from pixelwise.kernels.rows import count, pick, replaced

Pick = Callable[[np.random.Generator], Sample]
Transform = Callable[[Sample, np.random.Generator, Pick], Sample]


class Geometric(ABC):
    """A transform that only moves where the output looks; see `Placement`."""

    @abstractmethod
    def place(self, p: Placement, sample: Sample, rng: np.random.Generator) -> Placement:
        """One step further. Draws from `rng`; reads, but never warps, the sample."""

    def __call__(self, sample: Sample, rng: np.random.Generator, pick: Pick) -> Sample:
        return warp(sample, self.place(Placement.whole(sample.size), sample, rng))


def check_size(size: tuple[int, int]) -> None:
    """Raises ConfigError unless it is (height, width) of at least one pixel."""
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"A size must be (height, width) of at least 1 pixel, got {size}.")


def check_range(owner: object, names: tuple[str, ...], low: float = 0.0, high: float = 1.0) -> None:
    """Raises ConfigError unless these fields of a transform lie in low..high."""
    for name in names:
        value = getattr(owner, name)
        if not low <= value <= high:
            raise ConfigError(f"{type(owner).__name__}: {name} must lie in {low:g}..{high:g}, got {value}.")


def pixels_of(sample: Sample) -> np.ndarray:
    """The image as [H, W, C] on the same memory where it lies so."""
    return np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())


def warp(sample: Sample, p: Placement) -> Sample:
    """The sample as `p` shows it: a new image and a new truth of `p.size`.

    Rows that show no pixel (box rows: no part of the box) are dropped; so are rows below `p.min_visible`, and their
    pixels become UNKNOWN. Tag rows stay: they speak of the whole image. `given_areas` shrink with the share that is
    seen and grow with the scale. Boxes of box rows are warped as boxes (a turned box is the box around it) and
    clipped; rows that own pixels have the box around those.
    """
    truth = None if sample.truth is None else warp_truth(sample.truth, p)  # first: it may want more of the files
    first, last = rows_seen(p)
    image = image_tensor(warp_image(sample.rows(first, last), p, first))
    return replace(sample, image=image, truth=truth)


def warp_truth(truth: Segments, p: Placement) -> Segments:
    """See `warp`."""
    n = len(truth)
    ids = warp_ids(truth.ids.numpy(), p)
    after = count_rows(ids, n)
    before = None
    if p.min_visible > 0 or truth.given_areas is not None:
        before = count_rows(truth.ids.numpy(), n)
    kept = after > 0
    share = kept.astype(float) if before is None else after / np.maximum(before, 1) / p.magnification
    box_row, tag_row = (np.zeros(n, bool) if truth.kind is None else truth.kind.numpy() == kind for kind in (BOX, TAG))
    boxes, box_share = np.zeros((n, 4)), np.zeros(n)
    if truth.given_boxes is not None:
        boxes, box_share = warp_boxes(truth.given_boxes.numpy(), p)
        share = np.where(box_row | tag_row, box_share, share)
        kept |= box_row & (box_share > 0)
    hidden = kept & (share < p.min_visible) & ~tag_row
    if p.things:
        hidden &= np.array(p.things)[truth.labels.numpy()]
    kept |= tag_row
    forget_boxes(ids, boxes[hidden & box_row])
    columns = _columns(truth, after, before, share, p)
    columns["given_boxes"] = None if truth.given_boxes is None else torch.from_numpy(boxes).float()
    return measure_masks(keep_rows(ids, kept & ~hidden, hidden, columns))


def count_rows(ids: np.ndarray, rows: int) -> np.ndarray:
    """[N] pixels that each row owns."""
    return count(ids, rows)[2:]


def warp_boxes(boxes: np.ndarray, p: Placement) -> tuple[np.ndarray, np.ndarray]:
    """[N, 4] x0 y0 x1 y1 -> boxes around the warped boxes, clipped to the output, and [N] the share of each in it.

    Nine points of each edge are followed, so that a bend is met too.
    """
    t = np.linspace(0, 1, 9)
    along, across = np.concatenate([t, t, 0 * t, 0 * t + 1]), np.concatenate([0 * t, 0 * t + 1, t, t])  # [36] each
    x0, y0, x1, y1 = boxes.astype(float).T[:, :, None]  # [N, 1] each
    x, y = p.to_output(x0 + (x1 - x0) * along, y0 + (y1 - y0) * across)  # [N, 36]
    full = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], 1)
    seen = full.copy()
    seen[:, 0::2] = seen[:, 0::2].clip(0, p.size[1])
    seen[:, 1::2] = seen[:, 1::2].clip(0, p.size[0])
    area, seen_area = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (full, seen))
    return seen, seen_area / np.maximum(area, 1e-9)


def _columns(
    truth: Segments, after: np.ndarray, before: np.ndarray | None, share: np.ndarray, p: Placement
) -> dict[str, Tensor | None]:
    """The table's columns for the output, of all rows, without boxes."""
    columns = {name: getattr(truth, name) for name in ("labels", "scores", "crowd", "keys", "kind")}
    areas = truth.given_areas
    if areas is not None and before is not None:
        # by pixels where the row has any, else (box and tag rows) by its box
        grown = np.where(before > 0, after / np.maximum(before, 1), share * p.magnification)
        areas = areas * torch.from_numpy(grown).float()
    return {**columns, "given_areas": areas}


def measure_masks(truth: Segments) -> Segments:
    """Boxes as given for box and tag rows only; those of rows that own pixels are measured."""
    if truth.given_boxes is None:
        return truth
    measured = replace(truth, given_boxes=None)
    if truth.kind is None:
        return measured
    as_given = (truth.kind == BOX) | (truth.kind == TAG)
    if not as_given.any():
        return measured
    return replace(truth, given_boxes=torch.where(as_given[:, None], truth.given_boxes, measured.boxes))


def forget_boxes(ids: np.ndarray, boxes: np.ndarray) -> None:
    """What is no object's pixel inside these boxes is no longer known; in place."""
    for x0, y0, x1, y1 in np.round(boxes).astype(int).tolist():
        window = ids[0, y0:y1, x0:x1]
        window[window == NOTHING] = UNKNOWN


def keep_rows(ids: np.ndarray, kept: np.ndarray, hidden: np.ndarray, columns: dict[str, Tensor | None]) -> Segments:
    """Only the rows in `kept` [N]; the pixels of those in `hidden` [N] become UNKNOWN. Empty upper layers go."""
    if len(ids) > 1:
        ids = ids[np.append(True, (ids[1:] >= 0).any((1, 2)))]
    if kept.all():
        return Segments(torch.from_numpy(ids), **columns)  # type: ignore[arg-type]
    if len(ids) > 1 and hidden.any():  # what an upper layer no longer knows must not pass for background below
        lost = np.append(hidden, [False, False])[ids[1:]].any(0)
        ids[0][lost & (ids[0] == NOTHING)] = UNKNOWN
    lookup = np.full(len(kept) + 2, UNKNOWN, np.int32)
    lookup[:-2][kept] = np.arange(kept.sum())
    lookup[-1] = NOTHING
    rows = torch.from_numpy(np.flatnonzero(kept))
    table = {name: None if value is None else value[rows] for name, value in columns.items()}
    small = np.dtype(str(smallest_int(int(kept.sum()))).removeprefix("torch."))
    return Segments(torch.from_numpy(replaced(ids, lookup.astype(small))), **table)  # type: ignore[arg-type]


def warp_ids(ids: np.ndarray, p: Placement, step: int = 1) -> np.ndarray:
    """[L, H, W] ids -> [L, h, w] at every `step`-th output pixel; outside layer 0 is UNKNOWN, the others NOTHING."""
    height, width = p.source
    x, y = (np.arange(step // 2, size, step, dtype=np.float64) + 0.5 for size in (p.size[1], p.size[0]))
    fill = np.full((len(ids), 1), NOTHING, ids.dtype)
    fill[0] = UNKNOWN
    if p.aligned:
        m = p.affine
        columns = np.floor(m[0, 0] * x + m[0, 2]).astype(np.int64)
        rows = np.floor(m[1, 1] * y + m[1, 2]).astype(np.int64)
        outside_x, outside_y = (columns < 0) | (columns >= width), (rows < 0) | (rows >= height)
        out = pick(ids, rows.clip(0, height - 1), columns.clip(0, width - 1))
        if outside_y.any():
            out[:, outside_y] = fill[:, :, None]
        if outside_x.any():
            out[:, :, outside_x] = fill[:, :, None]
        return out
    points = p.to_source(x[None].astype(np.float32), y[:, None].astype(np.float32))
    sx, sy = (np.floor(s).astype(np.int32) for s in points)
    outside = (sx < 0) | (sx >= width) | (sy < 0) | (sy >= height)
    flat = sy.clip(0, height - 1) * np.int32(width) + sx.clip(0, width - 1)
    out = np.take(ids.reshape(len(ids), -1), flat, axis=1)
    if outside.any():
        out[:, outside] = fill
    return out
