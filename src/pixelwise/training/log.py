"""What a training says: lines, a live bar, JSON lines, TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pixelwise.core.atomic import output_error
from pixelwise.core.jsonfile import plain
from pixelwise.errors import MissingExtraError


def numbers(scores: dict[str, Any]) -> dict[str, float]:
    """The scores that are one number each."""
    return {k: float(v) for k, v in scores.items() if isinstance(v, float) and math.isfinite(v)}


class Log:
    """Speaks on the first process only. `offset` is how much of log.jsonl belongs to the training so far."""

    def __init__(self, folder: Path, *, speaks: bool, tensorboard: bool, offset: int = 0) -> None:
        self.console = Console(quiet=not speaks, soft_wrap=True)
        self.speaks, self.path = speaks, folder / "log.jsonl"
        self._events: Any = None
        self._bar: Progress | None = None
        self._start, self._tensorboard = offset, tensorboard and speaks

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def line(self, kind: str, **values: Any) -> None:
        """One JSON line; scalars go to TensorBoard as well."""
        if not self.speaks:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, **plain(values)}) + "\n")
        except OSError as error:
            raise output_error(self.path, error) from error
        if self._events is not None:
            flat = {**values, **values.get("losses", {}), **values.get("metrics", {})}
            for name, value in flat.items():
                if isinstance(value, (int, float)) and name not in ("step", "epoch"):
                    self._events.add_scalar(f"{kind}/{name}", value, values.get("step", 0))

    @property
    def offset(self) -> int:
        return self.path.stat().st_size if self.speaks else 0

    def __enter__(self) -> Log:
        if self.speaks:
            try:
                self.path.touch()
                with self.path.open("r+b") as file:  # what was written after the state that is gone on from goes
                    file.truncate(min(self._start, self.path.stat().st_size))
            except OSError as error:
                raise output_error(self.path, error) from error
        if self._tensorboard:
            self._events = _event_writer(self.path.parent / "tensorboard")
        if self.speaks and self.console.is_terminal:
            percent, text = TextColumn("{task.percentage:3.0f} %"), TextColumn("{task.description}")
            columns = (BarColumn(28), percent, TimeElapsedColumn(), text)
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.start()
            self._bar.add_task("starting", total=1.0)
        return self

    def progress(self, share: float, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=share, description=text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._events is not None:
            self._events.close()


def _event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("TensorBoard is not installed: pip install 'pixelwise[tensorboard]'") from None
    return SummaryWriter(str(folder))


def many(count: int, noun: str) -> str:
    """'1 step', '2 steps'."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def clock(seconds: float) -> str:
    """Seconds as '1 h 02 min', '3 min 20 s' or '12 s'."""
    seconds = round(max(0.0, seconds))
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
