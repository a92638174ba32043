"""Mirrored padding against numpy's and torch's, also where the image has fewer pixels than the padding wants."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelwise.kernels.mirror import mirror


def test_borders_are_torchs_reflection():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(mirror(x, (2, 2, 3, 3)), F.pad(x, (3, 3, 2, 2), mode="reflect"))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 8), (7, 20)])
def test_padding_of_any_width_is_numpys(size):
    images = torch.rand(2, 3, *size)
    padded = np.pad(images.numpy(), [(0, 0), (0, 0), (3, 9), (0, 11)], mode="reflect")
    assert np.array_equal(mirror(images, (3, 9, 0, 11)).numpy(), padded)


def test_nothing_to_pad_is_the_same_tensor():
    x = torch.rand(1, 3, 4, 5)
    assert mirror(x, (0, 0, 0, 0)) is x


def test_memory_stays_channels_last():
    x = torch.rand(2, 3, 4, 5)
    assert mirror(x, (1, 1, 1, 1)).is_contiguous()
    last = mirror(x.contiguous(memory_format=torch.channels_last), (1, 1, 1, 1))
    assert last.is_contiguous(memory_format=torch.channels_last)
