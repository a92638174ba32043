"""What the machine offers: device, precision, memory; and how much a training step needs."""

from __future__ import annotations

import copy
import os
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from pixelwise.errors import ConfigError, MemoryLimitError


def pick_device(name: str) -> torch.device:
    """'auto' -> the first GPU, else the CPU. Raises ConfigError for a device that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"There is no device '{name}'; it can be auto, cpu, cuda, cuda:1, mps.") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"Device '{name}' is not here: PyTorch sees {torch.cuda.device_count()} CUDA devices. Use --device cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("Device 'mps' is not here. Use --device cpu.")
    return device


@cache
def has_bf16_units(kind: str) -> bool:
    """Whether the device multiplies bf16 itself (a CPU that emulates it is slower than in float32)."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    info = Path("/proc/cpuinfo")
    flags = info.read_text(errors="replace") if info.exists() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags


def pick_precision(name: str, device: torch.device) -> str:
    """'auto' -> bf16 where the device has units for it, else fp32. Raises ConfigError for what the device cannot."""
    if name == "auto":
        return "bf16" if has_bf16_units(device.type) else "fp32"
    if name == "fp16" and device.type != "cuda":
        raise ConfigError("Precision fp16 needs a CUDA device; on this one use bf16 or fp32.")
    return name


def describe(device: torch.device) -> str:
    """One line: processor or GPU, cores, memory."""
    if device.type == "cuda":
        p = torch.cuda.get_device_properties(device)
        return f"{p.name}, {p.total_memory / 2**30:.0f} GiB"
    info = Path("/proc/cpuinfo")
    names = [x.split(":", 1)[1].strip() for x in (info.read_text().splitlines() if info.exists() else []) if x.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def activation_bytes(net: nn.Module, images: Tensor, autocast: Callable[[], object], loss: Callable[[object], Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass, counted on a copy; the random state is left as it was."""
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    trial = copy.deepcopy(net)
    weights = sum(p.untyped_storage().nbytes() for p in trial.parameters())
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        with autocast():  # type: ignore[attr-defined]
            output = trial(images)
        loss(output)
    return max(0, sum(seen.values()) - weights)


def fit_batch(wanted: int, per_image: int, fixed: int, device: torch.device, *, asked: bool) -> int:
    """The largest batch size up to `wanted`, halving, that memory holds: `fixed` bytes and 1.5 x `per_image` each.

    Raises MemoryLimitError when not even one image fits, or when the user asked for more than fits.
    """
    room = int(free_memory(device) * 0.9) - fixed
    fits = room // max(1, int(per_image * 1.5))
    if asked and wanted > fits:
        raise MemoryLimitError(
            f"A batch of {wanted} needs about {(fixed + 1.5 * wanted * per_image) / 2**30:.1f} GiB, {device.type} has "
            f"{free_memory(device) / 2**30:.1f} GiB free. Use --batch-size {max(1, fits)}, a smaller --crop, or a smaller model."
        )
    if fits < 1:
        raise MemoryLimitError(
            f"Not even one image fits: it needs about {(fixed + 1.5 * per_image) / 2**30:.1f} GiB, {device.type} has "
            f"{free_memory(device) / 2**30:.1f} GiB free. Use a smaller --crop or a smaller model."
        )
    while wanted > fits:
        wanted //= 2
    return max(1, wanted)
