"""HRNet and OCR against the authors' code and mmsegmentation, as frozen in a file, and mmsegmentation itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixelwise.checkpoints import from_checkpoint
from pixelwise.core.outputs import heads
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models import hrnet
from pixelwise.models.hrnet import THIN, gather_regions

TOLD = json.loads((Path(__file__).parent / "data" / "hrnet.json").read_text(encoding="utf-8"))
FILES = list(TOLD["files"])
FCN = {**THIN, "ocr": 0, "aux": 0.0}


def keys(name: str) -> dict[str, list[int]]:
    """{foreign name: shape} of a thin net in a file of that kind."""
    told = TOLD["files"][name]
    return {**{told["body"] + key: shape for key, shape in TOLD["body"].items()}, **told["head"]}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# -- the net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "options", "parameters"), [
    ("-w18", {}, 9_640_849), ("-ocr-w18", {}, 12_080_036),  # mmsegmentation's
    ("", {"bias": True}, 65_859_379), ("-w18", {"bias": True}, 9_641_119),  # the authors'
    ("-ocr-w48", {"bias": True}, 70_372_678), ("-ocr-w18", {"bias": True}, 12_080_818),
])  # fmt: skip
def test_parameters(variant, options, parameters):
    with torch.device("meta"):
        assert count(create_model(f"hrnet{variant}", classes=19, **options)) == parameters


@torch.no_grad()
@pytest.mark.parametrize("size", [(33, 65), (8, 8), (90, 120)])
def test_branches_have_strides_of_4_to_32(size):
    net = create_model("hrnet", classes=3, **FCN).eval()
    for i, x in enumerate(net.body(torch.randn(1, 3, *size))):
        assert x.shape == (1, 2 * 2**i, *(math.ceil(n / 2 ** (i + 2)) for n in size))


def test_one_small_image_is_refused_in_training():
    net = create_model("hrnet", classes=3, **FCN)
    with pytest.raises(ConfigError, match=r"32x32 pixels .* crops above 32 pixels"):
        net(torch.randn(1, 3, 32, 32))
    net(torch.randn(1, 3, 33, 32))
    net(torch.randn(2, 3, 8, 8))


def test_ocr_of_a_single_class_needs_two_images():
    net = create_model("hrnet", classes=1, **THIN)
    with pytest.raises(ConfigError, match="batch-size 2"):
        net(torch.randn(1, 3, 64, 64))
    net(torch.randn(2, 3, 64, 64))


def test_regions_are_learnt_from_the_truth_in_training_only():
    images = torch.randn(2, 3, 64, 64)
    net = create_model("hrnet", classes=3, **THIN)
    assert [(name, weight) for name, weight, _ in heads(net(images))] == [("", 1.0), ("aux.", 0.4)]
    assert len(heads(net.eval()(images))) == 1
    assert len(heads(create_model("hrnet", classes=3, **{**THIN, "aux": 0})(images))) == 1


def test_dropout_takes_whole_channels_in_training_only():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64)
    net = create_model("hrnet", classes=3, **{**FCN, "dropout": 0.5}).eval()
    assert torch.equal(net(images).logits, net(images).logits)
    net.drop.train()
    seen: list[torch.Tensor] = []
    net.drop.register_forward_hook(lambda _, __, out: seen.append(out))
    net(images)
    silent = (seen[0] == 0).flatten(2).all(2)
    assert 0 < silent.sum() < silent.numel()


# -- formulas ---------------------------------------------------------------------------------------------------------


def test_regions_are_sums_weighted_by_the_softmax_over_pixels():
    pixels, scores = torch.randn(2, 5, 3, 4, dtype=torch.float64), torch.randn(2, 6, 3, 4, dtype=torch.float64)
    found = gather_regions(pixels, scores)
    assert found.shape == (2, 5, 6)
    for b in range(2):
        for k in range(6):
            exps = [[math.exp(scores[b, k, y, x]) for x in range(4)] for y in range(3)]
            total = sum(map(sum, exps))
            expected = sum(exps[y][x] / total * pixels[b, :, y, x] for y in range(3) for x in range(4))
            torch.testing.assert_close(found[b, :, k], expected)


# -- other people's files ---------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", FILES)
def test_answers_as_the_original(name, drawn_weight, waves, tmp_path):
    weights = {key: drawn_weight(key, shape) for key, shape in keys(name).items()}
    torch.save({"state_dict": weights}, tmp_path / "w.pth")
    net, card = from_checkpoint(tmp_path / "w.pth")
    assert f"{card.training['imported']['dialect']} {'ocr' if card.options.get('ocr') else 'fcn'}" == name
    for case in TOLD["files"][name]["outputs"]:
        maps, values = net(waves(*case["size"])).full(), torch.tensor(case["values"])
        places = torch.linspace(0, maps.numel() - 1, len(values), dtype=torch.float64).long()
        assert list(maps.shape) == case["shape"]
        assert case["range"] > 1
        assert float((maps.flatten()[places] - values).abs().max()) <= 1e-4 * case["range"]


def test_weights_of_the_loss_beside_the_net_are_dropped(drawn_weight, tmp_path):
    weights = {key: drawn_weight(key, shape) for key, shape in keys("HRNet ocr").items()}
    torch.save({**weights, "loss.criterion.weight": torch.ones(19)}, tmp_path / "w.pth")
    _, card = from_checkpoint(tmp_path / "w.pth")
    assert card.training["imported"]["dropped"] == ["loss.criterion.weight"]
    assert card.classes.names[0] == "road"
    assert card.preprocessing.size is None


@pytest.mark.parametrize(("name", "head", "classes", "align_corners"), [
    ("HRNet fcn", "last_layer.3", 19, False), ("HRNet fcn", "last_layer.3", 150, True),
    ("HRNet ocr", "model.cls_head", 59, True), ("mmseg fcn", "decode_head.conv_seg", 150, False),
])  # fmt: skip
def test_options_are_told_by_the_shapes(name, head, classes, align_corners):
    tensors = {key: torch.empty(shape, device="meta") for key, shape in keys(name).items()}
    tensors[f"{head}.weight"] = torch.empty(classes, *tensors[f"{head}.weight"].shape[1:], device="meta")
    tensors["backbone.conv1.weight" if name == "mmseg fcn" else "conv1.weight"] = torch.empty(64, 4, 3, 3)
    if name == "HRNet ocr":
        tensors["model.conv1.weight"] = tensors.pop("conv1.weight")
    told = hrnet.KEYS[name.split()[0]].options(tensors)
    body = {"channels": 4, "width": 8, "modules": [1, 1, 1], "blocks": 1, "stem": 64, "first": [1, 8]}
    assert {key: told[key] for key in body} == body
    assert told["classes"] == classes
    assert told.get("align_corners", False) == align_corners
    assert told.get("by_factor", False) == (name == "mmseg fcn")
    assert told.get("aux", 0) == (0.4 if name == "HRNet ocr" else 0)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["missing", "left over", "of another shape"])
def test_what_does_not_fit_is_refused(name, fault, tmp_path):
    tensors = {key: torch.zeros(shape) for key, shape in keys(name).items()}
    victim = next(key for key in tensors if key.endswith("fuse_layers.2.0.1.0.weight"))
    if fault == "missing":
        del tensors[victim]
    elif fault == "left over":
        tensors["incre_modules.0.weight"] = torch.zeros(3)
    else:
        tensors[victim] = torch.zeros(7, 7)
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(ModelFileError, match=f"1 {fault}"):
        from_checkpoint(tmp_path / "w.pth")


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", ["fcn_hr18", "ocrnet_hr18"])
def test_mmsegmentation_answers_the_same(name, mmseg_net, mmseg_logits, stir, assert_agree, tmp_path):
    theirs = stir(mmseg_net(name, classes=19))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours, card = from_checkpoint(tmp_path / "w.pth")
    assert card.training["imported"]["dialect"] == "mmseg"
    assert count(ours) == count(theirs)
    for size in ((64, 96), (65, 97), (90, 70)):
        images = torch.randn(2, 3, *size)
        assert_agree(ours(images).full(), mmseg_logits(theirs, images))
    if name == "ocrnet_hr18":
        images = torch.randn(2, 3, 64, 96)
        features = theirs.train().backbone(images)
        regions = theirs.decode_head[0](features)
        for (_, _, mine), expected in zip(
            reversed(heads(ours.train()(images))), (regions, theirs.decode_head[1](features, regions)), strict=True
        ):
            assert_agree(mine.logits, expected)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [
    "hrnet-w18-small-v1", pytest.param("hrnet-w18-small-v2", marks=pytest.mark.slow),
    pytest.param("hrnet-w18", marks=pytest.mark.slow),
])  # fmt: skip
def test_timms_weights_fill_the_whole_body(variant, monkeypatch):
    options = {**hrnet.VARIANTS[variant.removeprefix("hrnet-")], "channels": 4}
    made = []

    def without_network(name: str, *, channels: int, pretrained: bool) -> Any:
        assert pretrained
        made.append(make(name, channels=channels))
        return made[0]

    make = hrnet.make_encoder
    monkeypatch.setattr(hrnet, "make_encoder", without_network)
    net = create_model("hrnet", classes=3, pretrained=True, **options)
    theirs = made[0].body.state_dict()
    for name, tensor in net.body.state_dict().items():
        assert torch.equal(tensor, theirs[name])
    assert all(name.startswith("incre_modules.") for name in theirs if name not in net.body.state_dict())


def test_other_bodies_have_no_weights():
    with pytest.raises(ConfigError, match=r"widths 18, 30, 32, .* got \(2, "):
        create_model("hrnet", classes=3, **FCN, pretrained=True)


@pytest.mark.parametrize(("options", "message"), [
    ({"width": 0}, "width is 0"), ({"modules": [1, 4]}, "modules is .* 3 numbers"), ({"modules": 3}, "modules is 3"),
    ({"first": [4, 0]}, "first"), ({"blocks": "4"}, "blocks is '4'"), ({"stem": True}, "stem is True"),
    ({"ocr": 9}, "ocr is 9; it must be even"), ({"ocr": -2}, "ocr is -2"), ({"aux": -1}, "aux is -1"),
    ({"ocr": 0}, "no OCR: give ocr=512"), ({"dropout": 1}, "dropout is 1"), ({"bias": 1}, "bias is 1"),
    ({"align_corners": "no"}, "align_corners"), ({"by_factor": None}, "by_factor"), ({"pretrained": 1}, "pretrained"),
    ({"channels": 0}, "channels is 0"), ({"blcoks": 3}, "did you mean 'blocks'"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("hrnet", classes=3, **{**THIN, **options})
