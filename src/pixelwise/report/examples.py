"""Images answered once more for the report: those that an evaluation scored best and worst, or some of a split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from pixelwise.core.segments import Segments
from pixelwise.data.dataset import DataSet, Record, open_data
from pixelwise.evaluation import Scores, evaluate_split
from pixelwise.evaluation.model import adapt
from pixelwise.prediction import load
from pixelwise.prediction.predictor import Predictor

SAMPLED = 16  # images of a validation split that are answered for a training report


@dataclass(frozen=True, eq=False)
class Answered:
    """One image with truth and answer, as the task sees them; `score` is the task's primary score of it alone."""

    name: str
    image: Tensor
    truth: Segments
    prediction: Segments
    score: float


def examples_of_scores(
    scores: Scores, model: str | Path | Predictor, data: str | Path | DataSet, *, count: int = 5
) -> list[Answered]:
    """The `count` best and as many of the worst images of an evaluation. Raises what `load` and `open_data` raise."""
    predictor = model if isinstance(model, Predictor) else load(model)
    dataset = data if isinstance(data, DataSet) else open_data(data)
    wanted = {name for name, _ in (*scores.best(count), *scores.worst(count))}
    return answer(predictor, dataset, [r for r in dataset.records(scores.split) if r.name in wanted])


def examples_of_split(
    model: str | Path | Predictor, data: str | Path | DataSet, split: str, *, count: int = SAMPLED
) -> list[Answered]:
    """Up to `count` images spread evenly over a split. Raises what `load` and `open_data` raise."""
    predictor = model if isinstance(model, Predictor) else load(model)
    dataset = data if isinstance(data, DataSet) else open_data(data)
    records = [record for record in dataset.records(split) if record.labelled]
    rows = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int).tolist()
    return answer(predictor, dataset, [records[i] for i in rows])


def answer(predictor: Predictor, dataset: DataSet, records: Sequence[Record]) -> list[Answered]:
    """Answers and scores each of these images by itself."""
    if not records:
        return []
    pairs: dict[int, tuple[Segments, Segments]] = {}
    found = evaluate_split(
        predictor.net, adapt(dataset, predictor), records, predictor.task, predictor.card.preprocessing,
        device=predictor.device, forward=predictor.forward_batch, per_image=True,
        on_image=lambda index, record, prediction, truth: pairs.update({index: (prediction, truth)}),
    )  # fmt: skip
    answered = []
    for index, (name, score) in enumerate(found["per_image"]):
        prediction, truth = pairs[index]
        score = math.nan if score is None else float(score)
        answered.append(Answered(name, dataset.read(records[index]).image, truth, prediction, score))
    return answered
