"""RefineNet: sizes, its parts against their definitions, and the known port's weights with the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.registry import create_model
from pixelwise.data.labels import label_set
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.refinenet import KEYS, THIN, ChainedPooling, RefineBlock, ResidualConvUnit

FROZEN = json.loads((Path(__file__).parent / "data" / "refinenet_drsleep.json").read_text(encoding="utf-8"))
DIALECT = KEYS["DrSleep"]


# -- the net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "count"), [
    ("", 118_052_437), ("-101", 118_052_437), ("-50", 99_060_309), ("-152", 133_696_085), ("-improved", 118_052_437),
])  # fmt: skip
def test_parameters(variant, count):
    with torch.device("meta"):
        net = create_model(f"refinenet{variant}", classes=21)
    assert sum(p.numel() for p in net.parameters()) == count


@torch.no_grad()
def test_residual_conv_unit_is_its_definition():
    unit = ResidualConvUnit(3).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    before = x.clone()
    inner = convolved(x.clamp_min(0), unit.conv1.weight) + unit.conv1.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(unit(x), x + convolved(inner.clamp_min(0), unit.conv2.weight))
    assert torch.equal(x, before)


def convolved(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The 3x3 convolution with zeros around the map, one shift after the other."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1))
    shifts = [(i, j) for i in range(3) for j in range(3)]
    return sum(
        torch.einsum("oc,bchw->bohw", weight[:, :, i, j], padded[:, :, i : i + height, j : j + width])
        for i, j in shifts
    )


def pooled(x: torch.Tensor) -> torch.Tensor:
    """The largest value in the 5x5 around each pixel, as far as that is on the map."""
    out = torch.empty_like(x)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            out[:, :, i, j] = x[:, :, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3].amax((2, 3))
    return out


@torch.no_grad()
@pytest.mark.parametrize("conv_first", [False, True])
def test_chained_residual_pooling_is_its_definition(conv_first):
    chain = ChainedPooling(3, 4, conv_first).double()
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    before = x.clone()
    branch = x.clamp_min(0)
    total = branch.clone()
    for conv in chain.convs:
        branch = pooled(convolved(branch, conv.weight)) if conv_first else convolved(pooled(branch), conv.weight)
        total += branch
    torch.testing.assert_close(chain(x), total)
    assert torch.equal(x, before)


@torch.no_grad()
def test_a_block_refines_each_input_then_fuses_pools_and_refines():
    """R_m = RCU(CRP(relu(fuse(RCU(RCU(x_m)), RCU(RCU(R_{m+1})))))), two of its units being the next block's."""
    block = RefineBlock(5, 4, 6, 2, False)
    x, coarse = torch.randn(1, 5, 7, 9), torch.randn(1, 6, 4, 5)
    bring, one, two, adapt = block.adapt
    larger = F.interpolate(block.fuse(coarse), (7, 9), mode="bilinear", align_corners=True)
    fused = adapt(two(one(bring(x)))) + larger
    chain, *units = block.flow
    expected = chain(fused)
    assert len(units) == 3
    for unit in units:
        expected = unit(expected)
    torch.testing.assert_close(block(x, coarse), expected)


@torch.no_grad()
def test_logits_are_at_a_quarter_of_the_size():
    net = create_model("refinenet", classes=3, **THIN).eval()
    assert net(torch.randn(1, 3, 65, 97)).logits.shape == (1, 3, 17, 25)


@pytest.mark.slow
def test_two_images_are_learnt():
    torch.manual_seed(0)
    net = create_model("refinenet-small", classes=2, width=16, dropout=0.0)
    images = torch.randn(2, 3, 32, 64)
    truth = torch.zeros(2, 8, 16, dtype=torch.long)
    truth[0, :, 8:] = truth[1, 4:] = 1
    images += truth.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    optimizer, losses = torch.optim.AdamW(net.parameters(), 1e-3), []
    for _ in range(25):
        loss = F.cross_entropy(net(images).logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


# -- the port's weights -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign(drawn_weight):
    return {name: drawn_weight(name, shape) for name, shape in FROZEN["keys"].items()}


@torch.no_grad()
def test_the_port_s_weights_answer_the_same(foreign, waves, assert_agree, tmp_path):
    torch.save(foreign, tmp_path / "rf101_voc.pth.tar")
    net, card = from_checkpoint(tmp_path / "rf101_voc.pth.tar")
    assert (card.architecture, card.outputs) == ("refinenet", 5)
    assert card.options == {"channels": 3, "encoder": "resnet50", "width": 8, "pools": 4}
    for case in FROZEN["outputs"]:
        found = net(waves(*case["size"])).logits  # the port returns them on this grid
        assert list(found.shape[2:]) == case["grid"]
        places = torch.linspace(0, found.numel() - 1, len(case["values"]), dtype=torch.float64).long()
        assert_agree(found.flatten()[places], torch.tensor(case["values"]))


@pytest.mark.parametrize(("variant", "blocks"), [("50", 6), ("101", 23), ("152", 36)])
def test_full_size_is_filled(variant, blocks):
    """The port's names for all of it, by way of those in the small file, and back."""
    with torch.device("meta"):
        net = create_model(f"refinenet-{variant}", classes=21)
        small = {DIALECT.rename(old, FROZEN["keys"]): old for old in FROZEN["keys"]}
        tensors = net.state_dict().items()
        foreign = {small.get(name, name.removeprefix("encoder.body.")): t for name, t in tensors}
    assert f"layer3.{blocks - 1}.conv3.weight" in foreign
    found = DIALECT.translate(foreign)
    assert not found.left
    assert {n: t.shape for n, t in found.tensors.items()} == {n: t.shape for n, t in net.state_dict().items()}
    told = DIALECT.options(foreign)
    assert told == {"classes": 21, "channels": 3, "encoder": f"resnet{variant}", "width": 256, "pools": 4}
    assert label_set(DIALECT.labels[21]).names[0] == "background"


def test_what_does_not_fit_is_refused(foreign):
    net = create_model("refinenet", **DIALECT.options(foreign))
    lost = {n: t for n, t in foreign.items() if n != "adapt_stage3_b.0.2_conv.bias"}
    with pytest.raises(ModelFileError, match=r"1 missing: refine2\.adapt\.2\.conv1\.bias"):
        load_weights(net, lost)
    with pytest.raises(ModelFileError, match=r"1 left over: mflow_conv_g5_b\.0\.1_conv\.weight"):
        load_weights(net, {**foreign, "mflow_conv_g5_b.0.1_conv.weight": torch.ones(1)})
    with pytest.raises(ModelFileError, match=r"1 of another shape: head\.weight"):
        load_weights(net, {**foreign, "clf_conv.weight": torch.ones(7, 8, 3, 3)})


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"width": 0}, "width is 0"), ({"pools": 1.5}, r"pools is 1\.5"), ({"conv_first": "yes"}, "true or false"),
    ({"dropout": -1}, "dropout is -1"), ({"encoder": "resnet51"}, "did you mean 'resnet5"), ({"pool": 2}, "'pools'"),
    ({"pretrained": 1}, "pretrained is 1"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("refinenet", classes=3, **options)
