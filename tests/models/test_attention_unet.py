"""Attention U-Net: the gate against its formula, fused heads, the authors' and LeeJunHyun's nets with equal outputs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pixelwise.checkpoints import from_checkpoint
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.attention_unet import KEYS, OPEN, THIN, AttentionGate, GatedSkip

DATA = Path(__file__).parent / "data"
OVER = {"encoder": "resnet18", "decoder": [16, 12, 8, 8, 4], "width": 16}


def frozen(name: str) -> dict:
    return json.loads((DATA / f"attention_unet_{name}.json").read_text(encoding="utf-8"))


def thin(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model("attention_unet", **{"classes": 3, **THIN, **options})


# -- the gate ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_gate_is_the_formula_cell_by_cell():
    """alpha_i = sigmoid(psi^T relu(W_x^T x_i + W_g^T g_i + b_g) + b_psi), with x_i the four pixels of cell i."""
    torch.manual_seed(0)
    gate = AttentionGate(3, 5, 4).double()
    x, g = torch.randn(2, 3, 6, 8, dtype=torch.float64), torch.randn(2, 5, 3, 4, dtype=torch.float64)
    w_x, w_g, b_g = gate.theta.weight, gate.phi.weight[:, :, 0, 0], gate.phi.bias
    psi, b_psi = gate.psi.weight[0, :, 0, 0], gate.psi.bias[0]
    alpha = gate.alpha(x, g)
    assert alpha.shape == (2, 1, 3, 4)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                cell = x[b, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                hidden = [float((w_x[k] * cell).sum() + (w_g[k] * g[b, :, i, j]).sum() + b_g[k]) for k in range(4)]
                q = sum(float(psi[k]) * max(0.0, hidden[k]) for k in range(4)) + float(b_psi)
                assert float(alpha[b, 0, i, j]) == pytest.approx(1 / (1 + math.exp(-q)), rel=1e-9)
    weighed = gate(x, g)
    large = F.interpolate(alpha, (6, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(weighed, x * large)
    assert (weighed / x)[:, 0].allclose((weighed / x)[:, 2])  # one number a pixel, for all channels


@torch.no_grad()
def test_gate_on_one_grid_with_norms(stir):
    gate = stir(AttentionGate(3, 3, 2, step=1, norms=True))
    x, g = torch.randn(1, 3, 5, 7), torch.randn(1, 3, 5, 7)
    hidden = gate.theta[1](gate.theta[0](x)) + gate.phi[1](gate.phi[0](g))
    torch.testing.assert_close(gate(x, g), x * gate.psi[1](gate.psi[0](hidden.clamp(min=0))).sigmoid())


@torch.no_grad()
def test_gates_begin_open():
    for net in (thin(), thin(**OVER)):
        gates = [m for m in net.modules() if isinstance(m, AttentionGate)]
        assert len(gates) == 3  # none on the finest skip
        assert all(gate.psi.bias == OPEN for gate in gates)
    gate = gates[0]
    gate.psi.weight.zero_()
    x = torch.randn(1, gate.theta.in_channels, 4, 4)
    torch.testing.assert_close(gate(x, torch.randn(1, gate.phi.in_channels, 2, 2)), x / (1 + math.exp(-OPEN)))


@torch.no_grad()
def test_gating_signal_of_another_grid():
    """Of odd maps: enlarged to the grid of W_x, and alpha to that of x."""
    assert GatedSkip(3, 5).eval()(torch.randn(1, 3, 9, 13), torch.randn(1, 5, 5, 7)).shape == (1, 3, 9, 13)


# -- the net ----------------------------------------------------------------------------------------------------------


def test_parameters():
    counts = {("", 2, 1): 2_205_901, ("-LeeJunHyun", 1, 3): 34_878_573}  # of the authors' net in 2 dimensions
    for (variant, classes, channels), count in counts.items():
        with torch.device("meta"):
            net = create_model(f"attention_unet{variant}", classes=classes, channels=channels)
        assert sum(p.numel() for p in net.parameters()) == count


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, OVER], ids=["plain", "encoder"])
def test_heads_of_all_scales_are_fused(options):
    net = thin(**options).eval()
    seen: list[torch.Tensor] = []
    for head in net.head.heads:
        head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    found = net(torch.randn(1, 3, 64, 96)).full()
    assert [tuple(x.shape[2:]) for x in seen] == [(64 >> k, 96 >> k) for k in range(len(seen))]
    large = [F.interpolate(x, (64, 96), mode="bilinear", align_corners=False) for x in seen]
    torch.testing.assert_close(found, F.conv2d(torch.cat(large, 1), net.head.fuse.weight, net.head.fuse.bias))


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"form": "LeeJunHyun", "deep": False}, {"channels": 2}, OVER], ids=str)
def test_any_size(options):
    net = thin(**options).eval()
    for size in ((net.min_size, net.min_size), (33, 65)):
        assert net(torch.randn(1, options.get("channels", 3), *size)).full().shape == (1, 3, *size)


@torch.no_grad()
def test_encoders_with_other_strides():
    for encoder, gates in (("convnext_atto", 2), ("vgg11", 3)):
        net = create_model("attention_unet", classes=2, encoder=encoder, decoder=[8] * 5).eval()
        assert len(net.gates) == gates
        assert net(torch.randn(1, 3, 32, 64)).logits.shape == (1, 2, 32, 64)


def test_one_image_of_one_cell_is_refused():
    for net in (thin(), thin(**OVER)):
        with pytest.raises(ConfigError, match="single cell"):
            net.train()(torch.randn(1, 3, 16, 16))


@pytest.mark.parametrize(("options", "message"), [
    ({"width": 0}, "width is 0"), ({"form": "oktay"}, "form is 'oktay'.*authors, Lee"), ({"deep": 1}, "deep is 1"),
    ({"channels": 0}, "channels"),
    ({"pretrained": True}, "pretrained would do nothing"), ({"encoder": 2}, "encoder is 2"),
    ({"encoder": "resnet18", "form": "LeeJunHyun"}, "form would do nothing"),
    ({"encoder": "resnet18", "decoder": [8]}, "halves 5 times"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("attention_unet", classes=2, **options)


# -- other people's weights -------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["LeeJunHyun", "ozan-oktay"])
def test_answers_the_same(name, drawn_weight, waves, tmp_path):
    kept = frozen(name)
    torch.save({key: drawn_weight(key, shape) for key, shape in kept["keys"].items()}, tmp_path / "model.pkl")
    net, card = from_checkpoint(tmp_path / "model.pkl")
    assert (card.architecture, card.training["imported"]["dialect"]) == ("attention_unet", name)
    for case in kept["outputs"]:
        found, expected = net(waves(*case["size"])).full().flatten(), torch.tensor(case["values"])
        places = torch.linspace(0, len(found) - 1, len(expected), dtype=torch.float64).long()
        assert (found[places] - expected).abs().max() <= 1e-4 * (expected.max() - expected.min())


@pytest.mark.parametrize(("name", "change", "message"), [
    ("LeeJunHyun", lambda s: s.pop("Att4.psi.0.bias"), r"missing: steps\.1\.gate\.psi\.0\.bias"),
    ("LeeJunHyun", lambda s: s.update({"Att6.psi.0.bias": torch.ones(1)}), "left over: Att6"),
    ("LeeJunHyun", lambda s: s.update({"Conv3.conv.0.bias": torch.ones(1)}), r"of another shape: path\.2"),
    ("ozan-oktay", lambda s: s.pop("dsv2.dsv.0.bias"), r"missing: head\.heads\.1\.bias"),
    ("ozan-oktay", lambda s: s.update({k: t[..., None] for k, t in s.items() if t.ndim == 4}), "of another shape"),
])  # fmt: skip
def test_files_that_do_not_fit(name, change, message, tmp_path):
    state = {key: torch.zeros(shape) for key, shape in frozen(name)["keys"].items()}
    change(state)
    torch.save(state, tmp_path / "model.pkl")
    with pytest.raises(ModelFileError, match=message):
        from_checkpoint(tmp_path / "model.pkl")


def test_the_port_sees_images_from_minus_one_to_one():
    told = KEYS["LeeJunHyun"].expects(1)
    assert (set(told.mean), set(told.std)) == ({0.5}, {0.5})
