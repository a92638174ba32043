"""Training a model on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixelwise.config import TrainSettings, from_dict
from pixelwise.data.transforms import Transform
from pixelwise.training.folder import Run
from pixelwise.training.loop import Training

__all__ = ["Run", "Training", "train"]


def train(data: str | Path, *, transform: Transform | None = None, **settings: Any) -> Run:
    """Trains a model on a folder of images and masks.

    data      the data set's folder
    transform one of your own, called (sample, rng, pick) -> Sample after all others (see `data.transforms`); run.json
              cannot hold it, so give it again to resume
    settings  those of `pixelwise train --help`: model="unet", out="runs/first", epochs=30, optim={"name": "sgd"}, ...
    Returns the run: its folder, the best model's file, its scores on the validation split.
    Raises ConfigError for a setting that does not exist or cannot be, DataError for data that cannot be used.

    >>> run = pixelwise.train("DATA", model="unet-small", out="runs/first", minutes=5)
    """
    values = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    return Training(from_dict(TrainSettings, {"data": str(data), **values}), transform).run()
