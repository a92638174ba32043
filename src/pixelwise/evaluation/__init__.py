"""Scores: of a model file on a data set (`evaluate`), of a net on a split during training (`evaluate_split`)."""

from __future__ import annotations

from pixelwise.evaluation.model import evaluate
from pixelwise.evaluation.scores import Scores
from pixelwise.evaluation.split import evaluate_split

__all__ = ["Scores", "evaluate", "evaluate_split"]
