"""Semantic FPN against its definition, segmentation_models.pytorch and mmsegmentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from pixelwise.checkpoints import from_checkpoint
from pixelwise.core.registry import create_model
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.fpn import KEYS, THIN

DATA = Path(__file__).parent / "data"


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("variant", "classes", "count"), [
    ("fpn-smp", 21, 23_157_973), ("fpn-smp", 1, 23_155_393), ("fpn-mmseg-r50", 19, 28_497_907), ("fpn", 19, 28_478_675),
])  # fmt: skip
def test_parameters(variant, classes, count):
    with torch.device("meta"):
        assert parameters(create_model(variant, classes=classes)) == count


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_top_down_path_against_its_definition(size):
    """P_i = conv1x1(C_i) + P_{i+1} at the nearest place, then smoothed."""
    torch.manual_seed(0)
    net = create_model("fpn", classes=3, **THIN).eval().double()
    maps = net.encoder(torch.randn(1, 3, *size, dtype=torch.float64))
    found = net.pyramid({str(i): x for i, x in enumerate(maps)})
    above = None
    for i in reversed(range(len(maps))):
        weight, bias = net.pyramid.inner_blocks[i][0].weight[:, :, 0, 0], net.pyramid.inner_blocks[i][0].bias
        level = torch.empty(1, len(weight), *maps[i].shape[2:], dtype=torch.float64)
        for y in range(level.shape[2]):
            for x in range(level.shape[3]):
                level[0, :, y, x] = weight @ maps[i][0, :, y, x] + bias
                if above is not None:
                    places = y * above.shape[2] // level.shape[2], x * above.shape[3] // level.shape[3]
                    level[0, :, y, x] += above[0, :, places[0], places[1]]
        torch.testing.assert_close(found[str(i)], net.pyramid.layer_blocks[i](level))
        above = level


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["convnext_atto", "mobilenetv3_small_050", "resnet10t"])
def test_on_encoders_with_other_maps(encoder):
    net = create_model("fpn", classes=3, encoder=encoder, width=16, branch=8).eval()
    output = net(torch.randn(1, 3, 33, 65))
    assert output.logits.shape == (1, 3, 9, 17)
    assert output.full().shape == (1, 3, 33, 65)


def test_one_small_image_is_refused_in_training_only():
    net, image = create_model("fpn", classes=3, **{**THIN, "branch": 64}), torch.randn(1, 3, 32, 32)
    with pytest.raises(ConfigError, match="2 images"):
        net(image)
    assert net(torch.randn(1, 3, 33, 65)).logits.isfinite().all()
    assert net.eval()(image).logits.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(("options", "message"), [
    ({"norm": "layer"}, "it can be group, batch"), ({"width": 0}, "width is 0"), ({"branch": "all"}, "branch is 'all'"),
    ({"smooth": 1}, "true or false"), ({"dropout": 1.0}, "dropout is 1.0"), ({"widht": 8}, "'width'"),
    ({"encoder": "vit_base_patch16_224"}, "pyramid"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("fpn", classes=3, **{"encoder": "resnet10t", **options})


# -- segmentation_models.pytorch --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(stir):
    torch.manual_seed(0)
    return stir(smp.FPN("resnet18", encoder_weights=None, classes=4, in_channels=2, decoder_pyramid_channels=48,
                        decoder_segmentation_channels=32))  # fmt: skip


@torch.no_grad()
def test_smp_answers_the_same(theirs, waves, assert_agree, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "fpn"
    assert card.training["imported"] == {"file": "a.pth", "dialect": "smp", "dropped": []}
    assert parameters(ours) == parameters(theirs)
    for size in ((64, 96), (32, 160)):
        images = waves(*size, channels=2)
        assert_agree(ours(images).full(), theirs(images))


@torch.no_grad()
def test_smp_on_another_encoder(stir, waves, assert_agree, tmp_path):
    torch.manual_seed(0)
    net = stir(smp.FPN("efficientnet-b0", encoder_weights=None, classes=2, decoder_pyramid_channels=32,
                       decoder_segmentation_channels=32))  # fmt: skip
    torch.save(net.state_dict(), tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.options["encoder"] == "efficientnet-b0"
    images = waves(64, 96)
    assert_agree(ours(images).full(), net(images))


def test_smp_in_training(theirs, waves, assert_agree):
    ours = create_model("fpn-smp", classes=4, channels=2, encoder="resnet18", width=48, branch=32, dropout=0.0)
    ours.load_state_dict(KEYS["smp"].translate(theirs.state_dict()).tensors)
    theirs.decoder.dropout.p = 0.0
    images = waves(64, 96, channels=2)
    assert_agree(ours.train()(images).full(), theirs.train()(images))


@pytest.mark.parametrize(("change", "said"), [
    (lambda s: s.pop("decoder.p5.bias"), r"1 missing: pyramid\.inner_blocks\.3\.0\.bias"),
    (lambda s: s.update({"decoder.p6.weight": torch.ones(1)}), r"1 left over: decoder\.p6\.weight"),
    (lambda s: s.update({"segmentation_head.0.bias": torch.ones(7)}), r"of another shape: semantic\.predictor\.bias"),
    (lambda s: s.update({"encoder.layer1.7.conv1.weight": torch.ones(1)}), r"\[8, 2, 2, 2\] blocks"),
])  # fmt: skip
def test_files_that_do_not_fit_are_refused(theirs, change, said, tmp_path):
    state = dict(theirs.state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=said):
        from_checkpoint(tmp_path / "a.pth")


# -- mmsegmentation ---------------------------------------------------------------------------------------------------


def frozen() -> tuple[dict[str, list[int]], list[dict[str, Any]]]:
    """Names, shapes and answers of mmsegmentation's FPN on its ResNet-50."""
    body = json.loads((DATA / "mmseg_r50_d8.json").read_text(encoding="utf-8"))["backbone"]
    told = json.loads((DATA / "mmseg_pyramids.json").read_text(encoding="utf-8"))["fpn_r50"]
    return {f"backbone.{name}": shape for name, shape in body.items()} | told["keys"], told["outputs"]


