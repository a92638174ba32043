"""What a net costs: its parameters, and its multiply-adds for an image, counted without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
FILLS = {aten.normal_, aten.uniform_, aten.fill_, aten.zero_}  # first values: a net without memory needs none
NORMS = {aten.native_batch_norm, aten.cudnn_batch_norm}  # whose answer has the size of what goes in


@dataclass(frozen=True)
class Cost:
    """What a net takes.

    parameters     numbers that it learns
    multiply_adds  for one image in evaluation; None for a net whose work depends on what it sees (detectors)
    """

    parameters: int
    multiply_adds: int | None


class MultiplyAdds(TorchDispatchMode):
    """Counts the multiply-adds of convolutions and matrix products inside it: `with MultiplyAdds() as m: ...; m.total`.

    One multiplication with its addition is one, as papers and torchvision's tables count "FLOPs"; PyTorch's own
    `torch.utils.flop_counter`, whose formulas these are, counts two. All else (norms, enlarging, sums) is left out. On
    the meta device, norms are passed over and nothing is filled: most of the time went there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if packet in FILLS:
                return args[0]
            if packet in NORMS:
                x, empty = args[0], args[0].new_empty(0)
                return (torch.empty_like(x), empty, empty, *((empty,) if packet is aten.cudnn_batch_norm else ()))
        result = func(*args, **kwargs)
        count = flop_registry.get(packet)
        if count is not None:
            self.total += count(*args, **kwargs, out_val=result) // 2
        return result


@torch.no_grad()
def cost(make: Callable[[], nn.Module], size: tuple[int, int] = (512, 512), channels: int = 3) -> Cost:
    """Of the net that `make()` builds, for one image [channels, H, W]; no memory is taken for it.

    >>> cost(lambda: torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), (32, 32))
    Cost(parameters=216, multiply_adds=221184)
    """
    with torch.device("meta"), MultiplyAdds() as counted:
        net = make().eval()
        parameters = sum(p.numel() for p in net.parameters())
        counted.total = 0  # encoders are tried while they are built
        try:
            net(torch.zeros(1, channels, *size))
        except (NotImplementedError, RuntimeError):  # where an operator wants values
            return Cost(parameters, None)
    return Cost(parameters, counted.total)
