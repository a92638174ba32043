"""Halos against arithmetic by hand, against what perturbing pixels shows, and against nets that see all of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.outputs import Dense
from pixelwise.core.registry import create_model
from pixelwise.nn.receptive import Halo, halo_of


class Net(nn.Module):
    """Layers and, behind them, a function of their result and the images."""

    def __init__(self, *layers: nn.Module, then: Callable[[Tensor, Tensor], Tensor] = lambda x, images: x,
                 align_corners: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.layers, self.then = nn.Sequential(*layers), then

    def forward(self, images: Tensor, frames: Any = None) -> Dense:
        return Dense(self.then(self.layers(images), images))


def conv(kernel: int, **words: Any) -> nn.Conv2d:
    words.setdefault("padding", words.get("dilation", 1) * (kernel // 2))
    return nn.Conv2d(3, 3, kernel, **words)


@pytest.mark.parametrize(
    ("layers", "pixels", "stride"),
    [
        ([conv(1)], 0, 1),
        ([conv(3)], 1, 1),
        ([conv(7), nn.ReLU(inplace=True), conv(5)], 5, 1),
        ([conv(3, dilation=12)], 12, 1),
        ([conv(3), nn.BatchNorm2d(3), nn.Sigmoid(), conv(3, groups=3)], 2, 1),
        # an enlarged cell lies between two of the grid: one more each way, and what those see
        ([conv(2, stride=2, padding=0)], 2, 2),
        ([conv(3, stride=2)], 3, 2),  # cell i sees 2 i - 1 to 2 i + 1
        ([nn.MaxPool2d(2), conv(3), nn.ConvTranspose2d(3, 3, 2, stride=2)], 2, 2),
        ([nn.MaxPool2d(2), nn.MaxPool2d(2), conv(3), nn.Upsample(scale_factor=4)], 4, 4),
        ([nn.AvgPool2d(3, 2, padding=1), nn.Upsample(scale_factor=2, mode="bilinear")], 3, 2),
        ([nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2)], 2, 2),
    ],
)
def test_halos_are_those_of_arithmetic_by_hand(layers, pixels, stride):
    net = Net(*layers).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert halo_of(net) == Halo(pixels, stride, halo_of(net).any_size)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_sizes_that_a_net_stretches_are_told():
    cut = Net(
        conv(3, stride=4),
        then=lambda x, images: F.interpolate(x, scale_factor=4)[:, :, : images.shape[2], : images.shape[3]],
    )
    stretched = Net(conv(3, stride=4), then=lambda x, images: F.interpolate(x, images.shape[2:], mode="bilinear"))
    assert halo_of(stretched) == Halo(5, 4, any_size=False)
    assert halo_of(cut).any_size


@pytest.mark.parametrize(
    "then",
    [
        lambda x, images: x * x.mean((2, 3), keepdim=True),
        lambda x, images: x + F.adaptive_avg_pool2d(x, 1),
        lambda x, images: x + F.interpolate(F.adaptive_max_pool2d(x, 6), x.shape[2:]),
        lambda x, images: F.interpolate(F.max_pool2d(x, 2), x.shape[2:], mode="bilinear", align_corners=True),
        lambda x, images: F.group_norm(x, 1),
        lambda x, images: F.instance_norm(x),
        lambda x, images: (x.flatten(2).softmax(2) @ images.flatten(2).transpose(1, 2)).sum() + x,
        lambda x, images: x.flatten(2).cumsum(2).unflatten(2, tuple(x.shape[2:])),
        lambda x, images: x.roll(5, 2),
    ],
)
def test_nets_that_see_all_of_an_image_have_none(then):
    assert halo_of(Net(conv(3), then=then)) is None


def test_a_far_look_through_gaps_is_seen():
    assert halo_of(Net(conv(3, dilation=300), conv(3, dilation=350), conv(3))) == Halo(651, 1, any_size=True)
    assert halo_of(Net(conv(3, dilation=3000), conv(3))) is None  # further than any window


@pytest.mark.parametrize("name", ["refinenet-small", "mask_rcnn-small", "unet-milesial-bilinear"])
def test_architectures_that_see_all_of_an_image_have_none(name):
    assert halo_of(create_model(name, classes=3)) is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"width": 4, "depth": 2}),
        ("unet-2015", {"width": 4, "depth": 1}),
        ("segnet", {"width": 2}),
        ("attention_unet", {"width": 2}),
        ("unetplusplus", {"width": 2}),
        ("fcn-8s-wkentaro", {"width": 2, "fc": 4}),
    ],
)
def test_no_pixel_beyond_the_halo_counts_and_some_within_does(name, options):
    torch.manual_seed(0)
    net = create_model(name, classes=2, **options).double().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.uniform_(module.weight, 0, 2 / module.weight[0].numel())
    halo = halo_of(net)
    assert halo is not None
    middle = -(-(halo.pixels + halo.stride) // halo.stride) * halo.stride
    image = torch.rand(1, 3, 2 * middle + halo.stride, 32, dtype=torch.float64)
    cell = slice(middle, middle + halo.stride)
    with torch.no_grad():
        seen = net(image).full()[:, :, cell]
        for rows in (slice(0, middle - halo.pixels), slice(middle + halo.stride + halo.pixels, None)):
            other = image.clone()
            other[:, :, rows] = torch.rand_like(other[:, :, rows])
            assert torch.equal(net(other).full()[:, :, cell], seen)
        near = image.clone()
        near[:, :, middle - halo.pixels // 2 : middle] = 9.0
        assert not torch.equal(net(near).full()[:, :, cell], seen)
