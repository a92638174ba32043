"""What the machine offers: processor, cores and memory within a container's limits, GPU, packages. `find` looks once.

What is made of it stands in `core/choice.py`.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from pixelwise.core.container import ROOT, core_quota, memory_limit
from pixelwise.errors import ConfigError

PROCESSOR = "proc/cpuinfo"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # what decides how fast a processor multiplies matrices
BF16_UNITS = {"avx512_bf16", "amx_bf16"}
PACKAGES = ("torch", "numba", "triton", "onnx", "onnxscript", "onnxruntime", "openvino")  # for what computes
COMPILERS = ("g++", "c++", "clang++", "cl")  # torch.compile needs one for CPUs


@dataclass(frozen=True)
class Gpu:
    """A card, or the GPU of an Apple processor.

    kind        "cuda" or "mps", as torch names the device
    memory      bytes
    capability  of NVIDIA's architecture, such as (9, 0); None for others
    bf16        whether it multiplies bf16 itself
    """

    kind: str
    name: str
    memory: int
    capability: tuple[int, int] | None = None
    bf16: bool = False


@dataclass(frozen=True)
class Machine:
    """What was found.

    processor  its name
    flags      those of FLAGS that it has
    cores      that this process may use: its affinity and the container's quota of time, whole cores
    memory     bytes that it may use: the machine's, or the container's limit
    gpus       in torch's order
    packages   {name: version} of those of PACKAGES that are installed
    compiler   the C++ compiler that torch.compile would call for a CPU, "" where there is none
    threads    what OMP_NUM_THREADS says, None where it says nothing
    present    cores that the machine has, in or out of reach
    """

    processor: str = "unknown"
    flags: tuple[str, ...] = ()
    cores: int = 1
    memory: int = 0
    gpus: tuple[Gpu, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    compiler: str = ""
    threads: int | None = None
    present: int = 1

    def bf16_units(self, kind: str) -> bool:
        """Whether a device of this kind multiplies bf16 itself (one that emulates it is slower than in float32)."""
        if kind == "cpu":
            return bool(BF16_UNITS & set(self.flags))
        return any(gpu.bf16 for gpu in self.gpus if gpu.kind == kind)


def find(root: Path = ROOT) -> Machine:
    """Looks at the machine; takes a few milliseconds, and more where a GPU has to be woken.

    root   where /proc and the control groups are looked for
    """
    text = _read(root / PROCESSOR)
    return Machine(
        processor=processor_name(text), flags=processor_flags(text), cores=usable_cores(root),
        memory=int(min(psutil.virtual_memory().total, memory_limit(root))), gpus=_gpus(), packages=_packages(),
        compiler=next((name for name in (os.environ.get("CXX", ""), *COMPILERS) if name and shutil.which(name)), ""),
        threads=_asked_threads(), present=os.cpu_count() or 1,
    )  # fmt: skip


@cache
def here() -> Machine:
    """This machine, looked at once."""
    return find()


def hold_threads(threads: int) -> None:
    """No more threads for torch and the kernels than that: in a container it would start one for each core it sees."""
    if torch.get_num_threads() > threads:
        torch.set_num_threads(threads)


def processor_flags(text: str) -> tuple[str, ...]:
    """Those of FLAGS that a /proc/cpuinfo names, in that order; elsewhere than on x86 none is known."""
    lines = [line.split(":", 1)[1] for line in text.splitlines() if line.split(":", 1)[0].strip() == "flags"]
    have = set(lines[0].split()) if lines else set()
    return tuple(flag for flag in FLAGS if flag in have)


def processor_name(text: str) -> str:
    """The name in a /proc/cpuinfo, else what the platform says."""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "unknown"


def usable_cores(root: Path = ROOT) -> int:
    """Cores that this process may use: those it is tied to, within the container's quota; at least 1."""
    tied = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(tied, math.floor(min(core_quota(root), tied))))


def _asked_threads() -> int | None:
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # OpenMP takes a list, one number a level
    return int(first) if first.isdigit() and int(first) > 0 else None


def _gpus() -> tuple[Gpu, ...]:
    if torch.cuda.is_available():
        found = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
        return tuple(Gpu("cuda", p.name, p.total_memory, (p.major, p.minor), p.major >= 8) for p in found)
    if torch.backends.mps.is_available():
        return (Gpu("mps", f"{platform.processor() or 'Apple'} GPU", psutil.virtual_memory().total),)
    return ()


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


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


def describe(device: torch.device) -> str:
    """One line: processor or GPU, cores, memory."""
    if device.type == "cuda":
        p = torch.cuda.get_device_properties(device)
        return f"{p.name}, {p.total_memory / 2**30:.0f} GiB"
    threads = torch.get_num_threads()
    memory = min(psutil.virtual_memory().total, memory_limit()) / 2**30
    name = processor_name(_read(ROOT / PROCESSOR))
    return f"{name}, {threads} thread{'s' if threads != 1 else ''}, {memory:.0f} GiB"
