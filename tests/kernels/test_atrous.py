"""Nine shifted products against torch's dilated convolution."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pixelwise.kernels import atrous
from pixelwise.kernels.atrous import atrous_conv, shifted_products
from pixelwise.nn.conv import AtrousConv, conv_norm

SIZES = [(1, 1), (5, 9), (16, 7), (13, 13)]


@pytest.mark.parametrize("rate", [1, 2, 5, 6, 12, 40])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lie", ["contiguous", "channels last", "cut out"])
def test_shifted_products_are_the_convolution_in_float64(rate, size, lie):
    torch.manual_seed(rate)
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    weight, bias = torch.randn(4, 6, 3, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    laid = {
        "contiguous": x,
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "cut out": F.pad(x, (1, 2, 3, 0))[:, :, 3:, 1:-2],
    }[lie]
    expected = F.conv2d(x, weight, bias, padding=rate, dilation=rate)
    torch.testing.assert_close(shifted_products(laid, weight, bias, rate), expected, rtol=1e-12, atol=1e-12)
    expected = F.conv2d(x, weight, padding=rate, dilation=rate)
    torch.testing.assert_close(shifted_products(laid, weight, None, rate), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1.5e-2)])
def test_rounding_is_that_of_nine_sums(kind, tolerance):
    x, weight = torch.randn(1, 300, 20, 24), torch.randn(32, 300, 3, 3) / 50
    exact = F.conv2d(x.to(kind).double(), weight.to(kind).double(), padding=9, dilation=9)
    found = shifted_products(x.to(kind), weight.to(kind), None, 9)
    assert found.dtype == kind
    assert float((found.double() - exact).abs().max()) <= tolerance * float(exact.abs().max())


def test_autocast_computes_in_its_type():
    x, weight = torch.randn(1, 8, 9, 9), torch.randn(4, 8, 3, 3)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        plain = F.conv2d(x, weight, padding=4, dilation=4)
        found = shifted_products(x, weight, None, 4)
    assert found.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain, rtol=0.05, atol=0.1)


def test_the_rule(monkeypatch):
    ran = []
    monkeypatch.setattr(atrous, "shifted_products", lambda x, *rest: ran.append("shifted") or x)
    wide, narrow = torch.zeros(256, 300, 3, 3), torch.zeros(32, 300, 3, 3)

    def way(x, weight, rate):
        ran.clear()
        atrous_conv(x, weight.to(x.dtype), None, rate)
        return ran == ["shifted"]

    x = torch.zeros(1, 300, 16, 16)
    monkeypatch.setattr(atrous, "has_amx", lambda: True)
    assert way(x.bfloat16(), wide, 8)
    assert not way(x.bfloat16(), wide, 1)  # hardly any padding
    assert not way(x.bfloat16(), narrow, 8)
    assert not way(x, wide, 8)
    monkeypatch.setattr(atrous, "has_amx", lambda: False)
    assert not way(x.bfloat16(), wide, 8)


def test_the_layer_is_plain_where_gradients_are_wanted_or_the_net_is_exported(monkeypatch):
    ran = []
    monkeypatch.setattr("pixelwise.nn.conv.atrous_conv", lambda x, *rest: ran.append(1) or shifted_products(x, *rest))
    layer, x = AtrousConv(5, 7, 3, bias=True), torch.randn(2, 5, 8, 9)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=3, dilation=3)
    layer(x).sum().backward()
    with torch.no_grad():
        layer(x)  # in training
    layer.eval()
    layer(x)
    program = torch.export.export(layer, (x,), strict=False)
    assert not ran
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), expected)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
        assert ran == [1]
        layer.padding = layer.dilation = (2, 2)
        layer.padding = (1, 1)
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1, dilation=2))
    assert ran == [1]


def test_blocks_of_dilated_convolutions_are_made_of_it():
    assert isinstance(conv_norm(4, 4, 3, dilation=6)[0], AtrousConv)
    for plain in (
        conv_norm(4, 4, 3),
        conv_norm(4, 4, 3, dilation=2, groups=4),
        conv_norm(4, 4, 3, dilation=2, stride=2),
    ):
        assert not isinstance(plain[0], AtrousConv)
    names = set(conv_norm(4, 4, 3, dilation=6, bias=True).state_dict())
    assert names == set(conv_norm(4, 4, 3, bias=True).state_dict())
