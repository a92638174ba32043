"""The U-Net decoder: which map stands beside which step, and what a block does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.nn.encoder import Encoder, make_encoder
from pixelwise.nn.unet_decoder import SkipBlock, Skips, UNetDecoder, check_cells


class Maps(nn.Module):
    """Stands for a net of given strides."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return []


def encoder(strides: list[int]) -> Encoder:
    return Encoder(Maps(), [10 + s for s in strides], strides, range(len(strides)), 1)


@pytest.mark.parametrize(("strides", "steps", "channels"), [
    ([2, 4, 8, 16, 32], [16, 8, 4, 2, 1], [26, 18, 14, 12, 0]),
    ([1, 2, 4, 8, 16, 32], [16, 8, 4, 2, 1], [26, 18, 14, 12, 0]),  # none at full size, as smp over VGGs
    ([4, 8, 16, 32], [16, 8, 4, 2, 1], [26, 18, 14, 0, 0]),
    ([2, 4, 8, 16], [8, 4, 2, 1], [18, 14, 12, 0]),
])  # fmt: skip
def test_skips_by_strides(strides, steps, channels):
    skips = Skips(encoder(strides))
    assert (skips.strides, skips.channels, skips.head) == (steps, channels, 10 + strides[-1])
    images = torch.zeros(1, 3, 65, 97)
    maps = [torch.full((1, 1, -(-65 // s), -(-97 // s)), float(s)) for s in strides]
    for stride, channel, (size, found) in zip(steps, channels, skips.beside(images, maps), strict=True):
        assert [float(x.mean()) for x in found] == ([stride] if channel else [])
        assert size == ((-(-65 // stride), -(-97 // stride)) if channel else (65 // stride, 97 // stride))


def test_a_stride_that_is_no_power_of_two_is_refused():
    with pytest.raises(ConfigError, match="stride 28, no power of two"):
        Skips(encoder([7, 14, 28]))


@torch.no_grad()
def test_a_block_enlarges_to_the_nearest_and_joins(stir_block):
    x, skip = torch.randn(1, 4, 2, 3), torch.randn(1, 2, 5, 6)
    seen: list[Tensor] = []
    stir_block.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert stir_block(x, (5, 6), skip).shape == (1, 3, 5, 6)
    assert torch.equal(seen[0][:, 4:], skip)
    for i in range(5):
        for j in range(6):
            assert torch.equal(seen[0][:, :4, i, j], x[:, :, i * 2 // 5, j * 3 // 6])


@pytest.fixture
def stir_block() -> SkipBlock:
    torch.manual_seed(0)
    return SkipBlock(4, 2, 3).eval()


def test_widths_are_as_many_as_halvings():
    with pytest.raises(ConfigError, match="halves 5 times, so it must be 5 numbers"):
        UNetDecoder(encoder([2, 4, 8, 16, 32]), [8, 8])


@torch.no_grad()
def test_center_comes_first():
    body = make_encoder("resnet10t")
    plain, center = UNetDecoder(body, [8] * 5), UNetDecoder(body, [8] * 5, center=True)
    extra = set(center.state_dict()) - set(plain.state_dict())
    assert {name.split(".")[0] for name in extra} == {"center"}
    images = torch.randn(1, 3, 64, 64)
    assert center.eval()(images, body.eval()(images)).shape == (1, 8, 64, 64)


def test_single_cells():
    net = nn.BatchNorm2d(1)
    with pytest.raises(ConfigError, match="32 x 8 pixels shrinks to a single cell"):
        check_cells(net.train(), torch.zeros(1, 3, 8, 32), 32)
    check_cells(net, torch.zeros(1, 3, 8, 33), 32)
    check_cells(net, torch.zeros(2, 3, 8, 8), 32)
    check_cells(net.eval(), torch.zeros(1, 3, 8, 8), 32)
