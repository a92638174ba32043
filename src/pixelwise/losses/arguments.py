"""What every loss asks of its arguments, and the form in which it computes: float32 logits, safe ids, a void mask."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixelwise.errors import ConfigError, DataError, nearest

ClassWeight = Tensor | Sequence[float] | None


class Pixels(NamedTuple):
    """Logits and truth in the form all losses compute with.

    Void pixels hold logit 0 cut off from the graph, so whatever a net writes there, infinities included, can reach
    neither value nor gradient.
    """

    logits: Tensor  # [B, K, H, W] float32, or float64 where it came so; 0 at void
    ids: Tensor  # [B, H, W] int64 in 0..K-1; 0 at void, so that it may index
    valid: Tensor  # [B, H, W] bool, False at void

    @property
    def classes(self) -> int:
        return self.logits.shape[1]


def prepare(logits: Tensor, target: Tensor, ignore_index: int, check: bool) -> Pixels:
    """Check shapes and dtypes (and, with `check`, the ids), find void, raise half precision to float32.

    Raises:
        ConfigError: shapes or dtypes that do not fit, or fewer than 2 classes.
        DataError: ids in `target` that are neither a class nor `ignore_index`. Reading them from a GPU waits for the
            GPU once; `check=False` skips that for a target which has been checked before.
    """
    _check_form(logits, target)
    target = target.long()
    valid = target != ignore_index
    ids = torch.where(valid, target, 0)
    if check:
        _check_ids(ids, logits.shape[1], ignore_index)
    void = ~valid.unsqueeze(1)  # [B, 1, H, W]
    if logits.dtype in (torch.float32, torch.float64):
        return Pixels(logits.masked_fill(void, 0.0), ids, valid)
    return Pixels(logits.float().masked_fill_(void, 0.0), ids, valid)  # the wider copy is ours to write to


def _check_form(logits: Tensor, target: Tensor) -> None:
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ConfigError(f"logits must be floating point [B, K, H, W], got {logits.dtype} {list(logits.shape)}")
    if logits.shape[1] < 2:
        raise ConfigError("logits have 1 channel, and a softmax over 1 class is 1 everywhere: give 2 classes or more")
    if target.is_floating_point() or target.is_complex():
        raise ConfigError(f"target must hold integer class ids, got {target.dtype}: did a transform scale the mask?")
    wanted = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != wanted:
        raise ConfigError(
            f"target must be [B, H, W] = {list(wanted)} to go with logits {list(logits.shape)}, "
            f"got {list(target.shape)}: bring the logits to the size of the target first"
        )


def _check_ids(ids: Tensor, classes: int, ignore_index: int) -> None:
    if ids.numel() == 0:
        return
    low, high = torch.stack(torch.aminmax(ids)).tolist()  # one transfer for both
    if low >= 0 and high < classes:
        return
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
