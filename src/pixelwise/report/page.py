"""The reports: of a training and of an evaluation, each one HTML file that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pixelwise import __version__
from pixelwise.core import drawing
from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import read_card
from pixelwise.errors import PixelwiseError
from pixelwise.report import commands as lines_to_type
from pixelwise.report import curves, frequencies, pictures, tables
from pixelwise.report.pictures import Example
from pixelwise.report.runs import PRIMARY, Run, is_number, read_run
from pixelwise.tasks import make_task

SHOWN = 5  # examples from either end


def write_training_report(
    run_folder: str | Path,
    *,
    examples: Sequence[Example] = (),
    classes: Classes | None = None,
    statistics: Any = None,
    path: str | Path | None = None,
) -> Path:
    """Writes `report.html` into a run folder (or to `path`), and returns where it is.

    examples    scored images; the best and the worst are shown
    classes     those of the task, which the scores and examples have; by default as run.json or the model file tells
    statistics  of the training split, as `Statistics` or its `to_dict()`; by default those in run.json
    Works on a run in progress or cut short. Raises DataError for a folder that is no run, OutputError when the file
    cannot be written.
    """
    run = read_run(run_folder)
    notices: list[str] = []
    of_data = _classes_of_data(run, notices)
    classes = classes or _task_classes(run, of_data)
    best = run.best()
    metrics = best["metrics"] if best else {}
    plan, data = _mapping(run.about, "plan"), _mapping(run.about, "data")
    notices += _state(run, plan)
    epoch = f" of epoch {best['epoch']}" if best and is_number(best.get("epoch")) else ""
    page = {
        "kicker": "Training report",
        "title": run.folder.resolve().name,
        "facts": _training_facts(run, data),
        "notices": notices,
        "cards": tables.headlines(metrics, run.primary()) if metrics else [],
        "charts": curves.training(run),
        "table": tables.class_table(metrics, classes) if classes else None,
        "table_note": f"Scores on the validation images with the weights{epoch}, the best so far.",
        "sparks": curves.sparks(run, classes) if classes else [],
        "confusion": tables.confusion(metrics.get("confusion"), classes) if classes else None,
        "data": frequencies.summary(statistics if statistics is not None else data.get("statistics"), of_data),
        "commands": lines_to_type.of_run(run),
        "groups": _groups(run.about),
    }
    if page["cards"] and epoch:
        page["cards"][0] = tables.Card(**{**vars(page["cards"][0]), "note": f"best, after epoch {best['epoch']}"})  # type: ignore[index]
    return _write(page, path or run.folder / "report.html", examples, classes, run.primary())


def write_evaluation_report(
    scores: Mapping[str, Any],
    examples: Sequence[Example],
    path: str | Path,
    *,
    classes: Classes,
    task: str | None = None,
    title: str = "Evaluation",
    about: Mapping[str, Any] | None = None,
    statistics: Any = None,
    commands: Sequence[tuple[str, str]] = (),
) -> Path:
    """Writes the report of an evaluation to `path`, and returns it.

    scores      what the task's metric computed
    examples    scored images with truth and prediction; the best and the worst are shown
    classes     those of the task
    about       facts for the head of the page (plain values: model, data, split, images, seconds, machine), and mappings,
                which are listed as groups of settings
    statistics  of the split, as `Statistics` or its `to_dict()`, or None
    commands    (what it does, command line) pairs to print
    Raises OutputError when the file cannot be written.
    """
    about = dict(about or {})
    primary = PRIMARY.get(task or "") or next((k for k in tables.PRIMARY if k in scores), "miou")
    facts = [(_words(k), _fact(k, v)) for k, v in about.items() if not isinstance(v, Mapping) and v is not None]
    page = {
        "kicker": f"{task.capitalize()} evaluation" if task else "Evaluation",
        "title": title,
        "facts": facts,
        "notices": [],
        "cards": tables.headlines(scores, primary),
        "charts": [],
        "table": tables.class_table(scores, classes),
        "table_note": "Pooled over all images that were scored.",
        "sparks": [],
        "confusion": tables.confusion(scores.get("confusion"), classes),
        "data": frequencies.summary(statistics, classes),
        "commands": list(commands),
        "groups": _groups({k: v for k, v in about.items() if isinstance(v, Mapping)}),
    }
    return _write(page, path, examples, classes, primary)


def _write(page: dict[str, Any], path: str | Path, examples: Sequence[Example], classes: Classes | None, primary: str) -> Path:
    """Adds the pictures, fills the template in and writes the file whole or not at all."""
    best, worst = pictures.best_and_worst(examples, SHOWN) if classes is not None else ([], [])
    figures = pictures.draw([*worst, *best], classes) if classes is not None else []
    errors = (("false: predicted where there is nothing", drawing.FALSE), ("missed: nothing predicted", drawing.MISSED),
              ("taken for another class", drawing.CONFUSED), ("unknown, does not count", drawing.UNKNOWN_COLOUR))  # fmt: skip
    page |= {
        "worst": figures[: len(worst)],
        "best": figures[len(worst) :],
        "legend": [(n, tables.css(c)) for n, c in zip(classes.names, classes.colours)] if classes is not None else [],
        "error_legend": [(name, tables.css(colour)) for name, colour in errors],
        "score_name": tables.name_of(primary)[0],
        "confusion_picture": _confusion_picture(page["confusion"]),
        "version": __version__,
    }
    here = Path(__file__).parent
    world = Environment(loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = world.get_template("page.html").render(**page, percent=tables.percent, short=tables.short)
    with atomic(path) as part:
        part.write_text(html, encoding="utf-8")
    return Path(path)


def _confusion_picture(matrix: tables.Confusion | None) -> str | None:
    """A matrix too large for a table as a picture: the tint of each cell, the diagonal green, mistakes red."""
    if matrix is None or len(matrix.names) <= tables.CELLS + 1:
        return None
    strength = np.array([[cell[2] for cell in row] for row in matrix.cells])[:, :, None]
    tint = np.where(np.eye(len(strength), dtype=bool)[:, :, None], (10.0, 127.0, 120.0), (211.0, 83.0, 29.0))
    cells = np.rint(255 + (tint - 255) * strength).astype(np.uint8)
    zoom = max(1, 800 // len(cells))
    return pictures.png(cv2.resize(cells, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST))


def _classes_of_data(run: Run, notices: list[str]) -> Classes | None:
    """The data's classes from run.json, else from the model file; a model file that cannot be read is said aloud."""
    told = _mapping(run.about, "data").get("classes")
    if isinstance(told, Mapping):
        return Classes.from_dict(told)
    model = run.folder / "model.safetensors"
    if not model.is_file():
        notices.append("Neither run.json nor a model file names the classes, so there is no table of them.")
        return None
    try:
        return read_card(model).classes
    except PixelwiseError as error:
        notices.append(f"The names of the classes could not be read: {error}")
        return None


