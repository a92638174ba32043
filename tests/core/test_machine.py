"""What is found of a machine, from made files."""

from __future__ import annotations

import os

import pytest
import torch

from pixelwise.core import machine as machines
from pixelwise.core.machine import Gpu, Machine, find, hold_threads, processor_flags, processor_name, usable_cores

XEON = ("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8481C\n"
        "flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 amx_bf16 amx_tile amx_int8\n"
        "processor\t: 1\nflags\t\t: fpu\n")  # fmt: skip
OLD = "model name\t: Intel(R) Core(TM) i5-6500\nflags\t\t: fpu sse2 avx avx2\nvmx flags\t: amx_bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(("text", "flags"), [
    (XEON, ("avx2", "avx512f", "avx512_bf16", "amx_bf16")), (OLD, ("avx2",)), (ARM, ()), ("", ()),
])  # fmt: skip
def test_flags_are_those_of_the_first_processor(text, flags):
    assert processor_flags(text) == flags


def test_the_processors_name():
    assert processor_name(XEON) == "Intel(R) Xeon(R) Platinum 8481C"
    assert processor_name("") != ""


def container(root, quota, memory):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(XEON)
    (root / "proc/self/mountinfo").write_text("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (root / "proc/self/cgroup").write_text("0::/\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text(f"{quota} 100000\n")
    (root / "sys/fs/cgroup/memory.max").write_text(f"{memory}\n")
    return root


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("190000", 1), ("max", None)])
def test_cores_are_whole_and_within_quota_and_affinity(tmp_path, quota, cores):
    tied = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable_cores(container(tmp_path, quota, "max")) == min(cores or tied, tied)


def test_a_container_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    found = find(container(tmp_path, "50000", 1_000_000_000))
    assert (found.cores, found.memory, found.threads) == (1, 1_000_000_000, 3)
    assert found.bf16_units("cpu")
    assert found.packages["torch"].split("+")[0] == torch.__version__.split("+")[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert find(tmp_path).threads is None


def test_bf16_units_belong_to_a_device():
    machine = Machine(flags=("avx2",), gpus=(Gpu("cuda", "A100", 40 << 30, (8, 0), bf16=True),))
    assert machine.bf16_units("cuda")
    assert not machine.bf16_units("cpu")
    assert not machine.bf16_units("mps")


def test_threads_are_only_ever_lowered(monkeypatch):
    now = torch.get_num_threads()
    hold_threads(now + 7)
    assert torch.get_num_threads() == now
    asked = []
    monkeypatch.setattr(machines.torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(machines.torch, "set_num_threads", asked.append)
    hold_threads(2)
    assert asked == [2]
