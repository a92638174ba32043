"""What every net promises, over everything the registry finds: a new file is tested before anyone thinks of it.

Variants are counted on the meta device; what a net does is tried on one thin net of each architecture: its `THIN`
options. A file says by `NOT_EXPORTED` {runtime: operator} what keeps its net from torch.export, ONNX or OpenVINO.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import ModelCard, load_model, save_model
from pixelwise.core.outputs import Candidates, Dense, heads
from pixelwise.core.registry import create_model, load, modules
from pixelwise.core.sample import Preprocessing
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.data.streets import THINGS, Label, draw_scene
from pixelwise.engines import onnx, openvino
from pixelwise.engines._program import trace
from pixelwise.engines._runtime import agrees
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import parse
from pixelwise.nn.checkpointing import checkpoint_blocks
from pixelwise.nn.counting import MultiplyAdds
from pixelwise.tasks import TASKS, make_task
from pixelwise.views import look

ARCHITECTURES = list(modules("models"))
VARIANTS = [f"{a}-{v}" if v else a for a in ARCHITECTURES for v in load("models", a).VARIANTS]
CLASSES = Classes(names=["ground", "disc", "square"], things=["disc", "square"])
# nets whose auxiliary maps the answer is made of, so that without a loss of their own they are built all the same
HEADS_OF_THE_ANSWER = ("attention_unet", "hrnet")


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


def by_default(*few: str) -> Any:
    """Every architecture, all but these marked slow."""
    names = [a if a in few else pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES]
    return pytest.mark.parametrize("name", names)


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


def task_of(name: str, classes: Classes = CLASSES) -> Any:
    """A task that the net can be trained for; panoptic where it can."""
    tasks = getattr(load("models", name), "TASKS", tuple(TASKS))
    return make_task("panoptic" if "panoptic" in tasks else tasks[0], classes)


def thin_options(name: str, classes: Classes = CLASSES) -> dict[str, Any]:
    module = load("models", name)
    options: dict[str, Any] = dict(module.THIN)
    if "things" in module.build.__kwdefaults__:
        options["things"] = np.flatnonzero(task_of(name, classes).classes.is_thing).tolist()
    return options


@functools.cache
def built(name: str) -> torch.nn.Module:
    """The thin net, in evaluation; for those who leave it as it is."""
    torch.manual_seed(0)
    return create_model(name, classes=task_of(name).classes.channels, **thin_options(name)).eval()


def thin(name: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The thin net to do with as one likes, and its options."""
    return copy.deepcopy(built(name)), thin_options(name)


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


@torch.no_grad()
def test_full_size_is_built_and_runs(variant):
    """Without memory; a detector, whose work depends on what it finds, runs on a small image."""
    with torch.device("meta"), MultiplyAdds():  # which passes over what takes time there
        few, many = create_model(variant, classes=2), create_model(variant, classes=21).eval()
        sizes = [sum(p.numel() for p in net.parameters()) for net in (few, many)]
        assert 0 < sizes[0] < sizes[1]
        if not getattr(load("models", variant.partition("-")[0]), "DRAWS", False):
            output = many(torch.zeros(2, 3, 97, 129))
            assert all(len(leaf) == 2 for leaf in pytree.tree_leaves(output))
            assert output.frames[0].padded == (97, 129)
            return
    assert create_model(variant, classes=21).eval()(torch.zeros(1, 3, 64, 64)).probs(0).shape == (21, 64, 64)


# -- every architecture -----------------------------------------------------------------------------------------------


def test_file_says_where_its_net_is_from(name):
    module = load("models", name)
    assert str(module.PAPER["year"]) in module.__doc__
    assert module.PAPER.get("arxiv") or module.PAPER["doi"]
    assert all(module.PAPER[key] in module.__doc__ for key in ("arxiv", "doi") if key in module.PAPER)
    assert "" in module.VARIANTS
    assert module.build.__doc__


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (33, 65), (70, 50)])
def test_any_size_is_read_at_the_original_size(name, size):
    output = look(built(name), torch.randn(2, 3, *size))
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
    answer = asked.decode(look(built(name), draw(shapes())), 0)
    assert answer.size == (64, 96)
    assert (answer.labels < len(asked.classes)).all()


