"""What every loss asks of its arguments, and the form in which it computes: float32 logits on a grid, safe labels."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from pixelwise.errors import ConfigError, DataError, nearest
from pixelwise.kernels.upsample_loss import Readings, read_softmax, reference

ClassWeight = Tensor | Sequence[float] | None
FEW = 16  # classes below which a log-softmax of full-size logits is faster in PyTorch than in the compiled form


class Pixels:
    """Logits on the net's grid and the truth at full size, in the form all losses compute with.

    logits  [B, K, h, w] float32, or float64 where it came so
    labels  [B, H, W] int32 in 0..K-1; -1 at void
    valid   [B, H, W] bool, False at void

    What losses ask of the softmax is computed once and shared by those that are given the same `Pixels`: the first one
    to ask also asks for what `lse` and `masses` say that others will need.
    """

    def __init__(self, logits: Tensor, labels: Tensor, align_corners: bool) -> None:
        self.logits, self.labels, self.align_corners = logits, labels, align_corners
        self.valid = labels >= 0
        self.lse = self.masses = False
        self._readings: Readings | None = None

    @property
    def classes(self) -> int:
        return self.logits.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)"""
        return self.labels.shape[1], self.labels.shape[2]

    def read(self, *, lse: bool = False, masses: bool = False) -> Readings:
        """What `kernels.upsample_loss.read_softmax` says of these pixels, with at least what is asked for."""
        found = self._readings
        if found is None or (lse and found.lse is None) or (masses and found.true is None):
            self.lse, self.masses = self.lse or lse, self.masses or masses
            if self._plain_is_faster():
                found = reference(self.logits, self.labels, self.align_corners, self.lse, self.masses)
            else:
                found = read_softmax(
                    self.logits, self.labels, align_corners=self.align_corners, lse=self.lse, masses=self.masses
                )
            self._readings = found
        return found

    def _plain_is_faster(self) -> bool:
        """Whether PyTorch's log-softmax is: for logits at full size anyway, of few classes or channels-last."""
        if tuple(self.logits.shape[2:]) != self.size or self.logits.device.type != "cpu" or self.masses:
            return False
        return self.classes < FEW or not self.logits.is_contiguous()

    def of_label(self, values: Tensor) -> Tensor:
        """[B, H, W] the value of each pixel's label, of values [K]; class 0's at void."""
        return values[self.labels.clamp_min(0)]


def prepare(
    logits: Tensor | Pixels, target: Tensor, ignore_index: int, check: bool, align_corners: bool | None = None
) -> Pixels:
    """Check shapes and dtypes (and, with `check`, the ids), find void, raise half precision to float32.

    align_corners  how logits on a coarser (or finer) grid are enlarged to the target's size, as in torch's
                   `interpolate`; None: they have that size
    `Pixels`, made so before, are given back as they are.

    Raises:
        ConfigError: shapes or dtypes that do not fit, or fewer than 2 classes.
        DataError: ids in `target` that are neither a class nor `ignore_index`. Reading them from a GPU waits for the
            GPU once; `check=False` skips that for a target which has been checked before.
    """
    if isinstance(logits, Pixels):
        return logits
    _check_form(logits, target, align_corners)
    target = target.long() if target.dtype.itemsize > 2 else target.int()
    void = target == ignore_index
    labels = target.masked_fill(void, 0) if target.dtype == torch.int32 else target.int().masked_fill_(void, 0)
    if check:
        _check_ids(target, void, labels, logits.shape[1], ignore_index)
    labels.masked_fill_(void, -1)
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    return Pixels(logits, labels, bool(align_corners))


