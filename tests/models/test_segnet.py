"""SegNet against the authors' prototxt files and two ports to PyTorch, frozen in a file.

The prototxt files were run layer by layer as they are written, the ports by their own code, all at a sixteenth of their
widths.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.segnet import KEYS, THIN

FROZEN = Path(__file__).parent / "data" / "segnet.json"


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    return json.loads(FROZEN.read_text(encoding="utf-8"))


@pytest.fixture
def saved(frozen, random_weight, tmp_path):
    """saved(port, **more) -> a file of the port's weights; more: {name: tensor, or None to leave it out}"""

    def save(port: str, **more: torch.Tensor | None) -> Path:
        tensors = {n: random_weight(n, s) for n, s in frozen[port]["keys"].items()} | more
        torch.save({n: t for n, t in tensors.items() if t is not None}, tmp_path / "w.pth")
        return tmp_path / "w.pth"

    return save


# -- the net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "classes", "count"), [
    ("", 21, 29_455_125), ("", 19, 29_453_971), ("", 12, 29_449_932), ("", 11, 29_449_355), ("-basic", 11, 1_416_587),
    ("-meetps", 21, 29_455_167), ("-vinceecws", 21, 29_455_167 - 2 * 21),  # whose last norm is never run
])  # fmt: skip
def test_parameters(variant, classes, count):
    with torch.device("meta"):
        net = create_model(f"segnet{variant}", classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count


def test_layers_are_those_of_the_prototxt(frozen):
    with torch.device("meta"):
        net = create_model("segnet", classes=11)
    kinds = [sum(isinstance(m, kind) for m in net.modules()) for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)]
    assert kinds == [26, 25, 25]
    assert frozen["authors"]["parameters"] == 29_449_355
    assert frozen["basic"]["parameters"] == 1_416_587


def our_name(name: str) -> str:
    """conv5_3_D_bn.weight -> decoder.stage5.norm1.weight: the authors' decoder counts downwards."""
    if name.startswith(("conv_classifier", "conv1_1_D")):
        return "head.0." + name.rpartition(".")[2]
    basic = re.fullmatch(r"conv(_decode)?(\d)(_bn)?\.(\w+)", name)
    if basic:
        decode, i, norm, rest = basic.groups()
        return f"{'decoder' if decode else 'encoder'}.stage{i}.{'norm' if norm else 'conv'}1.{rest}"
    i, j, decode, norm, rest = re.fullmatch(r"conv(\d)_(\d)(_D)?(_bn)?\.(\w+)", name).groups()
    deepest = 3 if int(i) > 2 else 2
    number = deepest + 1 - int(j) if decode else j
    return f"{'decoder' if decode else 'encoder'}.stage{i}.{'norm' if norm else 'conv'}{number}.{rest}"


@torch.no_grad()
@pytest.mark.parametrize("port", ["authors", "basic"])
def test_prototxt_answers_the_same(port, frozen, random_weight, waves):
    told = frozen[port]
    net = create_model("segnet" if port == "authors" else "segnet-basic", classes=11, width=4).eval()
    load_weights(net, {our_name(name): random_weight(name, shape) for name, shape in told["keys"].items()})
    case = told["outputs"][0]  # 360 x 480, whose poolings meet odd sizes
    images = waves(*case["size"], batch=1)
    images = 60 * images + 60 if port == "basic" else images  # of 0..255, for the local response norm
    assert_as_saved(net(images).full(), case)


def assert_as_saved(found: torch.Tensor, case: dict[str, Any]) -> None:
    values = torch.tensor(case["values"])
    assert list(found.shape) == case["shape"]
    places = torch.linspace(0, found.numel() - 1, len(values), dtype=torch.float64).long()
    assert float((found.flatten()[places] - values).abs().max()) <= 1e-4 * case["range"]


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"ceil": False}, {"encoder": "basic"}])
def test_decoder_puts_maxima_back_where_they_stood(options):
    """Every non-zero entry of an unpooled map stands where the pooling at its side found its maximum."""
    torch.manual_seed(0)
    net = create_model("segnet", classes=2, **THIN, **options).eval()
    seen: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    for part, listen in (("encoder", 1), ("decoder", 0)):
        for i in range(1, 1 + len(net.decoder)):
            block = net.get_submodule(f"{part}.stage{i}")
            block.register_forward_hook(
                lambda _, x, y, n=f"{part}{i}", k=listen: seen.append((n, (x[0], y)[k].clone()))
            )
    net(torch.randn(1, 3, 50, 70))
    maps = dict(seen)
    for i in range(1, 1 + len(net.decoder)):
        before, unpooled = maps[f"encoder{i}"], maps[f"decoder{i}"]
        assert unpooled.shape == before.shape
        largest = F.max_pool2d(before, 2, 2, ceil_mode=net.ceil)
        spread = F.interpolate(largest, scale_factor=2)[:, :, : before.shape[2], : before.shape[3]]
        inside = before[:, :, : spread.shape[2], : spread.shape[3]]
        there = unpooled[:, :, : spread.shape[2], : spread.shape[3]] != 0
        assert there.any()
        assert torch.equal(inside[there], spread[there])


