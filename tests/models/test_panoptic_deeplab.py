"""Panoptic-DeepLab against the authors' public code: keys, shapes, outputs and grouping, frozen in a file."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.registry import create_model
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import parse
from pixelwise.models.panoptic_deeplab import KEYS, LOSS, THIN
from pixelwise.tasks import Panoptic

FROZEN = Path(__file__).parent.parent / "data" / "panoptic_deeplab.json"
DIALECT = KEYS["bowenc0221"]


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    return json.loads(FROZEN.read_text(encoding="utf-8"))


def weight(name: str, shape: list[int]) -> torch.Tensor:
    """A tensor that is a function of its foreign name and shape alone."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    count = int(np.prod(shape))
    wave = torch.sin(torch.arange(count, dtype=torch.float64) * 0.7548776662 + zlib.crc32(name.encode()) % 10007)
    wave = wave.view(shape).float()
    if name.endswith("running_var"):
        return 1.5 + wave
    if len(shape) == 1:
        return 1 + 0.2 * wave if name.endswith("weight") else 0.2 * wave
    return wave * (4 / np.prod(shape[1:])) ** 0.5


def images(size: tuple[int, int]) -> torch.Tensor:
    """[2, 3, H, W] of waves."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    planes = [
        torch.sin(0.31 * y * (c + 1) + 0.17 * x + b) + torch.cos(0.013 * x * y) for b in range(2) for c in range(3)
    ]
    return torch.stack(planes).view(2, 3, *size).float()


# -- the net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "count"), [("", 55_308_870), ("-r50", 55_308_870), ("-r101", 74_300_998)])
def test_parameters(variant, count):
    with torch.device("meta"):
        net = create_model(f"panoptic_deeplab{variant}", classes=19)
    assert sum(p.numel() for p in net.parameters()) == count


def test_every_key_of_the_authors_files_is_loaded(frozen):
    with torch.device("meta"):
        net = create_model("panoptic_deeplab", classes=19)
        foreign = {name: torch.empty(shape) for name, shape in frozen["keys"].items()}
    found = DIALECT.translate(foreign)
    assert DIALECT.share(foreign) == 1
    assert not found.left
    assert not found.dropped
    assert {n: t.shape for n, t in found.tensors.items()} == {n: t.shape for n, t in net.state_dict().items()}
    assert DIALECT.options(foreign) == {"classes": 19, "encoder": "resnet50", "things": list(range(11, 19))}


@torch.no_grad()
def test_r50_answers_as_the_original(frozen):
    net = create_model("panoptic_deeplab-r50", classes=19, things=list(range(11, 19))).eval()
    net.load_state_dict(DIALECT.translate({n: weight(n, s) for n, s in frozen["keys"].items()}).tensors)
    for case in frozen["outputs"]:
        output = net(images(tuple(case["size"])))
        heat, offsets = output.full_centres()
        for name, maps in (("semantic", output.full()), ("center", heat), ("offset", offsets)):
            values = torch.tensor(case[name])
            assert list(maps.shape[-2:]) == case["size"]
            places = torch.linspace(0, maps.numel() - 1, len(values), dtype=torch.float64).long()
            scale = float(values.abs().max())
            torch.testing.assert_close(maps.flatten()[places], values, rtol=1e-4, atol=1e-4 * scale)


# -- grouping ---------------------------------------------------------------------------------------------------------


def scene(seed: int) -> dict[str, Any]:
    """Maps [48, 64] of 2 kinds of stuff and 3 of things with centres, noisy enough that groups are ragged."""
    draw, (height, width) = np.random.RandomState(seed), (48, 64)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centres = np.stack([draw.randint(2, height - 2, 9), draw.randint(2, width - 2, 9)], 1)
    away = ((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2).astype(np.float32)
    heat = np.exp(-away / 18).max(-1) * 0.9 + draw.rand(height, width) * 0.12
    nearest = centres[away.argmin(-1)]
    offsets = np.stack([nearest[..., 0] - y, nearest[..., 1] - x]) * 0.8 + draw.randn(2, height, width)
    labels = 2 + away.argmin(-1) % 3
    labels = np.where(draw.rand(height, width) < 0.1, draw.randint(0, 5, (height, width)), labels)
    labels = np.where(away.min(-1) > 70, (x > 40).astype(int), labels)
    return {"labels": labels, "heat": heat.astype(np.float32), "offsets": offsets.astype(np.float32)}


def decode(maps: dict[str, Any], rule: dict[str, Any]) -> np.ndarray:
    """[48, 64] label x 1000 + instance (from 1 in reading order), 255000 for what is nothing or unknown."""
    from pixelwise.core.centers import Centers, Grouping

    logits = torch.nn.functional.one_hot(torch.from_numpy(maps["labels"]).long(), 5).permute(2, 0, 1).float() * 9
    grouping = Grouping((2, 3, 4), **rule)
    heat, offsets = (torch.from_numpy(maps[key])[None] for key in ("heat", "offsets"))
    output = Centers(logits[None], heat[None], offsets, grouping)
    classes = Classes(names=["sky", "grass", "cat", "dog", "cow"], things=["cat", "dog", "cow"])
    found = Panoptic(classes).decode(output, 0)
    return renumber(np.append(found.labels.numpy(), -1)[found.row_map().numpy()], found.row_map().numpy())


def renumber(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Label x 1000 + number of the thing in reading order; stuff has 0, nothing is 255000."""
    out, seen = np.full(labels.shape, 255000), {}
    for place in np.ndindex(labels.shape):
        if ids[place] >= 0:
            number = seen.setdefault(ids[place], 1 + len(seen)) if labels[place] >= 2 else 0
            out[place] = labels[place] * 1000 + number
    return out


