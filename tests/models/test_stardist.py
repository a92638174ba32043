"""StarDist: its size against a count by hand, its options, that it learns, several classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.registry import create_model
from pixelwise.core.segments import NOTHING, Segments
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.metrics import InstanceF1
from pixelwise.tasks import make_task

THIN = {"width": 8, "depth": 2, "features": 16, "rays": 16}


def count_by_hand(*, width: int, depth: int, features: int, rays: int, stem: int, norm: int) -> int:
    """Parameters of one thing's net whose body takes `stem` channels; `norm` a channel after each convolution."""

    def double(a: int, b: int) -> int:
        return (9 * a + 1 + norm) * b + (9 * b + 1 + norm) * b

    total = double(stem, width)
    for i in range(depth):
        low, high = width * 2**i, width * 2 ** (i + 1)
        total += double(low, high) + (4 * high + 1) * low + double(2 * low, low)
    return total + (9 * width + 1) * features + (features + 1) * (1 + rays)


@pytest.mark.parametrize(
    ("name", "stem", "norm", "before"),
    [
        ("stardist", 12, 2, 0),
        ("stardist-2018", 3, 0, 0),
        ("stardist-2022", 32, 0, (9 * 3 + 9 * 32 + 2) * 32),
    ],
)
def test_parameters(name, stem, norm, before):
    with torch.device("meta"):
        net = create_model(name, classes=2)
    expected = count_by_hand(width=32, depth=3, features=128, rays=32, stem=stem, norm=norm) + before
    assert sum(p.numel() for p in net.parameters()) == expected


@torch.no_grad()
@pytest.mark.parametrize(("grid", "stem"), [(1, "fold"), (2, "fold"), (4, "fold"), (2, "pool"), (4, "pool")])
@pytest.mark.parametrize("size", [(8, 8), (33, 65), (64, 40)])
def test_grid(grid, stem, size):
    output = create_model("stardist", classes=2, grid=grid, stem=stem, **THIN).eval()(torch.randn(2, 3, *size))
    cells = (-(-size[0] // grid), -(-size[1] // grid))
    assert output.objects.shape == (2, 1, *cells)
    assert output.rays.shape == (2, 16, *cells)
    assert output.classes is None
    assert output.grid == grid
    assert output.candidates(1).size == size


@torch.no_grad()
def test_several_things_have_a_head_for_classes():
    output = create_model("stardist", classes=4, **THIN).eval()(torch.randn(1, 3, 32, 32))
    assert output.classes.shape == (1, 4, 16, 16)
    assert output.channels == 4


@torch.no_grad()
def test_unit_scales_the_distances_alone():
    nets = []
    for unit in (1, 8):
        torch.manual_seed(0)
        nets.append(create_model("stardist", classes=2, unit=unit, **THIN).eval())
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(nets[1](x).rays, 8 * nets[0](x).rays)
    assert torch.equal(nets[1](x).objects, nets[0](x).objects)


@pytest.mark.parametrize(
    "wrong",
    [{"grid": 3}, {"stem": "conv"}, {"rays": 2}, {"rays": 200}, {"width": 0}, {"depth": 0}, {"norm": "layer"},
     {"nms": 1.5}, {"threshold": "0.5"}, {"unit": 0}, {"border": -1}, {"dropout": True}, {"classes": 1}],
)  # fmt: skip
def test_wrong_options_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        create_model("stardist", **{"classes": 2, **wrong})


def cells(seed: int, things: int = 1) -> tuple[torch.Tensor, Segments]:
    """[3, 64, 64] a picture of crowded discs, touching ones among them, red or green by class."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    ids, labels = np.full((64, 64), NOTHING, np.int8), []
    for cy in (10, 27, 45):
        for cx in (9, 26, 43, 57):
            r = rng.uniform(6, 9)
            disc = (y - cy - rng.integers(-2, 3)) ** 2 + (x - cx - rng.integers(-2, 3)) ** 2 <= r * r
            ids[disc & (ids == NOTHING)] = len(labels)
            labels.append(int(rng.integers(things)))
    edge = np.zeros((64, 64), bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    picture = rng.normal(0, 0.1, (3, 64, 64))
    for row, label in enumerate(labels):
        picture[label][(ids == row) & ~edge] += 2
    return torch.from_numpy(picture).float(), Segments(torch.from_numpy(ids), torch.tensor(labels))


@pytest.mark.parametrize("things", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_it_tells_touching_cells_apart_after_a_few_steps(things):
    torch.manual_seed(0)
    names = ["red", "green"][:things]
    task = make_task("instance", Classes(names=names, things=names, nothing=True), score=0.4)
    net = create_model("stardist", classes=things + 1, width=12, depth=2, features=24, rays=12)
    images, truths = zip(*(cells(seed, things) for seed in range(2)))
    batch = torch.stack(images)
    steps = 100
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(steps):
        loss = sum(criterion(net(batch), truths, task, Recipe()).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    metric = InstanceF1(things)
    with torch.no_grad():
        output = net.eval()(batch)
    for i, truth in enumerate(truths):
        metric.update(task.decode(output, i), truth)
    assert metric.compute()["accuracy_50"] > 0.85
