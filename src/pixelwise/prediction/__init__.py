"""From a model file to answers: `load` for Python, `predict_folder` for files and folders."""

from __future__ import annotations

from pixelwise.prediction.folder import PredictionRun, predict_folder
from pixelwise.prediction.predictor import Predictor, load

__all__ = ["PredictionRun", "Predictor", "load", "predict_folder"]