def test_imagenet_weights_fill_the_encoder(monkeypatch):
    theirs = timm.create_model("vgg16_bn", num_classes=2, mlp_ratio=0.001)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, in_chans: theirs)
    net = create_model("segnet", classes=2, pretrained=True)
    assert torch.equal(net.encoder.stage5.conv3.weight, theirs.features[40].weight)
    assert torch.equal(net.encoder.stage1.norm1.weight, theirs.features[1].weight)


def test_one_small_image_is_too_little_to_train_on():
    net = create_model("segnet", classes=2, **THIN)
    net(torch.randn(1, 3, 32, 17)).logits.sum().backward()
    net(torch.randn(2, 3, 16, 16)).logits.sum().backward()
    with pytest.raises(ConfigError, match="single image of at most 16 pixels"):
        net(torch.randn(1, 3, 16, 16))


# -- other people's files ---------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("port", ["meetps", "vinceecws"])
def test_ports_answer_the_same(port, frozen, saved, waves):
    net, card = from_checkpoint(saved(port))
    assert (card.architecture, card.training["imported"]["dialect"]) == ("segnet", port)
    for case in frozen[port]["outputs"]:
        images = waves(*case["size"], batch=1)
        logits = net(images).full()
        assert_as_saved(logits.softmax(1) if port == "vinceecws" else logits, case)
        moved = (logits - net(images * 0).full()).abs().max()
        assert float(moved) > 0.05 * case["range"]  # or it would agree whatever the layers do


def test_colours_come_along(saved):
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    _, meetps = from_checkpoint(saved("meetps"))
    expected = torch.tensor([0 - 104.00699, 0 - 116.66877, 255 - 122.67892]) / 255
    torch.testing.assert_close(meetps.preprocessing(red).flatten(), expected)
    _, vinceecws = from_checkpoint(saved("vinceecws"))
    torch.testing.assert_close(vinceecws.preprocessing(red).flatten(), torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("port", ["meetps", "vinceecws"])
def test_what_does_not_fit_is_refused(port, frozen, saved):
    victim = [n for n in frozen[port]["keys"] if n.endswith("weight")][6]
    with pytest.raises(ModelFileError, match="1 missing"):
        from_checkpoint(saved(port, **{victim: None}))
    with pytest.raises(ModelFileError, match="1 left over"):
        from_checkpoint(saved(port, **{"further.weight": torch.zeros(3)}))
    with pytest.raises(ModelFileError, match="of another shape"):
        from_checkpoint(saved(port, **{victim: torch.zeros(7, 7)}))


def test_ports_do_not_fit_the_authors_net(frozen, random_weight):
    weights = {n: random_weight(n, s) for n, s in frozen["meetps"]["keys"].items()}
    net = create_model("segnet", classes=5, width=4)
    assert KEYS["meetps"].share(weights) == 1
    with pytest.raises(ModelFileError, match="left over"):
        load_weights(net, weights)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"encoder": "vgg19"}, "encoder is 'vgg19'; it can be vgg16_bn, basic"), ({"last": "relu"}, "last is 'relu'"),
    ({"encoder": "basic", "pretrained": True}, "pretrained would do nothing on basic"), ({"width": 0}, "width is 0"),
    ({"encoder": "basic", "last": "norm_relu"}, "last would do nothing on basic"), ({"ceil": 1}, "ceil is 1"),
    ({"momentum": 0}, "momentum is 0"), ({"width": 4, "pretrained": True}, "64 wide, not 4"),
])  # fmt: skip
def test_refused_options(options, message):
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        create_model("segnet", classes=3, **options)
