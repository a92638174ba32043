"""Sampling a window against torch's interpolation of the whole map."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pixelwise.kernels.resample import sample_window


@pytest.mark.parametrize(
    ("source", "size"), [((5, 7), (20, 28)), ((5, 7), (13, 9)), ((8, 8), (3, 5)), ((1, 1), (4, 6))]
)
def test_the_whole_is_torchs_half_pixel_interpolation(source, size):
    maps = torch.randn(3, *source)
    step = (source[0] / size[0], source[1] / size[1])
    found = sample_window(maps, origin=(step[0] / 2 - 0.5, step[1] / 2 - 0.5), step=step, size=size)
    expected = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_window_is_a_part_of_the_whole():
    maps = torch.randn(2, 5, 7)
    whole = sample_window(maps, origin=(-0.375, -0.375), step=(0.25, 0.25), size=(20, 28))
    part = sample_window(maps, origin=(-0.375 + 3 * 0.25, -0.375 + 10 * 0.25), step=(0.25, 0.25), size=(6, 11))
    torch.testing.assert_close(part, whole[:, 3:9, 10:21])


def test_outside_the_border_is_repeated_and_halves_are_raised():
    maps = torch.tensor([[[1.0, 3.0]]], dtype=torch.bfloat16)
    found = sample_window(maps, origin=(0.0, -2.0), step=(1.0, 0.5), size=(1, 9))
    assert found.dtype == torch.float32
    assert found[0, 0].tolist() == [1, 1, 1, 1, 1, 2, 3, 3, 3]


def test_gradients_reach_the_maps():
    maps = torch.randn(1, 3, 3, dtype=torch.float32, requires_grad=True)
    sample_window(maps, origin=(0.0, 0.0), step=(0.5, 0.5), size=(5, 5)).sum().backward()
    assert bool((maps.grad > 0).all())
