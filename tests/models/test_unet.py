"""U-Net against a textbook U-Net written here in another style, the paper's geometry, every size from 8 up; and over
encoders against segmentation_models.pytorch, as milesial against milesial/Pytorch-UNet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.outputs import Frame
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.unet import KEYS, _valid_margin, _valid_size

FROZEN = json.loads((Path(__file__).parent / "data" / "unet_milesial.json").read_text(encoding="utf-8"))
UNUSED = 1280 * 320 + 2 * 1280  # parameters of smp's EfficientNet-b0 behind its last map, which nothing reads


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def on_meta(classes: int, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model("unet", classes=classes, **options)


def small(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model("unet", **{"classes": 3, "width": 4, "depth": 4, **options})


@pytest.mark.parametrize(("classes", "with_bias", "without"), [
    (1, 31_043_521, 31_037_633), (2, 31_043_586, 31_037_698), (19, 31_044_691, 31_038_803),
    (21, 31_044_821, 31_038_933),
])  # fmt: skip
def test_parameter_counts_are_the_published_ones(classes, with_bias, without):
    assert count(on_meta(classes)) == with_bias
    assert count(on_meta(classes, bias=False)) == without
    assert count(on_meta(classes, channels=1)) == with_bias - 1152


def textbook(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The textbook's net as a function of a flat list of weights: 64 to 1024 by four poolings, and up again."""
    weights = iter(state.values())

    def twice(x: Tensor) -> Tensor:
        for _ in range(2):
            kernel, bias, gamma, beta, mean, var, _ = (next(weights) for _ in range(7))
            x = F.conv2d(x, kernel, bias, padding=1)
            x = ((x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()) * gamma[:, None, None]
            x = (x + beta[:, None, None]).clamp(min=0)
        return x

    levels = [twice(x)]
    for _ in range(4):
        levels.append(twice(F.max_pool2d(levels[-1], kernel_size=2, stride=2)))
    x = levels.pop()
    while levels:
        kernel, bias = next(weights), next(weights)
        x = F.conv_transpose2d(x, kernel, bias, stride=2)
        x = twice(torch.cat((levels.pop(), x), 1))
    return F.conv2d(x, next(weights), next(weights))


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (48, 64)])
def test_equals_the_textbook_net_with_the_same_weights(size):
    net = small(classes=21).eval()
    for name, value in net.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_()
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(net(x).logits, textbook(net.state_dict(), x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("options", [
    {}, {"up": "bilinear"}, {"norm": "group"}, {"norm": "instance"}, {"norm": "none"}, {"fold": 2}, {"fold": 4},
    {"padding": "valid", "depth": 3}, {"padding": "valid", "norm": "none"}, {"depth": 1}, {"depth": 6, "width": 1},
    {"bias": False}, {"channels": 5}, {"padding": "maps"}, {"padding": "maps", "up": "halved"},
], ids=str)  # fmt: skip
def test_any_size_from_8_up(options):
    net = small(**options).eval()
    channels = options.get("channels", 3)
    for height, width in ((8, 8), (9, 31), (33, 65), (100, 100)):
        output = net(torch.randn(1, channels, height, width))
        assert output.full().shape == (1, 3, height, width)
        assert output.full().isfinite().all()
        assert output.frames == (Frame.whole(height, width),)


@torch.no_grad()
def test_an_image_of_pascal_voc():
    assert small(classes=21).eval()(torch.randn(1, 3, 375, 500)).full().shape == (1, 21, 375, 500)


def test_the_paper_sees_572_pixels_for_388():
    net = create_model("unet-2015", classes=2, channels=1, width=2).eval()
    x, seen = torch.randn(1, 1, 388, 388), []
    net.stem.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].shape[-1], output.shape[-1])))
    net.down[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))
    net.head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))
    net(x)
    assert seen == [(572, 568), 28, 388]
    assert _valid_margin(4) == 92
    assert [_valid_size(n, 16) for n in (1, 388, 389)] == [188, 572, 588]


