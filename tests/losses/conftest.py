"""One small batch for all losses, from formulas, so that no random generator's history can change it.

2 images of 12x16, 5 classes, of which class 4 never occurs in the truth.
"""

import pytest
import torch


@pytest.fixture
def logits():
    a = torch.arange(2 * 5 * 12 * 16, dtype=torch.float64)
    return (3 * torch.sin(a * 0.731) + torch.cos(a * a * 0.0137)).reshape(2, 5, 12, 16).float()


@pytest.fixture
def target():
    t = torch.arange(2 * 12 * 16)
    return ((t * t // 7 + t // 5) % 4).reshape(2, 12, 16)


@pytest.fixture
def void_target(target):
    """The same with 255 over three rows of the first image and three columns of the second."""
    target = target.clone()
    target[0, :3] = 255
    target[1, :, 13:] = 255
    return target
