"""Bars where there is a terminal, silence where there is none."""

import io
from pathlib import Path

from rich.console import Console

from pixelwise.prediction.progress import Progress


def shown(terminal):
    text = io.StringIO()
    with Progress(Console(file=text, force_terminal=terminal, width=100)) as progress:
        for done in range(1, 4):
            progress.on_image(done, 4, Path(f"{done}.png"))
        progress.on_tile(2, 9, Path("huge.tif"))
        progress.bars.refresh()
        state = [(bar.description, bar.completed, bar.total, bar.visible) for bar in progress.bars.tasks]
    return text.getvalue(), state


def test_bars_on_a_terminal():
    text, state = shown(True)
    assert state == [("3.png", 3, 4, True), ("huge.tif", 2, 9, True)]
    assert "3/4" in text
    assert "2/9" in text


def test_silence_elsewhere():
    assert shown(False)[0] == ""


def test_names_with_brackets_are_shown_as_they_are():
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with Progress(console) as progress:
        progress.on_image(1, 2, Path("scan[red].png"))
        progress.bars.refresh()
    assert "scan[red].png" in shown.getvalue()