@torch.no_grad()
def test_unpadded_answers_are_those_of_the_middle():
    """A pixel of the 2015 net's answer depends on what is around it alone, not on the zeros of a padded net."""
    net = small(padding="valid", norm="none", depth=2).eval()
    big = torch.randn(1, 3, 96, 96)
    inner = big[:, :, 8:88, 8:88]  # shifted by a multiple of the stride
    m = net.margin
    torch.testing.assert_close(
        net(big).logits[:, :, m + 8 : -m - 8, m + 8 : -m - 8], net(inner).logits[:, :, m:-m, m:-m], rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
def test_a_batch_of_two_is_two_batches_of_one(norm):
    net, x = small(norm=norm).eval(), torch.randn(2, 3, 40, 56)
    one = torch.cat([net(x[:1]).logits, net(x[1:]).logits])
    torch.testing.assert_close(net(x).logits, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["unet", "unet-2015", "unet-bilinear", "unet-folded"])
def test_every_parameter_has_a_gradient(variant):
    net = create_model(variant, classes=3, width=4)
    net(torch.randn(2, 3, 32, 48)).full().square().mean().backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not still
    # a bias before a batch norm is taken away again; all else moves
    moved = [n for n, p in net.named_parameters() if p.grad.abs().max() > 0]
    assert len(moved) > len(list(net.parameters())) / 2


def test_one_image_of_one_cell_trains():
    for padding in ("same", "maps"):
        for norm in ("batch", "instance"):
            net = small(norm=norm, padding=padding).train()
            net(torch.randn(1, 3, 16, 16)).logits.sum().backward()
            assert all(p.grad.isfinite().all() for p in net.parameters())


@torch.no_grad()
def test_a_folded_net_starts_without_a_checkerboard():
    logits = small(fold=2).eval()(torch.randn(1, 3, 32, 48)).logits
    blocks = logits.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)  # [1, K, 16, 24, 4]
    assert (blocks == blocks[..., :1]).all()
    assert logits.std() > 0


@torch.no_grad()
def test_bf16_and_channels_last():
    net, x = small().eval(), torch.randn(1, 3, 32, 32)
    plain = net(x).logits
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x).logits
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, rtol=0.1, atol=0.1)
    last = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last)).logits
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-4)
    assert last.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_channels_last_stays_where_the_image_is_padded():
    seen = []
    net = small().eval().to(memory_format=torch.channels_last)
    net.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(torch.randn(1, 3, 33, 47).contiguous(memory_format=torch.channels_last))
    assert seen[0].shape[-2:] == (48, 48)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_fold_moves_blocks_into_channels():
    net, x = small(fold=2, depth=1).eval(), torch.randn(1, 3, 32, 32)
    seen = []
    net.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(x)
    assert seen[0].shape == (1, 12, 16, 16)
    torch.testing.assert_close(seen[0][0, 1], x[0, 0, ::2, 1::2])
    assert net.head.out_channels == 12


def test_dropout_only_in_training():
    net, x = small(dropout=0.5), torch.randn(1, 3, 32, 32)
    assert not torch.equal(net.train()(x).logits, net(x).logits)
    assert torch.equal(net.eval()(x).logits, net(x).logits)


