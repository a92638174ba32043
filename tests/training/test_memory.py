"""What a step takes is counted, and memory that runs out is told with what to do."""

from __future__ import annotations

import pytest
import torch

from pixelwise.core.registry import create_model
from pixelwise.errors import MemoryLimitError
from pixelwise.nn.checkpointing import checkpoint_blocks
from pixelwise.training import memory


def test_the_probe_counts_what_a_step_needs():
    """Most is held when the gradient of the square is made: what each of convolution, ReLU and square gave, and the
    maps of gradients coming in and going out."""
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 1, bias=False), torch.nn.ReLU())
    x = torch.zeros(2, 1, 16, 16)
    before = torch.get_rng_state()
    taken = memory.step_bytes(net, lambda trial: trial(x).square().sum(), torch.device("cpu"))
    map_ = 8 * x.numel() * 4
    assert 4 * map_ <= taken <= 5 * map_
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in net.parameters())


def test_peak_follows_what_is_freed():
    with memory.Peak() as peak:
        a = torch.zeros(100)
        for _ in range(5):
            b = a + 1  # the older one goes when the newer is there
        b = b.view(10, 10).t()
        del a
        assert peak.now == 400
    assert peak.most == 1200
    with memory.Peak() as peak:
        b.add_(1)
    assert peak.most == 0
    assert b.sum() == 200


def test_checkpointing_shows_in_the_probe():
    def taken(saves: bool) -> int:
        torch.manual_seed(0)
        with torch.device("meta"):
            net = create_model("unet", classes=3, width=8)
            if saves:
                checkpoint_blocks(net)
            x = torch.zeros(2, 3, 64, 64)
            return memory.step_bytes(net, lambda trial: trial(x).logits.square().sum(), torch.device("meta"))

    assert taken(True) < 0.7 * taken(False)


def test_memory_that_runs_out_names_the_setting():
    with pytest.raises(MemoryLimitError, match=r"Memory ran out\. Use less"), memory.memory_limit("Use less."):
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="something else"), memory.memory_limit("Use less."):
        raise RuntimeError("something else")


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    assert memory.free_memory(torch.device("cpu")) > 10_000_000
    monkeypatch.setattr(memory, "memory_room", lambda root: 1_500_000.0 if root == tmp_path else 0.0)
    assert memory.free_memory(torch.device("cpu")) == 1_500_000


def test_fit_halves(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 10_000)
    cpu = torch.device("cpu")
    assert memory.fit_batch(16, 1500, 0, cpu, asked=False) == 4  # six fit
    assert memory.fit_batch(6, 1500, 0, cpu, asked=True) == 6
    assert memory.fit_batch(3, 1, 0, cpu, asked=False) == 3
    with pytest.raises(MemoryLimitError, match=r"--batch-size 6 .*, --gradient-checkpointing, a smaller --crop"):
        memory.fit_batch(7, 1500, 0, cpu, asked=True)
    with pytest.raises(MemoryLimitError, match=r"Not even one image fits.*Use a smaller --crop"):
        memory.fit_batch(7, 1500, 8000, cpu, asked=True, checkpointing=True)
