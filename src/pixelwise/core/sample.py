"""One image with its truth (`Sample`), several stacked (`Batch`), and how stored pixels become the net's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.core.outputs import Frame
from pixelwise.core.segments import COLUMNS, NOTHING, UNKNOWN, Segments
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import DataError, ModelFileError, nearest
from pixelwise.kernels.normalise import normalise


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and what is known of it.

    image     [C, H, W] uint8 or uint16, as stored; best as a view of H x W x C memory, which OpenCV wants
    truth     Segments at the image's size, or None where there is none
    name      its path below the images' folder, without the ending
    complete  whether unlabelled pixels are known to be background (else box and tag rows leave them unknown)
    """

    image: Tensor
    truth: Segments | None
    name: str
    complete: bool = True

    @property
    def size(self) -> tuple[int, int]:
        return int(self.image.shape[1]), int(self.image.shape[2])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, W, C] rows of the image, on the same memory where they lie so."""
        return self.image[:, start:stop].permute(1, 2, 0).numpy()


def image_tensor(pixels: np.ndarray) -> Tensor:
    """[H, W] or [H, W, C] array -> [C, H, W] tensor, on the same memory where that may be written to."""
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    pixels = np.ascontiguousarray(pixels)
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to stored pixels before the net sees them; part of the model file.

    channels  how many; `order` their names, e.g. "RGB", "L", or "" for more than four. Three channels are stored red
              first; the order "BGR" turns them round for nets that were trained so
    range     the stored value that becomes 1.0 (255 for 8 bit, 65535 for 16 bit)
    mean, std per channel in the net's order, in units of that range: x = (stored / range - mean) / std
    percentiles  (low, high) in 0..100: the image's own percentiles over all channels stand for 0 and 1, in place of 0
              and `range`, so that dim images look like bright ones; in training those of the crop. None: not
    size      to which size images are brought, None: their own. Prediction and evaluation resize (`views.look`), after
              normalising; training does not: its scale is that of its crops
    """

    channels: int = 3
    order: str = "RGB"
    range: float = 255.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    percentiles: tuple[float, float] | None = None
    size: SizeRule | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != self.channels:
                raise ModelFileError(f"preprocessing: {self.channels} channels but {len(values)} values of {name}.")
        if not (self.channels > 0 and self.range > 0 and all(s > 0 for s in self.std)):  # a NaN is refused too
            raise ModelFileError(f"preprocessing: std {self.std} and range {self.range} must be above 0.")
        if self.percentiles is not None:
            own = tuple(float(p) for p in self.percentiles)
            object.__setattr__(self, "percentiles", own)
            if len(own) != 2 or not 0 <= own[0] < own[1] <= 100:
                raise ModelFileError(f"preprocessing: percentiles {own} must be two that rise, within 0..100.")
        if self.order == "BGR" and self.channels != 3:
            raise ModelFileError(f"preprocessing: the order BGR is that of 3 channels, not of {self.channels}.")

    def __call__(self, images: Tensor) -> Tensor:
        """[B, C, H, W] as stored -> float32, on the same device and in the same memory format.

        Raises DataError when the images have another number of channels.
        """
        if images.shape[1] != self.channels:
            raise DataError(
                f"images have {images.shape[1]} channels, the net takes {self.channels} ({self.order or 'unnamed'}): "
                "convert them, or use a model that was trained on such images."
            )
        low, width = 0.0, torch.tensor(self.range, device=images.device)
        if self.percentiles is not None:
            low, high = (v.view(-1, 1) for v in percentiles(images, self.percentiles))  # [B, 1]
            width = (high - low).clamp_min(1.0)  # an even image stays even
        mean = low + torch.tensor(self.mean, device=images.device) * width  # [C] or [B, C]
        scale = 1.0 / (torch.tensor(self.std, device=images.device) * width)
        return normalise(images.flip(1) if self.order == "BGR" else images, mean, scale)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; later fields only where they say something, so that older versions open what they know."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in values.items() if v is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        known = {f.name for f in fields(cls)}
        for key in data:
            if key not in known:
                raise ModelFileError(f"preprocessing has no field '{key}'; {nearest(key, known)}")
        try:
            size = data.get("size")
            return cls(**{**data, "size": None if size is None else SizeRule.from_dict(size)})
        except (TypeError, ValueError) as error:
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError(f"preprocessing cannot be made of {dict(data)}: {error}.") from error