@pytest.mark.parametrize(("options", "message"), [
    ({"norm": "layer"}, "norm is 'layer'.*batch, group"), ({"up": "nearest"}, "up is 'nearest'"),
    ({"padding": "full"}, "padding is 'full'"), ({"depth": 0}, "depth is 0"), ({"depth": 7}, "depth is 7"),
    ({"fold": 3}, "fold is 3"), ({"fold": 2, "padding": "valid"}, "fold goes with"), ({"width": 0}, "width is 0"),
    ({"channels": 0}, "channels is 0"), ({"dropout": 1.0}, "dropout is 1.0"), ({"widht": 3}, "did you mean 'width'"),
    ({"width": "wide"}, "width"), ({"dropout": "much"}, "dropout"), ({"width": 2.5}, "width"),
    ({"bias": "no"}, "bias"), ({"depth": True}, "depth"), ({"fold": 2, "padding": "maps"}, "fold goes with"),
    ({"up": "halved", "width": 5}, "even"), ({"pretrained": True}, "pretrained would do nothing with no encoder"),
    ({"decoder": [8, 8]}, "decoder would do nothing"), ({"encoder": 3}, "encoder is 3"),
    ({"encoder": "resnet18", "width": 32, "fold": 2}, "width, fold would do nothing with encoder=resnet18"),
    ({"encoder": "resnet18", "decoder": [8, 8]}, "halves 5 times"), ({"encoder": "resnet81"}, "no encoder 'resnet81'"),
    ({"encoder": "resnet18", "decoder": "wide"}, "decoder is 'wide'"), ({"encoder": "resnet18", "center": 1}, "center"),
    ({"encoder": "mobilenet_v3"}, "no encoder"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("unet", classes=2, **options)


# -- over an encoder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "options", "count"), [
    ("-resnet34", {"classes": 21}, 24_439_269), ("-resnet34", {"classes": 1}, 24_436_369),
    ("-resnet50", {"classes": 21}, 32_524_005), ("", {"classes": 1, "encoder": "mobilenet_v2"}, 6_628_945),
    ("", {"classes": 1, "encoder": "efficientnet-b0"}, 6_251_469 - UNUSED),
])  # fmt: skip
def test_parameters_over_encoders(variant, options, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(f"unet{variant}", **options).parameters()) == count


CASES = [
    ("resnet18", {}, {}),
    ("mobilenet_v2", {"in_channels": 4, "decoder_channels": (32, 24, 16, 8, 8)}, {}),
    ("efficientnet-b0", {}, {}),
    ("tu-mobilenetv3_small_050", {}, {"encoder": "mobilenetv3_small_050"}),
    pytest.param("vgg11", {}, {}, marks=pytest.mark.slow),
    pytest.param("resnet50", {}, {}, marks=pytest.mark.slow),
    pytest.param("se_resnet50", {}, {}, marks=pytest.mark.slow),
    pytest.param("tu-convnext_atto", {}, {"encoder": "convnext_atto"}, marks=pytest.mark.slow),
]


@torch.no_grad()
@pytest.mark.parametrize(("encoder", "words", "told"), CASES)
def test_smp_answers_the_same(encoder, words, told, stir, waves, assert_agree, tmp_path):
    theirs = stir(smp.Unet(encoder, encoder_weights=None, classes=5, **words))
    torch.save(theirs.state_dict(), tmp_path / "smp.pth")
    net, card = from_checkpoint(tmp_path / "smp.pth", **told)
    assert (card.architecture, card.training["imported"]["dialect"]) == ("unet", "smp")
    channels = words.get("in_channels", 3)
    for size in ((64, 96), (65, 97)):
        x = waves(*size, batch=1, channels=channels)
        assert_agree(net(x).full(), theirs(x))


def test_an_encoder_of_timm_must_be_named(tmp_path):
    torch.save(smp.Unet("tu-mobilenetv3_small_050", encoder_weights=None).state_dict(), tmp_path / "smp.pth")
    with pytest.raises(ModelFileError, match=r"do not tell encoder: .*as the option encoder"):
        from_checkpoint(tmp_path / "smp.pth")
    with pytest.raises(ModelFileError, match="does not fill this net"):
        from_checkpoint(tmp_path / "smp.pth", encoder="mobilenetv3_small_075")


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("decoder.blocks.1.conv1.0.weight"), r"1 missing: decoder\.blocks\.1\.conv1"),
    (lambda s: s.update({"decoder.blocks.0.attention1.attention.cSE.1.weight": torch.ones(1)}), "1 left over: decoder"),
    (lambda s: s.update({"head.0.weight": torch.ones(1)}), "1 left over: head"),
    (lambda s: s.update({"segmentation_head.0.bias": torch.ones(9)}), r"of another shape: .*file \[9\], net \[2\]"),
    (lambda s: s.pop("encoder.layer3.1.conv1.weight"), "missing: encoder.body.layer3.1.conv1"),
    (lambda s: s.pop("encoder.conv1.weight"), "none that is known"),
])  # fmt: skip
def test_files_that_do_not_fit(change, message, tmp_path):
    state = smp.Unet("resnet18", encoder_weights=None, classes=2, decoder_channels=(8, 8, 8, 8, 8)).state_dict()
    change(state)
    torch.save(state, tmp_path / "smp.pth")
    with pytest.raises(ModelFileError, match=message):
        from_checkpoint(tmp_path / "smp.pth", "unet")


