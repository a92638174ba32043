"""UNet++: the nest against its formula, deep supervision and pruning; smp's and 4uiiurz1's nets with equal outputs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.unetplusplus import KEYS, THIN, mean_logits, nested

FROZEN = json.loads((Path(__file__).parent / "data" / "unetplusplus_4uiiurz1.json").read_text(encoding="utf-8"))
SMALL = {"encoder": "resnet18", "decoder": [16, 12, 8, 8, 4]}


def parameters(variant: str, **options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(f"unetplusplus{variant}", **options).parameters())


def thin(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model("unetplusplus", **{"classes": 3, **THIN, **options})


# -- the net ----------------------------------------------------------------------------------------------------------


def test_parameters():
    assert parameters("-resnet34", classes=21) == 26_081_509
    assert parameters("-resnet34", classes=1) == 26_078_609
    assert round(parameters("", classes=1) / 1e6, 2) == 9.04  # the paper's table 3, with and without supervision
    assert round(parameters("", classes=1, aux=0.0) / 1e6, 2) == 9.04
    assert parameters("-4uiiurz1", classes=3, aux=0.0) == 9_163_395
    assert parameters("-4uiiurz1", classes=3) == 9_163_692


def test_the_nest_is_that_of_the_formula():
    """X(i,j) = H([up(X(i+1,j-1)), X(i,0), ..., X(i,j-1)]), with numbers for maps and a sum with primes for H."""
    columns = [torch.tensor(float(i + 2), dtype=torch.float64) for i in range(5)]

    @cache
    def node(i: int, j: int) -> float:
        if j == 0:
            return float(i + 2)
        return (7 * i + 3 * j + 1) * (0.5 * node(i + 1, j - 1) + sum((k + 2) * node(i, k) for k in range(j)))

    def join(i: int, j: int, below: Tensor, earlier: list[Tensor]) -> Tensor:
        assert len(earlier) == j
        return (7 * i + 3 * j + 1) * (0.5 * below + sum((k + 2) * x for k, x in enumerate(earlier[::-1])))

    assert [float(x) for x in nested(columns, join)] == [node(0, j) for j in range(1, 5)]
    assert [float(x) for x in nested(columns[:3], join)] == [node(0, j) for j in (1, 2)]


@torch.no_grad()
@pytest.mark.parametrize("classes", [1, 3])
def test_the_mean_is_one_of_probabilities(classes):
    logits = [3 * torch.randn(2, classes, 4, 5) for _ in range(4)]
    squash = torch.sigmoid if classes == 1 else (lambda x: x.softmax(1))
    torch.testing.assert_close(squash(mean_logits(logits)), torch.stack([squash(x) for x in logits]).mean(0))
    assert mean_logits(logits[:1]) is logits[0]


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {**SMALL, "width": 32, "depth": 4, "dropout": 0.5}], ids=["plain", "encoder"])
def test_levels_answer_alone_or_together(options, stir):
    net = stir(thin(**options))
    depth, x = net.depth, torch.randn(2, 3, 48, 64)
    both, alone = net(x), []
    for level in range(1, depth + 1):
        net.levels = level
        alone.append(net(x).full().softmax(1))
    assert not both.aux
    torch.testing.assert_close(both.full().softmax(1), torch.stack(alone).mean(0), rtol=1e-4, atol=1e-5)
    assert (alone[0] - alone[-1]).abs().max() > 0.01


@torch.no_grad()
def test_a_pruned_net_computes_no_deeper_node(stir):
    net = stir(thin(depth=4, levels=2))
    seen: list[str] = []
    for part in ("path", "nodes"):
        for name, block in getattr(net, part).named_children():
            block.register_forward_hook(lambda *_, name=f"{part}.{name}": seen.append(name))
    net(torch.randn(1, 3, 32, 32))
    assert sorted(seen) == ["nodes.0_1", "nodes.0_2", "nodes.1_1", "path.0", "path.1", "path.2"]
    seen.clear()
    net.train()(torch.randn(1, 3, 32, 32))
    assert len(seen) == 5 + 10


@pytest.mark.parametrize("options", [{}, {**SMALL, "width": 32, "depth": 4, "dropout": 0.5}], ids=["plain", "encoder"])
def test_training_supervises_every_level(options):
    net = thin(**options, aux=0.5).train()
    output = net(torch.randn(2, 3, 64, 64))
    assert [(name, weight) for name, weight, _ in output.aux] == [(f"level{j}", 0.5) for j in range(1, net.depth)]
    sum(head.full().square().mean() for head in (output, *(aux for *_, aux in output.aux))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert not thin(**options, aux=0.0).train()(torch.randn(2, 3, 64, 64)).aux


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"norm": "batch", "up": "bilinear"}, {"depth": 5, "width": 2}], ids=str)
def test_any_size(options):
    net = thin(**options).eval()
    for size in ((8, 8), (33, 65), (40, 7)):
        assert net(torch.randn(1, 3, *size)).full().shape == (1, 3, *size)


@torch.no_grad()
def test_any_size_over_encoders():
    net = create_model("unetplusplus", classes=3, **SMALL).eval()
    assert net(torch.randn(1, 3, 33, 65)).logits.shape == (1, 3, 33, 65)
    net = create_model("unetplusplus", classes=3, encoder="convnext_atto", aux=0.0).eval()
    assert net(torch.randn(1, 3, 65, 33)).logits.shape == (1, 3, 65, 33)


def test_one_image_of_one_cell_is_refused():
    with pytest.raises(ConfigError, match="single cell"):
        thin(norm="batch").train()(torch.randn(1, 3, 8, 8))
    thin().train()(torch.randn(1, 3, 8, 8)).logits.sum().backward()


@pytest.mark.parametrize(("options", "message"), [
    ({"width": 0}, "width is 0"), ({"depth": 7}, "depth is 7"), ({"norm": "group"}, "norm is 'group'"),
    ({"up": "nearest"}, "up is 'nearest'"), ({"dropout": 1}, "dropout is 1"), ({"aux": -1}, "aux is -1"),
    ({"levels": 5}, "levels is 5"), ({"levels": 2, "aux": 0.0}, "only the last node"), ({"channels": 0}, "channels"),
    ({"pretrained": True}, "pretrained would do nothing"), ({"encoder": 1}, "encoder is 1"),
    ({"encoder": "resnet18", "norm": "batch"}, "norm would do nothing"),
    ({"encoder": "resnet18", "decoder": [8]}, "halves 5 times"),
    ({"encoder": "convnext_atto"}, "aux must be 0"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("unetplusplus", classes=2, **options)


# -- other people's weights -------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("encoder", "words", "told"), [
    ("resnet18", {"decoder_channels": (32, 24, 16, 12, 8)}, {}),
    ("efficientnet-b0", {"in_channels": 4}, {}),
    pytest.param("resnet34", {}, {}, marks=pytest.mark.slow),
    pytest.param("vgg11", {}, {}, marks=pytest.mark.slow),
    pytest.param("tu-convnext_atto", {}, {"encoder": "convnext_atto"}, marks=pytest.mark.slow),
])  # fmt: skip
def test_smp_answers_the_same(encoder, words, told, stir, waves, assert_agree, tmp_path):
    theirs = stir(smp.UnetPlusPlus(encoder, encoder_weights=None, classes=5, **words))
    torch.save(theirs.state_dict(), tmp_path / "smp.pth")
    net, card = from_checkpoint(tmp_path / "smp.pth", **told)
    assert (card.architecture, card.training["imported"]["dialect"]) == ("unetplusplus", "smp")
    x = waves(64, 96, batch=1, channels=words.get("in_channels", 3))  # it takes multiples of 32 only
    assert_agree(net(x).full(), theirs(x))


def test_smp_files_that_do_not_fit(tmp_path):
    state = smp.UnetPlusPlus("resnet18", encoder_weights=None, decoder_channels=(8, 8, 8, 8, 8)).state_dict()
    net = create_model("unetplusplus", classes=1, encoder="resnet18", decoder=[8] * 5, aux=0.0)
    assert load_weights(net, state).dialect == "smp"
    with pytest.raises(ModelFileError, match=r"missing: nodes\.1_2\.conv1"):  # depth 1 of layer 2
        load_weights(net, {name: t for name, t in state.items() if "x_1_2." not in name})
    with pytest.raises(ModelFileError, match=r"of another shape: .*x_0_3"):
        load_weights(net, {**state, "decoder.blocks.x_0_3.conv1.0.weight": torch.ones(8, 1, 3, 3)})


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "deep"])
def test_4uiiurz1_answers_the_same(name, drawn_weight, waves, tmp_path):
    frozen = FROZEN[name]
    state = {key: drawn_weight(key, shape) for key, shape in frozen["keys"].items()}
    torch.save(state, tmp_path / "model.pth")
    (case,) = frozen["outputs"]
    answers = [case["values"]] if name == "plain" else case["values"]
    for j, values in enumerate(answers, 1):
        net, card = from_checkpoint(tmp_path / "model.pth", **({} if name == "plain" else {"levels": j}))
        assert (card.architecture, card.training["imported"]["dialect"]) == ("unetplusplus", "4uiiurz1")
        channels = card.options["channels"]
        found, expected = net(waves(*case["size"], channels=channels)).full().flatten(), torch.tensor(values)
        places = torch.linspace(0, len(found) - 1, len(expected), dtype=torch.float64).long()
        assert (found[places] - expected).abs().max() <= 1e-4 * (expected.max() - expected.min())
    assert from_checkpoint(tmp_path / "model.pth")[0].levels == (0 if name == "plain" else 4)  # its last head answers
    assert channels == (1 if name == "plain" else 3)


def test_4uiiurz1_sees_images_its_way():
    told = KEYS["4uiiurz1"].expects(2)
    assert told.order == "BGR"
    assert told.std == pytest.approx((0.229 * 255, 0.224 * 255, 0.225 * 255))


def test_4uiiurz1_files_that_do_not_fit(tmp_path):
    state = {key: torch.zeros(shape) for key, shape in FROZEN["deep"]["keys"].items()}
    for change, message in (
        (lambda s: s.pop("conv2_1.conv2.weight"), r"missing: nodes\.2_1\.conv2\.weight"),
        (lambda s: s.pop("final2.bias"), r"missing: heads\.1\.bias"),
        (lambda s: s.update({"final5.weight": torch.ones(1)}), "left over: final5"),
        (lambda s: s.update({"conv0_2.bn1.weight": torch.ones(3)}), "of another shape"),
    ):
        changed = dict(state)
        change(changed)
        torch.save(changed, tmp_path / "model.pth")
        with pytest.raises(ModelFileError, match=message):
            from_checkpoint(tmp_path / "model.pth")
