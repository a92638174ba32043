"""Thresholds from a training to the model file, and from there to predict and evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pixelwise.cli import main
from pixelwise.core.modelfile import read_card
from pixelwise.errors import ConfigError
from pixelwise.evaluation import evaluate
from pixelwise.prediction import load

SETTINGS = ["--model", "unet", "--options", "width=4", "depth=2", "--epochs", "2", "--crop", "64", "--batch-size", "2",
            "--workers", "0", "--device", "cpu", "--no-report", "--lr", "0.003"]  # fmt: skip


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert not end.value.code


@pytest.fixture(scope="module", params=["instance", "panoptic"])
def trained(request: pytest.FixtureRequest, streets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(request.param) / "run"
    torch.manual_seed(0)
    run("train", str(streets), "--task", request.param, *SETTINGS, "--out", str(out))
    return out


def test_the_model_file_holds_what_is_best_on_validation(trained: Path, streets: Path) -> None:
    card = read_card(trained / "model.safetensors")
    choice = card.training["choice"]
    assert card.thresholds == choice["thresholds"]
    assert card.thresholds.keys() == {"score", "min_area"}
    assert choice["images"] == 3
    assert choice["score"] >= choice["default"]
    key = {"instance": "accuracy", "panoptic": "pq"}[card.task]
    scores = evaluate(trained / "model.safetensors", streets, split="val", device="cpu")
    assert scores[key] == pytest.approx(choice["score"], abs=1e-4)  # batches of another size round differently
    assert load(trained / "model.safetensors", "cpu").task.score == card.thresholds["score"]
    said = json.loads((trained / "run.json").read_text())
    assert said["task"] == card.task


def test_ap_ranks_all_that_was_found_whatever_the_threshold(trained: Path, streets: Path) -> None:
    model = trained / "model.safetensors"
    low, high = (evaluate(model, streets, split="val", device="cpu", score=score) for score in (0.0, 1.0))
    if low.task == "instance":
        assert low["ap"] == high["ap"] or torch.tensor([low["ap"], high["ap"]]).isnan().all()
        assert high["accuracy_50"] == 0.0
    else:
        assert high["pq_things"] == 0.0
    assert any("score 1" in note for note in high.notes)


def test_predict_and_evaluate_say_and_take_a_score(trained: Path, streets: Path, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    model, images = str(trained / "model.safetensors"), str(next(iter(sorted(streets.rglob("*leftImg8bit.png")))))
    run("predict", model, images, "--out", str(tmp_path / "a"), "--device", "cpu")
    chosen = read_card(model).thresholds["score"]
    assert f"score {chosen:g} (chosen on validation)" in capsys.readouterr().out
    run("predict", model, images, "--out", str(tmp_path / "b"), "--device", "cpu", "--score", "1")
    assert "score 1," in capsys.readouterr().out
    run("evaluate", model, str(streets), "--split", "val", "--out", str(tmp_path / "c"), "--device", "cpu",
        "--score", "1", "--no-report")  # fmt: skip
    assert any("score 1," in note for note in json.loads((tmp_path / "c" / "scores.json").read_text())["notes"])


def test_train_says_what_it_chose(trained: Path, streets: Path, tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    task = read_card(trained / "model.safetensors").task
    run("train", str(streets), "--task", task, *SETTINGS, "--epochs", "1", "--out", str(tmp_path / "again"))
    said = capsys.readouterr().out
    assert "thresholds  score " in said
    assert "on 3 validation images" in said


def test_a_task_without_thresholds_takes_no_score(tmp_path: Path, shapes: Path) -> None:
    run("train", str(shapes), *SETTINGS, "--epochs", "1", "--crop", "32", "--out", str(tmp_path / "run"))
    model = tmp_path / "run" / "model.safetensors"
    assert load(model, "cpu").thresholds == ""
    with pytest.raises(ConfigError, match="answers no objects"):
        load(model, "cpu", score=0.5)
    with safe_open(str(model), framework="pt") as file:
        assert json.loads(file.metadata()["card"])["card"]["thresholds"] == {}
