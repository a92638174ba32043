"""PAN against its definition and segmentation_models.pytorch."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.checkpoints import from_checkpoint
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.pan import THIN, AttentionUpsample, PyramidAttention


@pytest.mark.parametrize(("variant", "classes", "count"), [("pan-smp", 21, 21_481_596), ("pan-smp", 1, 21_475_816)])
def test_parameters(variant, classes, count):
    with torch.device("meta"):
        net = create_model(variant, classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count


def test_the_last_stage_is_dilated():
    with torch.device("meta"):
        paper, port = (create_model(name, classes=2).encoder for name in ("pan", "pan-smp"))
    assert paper.strides == port.strides == (4, 8, 16, 16)
    first = [encoder.body.layer4[0].conv1.dilation for encoder in (paper, port)]
    assert first == [(1, 1), (2, 2)]
    assert paper.body.layer4[1].conv1.dilation == (2, 2)


def plain(conv: nn.Sequential, x: Tensor, act: bool = True) -> Tensor:
    """Convolution, norm by its statistics and ReLU, written out."""
    norm = conv[1]
    y = F.conv2d(x, conv[0].weight, conv[0].bias, padding=conv[0].kernel_size[0] // 2)
    shape = (1, -1, 1, 1)
    y = (y - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    y = y * norm.weight.view(shape) + norm.bias.view(shape)
    return y.clamp_min(0) if act else y


@torch.no_grad()
def test_attention_against_its_definition(stir):
    """weights = up(c7(h) + up(c5(q) + up(e))), of maps halved once, twice, thrice; y = weights x c1(x) + c1(mean)."""
    torch.manual_seed(0)
    block = stir(PyramidAttention(6, 4, bias=True))
    x = torch.randn(2, 6, 11, 17)

    def up(y: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(y, size, mode="bilinear", align_corners=True)

    h = plain(block.down1, F.max_pool2d(x, 2))
    q = plain(block.down2, F.max_pool2d(h, 2))
    e = plain(block.down3[1], plain(block.down3[0], F.max_pool2d(q, 2)))
    assert (h.shape[2:], q.shape[2:], e.shape[2:]) == ((5, 8), (2, 4), (1, 2))
    weights = up(plain(block.up1, h) + up(plain(block.up2, q) + up(e, (2, 4)), (5, 8)), (11, 17))
    wanted = weights * plain(block.middle, x) + plain(block.mean, x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(block(x), wanted)


@torch.no_grad()
@pytest.mark.parametrize("gate", ["relu", "sigmoid"])
def test_gated_upsampling_against_its_definition(gate, stir):
    torch.manual_seed(0)
    block = stir(AttentionUpsample(6, 4, gate, bias=False))
    finer, above = torch.randn(2, 6, 9, 13), torch.randn(2, 4, 5, 7)
    context = plain(block.gate, above.mean((2, 3), keepdim=True), act=gate == "relu")
    context = context.sigmoid() if gate == "sigmoid" else context
    enlarged = F.interpolate(above, (9, 13), mode="bilinear", align_corners=True)
    torch.testing.assert_close(block(finer, above), enlarged + plain(block.conv, finer) * context)


def test_training_needs_two_images():
    net = create_model("pan", classes=3, **THIN)
    with pytest.raises(ConfigError, match="--batch-size 2"):
        net(torch.randn(1, 3, 64, 64))
    assert net(torch.randn(2, 3, 33, 65)).logits.shape == (2, 3, 9, 17)


@pytest.mark.parametrize(("options", "message"), [
    ({"gate": "tanh"}, "it can be relu, sigmoid"), ({"output_stride": 4}, "8, 16, 32"), ({"width": 0}, "width is 0"),
    ({"bias": 0}, "true or false"), ({"encoder": "vgg11"}, "dilated"), ({"gaet": "relu"}, "'gate'"),
    ({"encoder": "mobilenetv3_small_050", "even_dilation": True}, "ResNets"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("pan", classes=3, **{"encoder": "test_resnet", **options})


# -- segmentation_models.pytorch --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(stir):
    torch.manual_seed(0)
    return stir(smp.PAN("resnet18", encoder_weights=None, classes=4, in_channels=2))


@torch.no_grad()
def test_smp_answers_the_same(theirs, waves, assert_agree, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "pan"
    assert card.training["imported"] == {"file": "a.pth", "dialect": "smp", "dropped": []}
    for size in ((128, 144), (176, 128)):  # it takes multiples of 16 from 128 up
        images = waves(*size, channels=2)
        assert_agree(ours(images).full(), theirs(images))


@torch.no_grad()
def test_smp_at_another_output_stride(waves, stir, assert_agree, tmp_path):
    torch.manual_seed(0)
    net = stir(smp.PAN("resnet18", encoder_weights=None, classes=2, encoder_output_stride=32))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    ours, _ = from_checkpoint(tmp_path / "a.pth", output_stride=32)
    images = waves(256, 256, batch=1)
    assert_agree(ours(images).full(), net(images))


@pytest.mark.parametrize(("change", "said"), [
    (lambda s: s.pop("decoder.fpa.conv1.conv.bias"), r"1 missing: attention\.up1\.0\.bias"),
    (lambda s: s.update({"decoder.gau4.conv2.conv.bias": torch.ones(1)}), r"1 left over: decoder\.gau4"),
    (lambda s: s.update({"segmentation_head.0.bias": torch.ones(7)}), r"of another shape: head\.bias"),
])  # fmt: skip
def test_files_that_do_not_fit_are_refused(theirs, change, said, tmp_path):
    state = dict(theirs.state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=said):
        from_checkpoint(tmp_path / "a.pth")


@torch.no_grad()
@pytest.mark.parametrize(("encoder", "told"), [
    ("efficientnet-b0", {}), ("tu-mobilenetv3_small_050", {"encoder": "mobilenetv3_small_050"}),
])  # fmt: skip
def test_smp_over_other_encoders(encoder, told, waves, stir, assert_agree, tmp_path):
    net = stir(smp.PAN(encoder, encoder_weights=None, classes=2))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth", **told)
    assert not card.options["even_dilation"]
    images = waves(128, 144, batch=1)
    assert_agree(ours(images).full(), net(images))


def test_encoders_that_are_dilated_in_another_way_are_refused(tmp_path):
    net = smp.PAN("se_resnet50", encoder_weights=None, classes=2)
    torch.save(net.state_dict(), tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match="only known of ResNets"):
        from_checkpoint(tmp_path / "a.pth")
