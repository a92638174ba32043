"""`evaluate`: a model file and a data set -> `Scores`, with every metric of the model's task."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pixelwise.core.classes import Classes
from pixelwise.core.jsonfile import write_json
from pixelwise.core.sample import Preprocessing, Sample
from pixelwise.core.types import Metric, Task
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.errors import DataError
from pixelwise.evaluation.scores import Scores
from pixelwise.evaluation.split import OnImage, evaluate_split
from pixelwise.metrics import (
    AggregatedJaccard,
    BoundaryF,
    BoundaryIoU,
    CityscapesAP,
    ConfusionMatrix,
    InstanceF1,
    ObjectDice,
)
from pixelwise.prediction.amount import different_sizes
from pixelwise.prediction.images import fit_channels
from pixelwise.prediction.predictor import Predictor, load
from pixelwise.views import View


def evaluate(model: str | Path | Sequence[str | Path] | Predictor, data: str | Path | DataSet, *, split: str = "test",
             task: str | None = None, score: float | None = None, tta: str | Sequence[View] | None = None,
             device: str | torch.device | None = None,
             out: str | Path | None = None, boundary: bool = True, batch_size: int = 1, workers: int = 2,
             precision: str | None = None, engine: str | None = None, exact: bool = False,
             on_image: OnImage | None = None) -> Scores:  # fmt: skip
    """Scores of a model on a split, pooled over its images at their original size.

    model     path of a model file, of several that answer together, or a Predictor (which then has its own task, score,
              device, tta and engine)
    task      what to score, "semantic", "instance" or "panoptic"; None: what the model was trained for
    score     objects below it are no answers; None: as chosen on validation. Average precision ranks all that was found
    data      folder of a data set, or an opened one
    precision, engine, exact   see `load`; the scores say which were used
    out       folder that gets scores.json
    boundary  for the task semantic also boundary IoU and boundary F, which cost more than the rest
    on_image  see `evaluate_split`
    Where torch.distributed runs, the images are shared among the processes and all get the same Scores.
    Raises DataError when the data's classes are not the model's (they are matched by name: another order and a part of
    them are fine), when the split does not exist or has no truth; and what `load` and `open_data` raise.

    >>> evaluate("runs/first/model.safetensors", "camvid", split="test")["miou"]
    """
    predictor = model if isinstance(model, Predictor) else load(model, device, tta, task=task, score=score,
                                                                precision=precision, engine=engine,
                                                                exact=exact)  # fmt: skip
    opened = data if isinstance(data, DataSet) else open_data(data)
    records, asked = opened.records(split), predictor.task
    adapted = adapt(opened, predictor)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
    if world == 1:  # processes might choose differently, each by its own clock and image
        predictor.expect(len(records), different_sizes([record.image for record in records]))
    start = time.perf_counter()
    metrics = evaluate_split(
        predictor.net, adapted, records, asked, predictor.card.preprocessing, device=predictor.device,
        batch_size=batch_size, workers=workers, forward=predictor.forward_batch,
        metrics=full_metrics(asked, boundary=boundary), rank=rank, world=world, on_image=on_image, per_image=True,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    count, per_image, objects = metrics.pop("images"), metrics.pop("per_image"), metrics.pop("objects")
    scores = Scores(
        task=asked.name, primary=asked.primary, classes=asked.classes, metrics=metrics, per_image=tuple(per_image),
        objects=tuple(objects),
        count=count, seconds=seconds, model=_name(model),
        data=str(opened.root), split=split, tta=_describe(predictor.views),
        engine=_each(predictor, "engine"), precision=_each(predictor, "precision"), device=str(predictor.device),
        notes=(*adapted.notes, *_thresholds(predictor), _computed(predictor)),
    )  # fmt: skip
    if out is not None and rank == 0:
        write_json(Path(out) / "scores.json", scores.to_dict(), indent=1)
    return scores


def full_metrics(task: Task, *, boundary: bool = True) -> list[Callable[[], Metric]]:
    """Makers of all that is counted for a task; the first is the task's own metric."""
    count = len(task.classes)
    contours: list[Any] = [partial(BoundaryIoU, count), partial(BoundaryF, count)] if boundary else []
    further: dict[str, list[Any]] = {
        "semantic": contours,
        "instance": [partial(kind, task.classes) for kind in (InstanceF1, AggregatedJaccard, ObjectDice, CityscapesAP)],
        "panoptic": [partial(ConfusionMatrix, count)],
    }
    return [task.metric, *further[task.name]]


