"""Attention against its definition, pair by pair."""

from __future__ import annotations

import math

import pytest
import torch

from pixelwise.nn import attention
from pixelwise.nn.attention import attend, tokens


def by_pairs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    found = torch.zeros(len(q), q.shape[1], v.shape[2], dtype=q.dtype)
    for b in range(len(q)):
        for i in range(q.shape[1]):
            weights = [math.exp(scale * float(q[b, i] @ k[b, j])) for j in range(k.shape[1])]
            for j, weight in enumerate(weights):
                found[b, i] += weight / sum(weights) * v[b, j]
    return found


@pytest.mark.parametrize("width", [4, 7])  # fused, and in blocks
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_softmax_of_all_pairs(width, scale, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 3)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, d, dtype=torch.float64) for n, d in ((8, 4), (5, 4), (5, width)))
    torch.testing.assert_close(attend(q, k, v, scale), by_pairs(q, k, v, scale))


def test_gradients_are_those_of_the_plain_formula(monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 3)
    torch.manual_seed(0)
    inputs = [torch.randn(2, n, d, dtype=torch.float64, requires_grad=True) for n, d in ((8, 4), (5, 4), (5, 6))]
    q, k, v = inputs
    ours = torch.autograd.grad(attend(q, k, v, 0.7).square().sum(), inputs)
    plain = torch.autograd.grad(((q @ k.mT * 0.7).softmax(-1) @ v).square().sum(), inputs)
    for a, b in zip(ours, plain):
        torch.testing.assert_close(a, b)


def test_tokens_are_a_view():
    maps = torch.randn(2, 3, 4, 5)
    assert torch.equal(tokens(maps)[1, 7], maps[1, :, 1, 2])
    assert tokens(maps.contiguous(memory_format=torch.channels_last)).is_contiguous()
