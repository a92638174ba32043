"""What every net promises, over everything the registry finds: a new file is tested before anyone thinks of it."""

from __future__ import annotations

import warnings

import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import ModelCard, load_model, save_model
from pixelwise.core.registry import create_model, load, modules
from pixelwise.core.sample import Preprocessing

NAMES = [
    f"{name}-{variant}" if variant else name for name in modules("models") for variant in load("models", name).VARIANTS
]
SLIM = {"width": 4}  # where a net has such a number


def slim(name: str, **options: object) -> tuple[torch.nn.Module, dict[str, object]]:
    module = load("models", name.partition("-")[0])
    options |= {k: v for k, v in SLIM.items() if k in module.build.__kwdefaults__}
    torch.manual_seed(0)
    return create_model(name, classes=3, **options).eval(), options


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_module_says_where_it_is_from(name):
    module = load("models", name.partition("-")[0])
    assert str(module.PAPER["year"]) in module.__doc__
    assert module.PAPER["arxiv"] in module.__doc__
    assert "" in module.VARIANTS
    assert module.build.__doc__


def test_full_size_is_built_on_meta(name):
    with torch.device("meta"):
        few, many = create_model(name, classes=2), create_model(name, classes=21)
    sizes = [sum(p.numel() for p in net.parameters()) for net in (few, many)]
    assert 0 < sizes[0] < sizes[1]


@torch.no_grad()
def test_odd_sizes(name):
    net, _ = slim(name)
    for size in ((8, 8), (33, 65)):
        output = net(torch.randn(2, 3, *size))
        assert output.full().shape == (2, 3, *size)
        assert output.full().isfinite().all()


@torch.no_grad()
def test_saved_and_loaded_it_answers_the_same(name, tmp_path):
    net, options = slim(name)
    card = ModelCard(architecture=name, outputs=3, options=options, classes=Classes(names=["a", "b", "c"]),
                     task="semantic", preprocessing=Preprocessing())  # fmt: skip
    save_model(tmp_path / "m.safetensors", net, card)
    again, read = load_model(tmp_path / "m.safetensors")
    x = torch.randn(1, 3, 40, 24)
    assert read == card
    assert torch.equal(again(x).full(), net(x).full())


@torch.no_grad()
def test_exported_it_answers_the_same(name):
    net, _ = slim(name)
    x = torch.randn(1, 3, 40, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export about itself
        exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x).full(), net(x).full(), rtol=1e-4, atol=1e-5)
