"""What computing takes: the most bytes of tensors that live at once, counted without computing where that is wanted."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


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


def forward_bytes(net: nn.Module, channels: int, size: tuple[int, int]) -> int | None:
    """Bytes that the net takes for an image [channels, H, W] of this size, beside its weights, at float32.

    Nothing is computed and no memory taken, and the net is left alone: it may be at work in another thread. None for a
    net whose work depends on what it sees (detectors).
    """
    tensors = (*net.parameters(), *net.buffers())
    hollow = copy.deepcopy(net, {id(tensor): tensor.detach().to("meta") for tensor in tensors})
    image = torch.empty(1, channels, *size, device="meta")
    try:
        with torch.no_grad(), Peak() as peak:
            hollow(image)
    except (NotImplementedError, RuntimeError):  # where an operator wants values
        return None
    return peak.most
