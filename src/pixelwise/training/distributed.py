"""One door to Accelerate and torch.distributed: precision, copies (DDP) or shards (FSDP2) over processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pixelwise.errors import ConfigError


class World:
    """The processes that train together; one alone outside `torchrun`."""

    def __init__(self, device: torch.device, precision: str, *, shard: bool) -> None:
        mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[precision]
        handlers: list[Any] = [DistributedDataParallelKwargs(broadcast_buffers=True), InitProcessGroupKwargs()]
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=device.type == "cpu", kwargs_handlers=handlers)
        self.size, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.first, self.shard = self.accelerator.is_main_process, shard
        if shard and self.size == 1:
            raise ConfigError("--shard shares a model between processes: start them with torchrun --nproc-per-node N.")

    def prepare(self, net: nn.Module, optimizer: Callable[[nn.Module], torch.optim.Optimizer]) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The net as it is called in training, and the optimiser over its (perhaps sharded) parameters."""
        if self.shard:
            mesh = torch.distributed.init_device_mesh(self.accelerator.device.type, (self.size,))
            fully_shard(net.to(memory_format=torch.contiguous_format), mesh=mesh)  # FSDP2 shards contiguous weights only
            return net, optimizer(net)
        model = self.accelerator.prepare_model(net)
        return model, self.accelerator.prepare_optimizer(optimizer(net)) if self.accelerator.scaler else optimizer(net)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return self.accelerator.autocast()

    def no_sync(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.shard else self.accelerator.no_sync(model)

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def clip(self, model: nn.Module, limit: float) -> None:
        if self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients()
        torch.nn.utils.clip_grad_norm_(model.parameters(), limit)

    def agree(self, value: float) -> float:
        """The first process's number, on all."""
        if self.size == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        torch.distributed.broadcast(held, 0)
        return float(held)

    def whole(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict with sharded tensors gathered, the same on all processes (norm statistics are the first one's)."""
        state = full_tensors(state)
        if self.size > 1:
            for name, value in state.items():
                state[name] = value = value.detach().clone(memory_format=torch.contiguous_format)
                torch.distributed.broadcast(value, 0)
        return state

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    @staticmethod
    def place(value: Tensor, like: Tensor) -> Tensor:
        """A full tensor, sharded or moved as `like` is."""
        if isinstance(like, DTensor):
            return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
        return value.to(like.device)

    def scaler_state(self) -> dict[str, Any] | None:
        return self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None

    def restore_scaler(self, state: dict[str, Any] | None) -> None:
        if state is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state)


def full_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sharded tensors gathered whole on every process; others as they are."""
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}


@torch.no_grad()
def load_full(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Copies full tensors into a net whose own may be sharded."""
    for name, own in net.state_dict().items():
        own.copy_(World.place(state[name], own))
