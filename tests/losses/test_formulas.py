"""The textbook's softmax, cross-entropy and mask loss, each by loops over its definition."""

from __future__ import annotations

import math

import pytest
import torch

from pixelwise.core.outputs import Dense
from pixelwise.core.regions import Sampled
from pixelwise.core.segments import Segments
from pixelwise.losses import cross_entropy
from pixelwise.losses.regions import mask_loss


def softmax_by_loop(scores: list[float]) -> list[float]:
    """exp(z_k) / sum_j exp(z_j)."""
    total = sum(math.exp(z) for z in scores)
    return [math.exp(z) / total for z in scores]


def test_softmax_at_every_pixel():
    logits = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3
    probs = Dense(logits).probs(0)
    for y in range(4):
        for x in range(5):
            assert probs[:, y, x].tolist() == pytest.approx(softmax_by_loop(logits[0, :, y, x].tolist()), rel=1e-5)


def test_cross_entropy_is_the_mean_of_minus_log_p_of_the_true_class():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    target = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    target[0, 1, 2] = 255  # void does not count
    terms = [
        -math.log(softmax_by_loop(logits[b, :, y, x].tolist())[int(target[b, y, x])])
        for b in range(2) for y in range(4) for x in range(5) if target[b, y, x] != 255
    ]  # fmt: skip
    assert float(cross_entropy(logits, target, ignore_index=255)) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_mask_loss_is_the_binary_entropy_of_the_true_class_alone():
    """L_mask = -1/m^2 sum_ij [y_ij log p_ij + (1 - y_ij) log(1 - p_ij)], p the sigmoid of the true class's mask."""
    cells, things = 4, 3
    ids = torch.full((16, 16), -1, dtype=torch.int8)
    ids[2:6, 2:6], ids[8:16, 8:12] = 0, 1
    truth = Segments(ids, torch.tensor([2, 0]))
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 8.0, 16.0, 16.0]])  # cells of 2 x 2 pixels, each of one kind
    covered = torch.zeros(2, cells, cells)
    covered[0, 1:3, 1:3] = 1
    covered[1, :, :2] = 1
    logits = torch.randn(2, things, cells, cells, generator=torch.Generator().manual_seed(3))
    none = torch.zeros(0)
    sampled = Sampled(none, none, none, none, (boxes,), (torch.tensor([0, 1]),), none, none, logits)
    terms = []
    for box, label in enumerate((2, 0)):
        for i in range(cells):
            for j in range(cells):
                p = 1 / (1 + math.exp(-float(logits[box, label, i, j])))
                terms.append(-math.log(p if covered[box, i, j] else 1 - p))
    found = float(mask_loss(sampled, (truth,), (0, 1, 2), aligned=True))
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-5)
