"""What every net promises, over everything the registry finds: a new file is tested before anyone thinks of it.

Variants are counted on the meta device; what a net does is tried on one thin net of each architecture: its `THIN`
options. A file says by `NOT_EXPORTED` why torch.export does not take its net, if so.
"""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import ModelCard, load_model, save_model
from pixelwise.core.outputs import Candidates, heads
from pixelwise.core.registry import create_model, load, modules
from pixelwise.core.sample import Preprocessing
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import parse
from pixelwise.tasks import TASKS, make_task
from pixelwise.views import look

ARCHITECTURES = list(modules("models"))
VARIANTS = [f"{a}-{v}" if v else a for a in ARCHITECTURES for v in load("models", a).VARIANTS]
CLASSES = Classes(names=["ground", "disc", "square"], things=["disc", "square"])


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


def task_of(name: str) -> Any:
    """A task that the net can be trained for; panoptic where it can."""
    tasks = getattr(load("models", name), "TASKS", tuple(TASKS))
    return make_task("panoptic" if "panoptic" in tasks else tasks[0], CLASSES)


def thin(name: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    module, classes = load("models", name), task_of(name).classes
    options: dict[str, Any] = dict(module.THIN)
    if "things" in module.build.__kwdefaults__:
        options["things"] = np.flatnonzero(classes.is_thing).tolist()
    torch.manual_seed(0)
    return create_model(name, classes=classes.channels, **options).eval(), options


def shapes(size: tuple[int, int] = (64, 96)) -> Segments:
    """Ground with two discs, a square, a crowd and an unknown corner."""
    y, x = np.mgrid[: size[0], : size[1]]
    ids = np.zeros(size, np.int8)
    for row, (cy, cx, r) in enumerate(((20, 22, 9), (22, 44, 8)), 1):
        ids[(y - cy) ** 2 + (x - cx) ** 2 <= r * r] = row
    ids[40:56, 20:40], ids[40:60, 60:84], ids[:8, 80:] = 3, 4, UNKNOWN
    crowd = [False, False, False, False, True]
    return Segments(torch.from_numpy(ids), torch.tensor([0, 1, 1, 2, 2]), crowd=torch.tensor(crowd))


def draw(truth: Segments, number: int = 0) -> torch.Tensor:
    """[1, 3, H, W] a picture of the shapes; the next one is paler, since norms over the means of equal images learn
    nothing."""
    colours = torch.tensor([[0.1, 0.2, 0.1], [0.9, 0.1, 0.2], [0.2, 0.3, 0.9]])
    noise = torch.rand(3, *truth.size, generator=torch.Generator().manual_seed(1)) * 0.1
    return (colours[truth.class_map(0, 0).long()].permute(2, 0, 1) + noise)[None] * (4 - number) - 1


def losses(net: torch.nn.Module, name: str, truths: list[Segments]) -> dict[str, torch.Tensor]:
    task = task_of(name)
    seen = tuple(task.view(truth) for truth in truths)
    images = torch.cat([draw(shapes(truth.size), i) for i, truth in enumerate(truths)])
    mix = getattr(load("models", name), "LOSS", "ce+dice") or "ce"
    return criterion(net.train()(images, truths=seen), seen, task, Recipe(parse(mix)))


def assert_same_probs(found: torch.Tensor, expected: torch.Tensor) -> None:
    """But for a few pixels on the edge of an object, which the last bit may move across it."""
    assert torch.isclose(found, expected, rtol=1e-3, atol=1e-4).float().mean() > 0.999


# -- every variant ----------------------------------------------------------------------------------------------------


def test_file_says_where_its_net_is_from(variant):
    module = load("models", variant.partition("-")[0])
    assert str(module.PAPER["year"]) in module.__doc__
    assert module.PAPER.get("arxiv") or module.PAPER["doi"]
    assert all(module.PAPER[key] in module.__doc__ for key in ("arxiv", "doi") if key in module.PAPER)
    assert "" in module.VARIANTS
    assert module.build.__doc__


def test_full_size_is_built_on_meta(variant):
    with torch.device("meta"):
        few, many = create_model(variant, classes=2), create_model(variant, classes=21)
    sizes = [sum(p.numel() for p in net.parameters()) for net in (few, many)]
    assert 0 < sizes[0] < sizes[1]


# -- every architecture -----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (33, 65), (70, 50)])
def test_any_size_is_read_at_the_original_size(name, size):
    net, _ = thin(name)
    output = look(net, torch.randn(2, 3, *size))
    channels = task_of(name).classes.channels
    for i in range(2):
        probs, labels, found = output.probs(i), output.class_map(i), output.candidates(i)
        assert probs.shape == (channels, *size)
        assert probs.isfinite().all()
        assert (probs >= 0).all()
        assert labels.shape == size
        assert isinstance(found, Candidates)
        assert found.size == size
        torch.testing.assert_close(output.probs(i, (2, 3, 4, 5)), probs[:, 2:6, 3:8], rtol=1e-3, atol=1e-5)
        assert (output.class_map(i, (2, 3, 4, 5)) == labels[2:6, 3:8]).float().mean() >= 0.95  # but for ties


@torch.no_grad()
@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_every_task_is_answered(name, task):
    own = task_of(name)
    if own.name == "instance" and task != "instance":
        asked = make_task(task, own.classes)
    else:
        asked = make_task(task, CLASSES, **({"whole": True} if (own.name, task) == ("panoptic", "instance") else {}))
    net, _ = thin(name)
    answer = asked.decode(look(net, draw(shapes())), 0)
    assert answer.size == (64, 96)
    assert (answer.labels < len(asked.classes)).all()


@torch.no_grad()
def test_batch_of_one_and_of_two(name):
    net, _ = thin(name)
    x = torch.randn(2, 3, 64, 96)
    both = look(net, x)
    for i in range(2):
        assert_same_probs(look(net, x[i : i + 1]).probs(0), both.probs(i))


def test_every_parameter_learns(name):
    net, _ = thin(name)
    for parameter in net.parameters():
        if not parameter.any():  # residual branches that begin with nothing, and biases
            torch.nn.init.normal_(parameter, std=0.5)
    found = losses(net, name, [shapes(), shapes()])
    assert all(loss.ndim == 0 and loss.isfinite() for loss in found.values())
    sum(found.values()).backward()
    silent = [n for n, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent


@pytest.mark.parametrize("fill", [UNKNOWN, 0, -1])
def test_images_without_objects_train(name, fill):
    net, _ = thin(name)
    plain = Segments(torch.full((64, 96), fill, dtype=torch.int8), torch.tensor([0]))
    total = sum(losses(net, name, [plain, plain]).values())
    assert total.isfinite()
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_auxiliary_heads_are_for_training(name):
    net, _ = thin(name)
    with torch.no_grad():
        assert len(heads(net(torch.randn(1, 3, 64, 96)))) == 1


def test_bf16_trains(name):
    net, _ = thin(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses(net, name, [shapes(), shapes()])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in found.values())


@torch.no_grad()
def test_channels_last_answers_the_same(name):
    net, _ = thin(name)
    x = torch.randn(1, 3, 64, 96)
    plain = net(x)
    last = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert_same_probs(last.probs(0), plain.probs(0))


@torch.no_grad()
def test_saved_and_loaded_it_answers_the_same(name, tmp_path):
    net, options = thin(name)
    task = task_of(name)
    card = ModelCard(architecture=name, outputs=task.classes.channels, options=options, classes=CLASSES,
                     task=task.name, preprocessing=Preprocessing())  # fmt: skip
    save_model(tmp_path / "m.safetensors", net, card)
    again, read = load_model(tmp_path / "m.safetensors")
    x = torch.randn(1, 3, 64, 96)
    assert read == card
    assert torch.equal(again(x).probs(0), net(x).probs(0))


@torch.no_grad()
def test_exported_it_answers_the_same(name):
    reason = getattr(load("models", name), "NOT_EXPORTED", "")
    if reason:
        assert len(reason) > 20, "say which operator stops it"
        pytest.skip(reason)
    net, _ = thin(name)
    x = torch.randn(1, 3, 64, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export about itself
        exported = torch.export.export(net, (x,)).module()
    mine, theirs = (pytree.tree_leaves(answer) for answer in (net(x), exported(x)))
    assert len(mine) == len(theirs) > 0
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_output_knows_its_frames(name):
    net, _ = thin(name)
    with torch.no_grad():
        output = net(torch.randn(1, 3, 64, 96))
    assert {"frames", "aux"} <= {f.name for f in fields(output)}
    assert output.frames[0].padded == (64, 96)
