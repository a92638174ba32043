"""VGG-16 in five stages: torchvision's, with poolings as the dense nets want them."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from pixelwise.errors import ConfigError
from pixelwise.nn.vgg import VGG


def copy_convolutions(vgg: VGG, features: nn.Sequential) -> None:
    kinds = nn.Conv2d | nn.BatchNorm2d
    mine = [m for m in vgg.modules() if isinstance(m, kinds)]
    for own, given in zip(mine, (m for m in features if isinstance(m, kinds)), strict=True):
        own.load_state_dict(given.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("norm", [False, True])
def test_maps_are_torchvisions(norm):
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=norm).eval()
    vgg = VGG(norm=norm).eval()
    copy_convolutions(vgg, features)
    x, wanted = torch.randn(1, 3, 33, 65), []
    maps = vgg(x)
    for layer in features:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            wanted.append(x)
    assert [m.shape[1] for m in maps] == list(vgg.channels) == [64, 128, 256, 512, 512]
    for found, expected in zip(maps, wanted, strict=True):
        torch.testing.assert_close(found, expected)


def test_poolings_round_up_and_stop_striding():
    with torch.device("meta"):
        x = torch.zeros(1, 3, 97, 65)
        plain, up = VGG(width=2)(x), VGG(width=2, ceil=True)(x)
        flat = VGG(width=2, pool=3, ceil=True, strides=(2, 2, 2, 1, 1), dilations=(1, 1, 1, 1, 2))(x)
    assert [tuple(m.shape[2:]) for m in plain] == [(48, 32), (24, 16), (12, 8), (6, 4), (3, 2)]
    assert [tuple(m.shape[2:]) for m in up] == [(49, 33), (25, 17), (13, 9), (7, 5), (4, 3)]
    assert [tuple(m.shape[2:]) for m in flat] == [(49, 33), (25, 17), (13, 9), (13, 9), (13, 9)]


def test_dilation_and_padding_stand_where_they_are_asked_for():
    vgg = VGG(width=2, padding=100, dilations=(1, 1, 1, 1, 2))
    convs = {n: (m.padding[0], m.dilation[0]) for n, m in vgg.named_modules() if isinstance(m, nn.Conv2d)}
    assert convs.pop("stage1.conv1") == (100, 1)
    for name, found in convs.items():
        assert found == ((2, 2) if name.startswith("stage5") else (1, 1))


@torch.no_grad()
@pytest.mark.parametrize("norm", [False, True])
def test_imagenet_weights_are_timms(norm, monkeypatch):
    torch.manual_seed(0)
    asked = []

    def without_network(name, pretrained, in_chans):
        asked.append((name, pretrained, in_chans))
        return theirs

    theirs = timm.create_model("vgg16_bn" if norm else "vgg16", num_classes=2, mlp_ratio=0.001).eval()
    monkeypatch.setattr(timm, "create_model", without_network)
    vgg = VGG(norm=norm).eval()
    fc6, fc7 = vgg.load_imagenet()
    assert asked == [("vgg16_bn" if norm else "vgg16", True, 3)]
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(vgg(x)[-1], theirs.features(x))
    assert (fc6, fc7) == (theirs.pre_logits.fc1, theirs.pre_logits.fc2)
    assert (fc6.kernel_size, fc7.kernel_size) == ((7, 7), (1, 1))


def test_missing_or_impossible_weights_are_refused(monkeypatch):
    def without_network(*_, **__):
        raise OSError("no such host")

    monkeypatch.setattr(timm, "create_model", without_network)
    with pytest.raises(ConfigError, match=r"weights of 'vgg16' cannot be had: no such host.*HF_HOME"):
        VGG().load_imagenet()
    with pytest.raises(ConfigError, match="64 wide, not 4"):
        VGG(width=4).load_imagenet()
