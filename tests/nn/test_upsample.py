"""Transposed convolution and unpooling by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pixelwise.nn.upsample import bilinear_kernel, bilinear_up, pool, unpool


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 0), (3, 1, 1), (2, 2, 0), (4, 2, 1)])
def test_transposed_convolution_is_the_adjoint(kernel, stride, padding):
    """With the convolution written as a matrix W [outputs, inputs], the transposed one is y = W^T x."""
    torch.manual_seed(0)
    weight = torch.randn(2, 3, kernel, kernel, dtype=torch.float64)  # from 3 channels to 2; transposed from 2 to 3
    inputs = torch.eye(3 * 6 * 8, dtype=torch.float64).view(-1, 3, 6, 8)
    columns = F.conv2d(inputs, weight, stride=stride, padding=padding)  # [inputs, 2, h, w]
    matrix = columns.flatten(1).T  # W
    x = torch.randn(columns.shape[1:], dtype=torch.float64)
    up = nn.ConvTranspose2d(2, 3, kernel, stride, padding, bias=False, dtype=torch.float64)
    up.weight.data = weight
    expected = (matrix.T @ x.flatten()).view(3, 6, 8)
    torch.testing.assert_close(up(x[None])[0], expected)


@pytest.mark.parametrize("side", [3, 4, 16])
def test_bilinear_kernel_is_a_tent(side):
    factor = -(-side // 2)
    middle = (side - 1) / 2 if side % 2 == 0 else factor - 1
    kernel = bilinear_kernel(side)
    for i, j in np.ndindex(side, side):
        expected = (1 - abs(i - middle) / factor) * (1 - abs(j - middle) / factor)
        assert float(kernel[i, j]) == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("factor", [2, 8])
def test_it_begins_as_bilinear_interpolation(factor):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 7)
    up = bilinear_up(3, factor)
    half = factor // 2  # pixels that the transposed convolution adds at each side
    y = up(x)[:, :, half:-half, half:-half]
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = slice(half, -half)  # at the borders interpolation repeats the last pixel, the convolution knows none
    torch.testing.assert_close(y[:, :, inner, inner], expected[:, :, inner, inner])
    assert up.weight.requires_grad
    assert not bilinear_up(3, factor, learned=False).weight.requires_grad


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_unpooling_is_its_loops(size, ceil):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    values, indices = pool(x, ceil=ceil)
    expected = torch.zeros_like(x)
    rounded = [-(-n // 2) if ceil else n // 2 for n in size]
    assert list(values.shape[2:]) == rounded
    for b, c, i, j in np.ndindex(2, 3, *rounded):
        block = x[b, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = divmod(int(block.argmax()), block.shape[1])
        expected[b, c, 2 * i + row, 2 * j + column] = block.max()
    assert torch.equal(unpool(values, indices, size), expected)


@pytest.mark.parametrize("ceil", [False, True])
def test_gradients_of_unpooling_reach_the_maxima_alone(ceil):
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    values, indices = pool(x, ceil=ceil)
    unpooled = unpool(values, indices, (5, 7))
    unpooled.sum().backward()
    assert torch.equal(x.grad, (unpooled != 0).float())
