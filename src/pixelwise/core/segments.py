"""`Segments`: the one answer type for truth, prediction and pseudo-label, in all three tasks.

Every pixel p has the pair P(p) = (class, instance). `ids` holds a row of the tables at each pixel; `labels[row]` is the
class, the row itself the instance. Overlapping objects take further layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.kernels.rows import replaced

NOTHING = -1  # known to belong to no segment: counts as a negative
UNKNOWN = -2  # not known: never counts

MASK, BOX, SCRIBBLE, TAG = range(4)  # kinds of supervision of a row
ORDERED = 32  # layers up to which earlier rows lie below later ones
COLUMNS = ("labels", "scores", "crowd", "keys", "kind", "given_areas", "given_boxes")


def _tensor(values: Any, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """The values as a tensor, on the same memory where that is possible."""
    if not isinstance(values, Tensor):
        array = np.ascontiguousarray(values)
        array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)  # torch refuses the others
        values = torch.from_numpy(array)
    return values.to(device=device, dtype=dtype)


def smallest_int(rows: int) -> torch.dtype:
    """The smallest integer type that holds `rows` rows and the two negative marks."""
    return torch.int8 if rows <= 127 else torch.int16 if rows <= 32767 else torch.int32


def look_up(values: Tensor, ids: Tensor) -> Tensor:
    """`values[row]` at each pixel of `ids`; `values` [N+2] ends with those for UNKNOWN and for NOTHING."""
    if ids.device.type == values.device.type == "cpu":
        return torch.from_numpy(replaced(ids.numpy(), values.numpy()))
    # six times faster than an index of int64, and a quarter of its memory
    return values.roll(2).index_select(0, ids.flatten().int() + 2).view(ids.shape)


@dataclass(frozen=True, eq=False)
class Segments:
    """N segments of one image.

    ids      [L, H, W] integer: a row 0..N-1, or NOTHING (-1), or UNKNOWN (-2). A row lives in one layer.
    labels   [N] int64 class of each row.
    scores   [N] float32 in 0..1; 1 for truth.
    crowd    [N] bool: a region of many objects that nobody told apart.
    keys     [N] int64 id on disk, or None.
    kind     [N] uint8: MASK, BOX, SCRIBBLE or TAG; None means all are masks. A box or tag row owns no pixels.
    given_areas, given_boxes   [N] and [N, 4] as annotated, or None: `areas` and `boxes` then come from the pixels.
    """

    ids: Tensor
    labels: Tensor
    scores: Tensor = None  # type: ignore[assignment]  # filled in __post_init__
    crowd: Tensor = None  # type: ignore[assignment]
    keys: Tensor | None = None
    kind: Tensor | None = None
    given_areas: Tensor | None = None
    given_boxes: Tensor | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        ids = _tensor(self.ids)
        if ids.ndim == 2:
            ids = ids[None]
        if ids.ndim != 3 or ids.is_floating_point() or not ids.dtype.is_signed:
            raise DataError(f"ids must be [L, H, W] or [H, W] of signed integers, got {list(ids.shape)} {ids.dtype}.")
        device = ids.device
        labels = _tensor(self.labels, torch.int64, device).reshape(-1)
        n = len(labels)
        put(self, "ids", ids)
        put(self, "labels", labels)
        ones = torch.ones(n, device=device)
        put(self, "scores", ones if self.scores is None else _tensor(self.scores, torch.float32, device))
        put(self, "crowd", ones == 0 if self.crowd is None else _tensor(self.crowd, torch.bool, device))
        for name, dtype in (("keys", torch.int64), ("kind", torch.uint8), ("given_areas", torch.float32),
                            ("given_boxes", torch.float32)):  # fmt: skip
            value = getattr(self, name)
            if value is not None:
                put(self, name, _tensor(value, dtype, device))
        for name in COLUMNS[1:]:
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise DataError(f"Segments: {n} labels but {len(column)} {name}.")

    # -- makers -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_ids(cls, ids: Any, table: Mapping[int, int], *, void: Sequence[int] = (), nothing: Sequence[int] = (),
                 **columns: Any) -> Segments:  # fmt: skip
        """From a map [H, W] of ids on disk and a table {id: label}; the rows are in the table's order, `keys` its ids.

        `columns` are further columns of `Segments` (scores, crowd, ...) in the table's order. Ids in `void` become
        UNKNOWN, in `nothing` NOTHING. Raises DataError for an id that stands in none of them.
        """
        ids = np.asarray(ids)
        if ids.ndim != 2 or ids.dtype.kind not in "iub":
            raise DataError(f"a map of ids must be [H, W] of integers, got {list(ids.shape)} {ids.dtype}.")
        keys = list(table)
        found, inverse = _unique(ids)
        row = {**dict.fromkeys(void, UNKNOWN), **dict.fromkeys(nothing, NOTHING), **{k: r for r, k in enumerate(keys)}}
        strange = [int(i) for i in found if int(i) not in row]
        if strange:
            counts = ", ".join(f"{i} ({int((ids == i).sum())} pixels)" for i in strange[:5])
            raise DataError(f"ids that are in no table: {counts}.")
        lookup = np.array([row[int(i)] for i in found], dtype=np.int32)
        rows = torch.from_numpy(lookup[inverse].reshape(ids.shape)).to(smallest_int(len(keys)))
        labels = torch.tensor([table[k] for k in keys], dtype=torch.int64)
        return cls(rows, labels, keys=torch.tensor(keys, dtype=torch.int64), **columns)

    @classmethod
    def from_class_map(cls, class_map: Any, void: int = 255, *, num_classes: int | None = None) -> Segments:
        """From labels [H, W]; pixels equal to `void` are UNKNOWN, those equal to -1 NOTHING.

        Row k is class k, for k below `num_classes` (or up to the largest label found); rows may own no pixel.
        Raises DataError for any other label, naming it and its pixels, and for a map that is not of integers.
        """
        labels = _tensor(class_map)
        if labels.ndim != 2 or labels.is_floating_point():
            raise DataError(f"a class map must be [H, W] of integers, got {list(labels.shape)} {labels.dtype}.")
        wide = labels.to(torch.int32)
        unknown = wide == void
        known = wide.masked_fill(unknown, NOTHING)
        low, high = (int(v) for v in known.aminmax()) if known.numel() else (NOTHING, NOTHING)
        count = high + 1 if num_classes is None else num_classes
        if low < NOTHING or high >= count:
            strange = known[(known < NOTHING) | (known >= count)]
            found, counts = (v.tolist() for v in strange.unique(return_counts=True))
            listed = ", ".join(f"{i} ({n} pixels)" for i, n in zip(found[:5], counts[:5]))
            raise DataError(f"class map holds {listed}; expected labels 0..{count - 1}, void {void} or -1 for nothing.")
        rows = known.to(smallest_int(count)).masked_fill(unknown, UNKNOWN)
        return cls(rows, torch.arange(count, device=labels.device))

    @classmethod
    def from_masks(cls, masks: Any, labels: Any, scores: Any = None, crowd: Any = None, *,
                   void: Any = None) -> Segments:  # fmt: skip
        """From masks [N, H, W] bool that may overlap; `void` [H, W] bool marks pixels that are unknown."""
        masks = masks.cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
        if masks.ndim != 3:
            raise DataError(f"masks must be [N, H, W], got {list(masks.shape)}.")
        masks = masks.astype(bool, copy=False)
        boxes, crops = [], []
        for mask in masks:
            ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1) if len(ys) else (0, 0, 0, 0)
            boxes.append(box)
            crops.append(mask[box[1] : box[3], box[0] : box[2]])
        return cls.from_windows(boxes, crops, labels, masks.shape[1:], scores=scores, crowd=crowd, void=void)

    @classmethod
    def from_windows(cls, boxes: Any, crops: Sequence[np.ndarray], labels: Any, size: Sequence[int], *,
                     void: Any = None, **columns: Any) -> Segments:  # fmt: skip
        """From N windows: integer boxes [N, 4] x0 y0 x1 y1 (x1, y1 excluded) and a bool crop [y1-y0, x1-x0] in each.

        `size` is (H, W); `void` [H, W] bool marks pixels that are unknown where no object covers them. An object goes
        to the lowest layer above all earlier ones that it covers, so that of several the first row shows; where that
        would take more than `ORDERED` layers, to the lowest where it covers none (a row of 2,000 cells, each over the
        edge of the last, needs few layers, not 2,000). Only its own box is looked at. Raises DataError for a window
        that does not fit the image or its crop.
        """
        height, width = int(size[0]), int(size[1])
        windows = np.asarray(boxes.cpu() if isinstance(boxes, Tensor) else boxes, int).reshape(-1, 4).tolist()
        labels = _tensor(labels, torch.int64, torch.device("cpu")).reshape(-1)
        if not len(windows) == len(crops) == len(labels):
            raise DataError(f"Segments: {len(windows)} boxes, {len(crops)} crops and {len(labels)} labels.")
        blank = np.full((height, width), NOTHING, str(smallest_int(len(labels))).removeprefix("torch."))
        layers = [blank.copy()]
        if void is not None:
            layers[0][np.asarray(void.cpu() if isinstance(void, Tensor) else void, bool)] = UNKNOWN
        for row, ((x0, y0, x1, y1), crop) in enumerate(zip(windows, crops)):
            crop = np.asarray(crop, bool)
            if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height) or crop.shape != (y1 - y0, x1 - x0):
                raise DataError(f"box {[x0, y0, x1, y1]} with a crop {list(crop.shape)} in an image {[height, width]}.")
            at = len(layers)
            while at and not (layers[at - 1][y0:y1, x0:x1][crop] >= 0).any():
                at -= 1
            if at == len(layers) >= ORDERED:
                free = (k for k, layer in enumerate(layers) if not (layer[y0:y1, x0:x1][crop] >= 0).any())
                at = next(free, at)
            if at == len(layers):
                layers.append(blank.copy())
            layers[at][y0:y1, x0:x1][crop] = row
        return cls(torch.from_numpy(np.stack(layers)), labels, **columns)

    @classmethod
    def empty(cls, size: Sequence[int], *, fill: int = NOTHING) -> Segments:
        """No segment at all on (H, W); every pixel is `fill`."""
        ids = torch.full((1, int(size[0]), int(size[1])), fill, dtype=torch.int8)
        return cls(ids, torch.zeros(0, dtype=torch.int64))

    # -- readings ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return int(self.ids.shape[1]), int(self.ids.shape[2])

    @cached_property
    def unknown(self) -> Tensor:
        """[H, W] bool: pixels that no segment covers and that are unknown."""
        return (self.ids == UNKNOWN).any(0) & ~(self.ids >= 0).any(0)

    @property
    def masks(self) -> Tensor:
        """[N, H, W] bool, all at once: for small N and for tests."""
        rows = torch.arange(len(self), device=self.ids.device)[:, None, None]
        out = torch.zeros((len(self), *self.size), dtype=torch.bool, device=self.ids.device)
        for layer in self.ids:
            out |= layer[None] == rows
        return out

    def class_map(self, void: int = 255, nothing: int | None = None) -> Tensor:
        """[H, W] labels: uint8 where all fit, int64 otherwise. Where segments overlap the lower layer shows.

        Unknown pixels become `void`, pixels known to be nothing become `nothing` (by default `void` too: a plain
        class map has no word for them).
        """
        values = torch.cat([self.labels, self.labels.new_tensor([void, void if nothing is None else nothing])])
        fits = int(values.min()) >= 0 and int(values.max()) <= 255
        values = values.to(torch.uint8) if fits else values
        return look_up(values, self.row_map())

    def row_map(self) -> Tensor:
        """[H, W] the row that shows at each pixel (the lowest layer that owns it), NOTHING or UNKNOWN."""
        if len(self.ids) == 1:
            rows = self.ids[0]
        else:
            rows = self.ids[-1]
            for layer in reversed(self.ids[:-1]):
                rows = torch.where(layer >= 0, layer, rows)
            rows = torch.where(self.unknown, rows.new_tensor(UNKNOWN), rows)
        return rows

    @cached_property
    def _extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [N, 4] int64 and pixel counts [N] int64, in one pass over the layers."""
        n = len(self)
        boxes, areas = np.zeros((n, 4), np.int64), np.zeros(n, np.int64)
        for layer in self.ids.cpu().numpy():
            shifted = np.maximum(layer.astype(np.int32), -1) + 1
            areas += np.bincount(shifted.ravel(), minlength=n + 1)[1 : n + 1]
            for row, window in enumerate(ndimage.find_objects(shifted, max_label=n)):
                if window is not None:
                    boxes[row] = window[1].start, window[0].start, window[1].stop, window[0].stop
        return boxes, areas

    @property
    def boxes(self) -> Tensor:
        """[N, 4] float32 x0 y0 x1 y1 in pixel edges; as annotated where given, else around the pixels, 0 for none."""
        return self.pixel_boxes if self.given_boxes is None else self.given_boxes

    @property
    def pixel_boxes(self) -> Tensor:
        """[N, 4] float32 x0 y0 x1 y1 around the pixels of each row, 0 for none."""
        return torch.from_numpy(self._extent[0]).float().to(self.labels.device)

    @property
    def areas(self) -> Tensor:
        """[N] float32 in pixels; as annotated where given."""
        if self.given_areas is not None:
            return self.given_areas
        return self.pixel_counts.float()

    @property
    def pixel_counts(self) -> Tensor:
        """[N] int64 pixels that each row owns."""
        return torch.from_numpy(self._extent[1]).to(self.labels.device)

    def windows(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Integer boxes [N, 4] x0 y0 x1 y1 around the pixels and the bool crop in each, for `from_windows`."""
        boxes, layers = self._extent[0], self.ids.cpu().numpy()
        crops = []
        for row, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            crop = np.zeros((y1 - y0, x1 - x0), bool)
            for layer in layers:
                crop |= layer[y0:y1, x0:x1] == row
            crops.append(crop)
        return boxes, crops

    # -- changes ----------------------------------------------------------------------------------------------------

    def keep(self, rows: Any, *, rest: int = NOTHING) -> Segments:
        """Only these rows (bool [N] or row numbers), in the order given; pixels of the others become `rest`."""
        rows = torch.as_tensor(np.asarray(rows) if not isinstance(rows, Tensor) else rows, device=self.labels.device)
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows.long()
        if len(rows) == len(self) and bool((rows == torch.arange(len(self), device=rows.device)).all()):
            return self
        new = torch.full((len(self) + 2,), rest, dtype=smallest_int(len(rows)), device=self.labels.device)
        new[rows] = torch.arange(len(rows), dtype=new.dtype, device=new.device)
        new[-2], new[-1] = UNKNOWN, NOTHING
        layers = [look_up(new, layer) for layer in self.ids]
        columns = {name: getattr(self, name) for name in COLUMNS}
        kept: dict[str, Any] = {name: None if value is None else value[rows] for name, value in columns.items()}
        return Segments(torch.stack(layers), **kept)

    def compact(self) -> Segments:
        """Without rows that own no pixel (box and tag rows stay) and without layers that say nothing."""
        owns = self.pixel_counts > 0
        if self.kind is not None:
            owns |= (self.kind == BOX) | (self.kind == TAG)
        kept = self.keep(owns)
        used = (kept.ids != NOTHING).flatten(1).any(1)
        if not used.any():
            used[0] = True
        return replace(kept, ids=kept.ids[used])

    def to(self, device: Any) -> Segments:
        """The same on another device."""
        columns = {name: getattr(self, name) for name in ("ids", *COLUMNS)}
        moved: dict[str, Any] = {n: None if value is None else value.to(device) for n, value in columns.items()}
        return Segments(**moved)


def _unique(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """np.unique with inverse, ten times faster on a map: by counting where the ids are small, else run by run."""
    if ids.size and ids.min() >= 0 and ids.max() < 1 << 20:
        flat = ids.ravel().astype(np.int64, copy=False)
        present = np.bincount(flat) > 0
        found = np.flatnonzero(present)
        return found, (np.cumsum(present) - 1)[flat]
    flat = ids.ravel()
    starts = np.flatnonzero(np.append(True, flat[1:] != flat[:-1])) if flat.size else np.zeros(0, np.int64)
    found, of_run = np.unique(flat[starts], return_inverse=True)
    return found, np.repeat(of_run, np.diff(np.append(starts, flat.size)))
