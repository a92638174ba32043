"""Whether a training step fits into memory: what is free, what a step takes, and the batch size that suits both."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from pixelwise.errors import MemoryLimitError

CGROUP = Path("/sys/fs/cgroup")
BACKWARD = 1.5  # a backward pass holds so many times what the forward pass kept


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had, within a container's limit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, _container_room())


def _container_room() -> int:
    """Bytes below the limit of a version 2 control group; file pages that can be dropped count as free."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        table = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 1 << 62  # no such group, no such limit
    return 1 << 62 if limit == "max" else max(0, int(limit) - used + int(table.get("inactive_file", 0)))


def activation_bytes(net: nn.Module, step: Callable[[nn.Module], object], device: torch.device) -> int:
    """Bytes that `step(net)`, a forward pass and its loss, keeps for the backward pass.

    Counted on a copy of the net; the random state is left as it was.
    """
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    trial = copy.deepcopy(net).train()
    weights = sum(p.untyped_storage().nbytes() for p in trial.parameters())
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        kept = step(trial)  # held until the counting is done: a freed address could come twice
    del kept
    return max(0, sum(seen.values()) - weights)


def fit_batch(wanted: int, per_image: int, fixed: int, device: torch.device, *, asked: bool) -> int:
    """The largest batch size up to `wanted`, halving, that memory holds: `fixed` bytes and BACKWARD x `per_image` each.

    Raises MemoryLimitError when not even one image fits, or when the user asked for more than fits.
    """
    free = free_memory(device)
    fits = max(0, int(free * 0.9) - fixed) // max(1, int(per_image * BACKWARD))
    if fits < 1 or (asked and wanted > fits):
        count = wanted if asked and fits >= 1 else 1
        smaller = f"--batch-size {fits} (and --optim.accumulate to make up for it), " if fits >= 1 else ""
        raise MemoryLimitError(
            f"{'A batch of ' + str(count) if count > 1 else 'Not even one image fits: it'} needs about "
            f"{_gib(fixed + count * BACKWARD * per_image)}, {device.type} has {_gib(free)} free. "
            f"Use {smaller}a smaller --crop, or a smaller model."
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
