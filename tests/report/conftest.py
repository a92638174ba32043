"""Made-up run folders and scored examples, in the form that a training and an evaluation leave behind."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from pixelwise.config import TrainSettings, to_dict
from pixelwise.core.classes import Classes
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.evaluation import Scores
from pixelwise.tasks import make_task

NAMES = ("sky", "building", "road", "pavement", "vegetation", "pole", "sign", "car", "person", "rider")
CLASSES = Classes(
    names=NAMES,
    things=("car", "person", "rider"),
    colours=((70, 130, 180), (110, 90, 90), (128, 64, 128), (200, 60, 200), (107, 142, 35), (153, 153, 153),
             (220, 200, 0), (0, 60, 200), (220, 20, 60), (255, 120, 0)),
)  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """What an evaluation hands over for one image."""

    name: str
    image: Any
    truth: Segments
    prediction: Segments
    score: float


def scene(seed: int, height: int = 180, width: int = 320) -> tuple[np.ndarray, Segments]:
    """A street of a sort: stuff in bands, cars and people on the road, an unknown strip at the bottom."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:height, :width]
    horizon = height * rng.uniform(0.4, 0.5)
    roofs = horizon - 20 - height * 0.2 * np.abs(np.sin(xs / rng.uniform(20, 50)))
    ids = np.where(ys < roofs, 0, np.where(ys < horizon, 1, 2)).astype(np.int16)
    ids[(ys >= horizon) & (np.abs(xs - width / 2) > (ys - horizon) * 1.2 + 20)] = 3
    ids[(ys < horizon + 8) & (ys > horizon - 30) & ((xs // 40) % 3 == seed % 3)] = 4
    ids[(xs % 97 < 3) & (ys > horizon - 50) & (ys < horizon + 12)] = 5
    labels = [0, 1, 2, 3, 4, 5]
    for i in range(int(rng.integers(3, 9))):
        depth = rng.uniform(0.15, 1)
        y, x, size = horizon + depth * height * 0.4, rng.uniform(0, width), 10 + 26 * depth
        long, tall = (1.6 * size, 0.8 * size) if i % 2 else (0.3 * size, 1.2 * size)
        ids[(np.abs(xs - x) < long) & (np.abs(ys - y) < tall)] = len(labels)
        labels.append(7 if i % 2 else 8)
    ids[-4:] = UNKNOWN
    segments = Segments(torch.from_numpy(ids), torch.tensor(labels))
    colours = np.array(CLASSES.colours)[segments.class_map(0).numpy()]
    image = 0.5 * colours + 50 + rng.normal(0, 12, (height, width, 1)) + ys[:, :, None] * 0.2
    return image.clip(0, 255).astype(np.uint8), segments


def answer(truth: Segments, seed: int, shift: int) -> Segments:
    """A prediction that is off by a few pixels and has missed something."""
    ids = torch.roll(truth.ids, (seed % 3 - 1, shift), (1, 2))
    ids[:, :, : 10 + shift] = torch.where(ids[:, :, : 10 + shift] >= 6, NOTHING, ids[:, :, : 10 + shift])
    ids[ids == UNKNOWN] = 2
    scores = torch.linspace(0.99, 0.4, len(truth))
    return Segments(ids, truth.labels, scores=scores)


def examples(count: int = 8, task: str = "semantic", **size: int) -> list[Scored]:
    """Scored images as that task sees them."""
    asked, found = make_task(task, CLASSES), []
    for i in range(count):
        image, whole = scene(i, **size)
        truth, prediction = asked.view(whole), asked.view(answer(whole, i, 2 + 3 * i))
        metric = asked.metric()
        metric.update(prediction, truth)
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        found.append(Scored(f"street/{i:04d}", pixels, truth, prediction, metric.compute()[asked.primary]))
    return found


@cache
def scores_of(task: str, shift: int = 6) -> dict[str, Any]:
    """What the task's metric says of three scenes; riders and signs never occur."""
    asked = make_task(task, CLASSES)
    metric = asked.metric()
    for i in range(3):
        _, truth = scene(i)
        metric.update(asked.view(answer(truth, i, shift)), asked.view(truth))
    return metric.compute()


def evaluation(task: str = "semantic", classes: Classes = CLASSES, metrics: dict[str, Any] | None = None) -> Scores:
    asked = make_task(task, classes)
    return Scores(
        task=task, primary=asked.primary, classes=asked.classes,
        metrics=scores_of(task) if metrics is None else metrics, per_image=(("street/0000", 0.5),), count=3,
        seconds=4.2, model="runs/first/model.safetensors", data="drawn/streets", split="test",
    )  # fmt: skip


def plain(value: Any) -> Any:
    """As the log writes it: lists, and null for NaN."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_run(folder: Path, *, task: str = "semantic", epochs: int = 12, classes: Classes = CLASSES,
             evaluate: bool = True, planned: int | None = None) -> Path:  # fmt: skip
    """Writes run.json and log.jsonl of a training of `epochs` epochs of 30 steps."""
    folder.mkdir(parents=True)
    planned = planned or epochs
    settings = TrainSettings(Path("streets"), epochs=planned, out=folder, lr=0.002, loss="ce+0.5*dice", crop=(96, 160))
    about = {
        "settings": to_dict(settings), "task": task,
        "plan": {"crop": [96, 160], "batch_size": 8, "epochs": planned, "lr": 0.002},
        "data": {"format": "folder", "classes": classes.to_dict(), "notes": ["Masks are 8-bit grey."],
                 "images": {"train": 40, "val": 10, "test": 20}, "statistics": statistics(len(classes))},
        "versions": {"pixelwise": "0.1.0", "torch": "2.11.0", "python": "3.11.9"},
        "git": {"commit": "abc1234", "changed": False}, "machine": "A processor of some sort, 8 threads, 32 GiB",
        "started": "2026-03-01T10:00:00+00:00",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(about))
    rng, lines = np.random.default_rng(0), []
    for epoch in range(epochs):
        for step in range(epoch * 30 + 10, epoch * 30 + 31, 10):
            share = step / (30 * planned)
            loss = 2.5 * math.exp(-4 * share) + 0.3 + rng.normal(0, 0.06)
            rate = 0.001 * (1 + math.cos(math.pi * share))
            lines.append({"kind": "step", "epoch": epoch, "step": step, "loss": loss, "lr": rate,
                          "losses": {"ce": loss * 0.7, "dice": loss * 0.3}, "seconds": step * 1.7})  # fmt: skip
        if evaluate and epoch % 2:
            scores = plain(scores_of(task, shift=max(2, 40 - 3 * epoch))) if len(classes) == len(CLASSES) else {}
            lines.append({"kind": "evaluation", "epoch": epoch + 1, "step": (epoch + 1) * 30,
                          "seconds": (epoch + 1) * 55, "metrics": scores})  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def statistics(count: int) -> dict[str, Any]:
    """What `Statistics.to_dict` gives for `count` classes."""
    return {
        "images": 40, "pixel_counts": [int(2e7 / (k + 1) ** 1.7) for k in range(count)],
        "image_counts": [max(0, 40 - 3 * k) for k in range(count)], "object_counts": [0] * count,
        "objects": np.random.default_rng(0).poisson(6, 40).tolist(), "mean": [0.41, 0.42, 0.44],
        "std": [0.2, 0.21, 0.22], "sizes": [[180, 320, 30], [240, 320, 10]], "void": 120_000, "nothing": 0,
    }  # fmt: skip


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: make_run(tmp_path / "first", **options)


@pytest.fixture(scope="session")
def made_up() -> ModuleType:
    """This file: test files that are collected by their path cannot import it by a name."""
    return sys.modules[__name__]
