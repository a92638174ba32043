"""The curves of a training: loss, scores, learning rate, and a small one per class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from pixelwise.core.classes import Classes
from pixelwise.report.plots import SERIES, Chart, Line, line_chart, spark
from pixelwise.report.runs import Run, is_number, number
from pixelwise.report.tables import HEADLINES, name_of

SPIKE = 25.0  # a loss that falls by more than this factor is drawn on a logarithmic axis
TRACKED = {"miou": "iou", "pq": "pq_per_class", "ap": "ap_per_class"}


def training(run: Run) -> list[Chart]:
    """All charts that the log has numbers for."""
    return [chart for chart in (_losses(run), _scores(run), _rate(run), _terms(run)) if chart is not None]


def _place(run: Run, records: list[dict[str, Any]]) -> list[float]:
    """Where records lie on the x axis: in epochs where the log tells how long one is, else in steps."""
    factor = run.epochs_per_step() or 1.0
    return [number(r.get("step")) * factor for r in records]


def _x_label(run: Run) -> str:
    return "epoch" if run.epochs_per_step() else "step"


def _values(records: list[dict[str, Any]], key: str, inside: str | None = None) -> list[float]:
    """The numbers under a key; NaN where there is none."""
    holders = [r.get(inside) if inside else r for r in records]
    return [number(h.get(key)) if isinstance(h, dict) else math.nan for h in holders]


def _losses(run: Run) -> Chart | None:
    x, raw = _place(run, run.steps), _values(run.steps, "loss")
    lines = [Line("training", x, raw, faint=True), Line("training, smoothed", x, smooth(raw))]
    x, scored = _place(run, run.evaluations), _values(run.evaluations, "loss", "metrics")
    lines.append(Line("validation", x, scored, 2, dots=True))
    finite = [v for line in lines for v in line.y if math.isfinite(v)]
    log = bool(finite) and min(finite) > 0 and max(finite) / min(finite) > SPIKE
    return line_chart("Loss", lines, x_label=_x_label(run), log=log)


def smooth(values: list[float]) -> np.ndarray:
    """Mean over a centred window of a fortieth of the curve; NaN are left out of it."""
    y = np.asarray(values, dtype=float)
    if not len(y):
        return y
    window = np.ones(max(1, len(y) // 40 * 2 + 1))
    known = np.isfinite(y)
    total = np.convolve(np.where(known, y, 0.0), window, "same")[: len(y)]
    count = np.convolve(known.astype(float), window, "same")[: len(y)]
    return np.divide(total, count, out=np.full(len(y), np.nan), where=count > 0)


def _scores(run: Run) -> Chart | None:
    primary, best = run.primary(), run.best()
    keys = [primary, *(k for k in HEADLINES if k != primary)]
    known = [k for k in keys if any(is_number(e["metrics"].get(k)) for e in run.evaluations)][:4]
    x, lines = _place(run, run.evaluations), []
    for key, colour in zip(known, (1, 3, 4, 5)):
        lines.append(Line(name_of(key)[0], x, _values(run.evaluations, key, "metrics"), colour, dots=key == primary))
    mark, note = None, ""
    if best is not None and is_number(best["metrics"].get(primary)):
        score = float(best["metrics"][primary])
        mark = (_place(run, [best])[0], score)
        note = f"The circle marks the weights that were kept: {name_of(primary)[0]} {100 * score:.1f} percent."
    title = "Scores on the validation split, percent"
    return line_chart(title, lines, x_label=_x_label(run), percent=True, mark=mark, note=note)


def _rate(run: Run) -> Chart | None:
    line = Line("learning rate", _place(run, run.steps), _values(run.steps, "lr"), 4)
    return line_chart("Learning rate", [line], x_label=_x_label(run))


def _terms(run: Run) -> Chart | None:
    """The parts of the loss where there are several."""
    names = list(dict.fromkeys(n for r in run.steps for n in (r.get("losses") or {})))
    if len(names) < 2:
        return None
    x = _place(run, run.steps)
    lines = [Line(n, x, smooth(_values(run.steps, n, "losses")), 1 + i % SERIES) for i, n in enumerate(names)]
    return line_chart("Parts of the loss, smoothed", lines, x_label=_x_label(run))


def sparks(run: Run, classes: Classes) -> list[Markup]:
    """[K] small curves of each class's own score over the evaluations; none where there are fewer than two."""
    primary = run.primary()
    rows = [e["metrics"].get(TRACKED[primary]) for e in run.evaluations] if primary in TRACKED else []
    rows = [r for r in rows if isinstance(r, list) and len(r) == len(classes)]
    if len(rows) < 2:
        return []
    table = np.array([[number(v) for v in row] for row in rows])  # [evaluations, K]
    label = f"{name_of(primary)[0]} of {{}} over the training"
    return [spark(table[:, k], label.format(name)) for k, name in enumerate(classes.names)]
