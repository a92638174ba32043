"""The state to resume from: everything comes back as it was."""

from __future__ import annotations

import json
import math
import resource
from dataclasses import asdict

import numpy as np
import pytest
import torch

from pixelwise.errors import OutputError
from pixelwise.training import checkpoint
from pixelwise.training.checkpoint import Position


def test_position_survives_json():
    at = Position(epoch=3, best=-math.inf, best_scores={"miou": math.nan}, elapsed=0.1)
    again = Position(**json.loads(json.dumps(asdict(at))))
    assert again.best == -math.inf
    assert math.isnan(again.best_scores["miou"])
    assert asdict(again) | {"best_scores": 0} == asdict(at) | {"best_scores": 0}


def test_state_round_trip(tmp_path):
    net = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(1, 2, 5, 5)).sum().backward()
    optimizer.step()
    held, numbers = checkpoint.optimizer_tensors(optimizer, net)
    checkpoint.write(tmp_path / "s.safetensors", held, {"n": numbers, "best": -math.inf})
    read, found = checkpoint.read(tmp_path / "s.safetensors")
    assert found == {"n": numbers, "best": -math.inf}
    fresh = torch.optim.Adam(net.parameters())
    checkpoint.restore_optimizer(fresh, net, read, found["n"], lambda full, like: full)
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            assert torch.equal(fresh.state[parameter][key], value)
    assert fresh.state[net.weight]["exp_avg"].stride() == net.weight.stride()


def test_random_state_round_trip():
    checkpoint.seed_everything(7)
    np.random.rand(5)
    states = checkpoint.random_tensors()
    drawn = torch.rand(3), np.random.rand(3)
    checkpoint.restore_random(states)
    assert torch.equal(torch.rand(3), drawn[0])
    assert np.array_equal(np.random.rand(3), drawn[1])


def test_a_file_that_finds_no_room_leaves_the_older_one(tmp_path):
    """The system's own refusal, in the middle of the file."""
    path, old = tmp_path / "s.safetensors", {"w": torch.arange(3.0)}
    checkpoint.write(path, old, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        with pytest.raises(OutputError, match=r"s\.safetensors cannot be written"):
            checkpoint.write(path, {"w": torch.zeros(100_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    tensors, numbers = checkpoint.read(path)
    assert torch.equal(tensors["w"], old["w"])
    assert numbers == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]
