"""Compiled code, ONNX Runtime and OpenVINO answer as the net does, at sizes they were not made at."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from pixelwise.core.outputs import Frame
from pixelwise.core.registry import create_model, load
from pixelwise.engines import compiled, obstacle, onnx, open_engine, openvino
from pixelwise.engines._program import trace
from pixelwise.errors import ConfigError, MissingExtraError
from pixelwise.views import look, parse

SIZES = ((1, 24, 40), (2, 33, 51))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create_model("unet", classes=3, width=4, depth=2).eval()


def opened(name, net, precision="fp32"):
    if name == "compiled" and not compiled.compiler():
        pytest.skip("no C++ compiler here")
    return open_engine(name, net, device="cpu", precision=precision)


@torch.no_grad()
@pytest.mark.parametrize("name", ["openvino", "onnx", pytest.param("compiled", marks=pytest.mark.slow)])
def test_any_size_is_answered_as_the_net_does(name, net):
    engine = opened(name, net)
    assert (engine.name, engine.min_size) == (name, 8)
    kept = []
    for count, height, width in SIZES:
        x = torch.randn(count, 3, height, width)
        frames = (Frame((2 * height, 2 * width), (height, width), (0, 0, height, width)),) * count
        kept.append((engine(x, frames), net(x, frames)))
    for found, expected in kept:  # the first answer must survive the second
        assert found.frames == expected.frames
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert getattr(engine, "any_size", True)
    joined = look(engine, torch.randn(1, 3, 5, 60), parse("flip"))
    assert joined.class_map(0).shape == (5, 60)


@torch.no_grad()
def test_bf16_is_close(net):
    engine, x = opened("openvino", net, "bf16"), torch.randn(1, 3, 40, 40)
    found, expected = engine(x).logits, net(x).logits
    assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.slow
@torch.no_grad()
def test_a_net_that_fits_one_size_gets_a_program_for_each(net, monkeypatch):
    monkeypatch.setattr("pixelwise.engines._runtime.agrees", lambda *_: False)
    engine = opened("openvino", net)
    assert not engine.any_size
    for count, height, width in SIZES:
        x = torch.randn(count, 3, height, width)
        torch.testing.assert_close(engine(x).logits, net(x).logits, rtol=1e-4, atol=1e-4)
    assert [key for key in engine._programs if key] == list(SIZES)


@torch.no_grad()
def test_what_onnx_runtime_raises_is_a_runtime_error(net):
    """Its own errors are none, and who tries an engine waits for those."""
    run = onnx.runner(trace(net, (1, 32, 32)))
    with pytest.raises(RuntimeError, match="ONNX Runtime"):
        run(np.zeros((1, 3, 40, 40), np.float32))
    with pytest.raises(RuntimeError, match="ONNX Runtime"):
        onnx.session(b"something else")


class Sorted(torch.nn.Module):
    """Takes an operator that no runtime has."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images, frames=None, truths=None):
        return self.net(images + torch.linalg.eigvals(images.mean((0, 1))[:3, :3]).real.sum(), frames)


@torch.no_grad()
@pytest.mark.parametrize("name", ["openvino", pytest.param("onnx", marks=pytest.mark.slow)])
def test_the_operator_that_stops_a_net_is_named(name, net):
    with pytest.raises(ConfigError, match="linalg_eig"):
        open_engine(name, Sorted(net), device="cpu")


@pytest.mark.parametrize(("name", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_a_missing_package_names_its_extra(name, package, net, monkeypatch):
    real = builtins.__import__

    def without(wanted, *rest, **words):
        if wanted == package:
            raise ImportError(name=package)
        return real(wanted, *rest, **words)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"pip install 'pixelwise\[{name}\]'"):
        open_engine(name, net, device="cpu")


def test_what_an_engine_does_not_have_is_refused(net, monkeypatch):
    for name, words, said in (
        ("onnx", {"precision": "bf16"}, "precision fp32, not bf16"),
        ("openvino", {"precision": "fp16"}, "fp32 and bf16, not fp16"),
        ("onnx", {"device": "meta"}, "not on meta"),
        ("openvino", {"device": "meta"}, "not on meta"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_engine(name, net, **{"device": "cpu", **words})
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    assert "compiler" in obstacle("compiled", net)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        open_engine("compiled", net, device="cpu")


def test_what_stops_an_engine_is_known_without_trying(net):
    assert [obstacle(name, net) for name in ("eager", "onnx", "openvino")] == ["", "", ""]
    assert all(obstacle(name, net, device="cuda") for name in ("onnx", "openvino"))
    assert all(load("engines", name).NOTE for name in ("eager", "compiled", "onnx", "openvino"))
    assert {onnx.OPSET >= 18, set(openvino.HINTS) == {"fp32", "bf16"}} == {True}
