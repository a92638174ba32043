"""The state a training needs to go on exactly: one safetensors file, numbers as JSON in its header, written whole.

No pickle: optimiser tensors by parameter name, random states as uint8 tensors, the sampler's position as two numbers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pixelwise.core.atomic import atomic
from pixelwise.errors import ModelFileError


def write(path: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Writes the file whole or not at all."""
    flat = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic(path) as part:
        save_file(flat, str(part), metadata={"state": json.dumps(numbers)})


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, numbers). Raises ModelFileError when the file is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            numbers = json.loads((file.metadata() or {})["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, numbers  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelFileError(f"{path}: not a training state ({error}). Delete it to start this run anew.") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer, net: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's state by parameter name: tensors, and plain numbers apart."""
    names = {id(p): name for name, p in net.named_parameters()}
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            place = f"{names[id(parameter)]}|{key}"
            if isinstance(value, Tensor):
                tensors[place] = value
            elif value is not None:
                numbers[place] = value
    return tensors, numbers


def restore_optimizer(optimizer: torch.optim.Optimizer, net: nn.Module, tensors: dict[str, Tensor], numbers: dict[str, Any],
                      place: Callable[[Tensor, Tensor], Tensor]) -> None:  # fmt: skip
    """The reverse of `optimizer_tensors`; `place(full, like)` shards a tensor as its parameter is."""
    parameters = dict(net.named_parameters())
    for where, value in {**tensors, **numbers}.items():
        name, key = where.rsplit("|", 1)
        parameter = parameters[name]
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value = torch.empty_like(parameter).copy_(place(value, parameter))  # the parameter's own memory format
        optimizer.state[parameter][key] = value


def random_tensors() -> dict[str, Tensor]:
    """The states of all random number generators as tensors."""
    version, words, gauss = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "numpy": torch.from_numpy(np.random.get_state()[1].astype(np.int64)),  # type: ignore[index,union-attr]
        "numpy_position": torch.tensor([np.random.get_state()[2]]),  # type: ignore[index]
    }
    if torch.cuda.is_available():
        states |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random(states: dict[str, Tensor]) -> None:
    """The reverse of `random_tensors`."""
    torch.set_rng_state(states["torch"])
    version, *words = states["python"].tolist()
    random.setstate((version, tuple(words), None))
    np.random.set_state(("MT19937", states["numpy"].numpy().astype(np.uint32), int(states["numpy_position"])))
    for i in range(torch.cuda.device_count()):
        if f"cuda{i}" in states:
            torch.cuda.set_rng_state(states[f"cuda{i}"], i)
