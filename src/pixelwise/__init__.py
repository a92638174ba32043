"""Pixelwise: a label for every pixel. Semantic, instance and panoptic segmentation in PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# The public names and where they live; each is imported when first used, so that `import pixelwise` is instant.
_PUBLIC = {
    "Batch": "core.sample",
    "Classes": "core.classes",
    "Dense": "core.outputs",
    "Instance": "tasks",
    "Panoptic": "tasks",
    "Preprocessing": "core.sample",
    "Queries": "core.outputs",
    "Sample": "core.sample",
    "Segments": "core.segments",
    "Semantic": "tasks",
    "create_model": "core.registry",
    "errors": "",
    "evaluate": "evaluation",
    "examine": "data.doctor",
    "from_checkpoint": "checkpoints",
    "import_checkpoint": "checkpoints",
    "load": "prediction",
    "load_weights": "checkpoints",
    "losses": "",
    "metrics": "",
    "open_data": "data.dataset",
    "predict_folder": "prediction",
    "train": "training",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  (its keys are strings)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pixelwise' has no attribute '{name}'")
    home = _PUBLIC[name]
    module = importlib.import_module(f"pixelwise.{home or name}")
    value = getattr(module, name) if home else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
