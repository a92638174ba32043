"""How far a prediction is, for people at a terminal: images and tiles done, their rate, the time left."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.progress import Task as Bar
from rich.text import Text


class Rate(ProgressColumn):
    """Images or tiles a second, or seconds each where they are slow."""

    def render(self, task: Bar) -> Text:
        if not task.speed:
            return Text("")
        one = task.fields["one"]
        return Text(f"{task.speed:.1f} {one}s/s" if task.speed >= 1 else f"{1 / task.speed:.1f} s/{one}")


class Progress:
    """Bars on a terminal; where the output is no terminal, nothing. Used with `with`.

    Its `on_image` and `on_tile` are what `predict_folder` calls.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        name = TextColumn("{task.description}", markup=False)  # of a file, which may have brackets
        columns = (name, BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
        self.bars = Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.images = self.bars.add_task("images", total=None, one="image")
        self.tiles = self.bars.add_task("tiles", total=None, one="tile", visible=False)

    def on_image(self, done: int, total: int, image: Path) -> None:
        """After each image: `done` of `total`."""
        self.bars.update(self.images, completed=done, total=total, description=image.name)
        self.bars.reset(self.tiles, visible=False)

    def on_tile(self, done: int, total: int, image: Path) -> None:
        """After each tile of a large image: `done` of `total`."""
        self.bars.update(self.tiles, completed=done, total=total, description=image.name, visible=True)

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.bars.stop()
