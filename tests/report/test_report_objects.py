"""What a report says of objects: counts, things and stuff, found and missed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.segments import NOTHING, Segments
from pixelwise.report import objects, pictures, tables, write_evaluation_report, write_training_report

CELLS = Classes(names=("cell",), things=("cell",), nothing=True)


def test_panoptic_scores_have_means_of_things_and_of_stuff(made_up: ModuleType) -> None:
    metrics, classes = made_up.scores_of("panoptic"), made_up.CLASSES
    table = tables.class_table(metrics, classes)
    assert table is not None
    assert table.kinds == ["stuff"] * 7 + ["thing"] * 3
    assert [title for title, _ in table.feet] == ["mean, sum", "stuff", "things"]
    names = [name for name, _ in table.columns]
    for (_, cells), suffix in zip(table.feet, ("", "_stuff", "_things")):
        for key, name in (("pq", "PQ"), ("sq", "SQ"), ("rq", "RQ")):
            assert cells[names.index(name)].text == f"{100 * metrics[key + suffix]:.1f}"
    found = [int(str(cells[names.index("matched")].text)) for _, cells in table.feet]
    assert found[0] == found[1] + found[2] == int(metrics["tp"].sum())


def test_other_tasks_have_one_mean(made_up: ModuleType) -> None:
    for task in ("semantic", "instance"):
        scores = made_up.evaluation(task)
        table = tables.class_table(scores.metrics, scores.classes)
        assert table is not None
        assert len(table.feet) == 1
        assert table.kinds == []


def test_the_accuracy_of_objects_is_not_called_that_of_pixels(made_up: ModuleType) -> None:
    cards = tables.headlines({"ap": 0.5, "accuracy": 0.25, "accuracy_50": 0.5}, "ap")
    assert [(c.name, c.value) for c in cards] == [
        ("AP", "50.0"), ("TP/(TP+FP+FN)", "25.0"), ("TP/(TP+FP+FN) at 50", "50.0")
    ]  # fmt: skip
    table = tables.class_table({"accuracy": np.full(10, 0.5)}, made_up.CLASSES)
    assert table is not None
    assert table.columns[0][0] == "accuracy"


def test_counts_are_drawn_with_their_mean_error() -> None:
    assert objects.counting([]) == []
    assert objects.counting([(0, 0), (0, 0)]) == []
    (chart,) = objects.counting([(3, 4), (10, 8), (0, 0)])
    assert "12 answered, 13 true in 3 images" in chart.note
    assert "off by 1.0 on average" in chart.note
    assert chart.svg.count("<use") >= 3


def test_counts_come_from_the_whole_evaluation_or_else_from_the_examples(made_up: ModuleType, tmp_path: Path) -> None:
    scores, examples = made_up.evaluation("panoptic"), made_up.examples(4, task="panoptic")
    few = write_evaluation_report(scores, examples, tmp_path / "few.html").read_text()
    pairs = objects.of_examples(examples, scores.classes)
    assert all(true > 0 for true, _ in pairs)
    assert f"{sum(f for _, f in pairs)} answered, {sum(t for t, _ in pairs)} true in 4 images" in few
    scores = replace(scores, objects=((5, 5), (7, 6)))
    assert (
        "11 answered, 12 true in 2 images"
        in write_evaluation_report(scores, examples, tmp_path / "all.html").read_text()
    )
    assert [i.get("found") for i in scores.to_dict()["per_image"]] == [5]  # the made-up scores have one image
    semantic = write_evaluation_report(made_up.evaluation("semantic"), made_up.examples(2), tmp_path / "semantic.html")
    assert "How many objects" not in semantic.read_text()


def test_a_training_report_counts_too(made_up: ModuleType, tmp_path: Path) -> None:
    folder = made_up.make_run(tmp_path / "run", task="instance")
    page = write_training_report(folder, examples=made_up.examples(3, task="instance")).read_text()
    assert "How many objects" in page


def test_examples_say_what_was_found(made_up: ModuleType) -> None:
    classes = made_up.evaluation("instance").classes
    (example,) = made_up.examples(1, task="instance")
    (figure,) = pictures.draw([example], classes)
    titles = [title for title, *_ in figure.views]
    assert titles[0] == "image"
    assert titles[1].startswith("truth: ")
    assert titles[2].startswith("prediction: ")
    assert " found" in titles[3]
    (plain,) = pictures.draw(made_up.examples(1), made_up.CLASSES)
    assert [title for title, *_ in plain.views] == ["image", "truth", "prediction", "errors"]


def test_the_legend_names_what_the_examples_show(made_up: ModuleType) -> None:
    examples = made_up.examples(2, task="panoptic")
    names = [name for name, _ in objects.legend(examples, made_up.CLASSES)]
    assert "road" in names
    assert "sign" not in names
    cells = Segments(torch.zeros((1, 8, 8), dtype=torch.int8), torch.zeros(1, dtype=torch.int64))
    assert objects.legend([made_up.Scored("a", None, cells, cells, 1.0)], CELLS) == []  # hues mean nothing there
    assert len(objects.errors(True)) == len(objects.errors(False)) + 1


def test_an_image_without_objects_and_one_with_hundreds_are_drawn(made_up: ModuleType, tmp_path: Path) -> None:
    ids = torch.full((1, 300, 400), NOTHING, dtype=torch.int16)
    empty = Segments.empty((300, 400))
    grid = torch.arange(300, dtype=torch.int16).reshape(15, 20).repeat_interleave(20, 0).repeat_interleave(20, 1)
    ids[0] = grid
    many = Segments(ids, torch.zeros(300, dtype=torch.int64), scores=torch.rand(300))
    image = np.zeros((300, 400, 3), np.uint8)
    examples = [made_up.Scored("none", image, empty, empty, math.nan), made_up.Scored("all", image, many, many, 1.0),
                made_up.Scored("lost", image, many, empty, 0.0)]  # fmt: skip
    scores = replace(made_up.evaluation("instance"), classes=CELLS, metrics={"ap": 0.5})
    page = write_evaluation_report(scores, examples, tmp_path / "cells.html").read_text()
    assert "errors: 300 found" in page
    assert "errors: 300 missed" in page
    assert "only tell neighbours apart" in page


@pytest.mark.parametrize("size", [(300, 400), (2000, 3000)])
def test_pictures_keep_their_size_and_letters(made_up: ModuleType, size: tuple[int, int]) -> None:
    ids = torch.full((1, *size), NOTHING, dtype=torch.int8)
    ids[:, size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] = 0
    one = Segments(ids, torch.zeros(1, dtype=torch.int64), scores=torch.tensor([0.5]))
    (figure,) = pictures.draw([made_up.Scored("one", np.zeros((*size, 3), np.uint8), one, one, 1.0)], CELLS)
    assert {(w, h) for *_, w, h in figure.views} == {(min(size[1], 480), min(size[0], 320))}
