"""After a training in bf16 its model file says how far bf16 is from float32, and prediction acts on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import pixelwise
from pixelwise.core.choice import LEAST_AGREEMENT
from pixelwise.core.machine import Machine
from pixelwise.core.modelfile import load_model, save_model
from pixelwise.data.dataset import open_data
from pixelwise.errors import ConfigError
from pixelwise.prediction import chosen, load

AMX = Machine(flags=("avx512_bf16", "amx_bf16"))
FAST = {"model": "unet", "options": ["width=4", "depth=2"], "crop": [32], "device": "cpu", "epochs": 1, "workers": 0,
        "report": False}  # fmt: skip


def train(data, out, **settings):
    return pixelwise.train(data, out=out, **{**FAST, **settings})


def test_the_file_says_it_and_keeps_its_weights(shapes, tmp_path, capsys):
    run = train(shapes, tmp_path / "bf16", precision="bf16")
    said = capsys.readouterr().out
    net, card = load_model(run.model)
    share = card.training["agreement"]["eager bf16"]
    assert 0.5 < share <= 1
    assert f"bf16      answers {share:.2%} of the pixels" in said
    last, _ = load_model(tmp_path / "bf16/last.safetensors")
    for own, other in zip(net.state_dict().values(), last.state_dict().values()):
        assert torch.equal(own, other)
    plain = train(shapes, tmp_path / "exact", exact=True)
    assert "agreement" not in load_model(plain.model)[1].training
    with pytest.raises(ConfigError, match="exact means float32"):
        train(shapes, tmp_path / "both", exact=True, precision="bf16")


@pytest.mark.parametrize(("share", "precision"), [(LEAST_AGREEMENT, "bf16"), (0.99, "fp32")])
def test_prediction_acts_on_it(shapes, tmp_path, monkeypatch, share, precision):
    run = train(shapes, tmp_path / "run", exact=True)
    net, card = load_model(run.model)
    save_model(run.model, net, replace(card, training={**card.training, "agreement": {"eager bf16": share}}))
    monkeypatch.setattr(chosen, "here", lambda: AMX)
    predictor = load(run.model, "cpu")
    assert predictor.choice.precision == precision
    record = open_data(shapes).records("val")[0]
    assert predictor(record.image).size == (open_data(shapes).read(record)).size
    assert load(run.model, "cpu", exact=True).choice.precision == "fp32"
