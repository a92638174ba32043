"""How kernels are chosen and compiled. An operation has up to three forms: plain PyTorch, the reference; Numba, for
CPUs; Triton, for GPUs.

Numba compiles a function when it is first called and keeps the machine code in the user's cache folder, for this
processor. Where nothing may be written there, a folder below the system's temporary one serves. Without Numba the
reference runs, to the same answer. All of Numba's functions here let go of Python's lock, so that plain threads share
the work: its own threading layers may not be entered from two threads at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

numba: Any
try:
    import numba
except ImportError:  # no wheel for this Python or processor
    numba = None

Form = Literal["torch", "numba", "triton"]
Function = TypeVar("Function", bound=Callable[..., Any])

_only: ContextVar[Form | None] = ContextVar("only", default=None)
_pool: ThreadPoolExecutor | None = None


def compiled(function: Function) -> Function:
    """Decorates a function in the subset of Python that Numba knows; without Numba it stays as it is, and slow.

    Sums are added up in the order written and no product is fused into a sum, so that the answer is PyTorch's to the
    bit where the same operations are done in the same order.
    """
    return _compile(function, fastmath=False)


def reordered(function: Function) -> Function:
    """As `compiled`, for sums whose order does not matter: they become vector instructions, products fused into them.

    NaN and infinities are still what they are elsewhere.
    """
    return _compile(function, fastmath={"reassoc", "contract", "nsz", "arcp"})


def fused(function: Function) -> Function:
    """As `compiled`, but a product may be fused into the sum that it goes to, which saves its rounding.

    Sums stay in the order written, so what is rounded away on purpose, or kept in two parts, stays so.
    """
    return _compile(function, fastmath={"contract"})


def _compile(function: Function, fastmath: Any) -> Function:
    if numba is None:
        return function
    options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    told = numba.config.CACHE_DIR
    folder = _folder(told)
    if folder is None:
        return numba.njit(**options)(function)
    numba.config.CACHE_DIR = str(folder)
    try:
        return numba.njit(cache=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = told


@cache
def _folder(told: str) -> Path | None:
    """The first folder for machine code that can be written to."""
    for folder in _folders(told):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    return None


def _folders(told: str) -> Iterator[Path]:
    """Where machine code may be kept, the best place first; `told` is the user's own, from NUMBA_CACHE_DIR.

    Each ends in a digest of all kernels: Numba itself looks for changes in the file of the outermost function alone.
    """
    if told:
        yield Path(told) / _digest()
        return
    with contextlib.suppress(RuntimeError):  # a user without a home
        yield user_cache() / "kernels" / _digest()
    private = _private_folder()
    if private is not None:
        yield private / _digest()


@cache
def _digest() -> str:
    """Twelve letters that change with any file of this folder."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def user_cache() -> Path:
    """The user's own folder for what can be made anew, as the operating system has it."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "pixelwise" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pixelwise"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixelwise"


@cache
def _private_folder() -> Path | None:
    """A folder for machine code that nobody else may write to; None where there is none: others' code is never run."""
    folder = Path(tempfile.gettempdir()) / f"pixelwise-kernels-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return None
    own = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    return folder if own else None


def form_for(*tensors: Tensor) -> Form:
    """Which form runs on these tensors: Numba's on the CPU, Triton's on an NVIDIA GPU, the reference elsewhere.

    The reference also runs while a net is compiled or exported, and for float64, which is for checking.
    """
    chosen = _only.get()
    if chosen is not None:
        return chosen
    if torch.compiler.is_compiling() or any(t.dtype == torch.float64 for t in tensors):
        return "torch"
    kinds = {t.device.type for t in tensors}
    if kinds == {"cpu"} and numba is not None:
        return "numba"
    return "triton" if kinds == {"cuda"} and has_triton() else "torch"


@cache
def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@contextlib.contextmanager
def only(form: Form) -> Iterator[None]:
    """Within it this form runs, whatever the tensors are: to hold forms against each other."""
    token = _only.set(form)
    try:
        yield
    finally:
        _only.reset(token)


def in_parts(work: Callable[[int, int], None], count: int, least: int = 1) -> None:
    """Calls `work(start, stop)` on parts of range(count), of at least `least` each, on as many threads as torch has.

    The parts must write to different places. What `work` raises is raised.
    """
    threads = min(torch.get_num_threads(), count // max(1, least))
    if threads <= 1:
        work(0, count)
        return
    cuts = [count * i // threads for i in range(threads + 1)]
    for future in [_threads().submit(work, start, stop) for start, stop in pairwise(cuts)]:
        future.result()


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="kernel")
    return _pool


def _forget_threads() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # threads do not survive a fork; a pool that believes in them waits for ever
    os.register_at_fork(after_in_child=_forget_threads)