def percentiles(images: Tensor, wanted: Sequence[float]) -> Tensor:
    """[P, B] float32 percentiles of whole images [B, C, H, W] as stored, linear between neighbours as in NumPy.

    Counted, which for stored values is exact and many times faster than sorting.
    """
    found = []
    for image in images.flatten(1).int():
        below = torch.bincount(image).cumsum(0)  # [V] how many values are at most v
        place = torch.tensor(wanted, dtype=torch.float64, device=image.device) / 100 * (len(image) - 1)
        under, over = (torch.searchsorted(below, place.floor().long() + k, side="left") for k in (1, 2))
        over = torch.minimum(over, torch.searchsorted(below, below[-1:]))
        found.append(under + (over - under) * place.frac())
    return torch.stack(found, 1).float()


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one padded size.

    images  [B, C, H, W] as stored (normalised on the device), channels-last memory
    ids     [B, L, H, W] in the smallest integer; padding is UNKNOWN; None without truth
    tables  per image the columns of its Segments
    frames  per image how it lies in the padded tensor
    """

    images: Tensor
    ids: Tensor | None
    tables: tuple[Mapping[str, Tensor | None], ...]
    frames: tuple[Frame, ...]
    names: tuple[str, ...]
    complete: tuple[bool, ...] = field(default=())

    @property
    def truths(self) -> tuple[Segments, ...]:
        """The truth of each image at the padded size: views of `ids`."""
        if self.ids is None:
            return ()
        return tuple(Segments(ids, **table) for ids, table in zip(self.ids, self.tables))  # type: ignore[arg-type]

    def to(self, device: Any) -> Batch:
        """The same on another device; pinned memory is copied without waiting."""

        def move(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.to(device, non_blocking=True)

        tables = tuple({k: move(v) for k, v in table.items()} for table in self.tables)
        return replace(self, images=self.images.to(device, non_blocking=True), ids=move(self.ids), tables=tables)

    def pin_memory(self) -> Batch:
        ids = None if self.ids is None else self.ids.pin_memory()
        return replace(self, images=self.images.pin_memory(), ids=ids)


def collate(samples: Sequence[Sample], *, size: tuple[int, int] | None = None) -> Batch:
    """Stacks samples; smaller ones are padded right and below (images with their border's colour, ids UNKNOWN).

    Beside samples that have a truth, one that has none is unknown everywhere. Raises DataError, naming the sample,
    where channels, types or sizes do not go together.
    """
    height = max(s.size[0] for s in samples) if size is None else size[0]
    width = max(s.size[1] for s in samples) if size is None else size[1]
    for sample in samples:
        _check(sample, samples[0], height, width)
    images = torch.empty((len(samples), *samples[0].image.shape[:1], height, width), dtype=samples[0].image.dtype,
                         memory_format=torch.channels_last)  # fmt: skip
    for row, sample in zip(images, samples):
        row.copy_(_pad_image(sample.image, height, width))
    frames = tuple(Frame(s.size, (height, width), (0, 0, *s.size)) for s in samples)
    truths = [s.truth for s in samples]
    ids, tables = None, []
    if any(t is not None for t in truths):
        known = [Segments.empty(s.size, fill=UNKNOWN) if s.truth is None else s.truth for s in samples]
        layers = max(len(t.ids) for t in known)
        widest = max((t.ids.dtype for t in known), key=lambda d: d.itemsize)
        ids = torch.full((len(samples), layers, height, width), NOTHING, dtype=widest)
        for i, truth in enumerate(known):
            h, w = truth.size
            ids[i, 0, h:] = UNKNOWN
            ids[i, 0, :, w:] = UNKNOWN
            ids[i, : len(truth.ids), :h, :w] = truth.ids
            tables.append({name: getattr(truth, name) for name in COLUMNS})
    return Batch(images, ids, tuple(tables), frames,
                 tuple(s.name for s in samples), tuple(s.complete for s in samples))  # fmt: skip


def _check(sample: Sample, first: Sample, height: int, width: int) -> None:
    image, like = sample.image, first.image
    if image.shape[0] != like.shape[0] or image.dtype != like.dtype:
        raise DataError(
            f"'{sample.name}' has {image.shape[0]} channels of {image.dtype}, '{first.name}' {like.shape[0]} of "
            f"{like.dtype}: the images of one data set must agree."
        )
    if sample.truth is not None and sample.truth.size != sample.size:
        raise DataError(f"'{sample.name}': the image is {sample.size}, its truth {sample.truth.size} (height, width).")
    if sample.size[0] > height or sample.size[1] > width:
        raise DataError(f"'{sample.name}' is {sample.size}, more than the {(height, width)} to pad to (height, width).")


def _pad_image(image: Tensor, height: int, width: int) -> Tensor:
    h, w = image.shape[1:]
    if (h, w) == (height, width):
        return image
    wide = image.to(torch.int32).float()[None]  # replicate padding knows floats only; 16 bits fit exactly
    return F.pad(wide, (0, width - w, 0, height - h), mode="replicate")[0].to(torch.int32).to(image.dtype)
