"""DeepLab against torchvision, segmentation_models.pytorch and by frozen answers, mmsegmentation, VainF, kazuto1011."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.outputs import heads
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models._deeplab_v1 import LargeFOV
from pixelwise.models._deeplab_v2 import SummedASPP
from pixelwise.models.deeplab import KEYS, THIN
from pixelwise.nn.context import ASPP

DATA = Path(__file__).parent / "data"
SIZES = [(64, 96), (65, 97)]
RESNET = {"encoder": "test_resnet", "multi_grid": [2]}  # a thin one, whose last stage has one block


def net(variant: str = "", classes: int = 3, **options: Any) -> nn.Module:
    return create_model(f"deeplab-{variant}" if variant else "deeplab", classes=classes, **options)


# -- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "classes", "options", "count"), [
    ("v3-torchvision", 21, {}, 42_004_074),
    ("v3-torchvision", 21, {"aux": 0.0}, 39_638_869),
    ("v3-torchvision", 21, {"encoder": "resnet101"}, 60_996_202),
    ("v3-torchvision-mobilenet", 21, {}, 11_029_328),
    ("v3-smp", 21, {}, 26_012_245),
    ("v3-mmseg", 19, {}, 68_113_030),
    ("v3plus-smp", 21, {}, 22_442_597),
    ("v3plus-smp", 19, {"encoder": "resnet101"}, 45_674_339),
    ("v3plus-mmseg", 19, {}, 43_589_878),
    ("v2-kazuto1011", 21, {}, 44_048_532),  # the authors' too: ResNet-101 and four 3x3 to 21 classes
    ("v1", 21, {}, 14_714_688 + 512 * 1024 * 9 + 1024 + 1024 * 1024 + 1024 + 1024 * 21 + 21),  # by the prototxt
])  # fmt: skip
def test_parameters(variant, classes, options, count):
    with torch.device("meta"):
        found = net(variant, classes, **options)
    assert sum(p.numel() for p in found.parameters()) == count


# -- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 2, 3])
def test_atrous_convolution_samples_at_a_distance(rate):
    """y[i] = sum_k x[i + rate k] w[k], here in two dimensions and around the middle tap."""
    x, w = torch.randn(1, 2, 7, 9), torch.randn(3, 2, 3, 3)
    head = SummedASPP(2, 3, [rate])
    head.convs[0].weight.data, head.convs[0].bias.data = w, torch.zeros(3)
    expected = torch.zeros(1, 3, 7, 9)
    for i, j, k, m in np.ndindex(7, 9, 3, 3):
        y, z = i + rate * (k - 1), j + rate * (m - 1)
        if 0 <= y < 7 and 0 <= z < 9:
            expected[0, :, i, j] += w[:, :, k, m] @ x[0, :, y, z]
    torch.testing.assert_close(head([x]), expected, rtol=1e-4, atol=1e-5)


def test_summed_aspp_is_a_sum_over_its_rates():
    head, x = SummedASPP(4, 3, [1, 2]), torch.randn(1, 4, 9, 9)
    parts = [F.conv2d(x, c.weight, c.bias, padding=r, dilation=r) for c, r in zip(head.convs, (1, 2))]
    torch.testing.assert_close(head([x]), parts[0] + parts[1])


def test_aspp_is_its_definition(stir):
    """Concat[conv 1x1, atrous 3x3 of each rate, mean of the image], each with norm and ReLU, then 1x1."""
    aspp = stir(ASPP(4, 5, (2, 3), dropout=0.0))
    x = torch.randn(2, 4, 8, 9)

    def norm(y: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        scale = layer.weight / (layer.running_var + layer.eps) ** 0.5
        return ((y - layer.running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)).relu()

    one, two, three, mean = aspp.convs
    parts = [
        norm(torch.einsum("dc,bchw->bdhw", one[0].weight[:, :, 0, 0], x), one[1]),
        norm(F.conv2d(x, two[0].weight, padding=2, dilation=2), two[1]),
        norm(F.conv2d(x, three[0].weight, padding=3, dilation=3), three[1]),
        norm(F.conv2d(x.mean((2, 3), keepdim=True), mean.conv.weight), mean.norm).expand(-1, -1, 8, 9),
    ]
    joined = torch.einsum("dc,bchw->bdhw", aspp.project[0].weight[:, :, 0, 0], torch.cat(parts, 1))
    torch.testing.assert_close(aspp(x), norm(joined, aspp.project[1]), rtol=1e-4, atol=1e-5)


def dilations(encoder: nn.Module, stage: int) -> list[int]:
    layer = getattr(encoder.body, f"layer{stage}")
    return [m.dilation[0] for m in layer.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


def test_multi_grid_multiplies_the_dilation_of_the_last_stage():
    with torch.device("meta"):
        assert dilations(net("v3").encoder, 4) == [2, 4, 8]
        assert dilations(net("v3", output_stride=8).encoder, 4) == [4, 8, 16]
        assert dilations(net("v3", output_stride=8).encoder, 3) == [2] * 6
        assert dilations(net("v3plus", output_stride=8).encoder, 4) == [2, 4, 4]
        assert dilations(net("v2").encoder, 4) == [4, 4, 4]


def test_rates_double_at_stride_eight():
    with torch.device("meta"):
        for stride, rates in ((16, [6, 12, 18]), (8, [12, 24, 36])):
            aspp = net("v3", output_stride=stride).head.aspp
            assert [conv[0].dilation[0] for conv in aspp.convs[1:4]] == rates


@torch.no_grad()
def test_scales_are_fused_by_their_maximum():
    v2 = net("v2", **RESNET, stride_in_1x1=False, align_corners=False).eval()
    x = torch.randn(1, 3, 65, 97)
    parts = [v2.head(v2.encoder(F.interpolate(x, scale_factor=s, mode="bilinear"))) for s in (0.5, 0.75)]
    full = v2.head(v2.encoder(x))
    parts = [F.interpolate(part, full.shape[-2:], mode="bilinear") for part in parts]
    torch.testing.assert_close(v2(x).logits, torch.stack([full, *parts]).amax(0))


def test_every_scale_has_a_loss_in_training():
    v2 = net("v2", **RESNET, stride_in_1x1=False, aux=0.25)
    found = v2(torch.randn(2, 3, 64, 64)).aux
    assert [(name, weight) for name, weight, _ in found] == [("scale50", 0.25), ("scale75", 0.25), ("scale100", 0.25)]
    assert [tuple(part.logits.shape[-2:]) for _, _, part in found] == [(5, 5), (7, 7), (9, 9)]


def test_first_layers_of_large_fov_are_decimated():
    head = LargeFOV(512, 21, width=1024, rate=12, dropout=0.5)
    fc6, fc7 = nn.Conv2d(512, 4096, 7), nn.Conv2d(4096, 4096, 1)
    head.decimate(fc6, fc7)
    assert torch.equal(head.fc6.weight[5, :, 1, 2], fc6.weight[20, :, 3, 6])
    assert torch.equal(head.fc7.weight[5, 7], fc7.weight[20, 28])
    assert head.fc7.bias[3] == fc7.bias[12]


# -- every version, thin ----------------------------------------------------------------------------------------------

VERSIONS_THIN: list[dict[str, Any]] = [
    {"version": "v1", "width": 2},
    {"version": "v2", **RESNET, "stride_in_1x1": False},
    {"version": "v3", **RESNET, "width": 8},
    {"version": "v3", **RESNET, "width": 8, "aux": 0.4, "late_dropout": True},
    {"version": "v3plus", **THIN, "aux": 0.4, "output_stride": 8},
    {"version": "v3plus", **THIN, "convolution": "bare", "smooth": 1},
]


@pytest.mark.parametrize("options", VERSIONS_THIN, ids=lambda options: options["version"])
def test_every_version_takes_any_size_and_learns(options):
    torch.manual_seed(0)
    found = net(**options)
    for parameter in found.parameters():
        if not parameter.any():  # residual branches that begin with nothing, and biases
            nn.init.normal_(parameter, std=0.5)
    for size in ((33, 65), (50, 70)):
        images = torch.randn(2, 3, *size)
        output = found(images)
        assert output.full().shape == (2, 3, *size)
        found.zero_grad()
        sum((head.full() * torch.randn(2, 3, *size)).sum() for _, _, head in heads(output)).backward()
        silent = [name for name, p in found.named_parameters() if p.grad is None or not p.grad.any()]
        assert not silent
    with torch.no_grad():
        found.eval()
        assert len(heads(found(images))) == 1
        torch.testing.assert_close(found(images).logits[:1], found(images[:1]).logits, rtol=1e-3, atol=1e-4)


def test_one_image_is_too_few_to_train_on():
    with pytest.raises(ConfigError, match="at least 2 images"):
        net(**THIN)(torch.randn(1, 3, 64, 64))


# -- torchvision ------------------------------------------------------------------------------------------------------


def saved(path: Path, reference: nn.Module) -> Path:
    torch.save(reference.state_dict(), path)
    return path


def calm(reference: nn.Module) -> nn.Module:
    """In training but for norms and dropout, so that auxiliary heads answer and all is determined."""
    reference.eval()
    reference.training = True
    return reference


@torch.no_grad()
@pytest.mark.parametrize("aux", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_torchvision_answers_the_same(tmp_path, stir, waves, assert_agree, aux):
    make = torchvision.models.segmentation.deeplabv3_resnet50
    theirs = stir(make(weights=None, weights_backbone=None, num_classes=21, aux_loss=aux))
    ours, card = from_checkpoint(saved(tmp_path / "w.pth", theirs))
    assert card.architecture == "deeplab"
    assert card.classes.names[15] == "person"
    assert card.preprocessing.size.short == 520
    for size in SIZES:
        assert_agree(ours(waves(*size)).full(), theirs(waves(*size))["out"])
    if aux:
        ((name, weight, head),) = calm(ours)(waves(64, 96)).aux
        assert (name, weight) == ("aux", 0.5)
        assert_agree(head.full(), theirs(waves(64, 96))["aux"])
    assert load_weights(ours, theirs.state_dict()).dialect == "torchvision"


@torch.no_grad()
def test_torchvision_on_mobilenet_answers_the_same(tmp_path, stir, waves, assert_agree):
    make = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large
    theirs = stir(make(weights=None, weights_backbone=None, num_classes=21, aux_loss=True))
    ours, card = from_checkpoint(saved(tmp_path / "w.pth", theirs))
    assert card.options["encoder"] == "mobilenet_v3_large"
    for size in SIZES:
        wanted = theirs(waves(*size))
        assert_agree(ours(waves(*size)).full(), wanted["out"])
        ((_, _, head),) = calm(ours)(waves(*size)).aux
        assert_agree(head.full(), wanted["aux"])
        ours.eval()


# -- segmentation_models.pytorch --------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("name", "options"), [
    ("DeepLabV3", {}), ("DeepLabV3Plus", {}), ("DeepLabV3Plus", {"in_channels": 4, "decoder_channels": 32}),
    ("DeepLabV3Plus", {"encoder_name": "tu-mobilenetv3_small_050"}),
    ("DeepLabV3Plus", {"encoder_name": "mobilenet_v2"}),
    pytest.param("DeepLabV3", {"encoder_name": "mobilenet_v2"}, marks=pytest.mark.slow),
    pytest.param("DeepLabV3Plus", {"encoder_name": "efficientnet-b0"}, marks=pytest.mark.slow),
    pytest.param("DeepLabV3", {"encoder_name": "resnet34"}, marks=pytest.mark.slow),
])  # fmt: skip
def test_smp_answers_the_same(tmp_path, stir, waves, assert_agree, name, options):
    smp = pytest.importorskip("segmentation_models_pytorch")
    options = {"encoder_name": "resnet18", **options}
    theirs = stir(getattr(smp, name)(encoder_weights=None, classes=5, **options))
    name = options["encoder_name"].partition("tu-")[2]
    ours, card = from_checkpoint(saved(tmp_path / "w.pth", theirs), **({"encoder": name} if name else {}))
    assert card.preprocessing.channels == options.get("in_channels", 3)
    for size in ((64, 96), (96, 80) if card.options["version"] == "v3plus" else (72, 88)):
        images = waves(*size, channels=options.get("in_channels", 3))
        assert_agree(ours(images).full(), theirs(images))


@torch.no_grad()
def test_smp_with_another_stride_is_told_by_the_user(tmp_path, stir, waves, assert_agree):
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = stir(smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=5, encoder_output_stride=8))
    ours, _ = from_checkpoint(saved(tmp_path / "w.pth", theirs), output_stride=8)
    assert_agree(ours(waves(64, 96)).full(), theirs(waves(64, 96)))


def test_smp_of_older_names_is_read(stir):
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        names = smp.DeepLabV3("resnet18", encoder_weights=None, classes=5).state_dict()
    old = {"decoder.aspp.": "decoder.0.", "decoder.conv.": "decoder.1.", "decoder.bn.": "decoder.2."}
    dialect = KEYS["smp"]
    new = dialect.translate(names)
    for ours, theirs in old.items():
        names = {name.replace(ours, theirs): tensor for name, tensor in names.items()}
    again = dialect.translate(names)
    assert dialect.share(names) == 1
    assert not again.left
    assert set(again.tensors) == set(new.tensors)
    assert dialect.options(names)["version"] == "v3"


# -- frozen answers of other repositories -----------------------------------------------------------------------------


def frozen(name: str) -> dict[str, Any]:
    """What is kept of a net: {"keys": {name: shape}, "outputs": [...]}."""
    files = ("deeplab.json", "deeplab_kazuto1011.json")
    return next(d for d in (json.loads((DATA / f).read_text(encoding="utf-8")) for f in files) if name in d)[name]


def foreign(name: str) -> dict[str, list[int]]:
    """{name: shape} of the file of such a net."""
    keys = frozen(name)["keys"]
    if name.startswith("mmseg"):  # all its nets have the same encoder
        body = json.loads((DATA / "mmseg_r50_d8.json").read_text(encoding="utf-8"))["backbone"]
        return {f"backbone.{key}": shape for key, shape in body.items()} | keys
    if name.startswith("VainF"):  # has torchvision's
        with torch.device("meta"):
            body = torchvision.models.resnet50().state_dict()
        kept = {key: list(t.shape) for key, t in body.items() if not key.startswith("fc.")}
        return {f"backbone.{key}": shape for key, shape in kept.items()} | keys
    return keys


@pytest.mark.parametrize(("name", "options"), [
    pytest.param(
        "mmseg-v3", {"version": "v3", "encoder": "resnet50c", "width": 24, "aux": 0.4}, marks=pytest.mark.slow
    ),
    ("mmseg-v3plus", {"version": "v3plus", "encoder": "resnet50c", "width": 24, "aux": 0.4, "skip": 12}),
    pytest.param("VainF-v3", {"version": "v3", "encoder": "resnet50"}, marks=pytest.mark.slow),
    ("VainF-v3plus", {"version": "v3plus", "encoder": "resnet50"}),
    ("kazuto1011", {"version": "v2", "encoder": "resnet50", "scales": [0.5, 0.75, 1.0]}),
])  # fmt: skip
def test_others_answered_the_same(name, options, assert_frozen):
    assert_frozen("deeplab", name.partition("-")[0], foreign(name), frozen(name)["outputs"], classes=5, **options)


@torch.no_grad()
def test_wangleihitcs_answered_the_same(random_weight, waves, assert_agree):
    """Without norms, for which the other weights would leave nothing of the image."""
    told = frozen("wangleihitcs")
    weights = {key: random_weight(key, shape) for key, shape in told["keys"].items()}
    found = KEYS["wangleihitcs"]
    with torch.device("meta"):
        ours = net(**found.options(weights)).eval()
    ours.load_state_dict(found.translate(weights).tensors, assign=True)
    for case in told["outputs"]:
        full, wanted = ours(waves(*case["size"], batch=1)).full().flatten(), torch.tensor(case["logits"])
        assert_agree(full[torch.linspace(0, len(full) - 1, len(wanted), dtype=torch.float64).long()], wanted)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(("name", "depth"), [("deeplabv3_r50-d8", 50), ("deeplabv3plus_r50-d8", 101)])
def test_mmsegmentation_answers_the_same(name, depth, mmseg_net, mmseg_logits, tmp_path, stir, waves, assert_agree):
    theirs = stir(mmseg_net(name, classes=19, depth=depth))
    ours, card = from_checkpoint(saved(tmp_path / "w.pth", theirs))
    assert (card.options["encoder"], card.classes.names[0]) == (f"resnet{depth}c", "road")
    for size in SIZES:
        assert_agree(ours(waves(*size)).full(), mmseg_logits(theirs, waves(*size)))
    images = waves(49, 57)
    ((_, weight, head),) = calm(ours)(images).aux
    assert weight == 0.4
    assert_agree(head.logits, theirs.auxiliary_head(theirs.extract_feat(images)))


def test_colours_of_caffe_come_along():
    for name in ("kazuto1011", "wangleihitcs"):
        red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
        expected = torch.tensor([0 - 104.008, 0 - 116.669, 255 - 122.675])
        torch.testing.assert_close(KEYS[name].expects(21)(red).flatten(), expected)


def shapes_of(name: str) -> dict[str, list[int]]:
    """Of libraries that are installed too."""
    if name not in ("torchvision", "smp"):
        return foreign(name)
    with torch.device("meta"):
        if name == "torchvision":
            make = torchvision.models.segmentation.deeplabv3_resnet50
            reference: nn.Module = make(weights=None, weights_backbone=None, aux_loss=True)
        else:
            smp = pytest.importorskip("segmentation_models_pytorch")
            reference = smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=5)
    return {key: list(tensor.shape) for key, tensor in reference.state_dict().items()}


@pytest.mark.parametrize("name", ["mmseg-v3plus", "VainF-v3plus", "kazuto1011", "wangleihitcs", "torchvision", "smp"])
def test_what_does_not_fit_is_refused(name, on_meta):
    tensors = on_meta(shapes_of(name))
    dialect = next(d for d in KEYS.values() if d.share(tensors) == 1)
    with torch.device("meta"):
        ours = net(**dialect.options(tensors))
    victim = [key for key in tensors if key.endswith("weight")][9]
    less = {key: tensor for key, tensor in tensors.items() if key != victim}
    more = {**tensors, "further.weight": torch.zeros(3, 3)}
    other = {**tensors, victim: torch.zeros(7, 7)}
    for wrong, message in ((less, "1 missing"), (more, "1 left over: further"), (other, "1 of another shape")):
        with pytest.raises(ModelFileError, match=message):
            load_weights(ours, wrong)


def test_what_others_dilate_in_their_own_way_is_refused():
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        light = smp.DeepLabV3Plus("se_resnet50", encoder_weights=None, classes=5).state_dict()
        mixed = smp.DeepLabV3("resnet18", encoder_weights=None, classes=5, decoder_aspp_separable=True).state_dict()
    with pytest.raises(ModelFileError, match="legacy_seresnet50"):
        KEYS["smp"].options(light)
    with pytest.raises(ModelFileError, match="in v3 plain"):
        KEYS["smp"].options(mixed)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "options", "message"), [
    ("", {"version": "v4"}, "version is 'v4'"), ("v1", {"encoder": "resnet50"}, "v1 has no encoder"),
    ("v3", {"skip": 48}, "v3 has no skip"), ("v3plus", {"scales": [1.0]}, "v3plus has no scales"),
    ("v2", {"dropout": 0.5}, "v2 has no dropout"), ("", {"output_stride": 32}, "can be 8, 16"),
    ("", {"rates": [0, 6]}, "rates"), ("", {"rates": []}, "rates"), ("v1", {"rates": [6, 12]}, "1 numbers"),
    ("v3", {"multi_grid": [1, 2]}, "which has 3"), ("v3", {"encoder": "efficientnet_b0"}, "multi_grid is for ResNets"),
    ("v3", {"multi_grid": [0, 1, 2]}, "multi_grid"), ("", {"convolution": "deep"}, "plain, separable, bare"),
    ("", {"join": 5}, "can be 1, 3"), ("", {"smooth": -1}, "from 0 up"), ("", {"skip": 0}, "skip is 0"),
    ("", {"refine": 0}, "refine is 0"), ("", {"width": 0}, "width is 0"), ("v2", {"scales": [0.5]}, "1 among them"),
    ("v2", {"scales": [1, 1]}, "different numbers"), ("v2", {"scales": 1}, "different numbers"),
    ("v2", {"scales": ["1"]}, "numbers up to 4"),
    ("v2", {"encoder": "resnet18", "multi_grid": []}, "bottlenecks"), ("", {"aux": -1}, "aux is -1"),
    ("", {"dropout": 1.0}, "dropout"), ("", {"late_dropout": 1}, "late_dropout"), ("", {"channels": 0}, "channels"),
    ("", {"align_corners": "no"}, "align_corners"), ("", {"aux_stride": 4}, "aux_stride is 4"),
    ("v3", {"encoder": "mobilenet_v3_large", "multi_grid": [], "pretrained": True}, "take that one"),
    ("", {"encoder": "swin_tiny_patch4_window7_224"}, "dilated"),
    ("", {"pretrained": 1}, "pretrained"), ("", {"encodre": "x"}, "did you mean 'encoder'"),
])  # fmt: skip
def test_refused_options(variant, options, message):
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        net(variant, **options)
