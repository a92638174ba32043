"""Values as JSON knows them, and files of them, written whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.core.atomic import atomic


def plain(value: Any) -> Any:
    """The same with lists for arrays and tuples, and None for NaN and infinity, which JSON has no word for.

    The score of an absent class is NaN, so it happens every day. What JSON cannot hold at all stays as it is.

    >>> plain({"iou": np.array([0.5, np.nan])})
    {'iou': [0.5, None]}
    """
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | Path, value: Any, *, indent: int | None = None) -> None:
    """Writes `plain(value)` whole or not at all. Raises OutputError where it cannot be written."""
    text = json.dumps(plain(value), indent=indent, allow_nan=False)
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
