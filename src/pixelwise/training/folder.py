"""The run folder's `run.json`: what a training was asked and what it decided; read back to go on with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pixelwise.config import TrainSettings, from_dict, to_dict
from pixelwise.core.jsonfile import write_json
from pixelwise.core.machine import describe
from pixelwise.core.modelfile import current_versions, read_card
from pixelwise.core.types import Task
from pixelwise.data.dataset import DataSet
from pixelwise.data.statistics import Statistics
from pixelwise.errors import ConfigError, OutputError
from pixelwise.training.plan import Plan

OWN = ("data", "out", "resume")  # each call says these itself
FREE = ("device", "workers", "cache", "cache_folder", "cache_gb", "report", "tensorboard",
        "gradient_checkpointing")  # these may change when a run goes on  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A finished (or interrupted) training.

    out       its folder
    model     the best model's file, the last one's after Ctrl-C
    scores    the best scores on the validation split
    complete  False after Ctrl-C
    report    the report, where one was written (by the first process, if `report` is set)
    """

    out: Path
    model: Path
    scores: dict[str, Any]
    complete: bool
    report: Path | None = None


def state_path(out: Path) -> Path:
    """The file to resume from."""
    return out / "resume" / "state.safetensors"


def how_to_go_on(settings: TrainSettings) -> str:
    """The command line that resumes."""
    return shlex.join(["pixelwise", "train", str(settings.data), "--out", str(settings.out), "--resume"])


def resumed(settings: TrainSettings) -> tuple[TrainSettings, Plan | None]:
    """Without --resume the settings as they are, and no plan; with it those of the run in the folder, and its plan.

    Raises OutputError where the folder holds a run and --resume was not given, ConfigError where it holds none and
    --resume was, and for settings that differ from the run's.
    """
    path = settings.out / "run.json"
    if not settings.resume:
        if path.exists():
            raise OutputError(f"{settings.out} holds a run: choose another --out, or go on with it by --resume.")
        return settings, None
    if not path.exists():
        raise ConfigError(f"{settings.out} holds no run to resume (no run.json). Leave --resume out to start one.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        plan = Plan.from_dict(stored["plan"])
        own = from_dict(TrainSettings, _renamed(stored["settings"]), source=str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: not the settings of a run ({type(error).__name__}: {error}).") from None
    if own.data.resolve() != settings.data.resolve():
        raise ConfigError(f"{settings.out} was trained on {own.data}, not on {settings.data}.")
    said, held = _said(settings), _flat(to_dict(own))
    for name, value in said.items():
        if name not in (*OWN, *FREE) and value != held[name]:
            raise ConfigError(
                f"--resume goes on with the run's own settings: {name} was {held[name]}, not {value}. Leave it out, or "
                f"start another run from this one's weights (--weights {settings.out / 'last.safetensors'})."
            )
    changed = {name: getattr(settings, name) for name in (*OWN, *FREE) if name in OWN or name in said}
    return dataclasses.replace(own, **changed), plan


def _renamed(stored: dict[str, Any]) -> dict[str, Any]:
    """Settings of an earlier run, where the cache was a yes or no of the data set, in today's words."""
    data = dict(stored.get("dataset", {}))
    if "cache" not in data:
        return stored
    word = {None: "auto", True: "memory", False: "off"}[data.pop("cache")]
    return {**stored, "dataset": data, "cache": word}


def _said(settings: TrainSettings) -> dict[str, Any]:
    """The settings, by dotted name, that are not at their default."""
    default = _flat(to_dict(TrainSettings(data=settings.data)))
    return {name: value for name, value in _flat(to_dict(settings)).items() if value != default[name]}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'optim': {'clip': 1}} -> {'optim.clip': 1}"""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def write_run_json(out: Path, settings: TrainSettings, plan: Plan, task: Task, dataset: DataSet, stats: Statistics,
                   processes: int, device: torch.device) -> None:  # fmt: skip
    """Writes run.json, whole: everything needed to repeat the run."""
    data = {"format": dataset.format, "classes": dataset.classes.to_dict(), "notes": list(dataset.notes),
            "images": {name: len(records) for name, records in dataset.splits.items()},
            "statistics": stats.to_dict()}  # fmt: skip
    facts = {"settings": to_dict(settings), "plan": dataclasses.asdict(plan), "task": task.name, "data": data,
             "processes": processes, "versions": current_versions(), "git": git_state(), "machine": describe(device),
             "started": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
    write_json(out / "run.json", facts, indent=1)


@contextlib.contextmanager
def older_files_stay(settings: TrainSettings) -> Iterator[None]:
    """Adds to a failed write that nothing is lost, and how to go on."""
    try:
        yield
    except OutputError as error:
        how = f"go on with: {how_to_go_on(settings)}"
        raise OutputError(f"{error} The older files are whole; when there is room, {how}") from error


def say_thresholds(say: Callable[[str], None], model: Path, task: Task) -> None:
    """Says which thresholds the model file holds and what chose them."""
    if task.chooser() is None:
        return
    card = read_card(model)
    choice = card.training.get("choice")
    if not card.thresholds or choice is None:
        say("thresholds  the task's defaults: there is no validation image with objects to choose them on")
        return
    chosen = ", ".join(f"{name} {value:g}" for name, value in card.thresholds.items())
    say(f"thresholds  {chosen}: best for {choice['what']} on {choice['images']} validation images, "
        f"{choice['score']:.4f} ({choice['default']:.4f} at the defaults)")  # fmt: skip


def write_report(out: Path) -> Path:
    """Writes report.html into the run's folder."""
    from pixelwise.report import write_training_report  # with matplotlib, which training does without

    return write_training_report(out)


def git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it, of the folder one works in; None outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