def _check_form(logits: Tensor, target: Tensor, align_corners: bool | None) -> None:
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ConfigError(f"logits must be floating point [B, K, H, W], got {logits.dtype} {list(logits.shape)}")
    if logits.shape[1] < 2:
        raise ConfigError("logits have 1 channel, and a softmax over 1 class is 1 everywhere: give 2 classes or more")
    if target.is_floating_point() or target.is_complex():
        raise ConfigError(f"target must hold integer class ids, got {target.dtype}: did a transform scale the mask?")
    wanted = (logits.shape[0], *logits.shape[2:])
    if align_corners is not None and target.ndim == 3 and len(target) == len(logits):
        if not isinstance(align_corners, bool):
            raise ConfigError(f"align_corners must be True, False or None, got {align_corners!r}")
        if logits.shape[2:].numel() or not target.numel():
            return
    if tuple(target.shape) != wanted:
        raise ConfigError(
            f"target must be [B, H, W] = {list(wanted)} to go with logits {list(logits.shape)}, got "
            f"{list(target.shape)}: bring the logits to the size of the target first, or say by align_corners how to"
        )


def _check_ids(target: Tensor, void: Tensor, labels: Tensor, classes: int, ignore_index: int) -> None:
    """`labels`: the target in 32 bits, 0 at void."""
    if target.numel() == 0:
        return
    ends = [*torch.aminmax(labels), *(end for end in torch.aminmax(target))]
    low, high, lowest, highest = torch.stack([end.long() for end in ends]).tolist()  # one transfer for all
    if low >= 0 and high < classes and lowest >= -(2**31) and highest < 2**31:
        return
    ids = target.masked_fill(void, 0)
    if not bool(((ids < 0) | (ids >= classes)).any()):
        return  # only void has no place in 32 bits
    strange, counts = ids[(ids < 0) | (ids >= classes)].unique(return_counts=True)
    found = ", ".join(f"{i} ({n} pixels)" for i, n in zip(strange[:5].tolist(), counts[:5].tolist(), strict=True))
    more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
    raise DataError(
        f"target holds id {found}{more}; expected a class 0..{classes - 1} or ignore_index {ignore_index}: "
        "map the ids on disk to classes before the loss"
    )


def class_weight(weight: ClassWeight, pixels: Pixels, name: str = "weight") -> Tensor | None:
    """`weight` as a tensor [K] beside the logits, or None. Raises ConfigError unless it has K values.

    Values of a sequence must be finite and not negative; those of a tensor are taken as they are, since looking would
    wait for the GPU.
    """
    if weight is None:
        return None
    if not isinstance(weight, Tensor):
        if isinstance(weight, str) or not isinstance(weight, Sequence):
            raise ConfigError(f"{name} must be {pixels.classes} numbers, one per class, got {weight!r}")
        weight = torch.tensor([number(name, value, low=0.0) for value in weight])
    if tuple(weight.shape) != (pixels.classes,):
        raise ConfigError(f"{name} must have one value per class, [{pixels.classes}], got {list(weight.shape)}")
    return weight.detach().to(pixels.logits)


def number(name: str, value: object, *, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float. Raises ConfigError unless it is a finite number in low..high."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value!r}")
    if not low <= float(value) <= high:
        wanted = f"at least {low:g}" if high == math.inf else f"in {low:g}..{high:g}"
        raise ConfigError(f"{name} must be {wanted}, got {value!r}")
    return float(value)


def whole(name: str, value: object, *, low: int = 0) -> int:
    """`value` as an int. Raises ConfigError unless it is a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise ConfigError(f"{name} must be a whole number of at least {low}, got {value!r}")
    return int(value)


def flag(name: str, value: object) -> bool:
    """`value` as it is. Raises ConfigError unless it is True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {value!r}")
    return value


def choice(name: str, value: object, known: Sequence[str]) -> str:
    """`value` as it is. Raises ConfigError unless it is one of `known`; the nearest one is named."""
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name}={value!r} is unknown; {nearest(str(value), known)}")
    return value


def ratio(total: Tensor, count: Tensor) -> Tensor:
    """total / count, and 0 with zero gradient where count is 0: a batch that is all void must not give NaN."""
    some = count > 0
    return torch.where(some, total / torch.where(some, count, 1), 0.0)
