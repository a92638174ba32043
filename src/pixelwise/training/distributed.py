"""One door to Accelerate and torch.distributed: precision, copies (DDP) or shards (FSDP2) over processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pixelwise.errors import ConfigError

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


class World:
    """The processes that train together; one alone outside `torchrun`.

    Raises ConfigError for shards without other processes, and for shards in fp16, whose gradients nobody would unscale.
    """

    def __init__(self, device: torch.device, precision: str, *, shard: bool) -> None:
        if not dist.is_initialized():  # Accelerate keeps the first precision of a process for all that follow
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # Accelerate takes the current one
        mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[precision]
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=device.type == "cpu")
        self.size, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.first, self.shard = self.accelerator.is_main_process, shard
        if shard and self.size == 1:
            raise ConfigError("--shard shares a model between processes: start them with torchrun --nproc-per-node N.")
        if shard and precision == "fp16":
            raise ConfigError("--shard goes with --precision bf16 or fp32, not with fp16.")

    def prepare(self, net: nn.Module, make_optimizer: MakeOptimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The net as it is called in training, and the optimiser over its (perhaps sharded) parameters."""
        if self.shard:
            mesh = dist.init_device_mesh(self.accelerator.device.type, (self.size,))
            fully_shard(net.to(memory_format=torch.contiguous_format), mesh=mesh)  # it takes contiguous weights only
            return net, make_optimizer(net)
        model = self.accelerator.prepare_model(net)
        optimizer = make_optimizer(net)
        return model, self.accelerator.prepare_optimizer(optimizer) if self.accelerator.scaler else optimizer

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

    # -- agreeing -----------------------------------------------------------------------------------------------------

    def agree(self, value: float) -> float:
        """The first process's number, on all."""
        if self.size == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        dist.broadcast(held, 0)
        return float(held)

    def most(self, value: float) -> float:
        """The largest of the processes' numbers, on all."""
        if self.size == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return float(held)

    def gather(self, value: Any) -> list[Any]:
        """What each process has, by rank, on all."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def whole(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict with shards gathered, the same on all processes (norm statistics are the first one's)."""
        state = full_tensors(state)
        if self.size > 1:
            for name, value in state.items():
                state[name] = value = value.detach().clone(memory_format=torch.contiguous_format)
                dist.broadcast(value, 0)
        return state

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Ends the group of processes."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    # -- state --------------------------------------------------------------------------------------------------------

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
    """Shards gathered whole on every process; other tensors as they are."""
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}


@torch.no_grad()
def load_full(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Copies full tensors into a net whose own may be sharded."""
    for name, own in net.state_dict().items():
        own.copy_(World.place(state[name], own))
