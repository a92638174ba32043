"""Encoders through timm: pyramids at the strides they say, equal to torchvision where the nets are the same."""

from __future__ import annotations

import pytest
import torch
import torchvision

from pixelwise.errors import ConfigError
from pixelwise.nn.encoder import (
    Encoder,
    dilate_evenly,
    encoders,
    frozen_batch_norm,
    make_encoder,
    stride_in_1x1,
)

NAMES = (
    "resnet18",
    "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224",
    "hrnet_w18_small",
    "convnext_atto",
    "vgg11",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 96), (97, 65)])
def test_maps_have_the_channels_and_strides_they_say(name, size):
    with torch.device("meta"):
        encoder = make_encoder(name).eval()
        maps = encoder(torch.zeros(2, 3, *size))
    assert len(maps) == len(encoder.channels) == len(encoder.strides)
    for features, channels, stride in zip(maps, encoder.channels, encoder.strides):
        assert features.shape[:2] == (2, channels)
        for side, n in zip(features.shape[2:], size):
            assert n // stride <= side <= -(-n // stride)


def test_levels_are_picked_by_stride():
    with torch.device("meta"):
        encoder = make_encoder("resnet18", levels=(4, 32))
    assert (encoder.strides, encoder.channels) == ((4, 32), (64, 512))


def test_dilated_stages_keep_their_size():
    with torch.device("meta"):
        encoder = make_encoder("resnet50", output_stride=8, levels=(4, 8, 16, 32)).eval()
        maps = encoder(torch.zeros(1, 3, 64, 64))
    assert encoder.strides == (4, 8, 8, 8)
    assert [m.shape[-1] for m in maps] == [16, 8, 8, 8]


@torch.no_grad()
def test_resnet_is_torchvisions():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None).eval()
    encoder = make_encoder("resnet18", levels=(4, 8, 16, 32)).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    encoder.body.load_state_dict(state)
    x = torch.randn(1, 3, 70, 50)
    y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for features, layer in zip(encoder(x), (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)):
        y = layer(y)
        torch.testing.assert_close(features, y)


def test_frozen_norms_have_no_parameters_and_keep_their_answer():
    torch.manual_seed(0)
    encoder = make_encoder("resnet18").eval()
    x = torch.randn(2, 3, 32, 32)
    before = encoder(x)[-1]
    count = sum(p.numel() for p in encoder.parameters())
    norms = sum(m.num_features * 2 for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    frozen_batch_norm(encoder)
    assert sum(p.numel() for p in encoder.parameters()) == count - norms
    torch.testing.assert_close(encoder.train()(x)[-1], before)
    exact = make_encoder("resnet18")
    frozen_batch_norm(exact, eps=0.0)
    assert {m.eps for m in exact.modules() if type(m).__name__ == "FrozenBatchNorm2d"} == {0.0}


def test_stride_moves_to_the_first_1x1():
    body = stride_in_1x1(make_encoder("resnet50").body)
    block = body.get_submodule("layer2.0")
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
    assert body.get_submodule("layer2.1").conv1.stride == (1, 1)
    assert body.get_submodule("layer1.0").conv1.stride == (1, 1)


@pytest.mark.parametrize(("name", "options", "says"), [
    ("vit_base_patch16_224", {}, "one resolution"),
    ("maxvit_tiny_tf_224", {}, "one size"),
    ("resnet5O", {}, "resnet50"),
    ("nonsense", {}, "list encoders"),
    ("resnet18", {"levels": (3,)}, r"strides \[2, 4, 8, 16, 32\], none at 3"),
    ("resnet18", {"output_stride": 12}, "8, 16, 32"),
    ("densenet121", {"output_stride": 16}, "cannot be dilated"),
    ("swin_tiny_patch4_window7_224", {"output_stride": 8}, "cannot be dilated"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_the_reason(name, options, says):
    with pytest.raises(ConfigError, match=says):
        make_encoder(name, **options)


def test_weights_that_are_not_there(monkeypatch):
    import timm

    real = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host")
        return real(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match="HF_HOME"):
        make_encoder("resnet18", pretrained=True)


def test_the_list_has_hundreds_and_no_vision_transformers():
    names = encoders()
    assert len(names) > 500
    assert "resnet50" in names
    assert not any(name.startswith("vit_base") for name in names)


@pytest.mark.slow
def test_every_listed_family_has_an_encoder():
    from pixelwise.nn.encoder import family

    smallest: dict[str, list[str]] = {}
    for name in encoders():
        smallest.setdefault(family(name), []).append(name)
    for names in smallest.values():
        built = 0
        for name in names[:5]:
            try:
                with torch.device("meta"):
                    built += isinstance(make_encoder(name), Encoder)
            except ConfigError:
                continue
        assert built, names[:5]


@pytest.mark.parametrize(("name", "stem"), [("resnet18b", 1), ("resnet34c", 3)])
def test_mmsegmentations_blocks_dilate_the_first_convolution_only(name, stem):
    with torch.device("meta"):
        body = make_encoder(name, output_stride=8).body
    assert sum(isinstance(m, torch.nn.Conv2d) for n, m in body.named_modules() if n.startswith("conv1")) == stem
    dilations = [(block.conv1.dilation[0], block.conv2.dilation[0]) for block in (*body.layer3, *body.layer4)]
    assert dilations[:2] == [(1, 1), (2, 1)]
    assert dilations[-2:] == [(4, 1), (4, 1)] if name == "resnet34c" else dilations[-2:] == [(2, 1), (4, 1)]


def test_even_dilation_is_the_stages_own():
    with torch.device("meta"):
        body = make_encoder("resnet50", output_stride=8).body
    assert [stage[0].conv2.dilation[0] for stage in (body.layer2, body.layer3, body.layer4)] == [1, 1, 2]
    dilate_evenly(body)
    for stage, dilation in ((body.layer2, 1), (body.layer3, 2), (body.layer4, 4)):
        assert {block.conv2.dilation + block.conv2.padding for block in stage} == {(dilation,) * 4}
        assert {block.conv1.dilation for block in stage} == {(1, 1)}
    with pytest.raises(ConfigError, match="for ResNets"):
        dilate_evenly(make_encoder("mobilenetv3_small_050").body)
