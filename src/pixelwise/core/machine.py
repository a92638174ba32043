"""What the machine offers: device and precision, picked by name or found by looking."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import psutil
import torch

from pixelwise.errors import ConfigError

PROCESSOR = Path("/proc/cpuinfo")


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; for None or "auto" the process's GPU, else Apple's, else the CPU.

    Raises ConfigError for a word that names no device and for a device that is not here.
    """
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))  # torchrun gives each process its own
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"There is no device '{device}'; it can be auto, cpu, cuda, cuda:1, mps.") from None
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]  # some go on for pages
        raise ConfigError(f"The device '{device}' cannot be used here ({reason}); try device=cpu.") from error
    return chosen


@cache
def has_bf16_units(kind: str) -> bool:
    """Whether the device multiplies bf16 itself (a CPU that emulates it is slower than in float32)."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    flags = PROCESSOR.read_text(errors="replace") if PROCESSOR.exists() else ""
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
    lines = PROCESSOR.read_text(errors="replace").splitlines() if PROCESSOR.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads != 1 else ''}, {psutil.virtual_memory().total / 2**30:.0f} GiB"
