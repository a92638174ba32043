"""Whether a training step fits into memory: what is free, what a step takes, and the batch size that suits both."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import psutil
import torch
from torch import Tensor, nn

from pixelwise.core.container import ROOT, memory_room
from pixelwise.errors import MemoryLimitError
from pixelwise.nn.peak import Peak as Peak


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had, within a container's limit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return int(min(psutil.virtual_memory().available, memory_room(ROOT)))


def step_bytes(net: nn.Module, step: Callable[[nn.Module], Tensor], device: torch.device) -> int:
    """Bytes that a training step takes at most beside weights and gradients; `step(net)` gives the loss.

    Tried on a copy of the net, forward and backward; the random state is left as it was.
    """
    trial = copy.deepcopy(net).train()
    for parameter in filter(lambda p: p.requires_grad, trial.parameters()):
        parameter.grad = torch.zeros_like(parameter)  # so that gradients are there before counting begins
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), Peak() as peak:
        step(trial).backward()
    return peak.most


def fit_batch(wanted: int, per_image: int, fixed: int, device: torch.device, *, asked: bool,
              checkpointing: bool = False) -> int:  # fmt: skip
    """The largest batch size up to `wanted`, halving, that memory holds: `fixed` bytes and `per_image` each.

    Raises MemoryLimitError when not even one image fits, or when the user asked for more than fits.
    """
    free = free_memory(device)
    fits = max(0, int(free * 0.9) - fixed) // max(1, per_image)
    if fits < 1 or (asked and wanted > fits):
        count = wanted if asked and fits >= 1 else 1
        smaller = f"--batch-size {fits} (and --optim.accumulate to make up for it), " if fits >= 1 else ""
        saving = "" if checkpointing else "--gradient-checkpointing, "
        raise MemoryLimitError(
            f"{'A batch of ' + str(count) if count > 1 else 'Not even one image fits: it'} needs about "
            f"{_gib(fixed + count * per_image)}, {device.type} has {_gib(free)} free. "
            f"Use {smaller}{saving}a smaller --crop, or a smaller model."
        )
    while wanted > fits:
        wanted //= 2
    return max(1, wanted)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


@contextlib.contextmanager
def memory_limit(advice: str) -> Iterator[None]:
    """Turns PyTorch's "out of memory", on a GPU or in main memory, into a MemoryLimitError that says `advice`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MemoryLimitError(f"Memory ran out. {advice}") from None
        raise
