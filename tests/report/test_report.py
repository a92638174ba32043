"""The reports as a browser and a screen reader meet them: whole, safe, self-contained, for every task and run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.data.dataset import open_data
from pixelwise.data.streets import write_streets
from pixelwise.errors import DataError, OutputError
from pixelwise.evaluation import evaluate
from pixelwise.evaluation.model import full_metrics
from pixelwise.report import examples_of_scores, write_evaluation_report, write_training_report
from pixelwise.report.matrix import confusion
from pixelwise.report.pictures import best_and_worst
from pixelwise.report.runs import read_run
from pixelwise.report.tables import HEADLINES, class_table, duration, headlines, name_of
from pixelwise.tasks import TASKS, make_task

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use", "polyline", "rect", "circle", "line"}
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Checks that tags nest, and gathers what the tests ask for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def assert_self_contained(page: Page) -> None:
    """Nothing is fetched: every link is a place in the page or holds its own data, and so is every url() of a style."""
    for _, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            value = attrs.get(name)
            assert value is None or value.startswith(("#", "data:image/")), value
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]{1,40})", page.source))
    assert "@import" not in page.source
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs in page.all("a") + page.all("use"):
        assert (attrs["href"] or "")[1:] in ids


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory, made_up: ModuleType) -> Page:
    folder = made_up.make_run(tmp_path_factory.mktemp("runs") / "first")
    path = write_training_report(folder, examples=made_up.examples(12))
    assert path == folder / "report.html"
    return Page(path)


def test_training_report_is_one_small_file_that_needs_nothing_else(training: Page) -> None:
    assert_self_contained(training)
    assert len(training.source) < 5_000_000
    assert training.source.startswith("<!DOCTYPE html>")


def test_training_report_tells_everything(training: Page, made_up: ModuleType) -> None:
    for name in made_up.CLASSES.names:
        assert name in training.words
    best = max(made_up.scores_of("semantic", shift=max(2, 40 - 3 * epoch))["miou"] for epoch in range(1, 12, 2))
    assert f"{100 * best:.1f}" in training.words
    for word in ("mIoU", "pixel accuracy", "mean Dice", "Learning rate", "Parts of the loss", "The worst", "The best",
                 "The commonest mistakes", "Objects per image", "A processor of some sort", "torch", "abc1234",
                 "optim.weight_decay", "train 40, val 10, test 20"):  # fmt: skip
        assert word in training.words, word
    assert "pixelwise train streets" in training.words
    assert "--epochs 12 --crop 96 160 --lr 0.002 --loss 'ce+0.5*dice'" in training.words
    assert "model.safetensors photo.jpg" in training.words


def test_pictures_have_alternative_texts_sizes_and_both_ends(training: Page) -> None:
    images = training.all("img")
    assert len(images) == 4 * 10
    for attrs in images:
        assert attrs["alt"]
        assert int(attrs["width"] or 0) <= 480
    for drawing in training.all("svg"):
        assert drawing["role"] == "img"
        assert drawing["aria-label"]
    shown = [name for name in (f"street/{i:04d}" for i in range(12)) if f"The image {name}" in training.source]
    assert len(shown) == 10


def test_tables_name_their_rows_and_columns(training: Page, made_up: ModuleType) -> None:
    scopes = [attrs.get("scope") for attrs in training.all("th")]
    assert None not in scopes
    assert scopes.count("row") >= 3 * len(made_up.CLASSES)
    assert training.words.count("absent") >= 2  # signs and riders never occur


def test_charts_follow_the_colours_of_the_page(training: Page) -> None:
    assert "var(--series-1)" in training.source
    assert not re.search(r"#0[1-3]0[1-3]0[1-3]|#0a000\d", training.source)


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_every_task_has_its_scores_per_class(task: str, run_folder: Callable[..., Path], made_up: ModuleType) -> None:
    page = Page(write_training_report(run_folder(task=task), examples=made_up.examples(2, task)))
    assert_self_contained(page)
    for word in {"panoptic": ("PQ", "SQ", "RQ", "matched"), "instance": ("AP50", "AP75", "AR")}[task]:
        assert word in page.words
    table = page.source[page.source.index('id="classes"') : page.source.index('id="examples"')]
    assert ("sky" in table) == (task == "panoptic")
    assert "person" in table


@pytest.mark.parametrize("task", ["semantic", "panoptic", "instance"])
def test_evaluation_report(task: str, tmp_path: Path, made_up: ModuleType) -> None:
    path = write_evaluation_report(
        made_up.evaluation(task), made_up.examples(3, task), tmp_path / "deep" / "report.html"
    )
    page = Page(path)
    assert_self_contained(page)
    assert "runs/first/model.safetensors" in page.words
    assert "streets, test" in page.words
    assert "pixelwise evaluate runs/first/model.safetensors drawn/streets --split test" in page.words
    assert ("What is taken for what" in page.words) == (task == "semantic")


def test_names_are_never_markup(tmp_path: Path, made_up: ModuleType) -> None:
    names = (EVIL, "a & b", '"quoted" name\' onload=x', "${x}{{ y }}", "中文", *made_up.CLASSES.names[5:])
    classes = Classes(names=names, things=made_up.CLASSES.things, colours=made_up.CLASSES.colours)
    folder = made_up.make_run(tmp_path / "evil<b>", classes=classes)
    bad = [made_up.Scored(EVIL, e.image, e.truth, e.prediction, e.score) for e in made_up.examples(2)]
    for path in (
        write_training_report(folder, examples=bad),
        write_evaluation_report(made_up.evaluation(classes=classes), bad, tmp_path / "e.html"),
    ):
        page = Page(path)
        assert_self_contained(page)
        assert len(page.all("script")) == 1
        assert EVIL not in page.source
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
        for name in names:
            assert name in "".join(page.text)


def test_absent_classes_and_undefined_scores_are_dashes(tmp_path: Path, made_up: ModuleType) -> None:
    nothing = np.full(len(made_up.CLASSES), math.nan)
    scores = {"iou": nothing, "dice": nothing, "miou": math.nan, "pixel_accuracy": math.nan, "fwiou": None}
    page = Page(write_evaluation_report(made_up.evaluation(metrics=scores), [], tmp_path / "report.html"))
    assert "nan" not in page.words.lower().split()
    assert page.words.count("absent") >= 2 * len(made_up.CLASSES)


def test_no_examples_leaves_the_section_out(run_folder: Callable[..., Path]) -> None:
    page = Page(write_training_report(run_folder(), examples=[]))
    assert_self_contained(page)
    assert not page.all("img")
    assert "The worst" not in page.words


def test_a_run_without_validation_says_so(run_folder: Callable[..., Path]) -> None:
    page = Page(write_training_report(run_folder(evaluate=False)))
    assert_self_contained(page)
    assert "No validation split has been scored" in page.words
    assert "Loss" in page.words


def test_a_run_without_a_finished_step_says_so(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(epochs=0, planned=5)
    page = Page(write_training_report(folder))
    assert_self_contained(page)
    assert "no step yet" in page.words
    (folder / "log.jsonl").unlink()
    assert "no step yet" in Page(write_training_report(folder)).words


def test_an_interrupted_log_is_read_up_to_its_cut(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(planned=20)
    whole = read_run(folder)
    log = folder / "log.jsonl"
    log.write_text(log.read_text()[:-40])
    cut = read_run(folder)
    assert cut.unreadable == 0
    assert cut.evaluations == whole.evaluations[:-1]
    page = Page(write_training_report(folder, examples=[]))
    assert "of 20 epochs are done" in page.words


def test_broken_lines_within_a_log_are_counted(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    log = folder / "log.jsonl"
    log.write_text("[1, 2]\n{nonsense\n" + log.read_text())
    assert "2 lines of log.jsonl are no records" in Page(write_training_report(folder, examples=[])).words


def test_steps_done_twice_count_once(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(epochs=2)
    again = {"kind": "step", "epoch": 1, "step": 40, "loss": 9.0}
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    steps = read_run(folder).steps
    assert [r["step"] for r in steps] == [10, 20, 30, 40]
    assert steps[-1]["loss"] == 9.0


def test_best_follows_what_the_run_monitors(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(evaluate=False)
    records = [{"kind": "evaluation", "epoch": e, "step": 30 * e, "metrics": {"miou": m, "loss": loss}}
               for e, m, loss in ((1, 0.3, 0.9), (2, 0.6, 1.4), (3, None, 0.2), (4, 0.5, 1.0))]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    best = read_run(folder).best()
    assert best is not None
    assert best["epoch"] == 2
    about = json.loads((folder / "run.json").read_text())
    about["settings"]["monitor"] = "loss"
    (folder / "run.json").write_text(json.dumps(about))
    best = read_run(folder).best()
    assert best is not None
    assert best["epoch"] == 3


def test_wrong_folders_are_refused_with_what_to_do(
    tmp_path: Path, run_folder: Callable[..., Path], made_up: ModuleType
) -> None:
    with pytest.raises(DataError, match="no such folder"):
        write_training_report(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither run\.json nor log\.jsonl"):
        write_training_report(tmp_path)
    folder = run_folder(epochs=1)
    (folder / "run.json").write_text("{cut")
    with pytest.raises(DataError, match=r"run\.json: is not JSON"):
        write_training_report(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_evaluation_report(made_up.evaluation(), [], tmp_path / "file" / "report.html")


def test_data_that_has_moved_is_said_not_raised(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    (folder / "model.safetensors").write_bytes(b"cut")
    assert "No images are shown" in Page(write_training_report(folder)).words


def test_large_noisy_pictures_stay_within_the_budget(tmp_path: Path, made_up: ModuleType) -> None:
    rng = np.random.default_rng(0)
    truth = Segments.from_class_map(np.zeros((630, 480), np.uint8), num_classes=2)
    noisy = [
        made_up.Scored(f"{i}", rng.integers(0, 256, (630, 480, 3), np.uint8), truth, truth, i / 10) for i in range(10)
    ]
    path = write_evaluation_report(made_up.evaluation(), noisy, tmp_path / "report.html")
    assert 1_000_000 < path.stat().st_size < 5_000_000


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_of_any_depth_and_size_are_shown(dtype: type, tmp_path: Path, made_up: ModuleType) -> None:
    shown = []
    for shape in ((1, 1), (2, 900), (40, 30, 5)):
        truth = Segments.from_class_map(np.zeros(shape[:2], np.uint8), num_classes=1)
        shown.append(made_up.Scored("x", np.ones(shape, dtype), truth, truth, 0.5))
    page = Page(write_evaluation_report(made_up.evaluation(), shown, tmp_path / "report.html"))
    assert len(page.all("img")) == 12


def test_examples_come_from_the_model_and_the_data(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    streets, folder = tmp_path / "streets", tmp_path / "run"
    write_streets(streets, train=1, val=7, test=0, size=(32, 64), seed=0)
    model = write_model(folder / "model.safetensors", classes=open_data(streets).classes)
    scores = evaluate(model, streets, split="val", boundary=False)
    shown = examples_of_scores(scores, model, streets, count=2)
    assert {e.name for e in shown} == {name for name, _ in (*scores.best(2), *scores.worst(2))}
    assert {e.name: e.score for e in shown}.items() <= dict(scores.per_image).items()
    settings = {"data": str(streets), "dataset": {"format": None, "val": "val"}}
    (folder / "run.json").write_text(json.dumps({"task": "semantic", "settings": settings}))
    page = Page(write_training_report(folder))
    assert len(page.all("img")) == 4 * 7
    assert "road" in page.words


def test_best_and_worst_never_share_an_image_and_skip_unscored_ones(made_up: ModuleType) -> None:
    truth = Segments.empty((2, 2))
    made = [made_up.Scored(str(i), None, truth, truth, score) for i, score in enumerate((0.5, math.nan, 0.1, 0.9))]
    best, worst = best_and_worst(made, 5)
    assert [e.score for e in worst] == [0.1, 0.5]
    assert [e.score for e in best] == [0.9]
    assert best_and_worst([], 5) == ([], [])


def test_confusion_is_normalised_by_the_truth_and_ranks_mistakes() -> None:
    classes = Classes(names=("a", "b"))
    found = confusion([[6, 2, 0], [5, 5, 0], [0, 0, 0]], classes)
    assert found is not None
    assert found.names == ["a", "b"]
    assert found.cells[0][0][:2] == (0.75, 6)
    assert found.worst == [("b", "a", 0.5, 5), ("a", "b", 0.25, 2)]
    with_nothing = confusion([[6, 2, 1], [5, 5, 0], [0, 0, 3]], classes)
    assert with_nothing is not None
    assert with_nothing.names == ["a", "b", "nothing"]
    assert len(with_nothing.cells) == 3
    never_true = confusion([[6, 2, 1], [5, 5, 0], [0, 0, 0]], classes)
    assert never_true is not None
    assert [len(row) for row in never_true.cells] == [3, 3]
    assert confusion(np.zeros((3, 3), int), classes) is None


def test_a_large_matrix_becomes_a_picture(tmp_path: Path, made_up: ModuleType) -> None:
    classes = Classes(names=tuple(f"class {i}" for i in range(150)))
    counts = np.random.default_rng(0).integers(0, 50, (151, 151))
    page = Page(
        write_evaluation_report(
            made_up.evaluation(classes=classes, metrics={"confusion": counts}), [], tmp_path / "r.html"
        )
    )
    assert_self_contained(page)
    assert len(page.all("img")) == 1
    assert len(page.source) < 1_000_000


def test_unknown_metrics_are_shown_by_their_own_name(made_up: ModuleType) -> None:
    table = class_table(
        {"hausdorff_score_per_class": [0.5] * len(made_up.CLASSES), "f1_per_threshold": [0.1] * 10}, made_up.CLASSES
    )
    assert table is not None
    assert [name for name, _ in table.columns] == ["hausdorff score per class"]
    assert table.feet[0][1][0].text == "50.0"


def test_headlines_begin_with_the_primary_score() -> None:
    cards = headlines({"sq": 0.8, "pq": 0.5, "rq": math.nan, "tp": [1]})
    assert [(c.name, c.unit) for c in cards] == [("PQ", "%"), ("SQ", "%"), ("RQ", "")]
    assert cards[0].value == "50.0"


def test_every_headline_is_a_score_that_some_metric_gives(made_up: ModuleType) -> None:
    _, truth = made_up.scene(0)
    known: set[str] = set()
    for name in TASKS:
        task = make_task(name, made_up.CLASSES)
        seen = task.view(truth)
        for make in full_metrics(task):
            metric = make()
            metric.update(seen, seen)
            known |= metric.compute().keys()
    assert set(HEADLINES) <= known
    assert name_of("accuracy_per_class") != name_of("accuracy"), "objects' is not the recall of pixels"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.42 s"), (42, "42 s"), (75, "1 min"), (3599, "1 h 0 min"), (7260, "2 h 1 min"), (math.nan, "–")],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