@torch.no_grad()
def test_batch_of_one_and_of_two(name):
    net = built(name)
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


@torch.no_grad()
def test_auxiliary_heads_are_for_training(name):
    assert len(heads(built(name)(torch.randn(1, 3, 64, 96)))) == 1
    if "aux" not in inspect.signature(load("models", name).build).parameters:
        return
    channels, options = task_of(name).classes.channels, getattr(load("models", name), "THIN_AUX", thin_options(name))
    helped, plain = (create_model(name, classes=channels, **{**options, "aux": w}).train() for w in (0.3, 0.0))
    x = torch.randn(2, 3, 64, 96)
    found = heads(helped(x))
    assert found[0][:2] == ("", 1.0)
    assert found[1:]
    assert all(weight > 0 for _, weight, _ in found[1:])
    assert len(heads(helped.eval()(x))) == 1
    assert len(heads(plain(x))) < len(found)
    more = set(helped.state_dict()) - set(plain.state_dict())
    assert bool(more) != (name in HEADS_OF_THE_ANSWER)
    for weight in (-1.0, float("nan"), "much", True):
        with pytest.raises(ConfigError, match="aux"):
            create_model(name, classes=channels, **{**options, "aux": weight})


def test_bf16_trains(name):
    net, _ = thin(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses(net, name, [shapes(), shapes()])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in found.values())


@pytest.mark.parametrize("size", [(33, 65), (70, 50)])
def test_any_size_trains(name, size):
    net, _ = thin(name)
    total = sum(losses(net, name, [shapes(size), shapes(size)]).values())
    total.backward()
    assert total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_a_batch_of_one_trains_or_is_refused(name):
    net, _ = thin(name)
    try:
        total = sum(losses(net, name, [shapes()]).values())
    except ConfigError as error:
        assert "--batch-size 2" in str(error)  # noqa: PT017  # either is right
        return
    total.backward()
    assert total.isfinite()


def test_gradient_checkpointing_changes_no_gradient(name):
    """Nor a statistic: the plain net and one that computes its blocks twice, with the same draws."""
    plain, _ = thin(name)
    saving = copy.deepcopy(plain)
    assert checkpoint_blocks(saving) > 0
    for net in (plain, saving):
        torch.manual_seed(3)
        sum(losses(net, name, [shapes(), shapes()]).values()).backward()
    for (key, value), other in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(value, other), key
    for (key, one), two in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None), key
        if one.grad is not None:
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-4, atol=1e-6, msg=key)


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (360, 480)])
def test_usual_sizes(name, size):
    output = built(name)(torch.randn(1, 3, *size))
    assert all(leaf.isfinite().all() for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor))
    if isinstance(output, Dense):  # what is found in noise takes others long
        assert output.probs(0).shape == (task_of(name).classes.channels, *size)
        assert output.class_map(0).shape == size


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


def run_by_torch(program):
    module = program.exported.module()
    return lambda images: [t.numpy() for t in module(torch.from_numpy(images))]


@torch.no_grad()
@by_default("stardist")
def test_exported_it_answers_the_same_at_any_size(name):
    """In each runtime, or its file says which operator stops it; see the table of docs/models.md."""
    net, stopped = built(name), getattr(load("models", name), "NOT_EXPORTED", {})
    program = trace(net)
    for runtime, build in (("torch", run_by_torch), ("onnx", onnx.runner), ("openvino", openvino.runner)):
        if runtime in stopped:
            with pytest.raises(ConfigError, match=re.escape(stopped[runtime])):
                build(trace(net))  # anew: torch's exporter to ONNX has changed the other one
        else:
            assert agrees(net, program, build(program)), runtime


