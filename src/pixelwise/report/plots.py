"""Charts as inline SVG. Colours are CSS variables of the page, so that one drawing serves light and dark screens."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

SERIES = 6  # colours that the page's style names --series-1 .. --series-6
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"  # stand for CSS variables until the SVG is written
_THEME = {_INK: "var(--ink)", _MUTED: "var(--muted)", _LINE: "var(--line)"}
_THEME |= {f"#0a000{i}": f"var(--series-{i})" for i in range(1, SERIES + 1)}
_WIDTH, _HEIGHT = 5.2, 3.1  # inches of 72 units: text of 10 is legible at 330 pixels and pleasant at 560


@dataclass(frozen=True)
class Line:
    """One curve: x and y [T] of equal length (NaN leaves a gap); `faint` ones stand behind and are in no key."""

    label: str
    x: Sequence[float]
    y: Any
    colour: int = 1
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing with what is written around it: `keys` are (label, number of the series' colour)."""

    title: str
    svg: Markup
    keys: tuple[tuple[str, int], ...] = ()
    note: str = ""


def line_chart(title: str, lines: Sequence[Line], *, x_label: str, percent: bool = False, log: bool = False,
               mark: tuple[float, float] | None = None, note: str = "") -> Chart | None:  # fmt: skip
    """Curves over the training; None when none has a finite point. `mark` is a point to circle (the best one)."""
    lines = [line for line in lines if np.isfinite(np.asarray(line.y, dtype=float)).any()]
    if not lines:
        return None
    figure, axes = _axes()
    for line in lines:
        y = np.asarray(line.y, dtype=float) * (100 if percent else 1)
        colour, alone = f"#0a000{line.colour}", np.isfinite(y).sum() == 1
        axes.plot(line.x, y, color=colour, linewidth=0.8 if line.faint else 1.8, alpha=0.35 if line.faint else 1,
                  marker="o" if line.dots or alone else None, markersize=2.6, solid_capstyle="round")  # fmt: skip
    if mark is not None:
        axes.plot([mark[0]], [mark[1] * (100 if percent else 1)], "o", markersize=8, markerfacecolor="none",
                  markeredgecolor=_INK, markeredgewidth=1)  # fmt: skip
    if log and min(float(np.nanmin(np.asarray(line.y, dtype=float))) for line in lines) > 0:
        axes.set_yscale("log")
    elif percent:
        axes.set_ylim(bottom=0, top=min(100.0, axes.get_ylim()[1] * 1.02 + 1))
    axes.set_xlabel(x_label)
    words = ", ".join(_ends(line, percent) for line in lines if not line.faint)
    keys = tuple((line.label, line.colour) for line in lines if not line.faint)
    return Chart(title, _svg(figure, f"{title}: {words}"), keys, note)


def histogram(title: str, values: Sequence[float], *, x_label: str, y_label: str, note: str = "") -> Chart | None:
    """How often each value comes; whole numbers get a bar each where there are few."""
    data = np.asarray(values, dtype=float)
    if not len(data):
        return None
    low, high = data.min(), data.max()
    whole = bool((data == np.rint(data)).all()) and high - low < 40
    bins: Any = np.arange(low, high + 2) - 0.5 if whole else min(40, max(8, round(len(data) ** 0.5)))
    figure, axes = _axes()
    axes.hist(data, bins=bins, color="#0a0001", rwidth=0.86)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    words = f"{len(data)} values from {low:g} to {high:g}, median {float(np.median(data)):g}"
    return Chart(title, _svg(figure, f"{title}: {words}"), (), note or words)


def scatter(title: str, x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str, note: str = "",
            diagonal: bool = False) -> Chart:  # fmt: skip
    """One translucent dot per pair; with `diagonal` both axes are alike, and a line shows where x is y."""
    figure, axes = _axes()
    right, top = (max(1, *x, *y),) * 2 if diagonal else (max(x), max(y))
    if diagonal:
        axes.plot([0, top], [0, top], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(x, y, "o", color="#0a0001", alpha=0.35, markersize=4, markeredgewidth=0)
    axes.set_xlim(0, right * 1.08)
    axes.set_ylim(0, top * 1.08)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return Chart(title, _svg(figure, f"{title}: {note}"), (), note)


def spark(values: Any, label: str) -> Markup:
    """A curve the height of a line of text, for scores in 0..1; empty where fewer than two are finite."""
    y = np.asarray(values, dtype=float)
    points = [f"{i * 60 / max(1, len(y) - 1):.1f},{17 - v * 15:.1f}" for i, v in enumerate(y) if np.isfinite(v)]
    if len(points) < 2:
        return Markup("")
    return Markup(
        '<svg class="spark" viewBox="0 0 60 18" role="img" aria-label="{}"><polyline points="{}"/></svg>'
    ).format(label, " ".join(points))


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    axes = figure.add_axes((0.13, 0.17, 0.85, 0.79))  # fixed, so that charts side by side line up
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(colors=_MUTED, labelcolor=_MUTED, length=0, labelsize=10)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="y", color=_LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=_MUTED, size=10)
    axes.yaxis.label.set(color=_MUTED, size=10)
    axes.locator_params(axis="x", nbins=7, integer=True)
    return figure, axes


def _svg(figure: Any, label: str) -> Markup:
    """The figure as <svg> whose colours, font and size come from the page; ids are unique within a document."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pixelwise"}):
        figure.patch.set_visible(False)
        figure.axes[0].patch.set_visible(False)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for part in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"font-family: [^;\"]*;? ?", r"(?<=>)\s+(?=<)"):
        text = re.sub(part, "", text, flags=re.DOTALL)
    opening = f'role="img" aria-label="{escape(label)}"'
    text = re.sub(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', lambda found: f"<svg {found[1]} {opening}>", text, count=1)
    prefix = f"c{zlib.crc32(text.encode()):x}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}", text).replace("xlink:href", "href")
    for stand_in, variable in _THEME.items():
        text = text.replace(stand_in, variable)
    return Markup(text.strip())  # matplotlib escapes every text that it writes


def _ends(line: Line, percent: bool) -> str:
    y = np.asarray(line.y, dtype=float)
    y = y[np.isfinite(y)] * (100 if percent else 1)
    return f"{line.label} from {y[0]:.3g} to {y[-1]:.3g}{' percent' if percent else ''}"
