"""The pyramid over any encoder, and boxes pooled from the level their size asks for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import MultiScaleRoIAlign, roi_align

from pixelwise.errors import ConfigError
from pixelwise.nn.encoder import make_encoder
from pixelwise.nn.pyramid import Pyramid, RoIAlign, group_norms, norm_layer

LEVELS = {"0": 4, "1": 8, "2": 16}


def features() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {name: torch.randn(2, 5, 128 // s, 192 // s, generator=g) for name, s in {**LEVELS, "pool": 32}.items()}


def boxes() -> list[torch.Tensor]:
    return [torch.tensor([[3.2, 5.1, 20.3, 30.9], [10, 10, 180, 120.0]]), torch.tensor([[0.0, 0, 190, 127]])]


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_levels_are_named_finest_first_with_a_coarser_one_behind(name):
    pyramid = Pyramid(make_encoder(name), 16).eval()
    maps = pyramid(torch.zeros(1, 3, 64, 96))
    assert tuple(maps) == pyramid.names
    assert pyramid.strides == (4, 8, 16, 32, 64)
    assert pyramid.multiple == 32
    for stride, found in zip(pyramid.strides, maps.values()):
        assert found.shape == (1, 16, max(1, 64 // stride), -(-96 // stride))


def test_unaligned_pooling_is_torchvisions():
    want = MultiScaleRoIAlign(list(LEVELS), 7, 2)(features(), boxes(), [(128, 192)] * 2)
    assert torch.equal(RoIAlign(LEVELS, 7)(features(), boxes(), [(1, 1)] * 2), want)


@pytest.mark.parametrize("sampling", [0, 2])
def test_aligned_pooling_reads_each_box_from_its_level(sampling):
    found = RoIAlign(LEVELS, 7, sampling=sampling, aligned=True)(features(), boxes(), [])
    for row, (image, box, name) in enumerate(
        ((0, boxes()[0][0], "0"), (0, boxes()[0][1], "1"), (1, boxes()[1][0], "1"))
    ):
        level = {"0": 4, "1": 8, "2": 16}[name]
        roi = torch.cat([torch.tensor([float(image)]), box])[None]
        want = roi_align(features()[name], roi, (7, 7), 1 / level, sampling, aligned=True)
        torch.testing.assert_close(found[row], want[0])


def test_group_norms_take_the_place_of_batch_norms():
    encoder = group_norms(make_encoder("mobilenetv3_small_050"))  # whose norms hold their activations
    assert not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())
    assert any(isinstance(m, nn.Hardswish) for m in encoder.modules())
    one, two = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        together = encoder.train()(torch.cat([one, two]))
        torch.testing.assert_close(together[-1][:1], encoder(one)[-1])  # one image does not see the other


def test_a_wrong_norm_is_refused():
    assert norm_layer("none") is None
    with pytest.raises(ConfigError, match="none, batch, group"):
        norm_layer("layer")