@torch.no_grad()
def test_mmseg_as_frozen(drawn_weight, waves, assert_agree, tmp_path):
    keys, outputs = frozen()
    torch.save({"state_dict": {name: drawn_weight(name, shape) for name, shape in keys.items()}}, tmp_path / "a.pth")
    net, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "fpn"
    assert card.options["encoder"] == "resnet50c"
    assert card.classes.names[0] == "road"
    assert KEYS["mmseg"].expects(150).size == SizeRule(short=512, long=2048, antialias=False)
    for case in outputs:
        full = net(waves(*case["size"], batch=1)).full().flatten()
        wanted = torch.tensor(case["logits"])
        assert_agree(full[torch.linspace(0, len(full) - 1, len(wanted), dtype=torch.float64).long()], wanted)


def test_mmseg_files_that_do_not_fit_are_refused(tmp_path):
    state = {name: torch.zeros(shape) for name, shape in frozen()[0].items()}
    state.pop("neck.fpn_convs.2.conv.bias")
    state["auxiliary_head.conv_seg.bias"] = torch.ones(19)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=r"1 missing: pyramid\.layer_blocks\.2.*1 left over: auxiliary_head"):
        from_checkpoint(tmp_path / "a.pth")


@pytest.mark.slow
def test_mmseg_answers_the_same(mmseg_net, mmseg_logits, stir, waves, assert_agree, tmp_path):
    torch.manual_seed(0)
    theirs = stir(mmseg_net("fpn_r50", 19))
    assert parameters(theirs) == 28_497_907
    torch.save({"meta": {}, "state_dict": theirs.state_dict()}, tmp_path / "a.pth")
    ours, _ = from_checkpoint(tmp_path / "a.pth")
    with torch.no_grad():
        for size in ((64, 96), (65, 91), (33, 47)):
            images = waves(*size)
            assert_agree(ours(images).full(), mmseg_logits(theirs, images))
