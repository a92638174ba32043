"""Keeps a thread's alternative signal stack as it was.

OpenVINO's CPU plugin gives the thread that loads it an alternative signal stack of the smallest size that the kernel
allows. Python's signal handlers run on such a stack where there is one, and overflow it: the next signal, such as the
end of a loading process, is then a segmentation fault.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator


class Stack(ctypes.Structure):
    """stack_t of <signal.h>, as Linux has it."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> Stack:
    """That of this thread; its size is 0 where there is none."""
    found = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found


@contextlib.contextmanager
def own_signal_stack() -> Iterator[None]:
    """Whatever happens within, the thread has its own stack for signals afterwards."""
    if not sys.platform.startswith("linux"):
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
