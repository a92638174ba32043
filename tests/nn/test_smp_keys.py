"""Encoders of segmentation_models.pytorch: recognised by their tensors, with equal maps."""

from __future__ import annotations

import warnings

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from pixelwise.core.keys import Dialect, Untold
from pixelwise.errors import ModelFileError
from pixelwise.nn.encoder import encoders, make_encoder
from pixelwise.nn.encoder_maps import SIZES
from pixelwise.nn.smp_keys import EFFICIENTNETS, SENETS, SMP_ENCODER, STAGES, VGGS, smp_encoder

DIALECT = Dialect(signs=(r"^encoder\.",), rules=SMP_ENCODER, options=smp_encoder)
NAMES = {
    "resnet18": "resnet18",
    "mobilenet_v2": "mobilenet_v2",
    "efficientnet-b0": "efficientnet-b0",
    "timm-efficientnet-b0": "timm-efficientnet-b0",
}
SLOW = {
    "vgg11": "vgg11",
    "vgg13_bn": "vgg13_bn",
    "resnet50": "resnet50",
    "resnext50_32x4d": "resnext50_32x4d",
    "se_resnet50": "legacy_seresnet50",
    "se_resnext50_32x4d": "legacy_seresnext50_32x4d",
    "senet154": "legacy_senet154",
    "vgg16_bn": "vgg16_bn",
    "efficientnet-b1": "efficientnet-b1",
    "efficientnet-b3": "efficientnet-b3",
}
CASES = [*NAMES.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in SLOW.items())]


def reference(name: str, channels: int = 3, output_stride: int = 32) -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated names
        net = smp.encoders.get_encoder(name, in_channels=channels, weights=None, output_stride=output_stride).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.8, 1.2)
    return net


def file_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {f"encoder.{name}": tensor for name, tensor in net.state_dict().items()}


@torch.no_grad()
@pytest.mark.parametrize(("name", "ours"), CASES)
def test_maps_are_equal(name, ours):
    theirs, tensors = reference(name), file_of(reference(name))
    assert smp_encoder(tensors) == {"encoder": ours, "channels": 3}
    found = DIALECT.translate(tensors)
    assert not found.left
    encoder = make_encoder(ours).eval()
    encoder.load_state_dict({key.removeprefix("encoder."): t for key, t in found.tensors.items()})
    for size in ((64, 96), (65, 97)):
        x = torch.randn(1, 3, *size)
        maps = theirs(x)[5 - len(encoder.strides) + 1 :]
        for mine, expected in zip(encoder(x), maps, strict=True):
            assert mine.shape == expected.shape
            assert (mine - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet-b0", "timm-efficientnet-b0"])
@pytest.mark.parametrize("output_stride", [16, 8])
def test_dilated_maps_are_equal(name, output_stride):
    """smp dilates all blocks of a stage, from its first on, and what a stage is its own maps say."""
    theirs = reference(name, output_stride=output_stride)
    encoder = make_encoder(name, output_stride=output_stride).eval()
    found = DIALECT.translate(file_of(theirs))
    encoder.load_state_dict({key.removeprefix("encoder."): t for key, t in found.tensors.items()})
    assert encoder.strides == tuple(min(stride, output_stride) for stride in (2, 4, 8, 16, 32))
    x = torch.randn(1, 3, 64, 96)
    for mine, expected in zip(encoder(x), theirs(x)[1:], strict=True):
        assert mine.shape == expected.shape
        assert (mine - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("i", [1, *(pytest.param(i, marks=pytest.mark.slow) for i in (0, 2, 3, 4, 5, 6, 7))])
def test_every_efficientnet_is_told_by_its_shapes(i):
    name = f"efficientnet-b{i}"
    with torch.device("meta"):
        tensors = file_of(smp.encoders.get_encoder(name, weights=None))
        assert smp_encoder(tensors) == {"encoder": name, "channels": 3}
        ours = {f"encoder.{key}": t.shape for key, t in make_encoder(name).state_dict().items()}
    found = DIALECT.translate(tensors)
    assert {key: t.shape for key, t in found.tensors.items()} == ours
    assert {name.split(".")[1] for name in found.dropped} == {"_conv_head", "_bn1"}  # which nothing reads


def test_tables_of_efficientnets():
    assert len(EFFICIENTNETS) == len(SIZES) + 1
    assert {count for count, _ in EFFICIENTNETS} == {*STAGES, 61}  # b8 is among timm's alone
    assert all(sum(stages) == count for count, stages in STAGES.items())


def test_every_name_in_the_tables_is_an_encoder():
    known = set(encoders())
    assert known > {*SENETS.values(), *VGGS.values(), "mobilenet_v2", "efficientnet-b7"}


def test_channels_of_the_input():
    for name in ("resnet18", "mobilenet_v2", "vgg11", "efficientnet-b0"):
        with torch.device("meta"):
            tensors = file_of(smp.encoders.get_encoder(name, in_channels=5, weights=None))
        assert smp_encoder(tensors)["channels"] == 5
        assert smp_encoder(dict(sorted(tensors.items())))["channels"] == 5  # as safetensors has them


@pytest.mark.slow
@pytest.mark.parametrize("i", range(9))
def test_every_efficientnet_of_timm_is_told_by_its_shapes(i):
    name = f"timm-efficientnet-b{i}"
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = file_of(smp.encoders.get_encoder(name, weights=None))
        assert smp_encoder(tensors)["encoder"] == name
        ours = {f"encoder.{key}": t.shape for key, t in make_encoder(name).state_dict().items()}
    assert {key: t.shape for key, t in DIALECT.translate(tensors).tensors.items()} == ours


def test_an_encoder_of_timm_has_to_be_told():
    tensors = file_of(smp.encoders.get_encoder("tu-convnext_atto", weights=None, in_channels=4))
    told = smp_encoder(tensors)
    assert isinstance(told["encoder"], Untold)
    assert told["channels"] == smp_encoder(dict(sorted(tensors.items())))["channels"] == 4
    found = DIALECT.translate(tensors)
    with torch.device("meta"):
        ours = make_encoder("convnext_atto", channels=4).state_dict()
    assert set(found.tensors) == {f"encoder.{name}" for name in ours}


@pytest.mark.parametrize(
    "name", ["densenet121", "mobileone_s0", "timm-skresnet18", "timm-tf_efficientnet_lite0", "dpn68"]
)
def test_other_encoders_are_refused(name):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated names
        tensors = file_of(smp.encoders.get_encoder(name, weights=None))
    with pytest.raises((ModelFileError, LookupError)):  # of which from_checkpoint makes one error with the file's name
        smp_encoder(tensors)


def test_a_cut_efficientnet_is_refused():
    tensors = {name: t for name, t in file_of(reference("efficientnet-b0")).items() if "_blocks.15." not in name}
    with pytest.raises(ModelFileError, match=r"EfficientNet has \(15, 192\)"):
        smp_encoder(tensors)
    assert DIALECT.translate(tensors).tensors.keys() >= {"encoder.body.conv_stem.weight"}


def test_stages_behind_the_last_level_are_left_out():
    encoder = make_encoder("efficientnet-b0", levels=(2, 4, 8))
    assert encoder.channels == (32, 24, 40)
    assert len(encoder.body.blocks) == 3
    encoder = make_encoder("mobilenet_v2", output_stride=16)
    assert encoder.strides == (2, 4, 8, 16, 16)
    assert encoder.channels[-1] == 1280
