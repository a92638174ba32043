"""UPerNet against its definition, segmentation_models.pytorch and mmsegmentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional as F

from pixelwise.checkpoints import from_checkpoint
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.upernet import KEYS, THIN

DATA = Path(__file__).parent / "data"


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def still(*nets: nn.Module) -> None:
    """In training mode, without dropout."""
    for net in nets:
        for module in net.train().modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0


@pytest.mark.parametrize(("variant", "classes", "count"), [
    ("upernet-smp", 21, 29_604_821), ("upernet-smp", 1, 29_599_681), ("upernet-mmseg-r50", 19, 66_415_238),
    ("upernet-transformers", 150, 60_242_636),
])  # fmt: skip
def test_parameters(variant, classes, count):
    with torch.device("meta"):
        assert parameters(create_model(variant, classes=classes)) == count


@torch.no_grad()
def test_decoder_against_its_definition():
    """L_top = conv3x3[C, pooled C], L_i = conv1x1(C_i) + enlarged L_{i+1}; conv3x3(L_i) and the top are joined."""
    torch.manual_seed(0)
    decoder = create_model("upernet", classes=3, **THIN).decoder.eval()
    channels = [m[0].in_channels for m in decoder.laterals]
    sizes = [(17, 25), (9, 13), (5, 7)]
    maps = [torch.randn(2, c, *size) for c, size in zip(channels, sizes)]
    maps.append(torch.randn(2, decoder.top[0].in_channels - 4 * 8, 3, 4))
    levels = [decoder.top(decoder.context(maps[3]))]
    for i in (2, 1, 0):
        levels.insert(0, decoder.laterals[i](maps[i]) + F.interpolate(levels[0], sizes[i], mode="bilinear"))
    smoothed = [decoder.smooth[i](levels[i]) for i in range(3)] + [levels[3]]
    joined = torch.cat([F.interpolate(level, sizes[0], mode="bilinear") for level in smoothed], 1)
    torch.testing.assert_close(decoder(maps), decoder.fuse(joined))


def test_training_needs_two_images():
    net = create_model("upernet", classes=3, **THIN)
    with pytest.raises(ConfigError, match="--batch-size 2"):
        net(torch.randn(1, 3, 64, 64))
    assert [(name, weight) for name, weight, _ in net(torch.randn(2, 3, 64, 64)).aux] == [("aux", 0.4)]


@pytest.mark.parametrize(("options", "message"), [
    ({"aux": -1}, "aux is -1"), ({"width": 0}, "width is 0"), ({"bins": [0]}, "bins"), ({"norm_maps": 1}, "true or"),
    ({"aux_width": 0}, "aux_width"), ({"dropout": 2}, "dropout"), ({"aux_widht": 8}, "'aux_width'"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("upernet", classes=3, **{"encoder": "resnet10t", **options})


# -- segmentation_models.pytorch --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(stir):
    torch.manual_seed(0)
    return stir(smp.UPerNet("resnet18", encoder_weights=None, classes=4, in_channels=2, decoder_channels=32))


@torch.no_grad()
def test_smp_answers_the_same(theirs, waves, assert_agree, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "upernet"
    assert card.training["imported"] == {"file": "a.pth", "dialect": "smp", "dropped": []}
    assert parameters(ours) == parameters(theirs)
    for size in ((64, 96), (32, 160)):
        images = waves(*size, channels=2)
        assert_agree(ours(images).full(), theirs(images))


def test_smp_in_training(theirs, waves, assert_agree):
    ours = create_model("upernet-smp", classes=4, channels=2, encoder="resnet18", width=32)
    ours.load_state_dict(KEYS["smp"].translate(theirs.state_dict()).tensors)
    images = waves(64, 96, channels=2)
    assert_agree(ours.train()(images).full(), theirs.train()(images), 1e-3)  # norms of two values magnify the last bit


@pytest.mark.parametrize(("change", "said"), [
    (lambda s: s.pop("decoder.fusion_block.0.weight"), r"1 missing: decoder\.fuse\.0\.weight"),
    (lambda s: s.update({"decoder.feature_norms.4.weight": torch.ones(1)}), r"1 left over: norms\.4"),
    (lambda s: s.update({"segmentation_head.0.bias": torch.ones(7)}), r"of another shape: head\.bias"),
])  # fmt: skip
def test_files_that_do_not_fit_are_refused(theirs, change, said, tmp_path):
    state = dict(theirs.state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=said):
        from_checkpoint(tmp_path / "a.pth")


# -- mmsegmentation ---------------------------------------------------------------------------------------------------


def frozen() -> tuple[dict[str, list[int]], list[dict[str, Any]]]:
    """Names, shapes and answers of mmsegmentation's UPerNet on its ResNet-50, its heads narrowed to 48 and 24."""
    body = json.loads((DATA / "mmseg_r50_d8.json").read_text(encoding="utf-8"))["backbone"]
    told = json.loads((DATA / "mmseg_pyramids.json").read_text(encoding="utf-8"))["upernet_r50"]
    return {f"backbone.{name}": shape for name, shape in body.items()} | told["keys"], told["outputs"]


