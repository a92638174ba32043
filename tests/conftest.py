"""What several folders of tests share: model files on disk, small U-Nets with fixed random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import ModelCard, save_model
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Preprocessing
from pixelwise.tasks import make_task

hypothesis.settings.register_profile("no deadline", deadline=None)  # on a busy machine any example may be late
hypothesis.settings.load_profile("no deadline")

CLASSES = Classes(names=["road", "person", "sky"], things=["person"], ids=(7, 24, 23), void=(255,))


def _write_model(path: Path, *, task: str = "semantic", classes: Classes = CLASSES, channels: int = 3,
                 top: float = 255.0, **card: Any) -> Path:  # fmt: skip
    torch.manual_seed(3)
    outputs = make_task(task, classes).classes.channels
    options = {"width": 4, "depth": 2, "channels": channels}
    net = create_model("unet", classes=outputs, **options)
    torch.nn.init.normal_(net.head.weight, std=3.0)  # strong opinions, so that answers have many segments
    colours = {"mean": (0.4,) * channels, "std": (0.25,) * channels}
    preprocessing = Preprocessing(channels=channels, order="", range=top, **colours)
    values = {"architecture": "unet", "outputs": outputs, "options": options, "classes": classes, "task": task,
              "preprocessing": preprocessing}  # fmt: skip
    save_model(path, net, ModelCard(**{**values, **card}))
    return path


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """write_model(path, task=, classes=, channels=, top=, **fields of the card) -> path"""
    return _write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{task: path of a model of road, person (a thing) and sky}"""
    folder = tmp_path_factory.mktemp("models")
    tasks = ("semantic", "instance", "panoptic")
    return {task: _write_model(folder / f"{task}.safetensors", task=task) for task in tasks}