def runs(flat: np.ndarray) -> list[list[int]]:
    """[value, length] of each run."""
    starts = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))
    return [[int(flat[s]), int(n)] for s, n in zip(starts, np.diff(np.append(starts, len(flat))))]


@pytest.mark.parametrize("number", range(6))
def test_grouping_answers_as_the_original(frozen, number):
    case = frozen["grouping"][number]
    found = decode(scene(case["seed"]), case["rule"])
    assert runs(found.flatten()) == case["runs"]
    assert len(np.unique(found)) > 3


# -- training ---------------------------------------------------------------------------------------------------------

CLASSES = Classes(names=["ground", "disc", "square"], things=["disc", "square"])


def drawn(seed: int) -> tuple[torch.Tensor, Segments]:
    """An image [1, 3, 64, 96] with two discs that nearly touch and two squares, and its truth."""
    y, x = np.mgrid[:64, :96]
    ids, shift = np.zeros((64, 96), np.int8), seed % 5
    ids[(y - 20 - shift) ** 2 + (x - 20) ** 2 <= 100], ids[(y - 22 - shift) ** 2 + (x - 42) ** 2 <= 100] = 1, 2
    ids[42:58, 20 + shift : 40 + shift], ids[40:60, 60:84] = 3, 4
    truth = Segments(torch.from_numpy(ids), torch.tensor([0, 1, 1, 2, 2]))
    colours = torch.tensor([[-1.0, 0.0, 1.0], [1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    return colours[truth.class_map().long()].permute(2, 0, 1)[None], truth


@pytest.mark.slow
def test_two_images_are_learnt_by_heart():
    torch.manual_seed(0)
    net = create_model("panoptic_deeplab-small", classes=3, things=[1, 2], width=32, dropout=0.0, stuff_area=0)
    task = Panoptic(CLASSES)
    pairs = [drawn(seed) for seed in (0, 3)]
    pictures, truths = torch.cat([p for p, _ in pairs]), [task.view(t) for _, t in pairs]
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(120):
        losses = criterion(net(pictures), truths, task, Recipe(parse(LOSS)))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    metric, output = task.metric(), net.eval()(pictures)
    for i, truth in enumerate(truths):
        metric.update(task.decode(output, i), truth)
    assert metric.compute()["pq"] > 0.9


def test_unknown_images_and_images_without_things_give_finite_losses():
    torch.manual_seed(0)
    net = create_model("panoptic_deeplab", classes=3, things=[1, 2], **THIN)
    task = Panoptic(CLASSES)
    for fill in (0, UNKNOWN):
        truth = Segments(torch.full((64, 64), fill, dtype=torch.int8), torch.tensor([0]))
        net.zero_grad()
        losses = criterion(net(torch.randn(2, 3, 64, 64)), [truth, truth], task, Recipe(parse(LOSS)))
        assert float(losses["offsets"].detach()) == 0
        assert (float(losses["heat"].detach()) > 0) == (fill == 0)
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in net.parameters())


# -- options ----------------------------------------------------------------------------------------------------------


def test_things_default_to_all_but_the_last():
    with torch.device("meta"):
        assert create_model("panoptic_deeplab", classes=4, **THIN).grouping.things == (0, 1, 2)
        assert create_model("panoptic_deeplab", classes=4, things=(), **THIN).grouping.things == ()


@pytest.mark.parametrize(("options", "message"), [
    ({"things": [2, 1]}, "rising labels"), ({"things": [5]}, r"0\.\.2"), ({"things": "all"}, "whole numbers"),
    ({"levels": 5}, "levels is 5"), ({"rates": [1, 2]}, "three numbers"), ({"nms": 4}, "odd"), ({"top_k": 0}, "top_k"),
    ({"threshold": "a"}, "threshold is 'a'"), ({"nms": "3"}, "nms is '3'"), ({"top_k": 1.5}, "top_k is 1.5"),
    ({"threshold": 2}, "0..1"), ({"width": 0}, "width is 0"), ({"dropout": "much"}, "dropout"), ({"sigma": 0}, "sigma"),
    ({"spread": 2}, "spread"), ({"small_weight": -1}, "small_weight"), ({"unit": -1}, "unit is -1"),
    ({"momentum": -1}, "momentum"), ({"align_corners": 1}, "align_corners"),
    ({"encoder": "vit_base_patch16_224"}, "pyramid"), ({"sigmo": 3}, "did you mean 'sigma'"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("panoptic_deeplab", classes=3, **options)
