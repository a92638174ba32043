"""MA-Net against its definition and segmentation_models.pytorch."""

from __future__ import annotations

import math

import pytest
import segmentation_models_pytorch as smp
import torch

from pixelwise.checkpoints import from_checkpoint
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.manet import THIN, FusionAttention, PositionAttention


@pytest.mark.parametrize(("variant", "classes", "count"), [
    ("manet-smp", 21, 31_786_533), ("manet-smp", 1, 31_783_633), ("manet", 21, 31_786_533),
])  # fmt: skip
def test_parameters(variant, classes, count):
    with torch.device("meta"):
        net = create_model(variant, classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count


@torch.no_grad()
def test_position_attention_against_loops():
    """y_i = x_i + sum_j S_ij c_j with S_ij = exp(a_i . b_j) / sum_k exp(a_i . b_k), then a 3x3 convolution."""
    torch.manual_seed(0)
    block = PositionAttention(5, 3, "places").double()
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    a, b, c = block.query(x), block.key(x), block.value(x)
    y = x.clone()
    for n in range(2):
        for i in range(12):
            here = a[n, :, i // 4, i % 4]
            alike = [math.exp(float(here @ b[n, :, j // 4, j % 4])) for j in range(12)]
            for j in range(12):
                y[n, :, i // 4, i % 4] += alike[j] / sum(alike) * c[n, :, j // 4, j % 4]
    torch.testing.assert_close(block(x), block.out(y))


@torch.no_grad()
def test_fusion_attention_against_its_definition(stir):
    """The enlarged map times (its own excitation + the skip's), beside the skip, twice convolved."""
    torch.manual_seed(0)
    block = stir(FusionAttention(6, 8, 4, 2))
    x, skip = torch.randn(2, 6, 3, 4), torch.randn(2, 8, 6, 8)
    below = block.project(x)
    enlarged = below.repeat_interleave(2, 2).repeat_interleave(2, 3)
    weights = torch.zeros(2, 8, 1, 1)
    for part, seen in ((block.below, enlarged), (block.beside, skip)):
        inner = seen.mean((2, 3)) @ part[1].weight[:, :, 0, 0].T + part[1].bias
        outer = inner.clamp_min(0) @ part[3].weight[:, :, 0, 0].T + part[3].bias
        weights += outer.sigmoid()[:, :, None, None]
    wanted = block.convs(torch.cat([enlarged * weights, skip], 1))
    torch.testing.assert_close(block(x, skip), wanted)


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["convnext_atto", "mobilenetv3_small_050", "test_resnet"])
def test_answers_at_full_size_on_any_encoder(encoder):
    net = create_model("manet", classes=3, **{**THIN, "encoder": encoder}).eval()
    for size in ((64, 96), (33, 65), (40, 72)):
        assert net(torch.randn(1, 3, *size)).logits.shape == (1, 3, *size)


def test_one_small_image_is_refused_in_training_only():
    net, image = create_model("manet", classes=3, **THIN), torch.randn(1, 3, 32, 32)
    with pytest.raises(ConfigError, match="2 images"):
        net(image)
    assert net.eval()(image).logits.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(("options", "message"), [
    ({"attention": "pairs"}, "it can be places, smp"), ({"widths": [8, 8]}, "be 5 numbers"), ({"widths": 8}, "list"),
    ({"attention_width": 0}, "attention_width is 0"), ({"squeeze": 0}, "squeeze is 0"), ({"pretrained": 1}, "true or"),
    ({"width": [8]}, "'widths'"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("manet", classes=3, **{"encoder": "test_resnet", **options})


# -- segmentation_models.pytorch --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(stir):
    torch.manual_seed(0)
    net = stir(smp.MAnet("resnet18", encoder_weights=None, classes=4, in_channels=2, decoder_pab_channels=24,
                         decoder_channels=(64, 32, 16, 16, 8)))  # fmt: skip
    for conv in (net.decoder.center.top_conv, net.decoder.center.center_conv):  # or one pair takes all the attention
        conv.weight.data *= 0.05
        conv.bias.data *= 0.05
    return net


@torch.no_grad()
def test_smp_answers_the_same(theirs, waves, assert_agree, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "manet"
    assert card.training["imported"] == {"file": "a.pth", "dialect": "smp", "dropped": []}
    for size in ((64, 96), (32, 160)):
        images = waves(*size, channels=2)
        assert_agree(ours(images).full(), theirs(images))
    other = create_model("manet", classes=4, **{**card.options, "attention": "places"}).eval()
    other.load_state_dict(ours.state_dict())
    assert not torch.allclose(other(images).full(), theirs(images), rtol=1e-3, atol=1e-3)


def test_smp_in_training(theirs, waves, assert_agree, tmp_path):
    torch.save(theirs.eval().state_dict(), tmp_path / "a.pth")
    ours, _ = from_checkpoint(tmp_path / "a.pth")
    images = waves(64, 96, channels=2)
    assert_agree(ours.train()(images).full(), theirs.train()(images))


@torch.no_grad()
def test_smp_on_an_encoder_without_a_map_at_stride_2(stir, waves, assert_agree, tmp_path):
    torch.manual_seed(0)
    net = stir(smp.MAnet("tu-convnext_atto", encoder_weights=None, classes=2))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    ours, _ = from_checkpoint(tmp_path / "a.pth", encoder="convnext_atto")
    images = waves(64, 96)
    assert_agree(ours(images).full(), net(images))


@pytest.mark.parametrize(("change", "said"), [
    (lambda s: s.pop("decoder.center.out_conv.bias"), r"1 missing: attention\.out\.bias"),
    (lambda s: s.update({"decoder.center.more.bias": torch.ones(1)}), r"1 left over: decoder\.center\.more\.bias"),
    (lambda s: s.update({"segmentation_head.0.bias": torch.ones(7)}), r"of another shape: head\.bias"),
])  # fmt: skip
def test_files_that_do_not_fit_are_refused(theirs, change, said, tmp_path):
    state = dict(theirs.state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=said):
        from_checkpoint(tmp_path / "a.pth")
