"""Command lines that a report prints: how to repeat a run, and what to do with its model."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pixelwise.config import TrainSettings, to_dict
from pixelwise.evaluation import Scores
from pixelwise.report.runs import Run


def of_run(run: Run) -> list[tuple[str, str]]:
    """(what it does, command line) pairs."""
    model = shlex.quote(str(run.folder / "model.safetensors"))
    data = shlex.quote(str(run.settings.get("data", "DATA")))
    repeat = [("Repeat the run, into a new folder", train(run.settings))] if run.settings else []
    return [
        *repeat,
        ("Score the model on images it has not seen", f"pixelwise evaluate {model} {data} --split test"),
        ("Segment your own images", f"pixelwise predict {model} photo.jpg folder/ --out out/"),
    ]


def of_evaluation(scores: Scores) -> list[tuple[str, str]]:
    """(what it does, command line) pairs."""
    model, data = shlex.quote(scores.model), shlex.quote(scores.data)
    return [
        ("Repeat the evaluation", f"pixelwise evaluate {model} {data} --split {shlex.quote(scores.split)}"),
        ("Segment your own images", f"pixelwise predict {model} photo.jpg folder/ --out out/"),
    ]


def train(settings: Mapping[str, Any]) -> str:
    """The command that makes these settings: what differs from the defaults, by its dotted name, into a new folder."""
    defaults = dict(_leaves(to_dict(TrainSettings(Path()))))
    words = ["pixelwise", "train", shlex.quote(str(settings.get("data", "DATA")))]
    for name, value in _leaves(settings):
        if name == "out":
            words += ["--out", shlex.quote(f"{value}-again")]
        elif name not in ("data", "resume") and value is not None and value != defaults.get(name):
            words += _option(name, value, defaults.get(name))
    return " ".join(words)


def _option(name: str, value: Any, default: Any) -> list[str]:
    group, dot, last = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool) and isinstance(default, bool):
        return [f"--{group}{dot}{last}" if value else f"--{group}{dot}no-{last}"]
    values = value if isinstance(value, (list, tuple)) else [value]
    return [f"--{group}{dot}{last}", *(shlex.quote(str(v)) for v in values)]


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every setting."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
