"""What a step takes is counted, and memory that runs out is told with what to do."""

from __future__ import annotations

import pytest
import torch

from pixelwise.errors import MemoryLimitError
from pixelwise.training import memory


def test_the_probe_counts_what_the_backward_pass_needs():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 1, bias=False), torch.nn.ReLU())
    x = torch.zeros(2, 1, 16, 16)
    before = torch.get_rng_state()
    kept = memory.activation_bytes(net, lambda trial: trial(x).sum(), torch.device("cpu"))
    assert kept == 4 * (x.numel() + 8 * x.numel())  # the convolution keeps its input, the ReLU its output
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_that_runs_out_names_the_setting():
    with pytest.raises(MemoryLimitError, match=r"Memory ran out\. Use less"), memory.memory_limit("Use less."):
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="something else"), memory.memory_limit("Use less."):
        raise RuntimeError("something else")


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    plain = memory.free_memory(torch.device("cpu"))
    assert plain > 10_000_000
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4500000\n")
    (tmp_path / "memory.stat").write_text("anon 3000000\ninactive_file 1000000\n")
    assert memory.free_memory(torch.device("cpu")) == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory(torch.device("cpu")) > 10_000_000


def test_fit_halves(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 10_000)
    cpu = torch.device("cpu")
    assert memory.fit_batch(16, 1000, 0, cpu, asked=False) == 4  # six fit
    assert memory.fit_batch(6, 1000, 0, cpu, asked=True) == 6
    assert memory.fit_batch(3, 1, 0, cpu, asked=False) == 3
    with pytest.raises(MemoryLimitError, match="--batch-size 6"):
        memory.fit_batch(7, 1000, 0, cpu, asked=True)
    with pytest.raises(MemoryLimitError, match="Not even one image"):
        memory.fit_batch(7, 1000, 8000, cpu, asked=True)
