"""OpenVINO leaves the stack for signals alone: see `engines/_signals.py`."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signal stacks are looked at on Linux")


def test_the_stack_for_signals_is_put_back():
    code = """
import ctypes
from pixelwise.engines._signals import Stack, own_signal_stack, signal_stack
room = ctypes.create_string_buffer(1 << 16)
before = signal_stack()
with own_signal_stack():
    libc = ctypes.CDLL(None)
    assert libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(room), 0, len(room))), None) == 0
    assert signal_stack().place == ctypes.addressof(room)
after = signal_stack()
assert (after.place, after.flags, after.size) == (before.place, before.flags, before.size)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_openvino_leaves_none():
    pytest.importorskip("openvino")
    code = """
from pixelwise.engines._signals import signal_stack
from pixelwise.engines.openvino import has_bf16
before = signal_stack().size
has_bf16()
assert signal_stack().size == before, (before, signal_stack().size)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
