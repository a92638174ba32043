"""The state a training needs to go on exactly: one safetensors file, numbers as JSON in its header, written whole.

No pickle: optimiser tensors by parameter name, random states as integer tensors, the sampler's position as numbers.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pixelwise.core.atomic import atomic
from pixelwise.errors import ConfigError, ModelFileError


@dataclass
class Position:
    """Where a training is; all of it stands in the state that is resumed from."""

    epoch: int = 0
    batch: int = 0  # batches done in this epoch
    step: int = 0  # batches done in all
    elapsed: float = 0.0  # seconds, over all times it was resumed
    progress: float = 0.0
    best: float = -math.inf
    best_scores: dict[str, float] | None = None
    stale: int = 0  # evaluations without a better one
    last_evaluation: float = 0.0  # seconds it took
    evaluated_at: float = 0.0  # elapsed, when it ended
    log_offset: int = 0
    thresholds: dict[str, float] = field(default_factory=dict)  # the last evaluation's choice


def write(path: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Writes the file whole or not at all. Infinity and NaN stand in the JSON as Python writes them."""
    flat = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    data = save(flat, metadata={"state": json.dumps(numbers)})
    with atomic(path) as part:
        part.write_bytes(data)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, numbers). Raises ModelFileError when the file is damaged."""
    numbers = read_numbers(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, numbers  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def read_numbers(path: Path) -> dict[str, Any]:
    """The numbers alone. Raises ModelFileError when the file is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(json.loads((file.metadata() or {})["state"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(f"{path}: not a training state ({error}). Delete it, and --resume starts this run anew.")


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, net: nn.Module
) -> tuple[dict[str, Tensor], dict[str, float | int | bool]]:
    """The optimiser's state by parameter name: tensors, and plain numbers apart."""
    names = {id(p): name for name, p in net.named_parameters()}
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float | int | bool] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            place = f"{names[id(parameter)]}|{key}"
            if isinstance(value, Tensor):
                tensors[place] = value
            elif value is not None:
                numbers[place] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    net: nn.Module,
    tensors: dict[str, Tensor],
    numbers: dict[str, float | int | bool],
    place: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """The reverse of `optimizer_tensors`; `place(full, like)` shards a tensor as its parameter is."""
    parameters = dict(net.named_parameters())
    for where, value in {**tensors, **numbers}.items():
        name, key = where.rsplit("|", 1)
        parameter = parameters[name]
        if isinstance(value, Tensor) and value.ndim and value.shape == parameter.shape:
            value = torch.empty_like(parameter).copy_(place(value, parameter))  # the parameter's own memory format
        optimizer.state[parameter][key] = value


def check_finite(state: dict[str, Tensor], lr: float) -> None:
    """Raises ConfigError for weights that are no numbers, which nobody should save as a model."""
    lost = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if lost:
        raise ConfigError(f"The weights are no numbers any more ({lost[0]} and {len(lost) - 1} others): use a smaller "
                          f"--lr (it reached {lr:g}) or --precision fp32.")  # fmt: skip


def seed_everything(seed: int) -> None:
    """All random number generators that a net or a callable of the user may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def random_tensors() -> dict[str, Tensor]:
    """The states of all random number generators of this process as tensors."""
    version, words, _ = random.getstate()
    _, keys, position, *_ = np.random.get_state(legacy=True)
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_position": torch.tensor([int(position)]),
    }
    if torch.cuda.is_available():
        states |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random(states: dict[str, Tensor]) -> None:
    """The reverse of `random_tensors`."""
    torch.set_rng_state(states["torch"])
    version, *words = states["python"].tolist()
    random.setstate((version, tuple(words), None))
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(states["numpy_position"]), 0, 0.0))
    for i in range(torch.cuda.device_count()):
        if f"cuda{i}" in states:
            torch.cuda.set_rng_state(states[f"cuda{i}"], i)
