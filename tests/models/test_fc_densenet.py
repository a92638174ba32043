"""FC-DenseNet: sizes, dense connectivity, batch statistics, and the known port's weights with the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.registry import create_model
from pixelwise.data.labels import label_set
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.fc_densenet import KEYS, LAYERS, THIN, DenseBlock
from pixelwise.nn.checkpointing import blocks

FROZEN = json.loads((Path(__file__).parent / "data" / "fc_densenet_bfortuner.json").read_text(encoding="utf-8"))
COUNTS = [("", 11, 9_322_091), ("-103", 12, 9_322_348), ("-103", 21, 9_324_661), ("-67", 11, 3_463_243),
          ("-67", 12, 3_463_532), ("-67", 21, 3_466_133), ("-56", 11, 1_376_795), ("-56", 12, 1_376_988),
          ("-56", 21, 1_378_725)]  # fmt: skip


# -- the net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "classes", "count"), COUNTS)
def test_parameters(variant, classes, count):
    with torch.device("meta"):
        net = create_model(f"fc_densenet{variant}", classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count


def test_named_after_its_convolutions():
    for variant, number in (("103", 103), ("67", 67), ("56", 56)):
        with torch.device("meta"):
            net = create_model(f"fc_densenet-{variant}", classes=11)
        kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        assert sum(isinstance(m, kinds) for m in net.modules()) == number


@torch.no_grad()
def test_dense_connectivity(stir):
    """x_l = H_l([x_0, x_1, ..., x_{l-1}]), by the layers' own norms and convolutions, map by map."""
    block = stir(DenseBlock(5, 4, 3, dropout=0.2, batch_statistics=False)).double()
    x = [torch.randn(2, 5, 6, 7, dtype=torch.float64)]
    for layer in block.layers:
        joined = torch.cat(x, 1)
        norm, conv = layer.norm, layer.conv
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        normed = (joined - norm.running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
        shifted = torch.nn.functional.pad(normed.clamp_min(0), (1, 1, 1, 1))
        new = conv.bias.view(1, -1, 1, 1).expand(2, 3, 6, 7).clone()
        for i in range(3):
            for j in range(3):
                new += torch.einsum("oc,bchw->bohw", conv.weight[:, :, i, j], shifted[:, :, i : i + 6, j : j + 7])
        x.append(new)
    found = block(x[:1])
    assert len(found) == 4
    for ours, expected in zip(found, x[1:]):
        torch.testing.assert_close(ours, expected)


def test_only_new_maps_are_enlarged():
    with torch.device("meta"):
        net = create_model("fc_densenet", classes=11)
    assert [up.in_channels for up in net.enlarge] == [16 * n for n in LAYERS[5:-1]]


def test_first_weights_are_uniform():
    torch.manual_seed(0)
    net = create_model("fc_densenet", classes=3, **THIN)
    for conv in (net.stem, net.bottom.layers[1].conv, net.enlarge[0]):
        bound = (6 / (conv.weight.shape[1] * 9)) ** 0.5
        assert 0.9 * bound < float(conv.weight.detach().abs().max()) <= bound
        assert not conv.bias.any()


def test_a_checkpointed_block_is_one_layer():
    with torch.device("meta"):
        net = create_model("fc_densenet", classes=11)
    names = [name for name, _ in blocks(net)]
    assert len(names) == sum(LAYERS) + 5
    assert "up4.layers.3" in names


# -- the batch's own statistics ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_batch_statistics_in_evaluation_are_those_of_training(stir):
    torch.manual_seed(0)
    net = stir(create_model("fc_densenet", classes=3, dropout=0.0, batch_statistics=True, **THIN))
    plain = create_model("fc_densenet", classes=3, dropout=0.0, **THIN).eval()
    plain.load_state_dict(net.state_dict())
    x, before = torch.randn(2, 3, 33, 41), {n: t.clone() for n, t in net.state_dict().items()}
    own = net(x).logits
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert not torch.allclose(own, plain(x).logits, atol=1e-2)
    torch.testing.assert_close(own, plain.train()(x).logits)


def test_a_single_value_has_no_statistics():
    net = create_model("fc_densenet", classes=3, **THIN)
    assert net.min_size == 4
    with pytest.raises(ConfigError, match="single value per channel"):
        net.train()(torch.randn(1, 3, 7, 7))
    net = create_model("fc_densenet", classes=3, batch_statistics=True, **THIN).eval()
    assert net.min_size == 8
    with pytest.raises(ConfigError, match="--batch-size 2"):
        net(torch.randn(1, 3, 7, 7))
    assert net(torch.randn(1, 3, 8, 8)).logits.shape == (1, 3, 8, 8)


# -- the port's weights -----------------------------------------------------------------------------------------------


@pytest.fixture
def foreign(drawn_weight):
    return {name: drawn_weight(name, shape) for name, shape in FROZEN["keys"].items()}


@torch.no_grad()
def test_the_port_s_weights_answer_the_same(foreign, waves, assert_agree, tmp_path):
    torch.save({"startEpoch": 3, "loss": 0.2, "state_dict": foreign}, tmp_path / "latest.th")
    net, card = from_checkpoint(tmp_path / "latest.th")
    assert (card.architecture, card.outputs, card.task) == ("fc_densenet", 12, "semantic")
    assert card.options == {"channels": 3, "width": 8, "growth": 5, "layers": [2, 3, 4, 3, 2]}
    assert card.classes == label_set("camvid-nothing")
    assert card.preprocessing.mean[0] == pytest.approx(0.41189489566336)
    for case in FROZEN["outputs"]:
        found = net(waves(*case["size"])).full().log_softmax(1)  # the port ends with it
        places = torch.linspace(0, found.numel() - 1, len(case["values"]), dtype=torch.float64).long()
        assert_agree(found.flatten()[places], torch.tensor(case["values"]))


def test_files_before_the_counters_load(foreign):
    """The port is older than the counters of batch norms."""
    old = {name: t for name, t in foreign.items() if not name.endswith("num_batches_tracked")}
    net = create_model("fc_densenet", **KEYS["bfortuner"].options(old))
    assert load_weights(net, old).dialect == "bfortuner"


def test_what_does_not_fit_is_refused(foreign):
    net = create_model("fc_densenet", **KEYS["bfortuner"].options(foreign))
    lost = {name: t for name, t in foreign.items() if name != "denseBlocksUp.1.layers.0.conv.bias"}
    with pytest.raises(ModelFileError, match=r"1 missing: up1\.layers\.0\.conv\.bias"):
        load_weights(net, lost)
    with pytest.raises(ModelFileError, match=r"1 left over: transUpBlocks\.0\.norm\.weight"):
        load_weights(net, {**foreign, "transUpBlocks.0.norm.weight": torch.ones(3)})
    with pytest.raises(ModelFileError, match=r"1 of another shape: head\.weight"):
        load_weights(net, {**foreign, "finalConv.weight": torch.zeros(7, 33, 1, 1)})


def test_a_file_with_a_block_too_few_is_refused(foreign, tmp_path):
    torch.save({n: t for n, t in foreign.items() if not n.startswith("denseBlocksUp.1")}, tmp_path / "cut.pth")
    with pytest.raises(ModelFileError, match="2 dense blocks down, 1 up"):
        from_checkpoint(tmp_path / "cut.pth")


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"layers": [2, 2]}, "3, 5, 7"), ({"layers": 5}, "layers is 5"), ({"layers": [2, 0, 2]}, "layers is"),
    ({"growth": 0}, "growth is 0"), ({"width": "a"}, "width is 'a'"), ({"dropout": 1}, "dropout is 1"),
    ({"batch_statistics": 1}, "true or false"), ({"grow": 3}, "did you mean 'growth'"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("fc_densenet", classes=3, **options)
