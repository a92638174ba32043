"""Gradient checkpointing (Chen, Xu, Zhang, Guestrin 2016, 1604.06174) for any net: memory for time.

A block's inner activations are dropped in the forward pass and computed again in the backward pass. The weights, their
names and the classes of the modules stay as they are, and so does every number: dropout draws the same, and batch norms
count each image once.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from pixelwise.errors import ConfigError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LARGEST = 0.5  # share of a net's layers in one block: of a larger one too much would be computed, and held, at once


def checkpoint_blocks(net: nn.Module) -> int:
    """Lets the blocks of a net forget their inner activations until the backward pass, in training; returns how many.

    A block is an `nn.Sequential`, or what stands in a sequence, list or dictionary of modules, with two or more layers
    that have weights, up to LARGEST of the net's; of blocks inside each other it is the outermost. State dict, module
    classes, `copy.deepcopy` and pickling know nothing of it. Raises ConfigError where the net has no such block.
    """
    found = list(blocks(net))
    if not found:
        raise ConfigError(f"Gradient checkpointing finds no block in {type(net).__name__} whose activations could be "
                          "computed twice: leave --gradient-checkpointing out.")  # fmt: skip
    for _, block in found:
        # of functools, since it is copied and pickled together with the block that it holds
        block.forward = functools.partial(_forward, block)
    return len(found)


def blocks(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The (name, module) of each block that `checkpoint_blocks` takes."""
    most = LARGEST * _layers(net)

    def walk(parent: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
        for name, child in parent.named_children():
            listed = isinstance(child, nn.Sequential) or isinstance(parent, CONTAINERS)
            if listed and 2 <= _layers(child) <= most and _is_called(child):
                yield prefix + name, child
            else:
                yield from walk(child, f"{prefix}{name}.")

    return walk(net, "")


def _layers(module: nn.Module) -> int:
    """How many modules with weights of their own it holds."""
    return sum(any(True for _ in m.parameters(recurse=False)) for m in module.modules())


def _is_called(module: nn.Module) -> bool:
    """Whether it computes, and no inner module is listened to: hooks would hear the second computation too."""
    if type(module).forward is nn.Module.forward:  # a list or dictionary, which only holds
        return False
    return not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules() if m is not module)


def _forward(block: nn.Module, *args: Any, **words: Any) -> Any:
    """What stands for `block.forward`."""
    compute = functools.partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return compute(*args, **words)

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), frozen_statistics(block)

    return checkpoint(compute, *args, use_reentrant=False, context_fn=contexts, **words)


@contextlib.contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Norms inside it compute as they do in training, but running means, deviations and counters stay as they are."""
    norms = [m for m in module.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    held = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, held):
            norm.momentum, norm.num_batches_tracked = momentum, count