@torch.no_grad()
def test_output_knows_its_frames(name):
    output = built(name)(torch.randn(1, 3, 64, 96))
    assert {"frames", "aux"} <= {f.name for f in fields(output)}
    assert output.frames[0].padded == (64, 96)


@torch.no_grad()
@pytest.mark.slow
def test_compiled_it_answers_the_same(name):
    if getattr(load("models", name), "DRAWS", False):
        pytest.skip("torchvision's nms and roi_align break the graph at every image")
    x = torch.randn(1, 3, 64, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.compile about itself
        torch._dynamo.reset()
        found = torch.compile(built(name))(x)
    for a, b in zip(pytree.tree_leaves(found), pytree.tree_leaves(built(name)(x)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


# -- learning ---------------------------------------------------------------------------------------------------------

STREET = Classes(names=["ground", "building", "green", "sky", "thing"], things=["thing"])
KINDS = {Label.ROAD: 0, Label.SIDEWALK: 0, Label.EGO_VEHICLE: 0, Label.VEGETATION: 2, Label.SKY: 3}
# where two channels are too thin to learn anything: (options over those of THIN)
WIDER: dict[str, dict[str, Any]] = {"unet": {"width": 12}, "unetplusplus": {"width": 12}, "segnet": {"width": 8}}
STEPS, LEAST = 120, 0.5  # of descent on the four; mean IoU to be reached. The most frequent class alone has 0.1


def street(index: int, size: tuple[int, int] = (64, 128)) -> tuple[torch.Tensor, Segments]:
    """A drawn street [3, H, W], about normalised, and its truth in five classes with each thing apart."""
    scene = draw_scene(0, index, size)
    ids, labels = np.zeros(size, np.int16), []
    for value in np.unique(scene.instance_ids):
        where = scene.instance_ids == value
        label = Label(int(scene.label_ids[where][0]))
        ids[where] = len(labels)
        labels.append(4 if label in THINGS else KINDS.get(label, 1))
    image = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 64 - 2
    return image, Segments(torch.from_numpy(ids), torch.tensor(labels))


def fit(name: str) -> tuple[list[float], float]:
    """The loss at each step on four streets, and the mean IoU in the end, in evaluation."""
    task = task_of(name, STREET)
    torch.manual_seed(0)
    options = {**thin_options(name, STREET), **WIDER.get(name, {})}
    net = create_model(name, classes=task.classes.channels, **options)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._NormBase):
            module.momentum = 0.1  # statistics that follow within the few steps
    images, truths = zip(*(street(i) for i in range(4)))
    images, seen = torch.stack(images), tuple(task.view(truth) for truth in truths)
    recipe = Recipe(parse(getattr(load("models", name), "LOSS", "ce+dice") or "ce"))
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, STEPS)
    history = []
    for _ in range(STEPS):
        loss = sum(criterion(net.train()(images, truths=seen), seen, task, recipe).values())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        history.append(float(loss.detach()))
    with torch.no_grad():
        output = net.eval()(images)
    k = task.classes.channels
    found = torch.stack([output.class_map(i) for i in range(4)]).flatten()
    true = torch.stack([truth.class_map(k, k - 1) for truth in seen]).flatten().long()
    counts = torch.bincount(true * k + found, minlength=k * k).view(k, k).double()
    both = counts.diag()
    return history, float((both / (counts.sum(0) + counts.sum(1) - both)).nanmean())


@by_default("attention_unet", "pspnet")
def test_four_streets_are_learnt_by_heart(name):
    """A thin net fits four drawn streets in few steps, so truth, loss, gradient and answer mean the same; of nets that
    find objects, whose answers need more steps, the loss shows it."""
    history, miou = fit(name)
    if {"semantic", "panoptic"} & set(getattr(load("models", name), "TASKS", TASKS)):
        assert miou >= LEAST, f"mean IoU {miou:.3f}, loss {history[0]:.3f} to {history[-1]:.3f}"
    assert np.mean(history[-5:]) < 0.6 * history[0]