@torch.no_grad()
def test_mmseg_as_frozen(drawn_weight, waves, assert_agree, tmp_path):
    keys, outputs = frozen()
    torch.save({"state_dict": {name: drawn_weight(name, shape) for name, shape in keys.items()}}, tmp_path / "a.pth")
    net, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "upernet"
    assert card.options["encoder"] == "resnet50c"
    assert (net.aux_weight, card.options["width"], card.options["aux_width"]) == (0.4, 48, 24)
    for case in outputs:
        full = net(waves(*case["size"], batch=1)).full().flatten()
        wanted = torch.tensor(case["logits"])
        assert_agree(full[torch.linspace(0, len(full) - 1, len(wanted), dtype=torch.float64).long()], wanted)


def test_mmseg_files_that_do_not_fit_are_refused(tmp_path):
    state = {name: torch.zeros(shape) for name, shape in frozen()[0].items()}
    state.pop("decode_head.lateral_convs.0.bn.weight")
    state["decode_head.bottleneck.conv.bias"] = torch.ones(48)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=r"1 missing: decoder\.laterals\.0\.1.*1 left over: decoder\.top\.0\.bias"):
        from_checkpoint(tmp_path / "a.pth")


@pytest.mark.slow
def test_mmseg_answers_the_same(mmseg_net, mmseg_logits, stir, waves, assert_agree, tmp_path):
    torch.manual_seed(0)
    theirs = stir(mmseg_net("upernet_r50", 19))
    assert parameters(theirs) == 66_415_238
    torch.save({"meta": {}, "state_dict": theirs.state_dict()}, tmp_path / "a.pth")
    ours, _ = from_checkpoint(tmp_path / "a.pth")
    with torch.no_grad():
        for size in ((64, 96), (65, 91), (33, 47)):
            images = waves(*size)
            assert_agree(ours(images).full(), mmseg_logits(theirs, images))
    still(ours, theirs)
    images = waves(97, 105)
    maps = theirs.extract_feat(images)
    output = ours(images)
    assert_agree(output.logits, theirs.decode_head(maps), 1e-3)  # norms of two values magnify the last bit
    assert_agree(output.aux[0][2].logits, theirs.auxiliary_head(maps))


# -- transformers -----------------------------------------------------------------------------------------------------


def convnext() -> dict[str, Any]:
    """Names, shapes and answers of transformers 4.57's UperNet on ConvNeXt-T, its head narrowed."""
    return json.loads((DATA / "transformers_upernet_convnext.json").read_text(encoding="utf-8"))


@torch.no_grad()
def test_transformers_as_frozen(drawn_weight, waves, assert_agree, tmp_path):
    told = convnext()
    torch.save({name: drawn_weight(name, shape) for name, shape in told["keys"].items()}, tmp_path / "a.bin")
    net, card = from_checkpoint(tmp_path / "a.bin")
    assert card.architecture == "upernet"
    assert card.training["imported"] == {"file": "a.bin", "dialect": "transformers", "dropped": []}
    assert card.options["encoder"] == "convnext_tiny"
    assert card.classes.names[0] == "wall"
    for case in told["outputs"]:
        full = net(waves(*case["size"], batch=1)).full().flatten()
        wanted = torch.tensor(case["logits"])
        assert_agree(full[torch.linspace(0, len(full) - 1, len(wanted), dtype=torch.float64).long()], wanted)


def test_transformers_files_that_do_not_fit_are_refused(tmp_path):
    state = {name: torch.zeros(shape) for name, shape in convnext()["keys"].items()}
    state.pop("backbone.hidden_states_norms.stage2.bias")
    state["decode_head.more.bias"] = torch.ones(1)
    torch.save(state, tmp_path / "a.bin")
    with pytest.raises(ModelFileError, match=r"1 missing: norms\.1\.bias.*1 left over: decode_head\.more\.bias"):
        from_checkpoint(tmp_path / "a.bin")
    del state["backbone.encoder.stages.2.layers.8.dwconv.weight"]
    torch.save(state, tmp_path / "a.bin")
    with pytest.raises(ModelFileError, match=r"ConvNeXt has \[3, 3, 8, 3\] blocks and begins 96 wide"):
        from_checkpoint(tmp_path / "a.bin")