def test_one_image_of_one_cell_over_an_encoder_is_refused():
    net = create_model("unet", classes=2, encoder="resnet10t", decoder=[8, 8, 8, 8, 8]).train()
    with pytest.raises(ConfigError, match="single cell"):
        net(torch.randn(1, 3, 32, 32))
    net(torch.randn(2, 3, 32, 32)).logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@torch.no_grad()
def test_encoders_without_a_map_at_stride_2():
    net = create_model("unet", classes=3, encoder="convnext_atto").eval()
    assert net.decoder.skips.channels == [160, 80, 40, 0, 0]
    assert net(torch.randn(1, 3, 65, 97)).logits.shape == (1, 3, 65, 97)


# -- as milesial/Pytorch-UNet -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "classes", "count"), [
    ("milesial", 1, 31_037_633), ("milesial", 2, 31_037_698), ("milesial-bilinear", 1, 17_262_977),
])  # fmt: skip
def test_parameters_of_milesial(variant, classes, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(f"unet-{variant}", classes=classes).parameters()) == count


@torch.no_grad()
@pytest.mark.parametrize(("name", "options"), [
    ("transposed", {"channels": 3, "width": 8, "bias": False, "padding": "maps", "up": "transposed"}),
    ("bilinear", {"channels": 1, "width": 8, "bias": False, "padding": "maps", "up": "halved"}),
])  # fmt: skip
def test_milesial_answers_the_same(name, options, drawn_weight, waves, tmp_path):
    frozen = FROZEN[name]
    state = {key: drawn_weight(key, shape) for key, shape in frozen["keys"].items()}
    torch.save({**state, "mask_values": [0, 1]}, tmp_path / "checkpoint.pth")  # as its training saves
    net, card = from_checkpoint(tmp_path / "checkpoint.pth")
    assert (card.architecture, card.training["imported"]["dialect"]) == ("unet", "milesial")
    assert card.options == options
    assert set(card.preprocessing.mean) == {0.0}
    assert set(card.preprocessing.std) == {1.0}
    for case in frozen["outputs"]:
        found = net(waves(*case["size"], channels=options["channels"])).full()
        values = torch.tensor(case["values"])
        places = torch.linspace(0, found.numel() - 1, len(values), dtype=torch.float64).long()
        assert (found.flatten()[places] - values).abs().max() <= 1e-4 * (values.max() - values.min())
        assert list(found.shape[2:]) == case["size"]


def test_milesial_without_a_tensor_is_refused():
    net = create_model("unet-milesial", classes=2, width=8)
    state = {key: torch.zeros(shape) for key, shape in FROZEN["transposed"]["keys"].items()}
    assert load_weights(net, state).dialect == "milesial"
    with pytest.raises(ModelFileError, match=r"1 missing: up\.2\.up\.weight"):
        load_weights(net, {key: t for key, t in state.items() if key != "up3.up.weight"})
    assert KEYS["milesial"].share(state) == 1
    assert KEYS["smp"].share(state) < 1
