"""Scores of a net on a split (`evaluate_split`)."""

from __future__ import annotations

from pixelwise.evaluation.split import evaluate_split

__all__ = ["evaluate_split"]