def _thresholds(predictor: Predictor) -> tuple[str, ...]:
    if not predictor.thresholds:
        return ()
    rest = "; AP ranks all that was found" if predictor.task.name == "instance" else ""
    return (f"Objects below these thresholds are no answers: {predictor.thresholds}{rest}.",)


def _name(model: str | Path | Sequence[str | Path] | Predictor) -> str:
    if isinstance(model, Predictor):
        return repr(model)
    return str(model) if isinstance(model, str | Path) else " + ".join(map(str, model))


def _computed(predictor: Predictor) -> str:
    """How each net was run; those of an ensemble may differ."""
    said: dict[str, None] = {}
    for member in predictor.members:
        choice, agreement = member.choice, member.engine.facts.agreement.get(member.choice.name)
        what = "the net itself" if choice.engine == "eager" else f"the engine {choice.engine}"
        alike = "" if agreement is None else f" ({agreement:.2%} of the pixels are answered as by the net in float32)"
        said[f"{what} in {choice.precision} on {choice.device}{alike}"] = None
    return f"Computed by {', '.join(said)}."


def _each(predictor: Predictor, what: str) -> str:
    return " + ".join(dict.fromkeys(getattr(member.choice, what) for member in predictor.members))


def _describe(views: Sequence[View]) -> str:
    if tuple(views) == (View(),):
        return "none"
    return ", ".join(map(str, views))


# -- the data as the model sees it ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adapted:
    """A data set read with the model's labels and channels; `notes` say what was changed."""

    dataset: DataSet
    preprocessing: Preprocessing
    labels: torch.Tensor  # [K of the data] int64 label of the model
    notes: tuple[str, ...]

    def read(self, record: Any) -> Sample:
        """Raises what reading raises, and ImageError for channels that the model cannot take."""
        sample = self.dataset.read(record)
        image = fit_channels(sample.image, self.preprocessing, str(record.image))
        truth = sample.truth
        if truth is not None:
            truth = replace(truth, labels=self.labels[truth.labels])
        return replace(sample, image=image, truth=truth)


def adapt(dataset: DataSet, predictor: Predictor) -> Adapted:
    """Raises DataError when the data's classes are not among the model's, or it lacks the instances the task needs."""
    card, own = predictor.card, dataset.classes
    labels = match_classes(own, card.classes, str(dataset.root))
    notes = []
    if own.names != card.classes.names:
        absent = [n for n in card.classes.names if n not in own.names]
        without = f"; the data has no {', '.join(absent)}" if absent else ""
        notes.append(f"The data's classes were matched to the model's by name{without}.")
    have, want = dataset.channels, card.preprocessing.channels
    if have != want:
        notes.append(f"The data has {have} channels, the model takes {want}; converted.")
    asked = predictor.task.name
    if asked != "semantic" and dataset.default_task == "semantic" and card.classes.things:
        raise DataError(
            f"{dataset.root} has class maps only; the task {asked} is scored against instances. "
            "Add instance maps, or score the task semantic (--task semantic)."
        )
    return Adapted(dataset, card.preprocessing, torch.tensor(labels, dtype=torch.int64), tuple(notes))


def match_classes(own: Classes, wanted: Classes, where: str) -> list[int]:
    """For each class of the data its label in the model, by name. Raises DataError naming those the model lacks."""
    foreign = [name for name in own.names if name not in wanted.names]
    if foreign:
        raise DataError(
            f"{where} has classes that the model does not know: {', '.join(foreign)} "
            f"(it knows {', '.join(wanted.names)}). "
            "Name them so in the data's classes.txt, or choose the model that was trained on them."
        )
    return [wanted.names.index(name) for name in own.names]
