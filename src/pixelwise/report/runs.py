"""A run folder read back: what was asked (`run.json`) and what happened (`log.jsonl`), also when it was cut short."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.errors import DataError
from pixelwise.tasks import TASKS

PRIMARY = {name: task.primary for name, task in reversed(TASKS.items())}  # what says most first


@dataclass(frozen=True)
class Run:
    """One training.

    about        what run.json holds: settings, versions, git, data...; empty where there is no such file
    steps, evaluations   the records of log.jsonl by kind, in order of step; of a step done twice (a run that was
                 killed and resumed) the later record
    unreadable   lines of the log that are no record, other than a cut last one
    """

    folder: Path
    about: Mapping[str, Any]
    steps: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    unreadable: int = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return mapping(self.about, "settings")

    @property
    def seconds(self) -> float:
        """Time that the training has taken so far, NaN where no record says it."""
        said = [number(r.get("seconds")) for r in (*self.steps, *self.evaluations)]
        return max((s for s in said if s >= 0), default=math.nan)

    def primary(self) -> str:
        """The key of the score that picks the best model, as far as the run says it."""
        task = str(self.about.get("task") or self.settings.get("task") or "")
        if task in PRIMARY:
            return PRIMARY[task]
        seen = set().union(*(e["metrics"] for e in self.evaluations))
        return next((key for key in PRIMARY.values() if key in seen), PRIMARY["semantic"])

    def best(self) -> dict[str, Any] | None:
        """The evaluation with the best primary score (the smallest loss where the run monitors that)."""
        key, sign = ("loss", -1) if self.settings.get("monitor") == "loss" else (self.primary(), 1)
        scored = [e for e in self.evaluations if is_number(e["metrics"].get(key))]
        if scored:
            return max(scored, key=lambda e: sign * e["metrics"][key])
        return self.evaluations[-1] if self.evaluations else None

    def epochs_per_step(self) -> float:
        """What turns steps into epochs: evaluations stand at the end of one. 0 where the log does not tell."""
        for record in self.evaluations:
            step, epoch = number(record.get("step")), number(record.get("epoch"))
            if step > 0 and epoch > 0:
                return epoch / step
        return 0.0


def is_number(value: Any) -> bool:
    """Whether it is a finite number (bool is none)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any) -> float:
    """A finite number, NaN for everything else."""
    return float(value) if is_number(value) else math.nan


def mapping(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key, {} where there is none."""
    value = holder.get(key)
    return value if isinstance(value, Mapping) else {}


def read_run(folder: str | Path) -> Run:
    """Reads a run folder. Raises DataError when it is none, or when run.json is broken.

    A log whose last line is cut, as a killed process leaves it, is read up to there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; expected one that `pixelwise train --out` made.")
    about, log = folder / "run.json", folder / "log.jsonl"
    if not about.is_file() and not log.is_file():
        raise DataError(
            f"{folder}: holds neither run.json nor log.jsonl; expected a folder that `pixelwise train` made."
        )
    run = Run(folder, _read_json(about) if about.is_file() else {})
    if not log.is_file():
        return run
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    kinds = {"step": run.steps, "evaluation": run.evaluations}
    unreadable = 0
    for number, line in enumerate(lines, 1):
        record = _record(line)
        if record is None:
            unreadable += bool(line.strip()) and number < len(lines)
        elif record.get("kind") in kinds:
            _append(kinds[record["kind"]], record)
    return Run(folder, run.about, run.steps, run.evaluations, unreadable)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}). Restore it, or remove it to do without.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected an object of settings and versions.")
    return content


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    if not isinstance(record.get("metrics"), dict):
        record["metrics"] = {}
    return record


def _append(records: list[dict[str, Any]], record: dict[str, Any]) -> None:
    """Adds a record and drops those of the same or a later step: they were undone when the run was resumed."""
    step = record.get("step")
    if is_number(step):
        while records and is_number(records[-1].get("step")) and records[-1]["step"] >= step:
            records.pop()
    records.append(record)
