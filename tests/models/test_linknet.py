"""LinkNet against its authors' PyTorch code, frozen in a file, and segmentation_models.pytorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch

from pixelwise.checkpoints import from_checkpoint
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.linknet import THIN

FROZEN = Path(__file__).parent / "data" / "e-lab_linknet.json"


@pytest.mark.parametrize(("variant", "classes", "count"), [
    ("linknet-smp", 21, 21_772_597), ("linknet-smp", 1, 21_771_937), ("linknet", 21, 11_535_957),
])  # fmt: skip
def test_parameters(variant, classes, count):
    with torch.device("meta"):
        net = create_model(variant, classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count


@torch.no_grad()
@pytest.mark.parametrize("form", ["paper", "smp"])
@pytest.mark.parametrize("encoder", ["convnext_atto", "mobilenetv3_small_050", "test_resnet"])
def test_answers_at_full_size_on_any_encoder(form, encoder):
    """With a map at stride 2 and without; at odd sizes, where twice the half is more, or less, than the whole."""
    net = create_model("linknet", classes=3, encoder=encoder, width=8, form=form).eval()
    for size in ((64, 96), (33, 65), (40, 72)):
        assert net(torch.randn(1, 3, *size)).logits.shape == (1, 3, *size)


@torch.no_grad()
def test_links_add_what_went_into_a_stage():
    """Without what comes from below, the sum is the link: the pooled map of the stem at last."""
    net = create_model("linknet", classes=3, **THIN).eval()
    images = torch.randn(1, 3, 64, 96)
    seen: list[torch.Tensor] = []
    net.head[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for decoder in net.decoders:
        decoder[2][1].weight.zero_()
        decoder[2][1].bias.zero_()
    net(images)
    stem = net.encoder(images)[0]
    torch.testing.assert_close(seen[0], torch.nn.functional.max_pool2d(stem, 3, 2, 1))


def test_one_small_image_is_refused_in_training_only():
    net, image = create_model("linknet", classes=3, **THIN), torch.randn(1, 3, 32, 32)
    with pytest.raises(ConfigError, match="2 images"):
        net(image)
    assert net.eval()(image).logits.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(("options", "message"), [
    ({"form": "port"}, "it can be paper, smp"), ({"width": 0}, "width is 0"), ({"pretrained": 1}, "true or false"),
    ({"fomr": "smp"}, "'form'"), ({"encoder": "resnet19"}, "no encoder 'resnet19'"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("linknet", classes=3, **{"encoder": "test_resnet", **options})


# -- segmentation_models.pytorch --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(stir):
    torch.manual_seed(0)
    return stir(smp.Linknet("resnet18", encoder_weights=None, classes=4, in_channels=2))


@torch.no_grad()
def test_smp_answers_the_same(theirs, waves, assert_agree, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "linknet"
    assert card.training["imported"] == {"file": "a.pth", "dialect": "smp", "dropped": []}
    for size in ((64, 96), (32, 160)):
        images = waves(*size, channels=2)
        assert_agree(ours(images).full(), theirs(images))
    assert_agree(ours.train()(images).full(), theirs.train()(images))


@torch.no_grad()
def test_smp_on_an_encoder_without_a_map_at_stride_2(stir, waves, assert_agree, tmp_path):
    torch.manual_seed(0)
    net = stir(smp.Linknet("tu-convnext_atto", encoder_weights=None, classes=2))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    ours, _ = from_checkpoint(tmp_path / "a.pth", encoder="convnext_atto")
    images = waves(64, 96)
    assert_agree(ours(images).full(), net(images))


@pytest.mark.parametrize(("change", "said"), [
    (lambda s: s.pop("decoder.blocks.4.block.1.0.bias"), r"1 missing: decoders\.4\.1\.0\.bias"),
    (lambda s: s.update({"decoder.blocks.5.block.1.0.bias": torch.ones(1)}), r"1 left over: decoders\.5\.1\.0\.bias"),
    (lambda s: s.update({"segmentation_head.0.bias": torch.ones(7)}), r"of another shape: head\.bias"),
])  # fmt: skip
def test_files_that_do_not_fit_are_refused(theirs, change, said, tmp_path):
    state = dict(theirs.state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=said):
        from_checkpoint(tmp_path / "a.pth")


# -- the authors' PyTorch code ----------------------------------------------------------------------------------------


def frozen() -> dict[str, Any]:
    return json.loads(FROZEN.read_text(encoding="utf-8"))


@torch.no_grad()
def test_answers_are_those_of_the_authors_code(drawn_weight, waves, assert_agree, tmp_path):
    told = frozen()
    torch.save({name: drawn_weight(name, shape) for name, shape in told["keys"].items()}, tmp_path / "a.pth")
    net, card = from_checkpoint(tmp_path / "a.pth")
    assert card.architecture == "linknet"
    assert card.training["imported"] == {"file": "a.pth", "dialect": "e-lab", "dropped": []}
    assert card.options == {"encoder": "resnet18", "channels": 3, "width": 32}
    for case in told["outputs"]:
        full = net(waves(*case["size"], batch=1)).full().log_softmax(1).flatten()
        wanted = torch.tensor(case["log_softmax"])
        assert_agree(full[torch.linspace(0, len(full) - 1, len(wanted), dtype=torch.float64).long()], wanted)


def test_the_authors_files_that_do_not_fit_are_refused(tmp_path):
    state = {name: torch.zeros(shape) for name, shape in frozen()["keys"].items()}
    state.pop("decoder4.conv2.0.weight")
    state["lsm.weight"] = torch.ones(1)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=r"1 missing: decoders\.0\.2\.0\.weight.*1 left over: lsm\.weight"):
        from_checkpoint(tmp_path / "a.pth")
