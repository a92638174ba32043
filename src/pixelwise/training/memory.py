"""Whether a training step fits into memory: what is free, what a step takes, and the batch size that suits both."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pixelwise.core.container import ROOT, memory_room
from pixelwise.errors import MemoryLimitError


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had, within a container's limit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return int(min(psutil.virtual_memory().available, memory_room(ROOT)))


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside it took at once: `with Peak() as peak: step()`, then `peak.most`.

    Counted by the tensors' storages, on any device, `meta` too. What a kernel takes for itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # what goes in was there before, but for what was noted when it came out
        for tensor in pytree.tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._note(tensor, counts=False)
        result = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor, counts=True)
        return result

    def _note(self, tensor: Tensor, *, counts: bool) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._held:
            return
        self._held[address] = size = storage.nbytes() if counts else 0
        weakref.finalize(storage, self._forget, address)
        self.now += size
        self.most = max(self.most, self.now)

    def _forget(self, address: int) -> None:
        self.now -= self._held.pop(address)


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
