"""The reports: of a training and of an evaluation, each one HTML file that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pixelwise import __version__
from pixelwise.config import parse_options
from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import read_card
from pixelwise.data.dataset import open_data
from pixelwise.errors import PixelwiseError
from pixelwise.evaluation import Scores
from pixelwise.report import commands as lines_to_type
from pixelwise.report import curves, frequencies, matrix, objects, pictures, tables
from pixelwise.report.examples import examples_of_split
from pixelwise.report.pictures import Example
from pixelwise.report.runs import PRIMARY, Run, is_number, mapping, number, read_run
from pixelwise.tasks import make_task

SHOWN = 5  # examples from either end


def write_training_report(
    run_folder: str | Path,
    *,
    examples: Sequence[Example] | None = None,
    statistics: Any = None,
    path: str | Path | None = None,
) -> Path:
    """Writes `report.html` into a run folder (or to `path`), and returns where it is.

    examples    scored images; the best and the worst are shown. None: the run's best model answers some images of its
                validation split; where that cannot be, the report says why
    statistics  of the training split, as `Statistics` or its `to_dict()`; by default those in run.json
    Works on a run in progress or cut short. Raises DataError for a folder that is no run, OutputError when the file
    cannot be written.
    """
    run = read_run(run_folder)
    notices = _state(run)
    of_data = _classes_of_data(run, notices)
    classes = _task_classes(run, of_data)
    if examples is None:
        examples = _answers(run, notices)
    best, data = run.best(), mapping(run.about, "data")
    metrics = best["metrics"] if best else {}
    when = f"after epoch {best['epoch']}" if best and is_number(best.get("epoch")) else "so far"
    cards = tables.headlines(metrics, run.primary()) if metrics else []
    if cards:
        cards[0] = replace(cards[0], note=f"on the validation split, best {when}")
    page = {
        "kicker": "Training report",
        "title": run.folder.resolve().name,
        "facts": _training_facts(run, data),
        "notices": notices,
        "cards": cards,
        "charts": curves.training(run),
        "counts": objects.counting(objects.of_examples(examples, classes)),
        "table": tables.class_table(metrics, classes) if classes else None,
        "table_note": f"On the validation split with the weights that were kept, those {when}.",
        "sparks": curves.sparks(run, classes) if classes else [],
        "confusion": matrix.confusion(metrics.get("confusion"), classes) if classes else None,
        "data": frequencies.summary(statistics if statistics is not None else data.get("statistics"), of_data),
        "commands": lines_to_type.of_run(run),
        "groups": _groups(run.about),
    }
    return _write(page, path or run.folder / "report.html", examples, classes, run.primary())


def write_evaluation_report(
    scores: Scores,
    examples: Sequence[Example],
    path: str | Path,
    *,
    statistics: Any = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the report of an evaluation to `path`, and returns it.

    examples    scored images with truth and prediction; the best and the worst are shown
    statistics  of the split, as `Statistics` or its `to_dict()`, or None
    about       more to tell: plain values stand at the head of the page, mappings become groups of settings
    Raises OutputError when the file cannot be written.
    """
    about = dict(about or {})
    facts = {"model": scores.model, "data": scores.data, "split": scores.split, "images": scores.count,
             "time": tables.duration(scores.seconds), "test-time augmentation": scores.tta}  # fmt: skip
    facts |= {k.replace("_", " "): v for k, v in about.items() if not isinstance(v, Mapping) and v is not None}
    metrics, classes = scores.metrics, scores.classes
    page = {
        "kicker": f"{scores.task.capitalize()} evaluation",
        "title": f"{Path(scores.data).name}, {scores.split}",
        "facts": [(name, str(value)) for name, value in facts.items()],
        "notices": list(scores.notes),
        "cards": tables.headlines(metrics, scores.primary),
        "charts": [],
        "counts": objects.counting(scores.objects or objects.of_examples(examples, classes)),
        "table": tables.class_table(metrics, classes),
        "table_note": "Pooled over all images of the split.",
        "sparks": [],
        "confusion": matrix.confusion(metrics.get("confusion"), classes),
        "data": frequencies.summary(statistics, classes),
        "commands": lines_to_type.of_evaluation(scores),
        "groups": _groups({k: v for k, v in about.items() if isinstance(v, Mapping)}),
    }
    return _write(page, path, examples, classes, scores.primary)


def _write(
    page: dict[str, Any], path: str | Path, examples: Sequence[Example], classes: Classes | None, primary: str
) -> Path:
    """Adds the pictures, fills the template in and writes the file whole or not at all."""
    best, worst = pictures.best_and_worst(examples, SHOWN) if classes is not None else ([], [])
    figures = pictures.draw([*worst, *best], classes) if classes is not None else []
    page |= {
        "worst": figures[: len(worst)],
        "best": figures[len(worst) :],
        "legend": objects.legend([*worst, *best], classes),
        "error_legend": objects.errors(bool(page["counts"])),
        "score_name": tables.name_of(primary)[0],
        "confusion_picture": matrix.picture(page["confusion"]),
        "version": __version__,
    }
    templates = FileSystemLoader(Path(__file__).parent)
    world = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = world.get_template("page.html").render(**page, percent=tables.percent, short=tables.short)
    with atomic(path) as part:
        part.write_text(html, encoding="utf-8")
    return Path(path)


def _answers(run: Run, notices: list[str]) -> Sequence[Example]:
    """What the run's best model answers to images of the validation split; where that cannot be, a notice says why."""
    model, data = run.folder / "model.safetensors", run.settings.get("data")
    if not model.is_file() or not data:
        return ()
    choice = mapping(run.settings, "dataset")
    try:
        dataset = open_data(data, choice.get("format"), **parse_options(tuple(choice.get("options") or ())))
        split = str(choice.get("val") or "val")
        return examples_of_split(model, dataset, split) if split in dataset.splits else ()
    except PixelwiseError as error:
        notices.append(f"No images are shown: {error}")
        return ()


def _classes_of_data(run: Run, notices: list[str]) -> Classes | None:
    """The data's classes from run.json, else from the model file; a model file that cannot be read is said aloud."""
    told = mapping(run.about, "data").get("classes")
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


def _state(run: Run) -> list[str]:
    """What a reader must know about the state of the run."""
    notices = []
    planned = number(mapping(run.about, "plan").get("epochs") or run.settings.get("epochs"))
    records = [r for r in (*run.steps, *run.evaluations) if is_number(r.get("epoch"))]
    done = max((int(r["epoch"]) for r in records), default=0)
    if not run.steps and not run.evaluations:
        notices.append("The log holds no step yet.")
    elif not run.evaluations:
        notices.append("No validation split has been scored, so there are no scores here.")
    if records and done < planned:
        notices.append(
            f"{done} of {planned:.0f} epochs are done: the run goes on, or was stopped; --resume continues it."
        )
    if run.unreadable:
        notices.append(f"{run.unreadable} lines of log.jsonl are no records and were left out.")
    if not run.about:
        notices.append("There is no run.json in the folder: settings and versions are not known.")
    return notices


def _training_facts(run: Run, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings, images = run.settings, mapping(data, "images")
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
    """What run.json holds as (title, pairs), without the tables that are shown elsewhere."""
    groups, rest = [], []
    for key, value in about.items():
        if isinstance(value, Mapping):
            plain = {k: v for k, v in value.items() if k not in ("classes", "statistics")}
            groups.append((key.replace("_", " "), tables.lines(plain)))
        elif value not in (None, ""):
            rest.append((key.replace("_", " "), str(value)))
    return groups + ([("run", rest)] if rest else [])