def _task_classes(run: Run, classes: Classes | None) -> Classes | None:
    """Of the data's classes those that the task scores (for instances the things)."""
    task = run.about.get("task")
    return make_task(task, classes).classes if classes is not None and task in PRIMARY else classes


def _state(run: Run, plan: Mapping[str, Any]) -> list[str]:
    """What a reader must know about the state of the run."""
    notices = []
    planned, records = plan.get("epochs"), [r for r in (*run.steps, *run.evaluations) if is_number(r.get("epoch"))]
    done = max((int(r["epoch"]) for r in records), default=0)
    if not run.steps and not run.evaluations:
        notices.append("The log holds no step yet.")
    elif not run.evaluations:
        notices.append("No evaluation on a validation split has been done, so there are no scores and the last weights are kept.")
    if is_number(planned) and records and done < planned:
        notices.append(f"The run is in epoch {done + 1} of {planned}, or stopped there; --resume goes on where it stopped.")
    if run.unreadable:
        notices.append(f"{run.unreadable} lines of log.jsonl are no records and were left out.")
    if not run.about:
        notices.append("There is no run.json in the folder: settings and versions are not known.")
    return notices


def _training_facts(run: Run, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings, images = run.settings, _mapping(data, "images")
    facts = [
        ("task", run.about.get("task")),
        ("model", settings.get("model")),
        ("data", settings.get("data")),
        ("images", ", ".join(f"{name} {count}" for name, count in images.items())),
        ("time", tables.duration(run.seconds) if math.isfinite(run.seconds) else None),
        ("machine", run.about.get("machine")),
        ("started", str(run.about.get("started") or "").replace("T", " ").replace("+00:00", " UTC")),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _groups(about: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The settings and what else run.json holds as (title, pairs); long tables that are shown elsewhere are left out."""
    groups, rest = [], []
    for key, value in about.items():
        if isinstance(value, Mapping):
            plain = {k: v for k, v in value.items() if k not in ("classes", "statistics")}
            groups.append((_words(key), tables.lines(plain)))
        elif value not in (None, ""):
            rest.append((_words(key), str(value)))
    return groups + ([("run", rest)] if rest else [])


def _mapping(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, Mapping) else {}


def _words(key: str) -> str:
    return "time" if key == "seconds" else key.replace("_", " ")


def _fact(key: str, value: Any) -> str:
    return tables.duration(float(value)) if key == "seconds" else str(value)
