"""Training end to end on tiny data: what it writes, what it refuses, and that the numbers are those asked for."""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as tensors

import pixelwise
from pixelwise.config import TrainSettings, from_dict, to_dict
from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import load_model, read_card, save_model
from pixelwise.core.outputs import Dense
from pixelwise.core.sizes import SizeRule
from pixelwise.data.statistics import Statistics
from pixelwise.errors import ConfigError, DataError, MemoryLimitError, ModelFileError, OutputError
from pixelwise.tasks import make_task
from pixelwise.training import Training, checkpoint, loop, memory
from pixelwise.training.plan import weights_of

FAST = {"model": "unet", "options": ["width=4", "depth=2"], "crop": [32], "device": "cpu", "precision": "fp32",
        "workers": 0, "report": False}  # fmt: skip


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def train(data, out, **settings):
    return pixelwise.train(data, out=out, **{**FAST, "epochs": 2, **settings})


def same(one, other):
    one, other = tensors(one), tensors(other)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def first(shapes, tmp_path_factory):
    """A run of two epochs that many tests look at."""
    run = train(shapes, tmp_path_factory.mktemp("run") / "first", batch_size=2, loss="ce+0.5*dice")
    return run


def test_a_run_folder_is_whole(first):
    assert first.complete
    assert 0 <= first.scores["miou"] <= 1
    assert {p.name for p in first.out.iterdir()} == {
        "run.json",
        "log.jsonl",
        "model.safetensors",
        "last.safetensors",
        "resume",
    }
    evaluations = [line for line in log_of(first.out) if line["kind"] == "evaluation"]
    assert [(e["epoch"], e["step"]) for e in evaluations] == [(2, 6)]
    assert evaluations[0]["metrics"]["miou"] == first.scores["miou"]
    card = read_card(first.model)
    assert card.task == "semantic"
    assert card.training["scores"]["miou"] == first.scores["miou"]
    assert card.training["crop"] == [32, 32]


def test_run_json_is_enough_to_repeat_the_run(first, tmp_path):
    about = json.loads((first.out / "run.json").read_text())
    assert {"settings", "plan", "task", "data", "versions", "git", "machine", "processes", "started"} <= about.keys()
    settings = from_dict(TrainSettings, {**about["settings"], "out": str(tmp_path / "again")})
    again = Training(settings).run()
    assert same(first.model, again.model)
    assert again.scores == first.scores
    other = train(settings.data, tmp_path / "other", batch_size=2, loss="ce+0.5*dice", seed=1)
    assert not same(first.model, other.model)


def test_workers_change_nothing(first, shapes, tmp_path):
    again = train(shapes, tmp_path / "w", batch_size=2, loss="ce+0.5*dice", workers=1)
    assert same(first.model, again.model)


def test_a_folder_that_holds_a_run_is_refused(first, shapes):
    with pytest.raises(OutputError, match=r"holds a run.*--out.*--resume"):
        train(shapes, first.out)


def test_resume_refuses_what_is_not_the_same_run(first, shapes, tmp_path):
    with pytest.raises(ConfigError, match=r"epochs was 2, not 3.*--weights"):
        train(shapes, first.out, resume=True, epochs=3)
    with pytest.raises(ConfigError, match=r"optim\.clip was 1\.0, not 0\.5"):
        pixelwise.train(shapes, out=first.out, resume=True, optim={"clip": 0.5})
    with pytest.raises(ConfigError, match="was trained on"):
        pixelwise.train(tmp_path, out=first.out, resume=True)
    with pytest.raises(ConfigError, match=r"no run to resume.*run\.json"):
        train(shapes, tmp_path / "none", resume=True)


def test_resuming_a_finished_run_changes_nothing(first, shapes):
    before = (first.out / "log.jsonl").read_text(), first.model.read_bytes()
    again = pixelwise.train(shapes, out=first.out, resume=True, device="cpu")
    assert again.complete
    assert again.scores.keys() == first.scores.keys()
    assert ((first.out / "log.jsonl").read_text(), first.model.read_bytes()) == before


def test_damaged_run_folders_are_told(first, shapes, tmp_path):
    out = tmp_path / "damaged"
    (out / "resume").mkdir(parents=True)
    (out / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json: not the settings of a run"):
        train(shapes, out, resume=True)
    (out / "run.json").write_bytes((first.out / "run.json").read_bytes())
    state = (first.out / "resume" / "state.safetensors").read_bytes()
    (out / "resume" / "state.safetensors").write_bytes(state[: len(state) // 2])
    with pytest.raises(ModelFileError, match=r"state\.safetensors: not a training state.*Delete it"):
        pixelwise.train(shapes, out=out, resume=True)


def test_accumulation_equals_the_bigger_batch(shapes, tmp_path):
    """On a net without norms, steps of two batches of 1 are steps of one batch of 2 (same images, same draws)."""
    common = {"options": ["width=4", "depth=2", "norm=none"], "loss": "ce", "optim": {"ema": 0.0},
              "transforms": {"scale": [1, 1]}, "schedule": {"warmup": 0.0, "name": "constant"}, "lr": 0.003,
              "crop": [32]}  # fmt: skip
    one = train(shapes, tmp_path / "one", batch_size=2, **common)
    two = train(shapes, tmp_path / "two", batch_size=1, **{**common, "optim": {"ema": 0.0, "accumulate": 2}})
    first, second = tensors(one.out / "last.safetensors"), tensors(two.out / "last.safetensors")
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)


def test_the_rest_of_an_epoch_makes_a_step_of_its_own(shapes, tmp_path, monkeypatch):
    sums = []
    step = loop.Training._step
    monkeypatch.setattr(loop.Training, "_step", lambda self, batch: (sums.append(step(self, batch)), sums[-1])[1])
    train(shapes, tmp_path / "r", batch_size=1, epochs=1, optim={"accumulate": 4})
    assert [stepped for _, stepped in sums] == [False, False, False, True, False, True]


def test_clipping_bounds_a_step_of_plain_descent(shapes, tmp_path):
    settings = {"optim": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "ema": 0.0, "clip": 0.01}, "lr": 1.0,
                "schedule": {"name": "constant", "warmup": 0.0}, "epochs": 1, "batch_size": 6}  # fmt: skip
    training = Training(from_dict(TrainSettings, {"data": str(shapes), "out": str(tmp_path / "c"), **FAST, **settings}))
    before = [p.detach().clone() for p in training.net.parameters()]
    training.run()
    steps = [p.detach() - b for p, b in zip(training.net.parameters(), before)]
    moved = math.sqrt(sum(float(step.square().sum()) for step in steps))
    assert moved == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_every_task_trains_on_streets_through_candidates(task, streets, tmp_path, monkeypatch):
    called = []
    candidates = Dense.candidates
    monkeypatch.setattr(Dense, "candidates", lambda self, i: (called.append(i), candidates(self, i))[1])
    run = train(streets, tmp_path / task, task=task, epochs=1, batch_size=2, class_weights="median")
    key = {"semantic": "miou", "instance": "ap", "panoptic": "pq"}[task]
    assert 0 <= run.scores[key] <= 1
    assert bool(called) == (task != "semantic")
    assert read_card(run.model).task == task
    scores = pixelwise.evaluate(run.model, streets, split="test", device="cpu", boundary=False)
    assert scores.task == task
    assert math.isnan(scores.score) or 0 <= scores.score <= 1
    segments = pixelwise.load(run.model, device="cpu")(pixelwise.open_data(streets).records("test")[0].image)
    assert segments.size == (64, 128)
    assert len(segments) == 0 or int(segments.labels.max()) < len(scores.classes)


@pytest.mark.parametrize("kind", [{"channels": 1}, {"channels": 1, "bits": 16}, {"bits": 16}, {"classes": 2}], ids=str)
def test_other_kinds_of_images(kind, tmp_path, write_shapes):
    run = train(write_shapes(tmp_path / "d", **kind), tmp_path / "r", epochs=1)
    card = read_card(run.model)
    assert card.preprocessing.channels == kind.get("channels", 3)
    assert card.preprocessing.range == (65535 if kind.get("bits") == 16 else 255)
    assert "miou" in run.scores


def test_five_channels(tmp_path, write_shapes):
    run = train(write_shapes(tmp_path / "d", channels=5), tmp_path / "r", epochs=1)
    assert read_card(run.model).preprocessing.channels == 5


def test_fewer_images_than_a_batch_and_a_crop_larger_than_they_are(tmp_path, write_shapes):
    data = write_shapes(tmp_path / "d", train=3)
    run = train(data, tmp_path / "r", batch_size=8, crop=[64, 96], epochs=1)
    assert log_of(run.out)[-1]["step"] == 1


def test_weights_of_another_model_are_taken_over_but_for_the_last_layer(first, tmp_path, capsys, write_shapes):
    data = write_shapes(tmp_path / "d", classes=5)
    train(data, tmp_path / "r", weights=first.model, epochs=1, lr=1e-9, optim={"ema": 0.0})
    said = capsys.readouterr().out
    assert "dropped 2: head.weight" in said
    assert "kept" in said
    old, new = tensors(first.model), tensors(tmp_path / "r" / "last.safetensors")
    torch.testing.assert_close(new["stem.0.weight"], old["stem.0.weight"])
    assert new["head.weight"].shape[0] == 5


def test_weights_see_images_as_they_did_before(first, tmp_path, write_shapes):
    """A net that was trained on blue first goes on so, whatever the new data's mean; the crops set the scale."""
    old = tmp_path / "old.safetensors"
    net, card = load_model(first.model)
    theirs = replace(card.preprocessing, order="BGR", mean=(0.1, 0.2, 0.3), size=SizeRule(short=800, long=1333))
    save_model(old, net, replace(card, preprocessing=theirs))
    data = write_shapes(tmp_path / "d", train=2)
    train(data, tmp_path / "r", weights=old, epochs=1, batch_size=2)
    assert read_card(tmp_path / "r" / "last.safetensors").preprocessing == replace(theirs, size=None)


def test_monitoring_the_loss_keeps_the_model_of_the_lowest(shapes, tmp_path):
    run = train(shapes, tmp_path / "r", monitor="loss", epochs=3, evaluate_every=1, batch_size=2)
    evaluations = [line for line in log_of(run.out) if line["kind"] == "evaluation"]
    losses = [e["metrics"]["loss"] for e in evaluations]
    assert len(losses) == 3
    assert read_card(run.model).training["scores"]["loss"] == min(losses)
    assert read_card(run.model).training["epoch"] == 1 + losses.index(min(losses))
    assert read_card(run.out / "last.safetensors").training["epoch"] == 3


def scripted(monkeypatch, scores):
    """Evaluations that find these scores."""
    found = iter(scores)
    monkeypatch.setattr(loop, "evaluate_split", lambda *args, **kwargs: {"miou": next(found)})


def test_early_stopping(shapes, tmp_path, monkeypatch, capsys):
    scripted(monkeypatch, [0.1, 0.3, math.nan, 0.2, 0.3, 0.9])
    run = train(shapes, tmp_path / "r", epochs=30, evaluate_every=1, stop_after=3)
    assert len([line for line in log_of(run.out) if line["kind"] == "evaluation"]) == 5
    assert run.scores == {"miou": 0.3}
    assert read_card(run.model).training["epoch"] == 2
    assert "stopped early: 3 evaluations without a better one" in capsys.readouterr().out


def test_plateau_lowers_the_rate(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    scripted(monkeypatch, [0.5, 0.4, 0.4, 0.4])
    run = train(shapes, tmp_path / "r", epochs=4, evaluate_every=1, batch_size=6, lr=0.01,
                schedule={"name": "plateau", "patience": 0, "factor": 0.5, "warmup": 0.0})  # fmt: skip
    lr = [line["lr"] for line in log_of(run.out) if line["kind"] == "step"]
    assert lr == [0.01, 0.01, 0.005, 0.0025]


def test_words_are_checked_before_the_data_is_read(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "admit", None)  # would fail otherwise than by a word
    for change, word in (({"loss": "ce+dise"}, "did you mean 'dice'"), ({"model": "unett"}, "did you mean 'unet'"),
                         ({"options": ["norm=batsh"]}, "batsh"), ({"options": ["widht=4"]}, "width"),
                         ({"loss": "dice", "class_weights": "enet"}, "no term")):  # fmt: skip
        with pytest.raises(ConfigError, match=word):
            train(shapes, tmp_path / "r", **change)


def test_weights_that_are_no_numbers_are_not_saved(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Training, "_weights", lambda self: {k: v * math.nan for k, v in
                                                                 self.net.state_dict().items()})  # fmt: skip
    with pytest.raises(ConfigError, match=r"no numbers any more.*smaller --lr"):
        train(shapes, tmp_path / "r", epochs=1)
    assert not (tmp_path / "r" / "model.safetensors").exists()


def test_a_crop_of_mirrored_border_alone_is_refused(shapes, tmp_path):
    with pytest.raises(ConfigError, match="--crop 4000 4000 is more than twice as large as the images"):
        train(shapes, tmp_path / "r", epochs=1, crop=[4000])


def test_a_transform_of_ones_own_comes_last_and_the_report_is_written(shapes, tmp_path):
    seen = []

    def own(sample, rng, pick):
        seen.append((sample.size, sample.truth.size))
        return sample

    run = pixelwise.train(shapes, out=tmp_path / "r", transform=own, **{**FAST, "epochs": 1, "report": True})
    assert set(seen) == {((32, 32), (32, 32))}
    assert run.report == tmp_path / "r" / "report.html"
    assert run.report.stat().st_size > 10_000


def test_median_weights_look_at_the_images_that_hold_a_class():
    classes = Classes(names=["a", "b", "c"], things=["c"])
    none = np.zeros(3, np.int64)
    counts, seen = np.array([600, 300, 100]), np.array([1000, 1000, 200])
    stats = Statistics(counts, none, seen, none, (), none, none, {}, 1)
    settings = TrainSettings(Path("d"), class_weights="median")
    found = weights_of(settings, make_task("semantic", classes), stats)
    assert found == pytest.approx([0.5 / 0.6, 0.5 / 0.3, 1.0])  # frequencies 0.6, 0.3 and 100 / 200
    things = weights_of(settings, make_task("instance", classes), stats)
    assert things == pytest.approx([0.7 / 0.5, 0.7 / 0.9])  # c, and the rest as the ground of every image


def test_without_images_to_validate_the_last_model_is_kept(tmp_path, capsys, write_shapes):
    data = write_shapes(tmp_path / "d", val=0)
    run = train(data, tmp_path / "r", epochs=1, dataset={"val": "val"})
    assert run.model.exists()
    scored = bool(run.scores)
    said = capsys.readouterr().out
    assert scored or "the last model is kept" in said


def test_words_that_need_scores_are_refused_without_images_to_validate(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.plans, "validation", lambda dataset, settings: ())
    for settings in ({"monitor": "loss"}, {"stop_after": 2}, {"evaluate_every": 1}, {"schedule": {"name": "plateau"}}):
        with pytest.raises(ConfigError, match="needs images to validate on"):
            train(shapes, tmp_path / "r", **settings)


def test_unknown_splits_are_named(shapes, tmp_path):
    with pytest.raises(DataError, match="no split 'vla'"):
        train(shapes, tmp_path / "r", dataset={"val": "vla"})
    with pytest.raises(DataError, match=r"no split 'training'.*there are: train, val.*--dataset\.train"):
        train(shapes, tmp_path / "r", dataset={"train": "training"})


def test_a_time_budget_is_kept_and_ends_with_an_evaluation(shapes, tmp_path, monkeypatch):
    ticks = itertools.count(0, 0.05)  # seconds: a clock of its own, since a busy machine's says nothing
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    run = train(shapes, tmp_path / "r", epochs=None, minutes=0.1, batch_size=2)
    lines = log_of(run.out)
    assert lines[-1]["kind"] == "evaluation"
    steps = [line["seconds"] for line in lines if line["kind"] == "step"]
    assert steps[-2] < 6  # no step begins after the six seconds
    assert 5 < steps[-1] <= lines[-1]["seconds"] < 6.5  # and they are used


def test_gradient_checkpointing_gives_the_same_model(first, shapes, tmp_path, capsys):
    again = train(shapes, tmp_path / "c", batch_size=2, loss="ce+0.5*dice", gradient_checkpointing=True)
    assert "gradient checkpointing: 5 blocks computed again" in capsys.readouterr().out
    assert same(first.model, again.model)


def test_batch_size_is_fitted_to_memory(shapes, tmp_path, monkeypatch, capsys):
    free = 1_500_000
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    training = Training(
        from_dict(TrainSettings, {"data": str(shapes), "out": str(tmp_path / "r"), **FAST, "epochs": 1})
    )
    assert 1 <= training.plan.batch_size < 6
    assert f"batch size {training.plan.batch_size}, so that memory suffices" in capsys.readouterr().out
    with pytest.raises(MemoryLimitError, match=r"A batch of 64 needs about .*--batch-size \d+.*--crop"):
        train(shapes, tmp_path / "s", batch_size=64)
    free = 300_000
    with pytest.raises(MemoryLimitError, match=r"Not even one image fits.*--crop"):
        train(shapes, tmp_path / "s")


def test_a_loss_that_is_no_number_ends_the_run(shapes, tmp_path):
    with pytest.raises(ConfigError, match=r"The loss became (nan|inf) at step \d+.*smaller --lr"):
        train(shapes, tmp_path / "r", lr=1e30, epochs=20, optim={"clip": 0.0, "name": "sgd"}, schedule={"warmup": 0.0})


def test_precision_may_differ_from_run_to_run_in_one_process(shapes, tmp_path):
    for precision in ("bf16", "fp32"):
        run = train(shapes, tmp_path / precision, precision=precision, epochs=1)
        assert json.loads((run.out / "run.json").read_text())["plan"]["precision"] == precision
    assert not same(tmp_path / "bf16" / "model.safetensors", tmp_path / "fp32" / "model.safetensors")
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        train(shapes, tmp_path / "fp16", precision="fp16")


def test_shards_need_other_processes(shapes, tmp_path):
    with pytest.raises(ConfigError, match="torchrun"):
        train(shapes, tmp_path / "r", shard=True)


@pytest.mark.slow
def test_settings_of_every_kind_are_used(shapes, tmp_path):
    """Each of these alone changes the weights, so none is parsed and forgotten."""
    base = {"epochs": 2, "batch_size": 2, "lr": 0.003, "transforms": {"max_class_share": 1.0}}
    plain = train(shapes, tmp_path / "plain", **base)
    ways = {
        "scale": {"transforms": {"scale": [0.9, 0.9]}}, "scales": {"transforms": {"scales": [0.75]}},
        "flip": {"transforms": {"flip": 0.0}}, "vertical": {"transforms": {"vertical_flip": 1.0}},
        "rotation": {"transforms": {"rotation": 30.0}}, "elastic": {"transforms": {"elastic": 5.0}},
        "brightness": {"transforms": {"brightness": 0.0}}, "contrast": {"transforms": {"contrast": 0.0}},
        "saturation": {"transforms": {"saturation": 0.0}}, "hue": {"transforms": {"hue": 0.0}},
        "blur": {"transforms": {"blur": 1.0}}, "noise": {"transforms": {"noise": 0.1}},
        "share": {"transforms": {"max_class_share": 0.1}}, "focus": {"transforms": {"rare_focus": 1.0}},
        "decay": {"optim": {"weight_decay": 0.9}}, "ema": {"optim": {"ema": 0.0}},
        "clip": {"optim": {"clip": 1e-3, "name": "sgd"}},
        "momentum": {"optim": {"momentum": 0.5, "name": "sgd"}}, "schedule": {"schedule": {"name": "constant"}},
        "warmup": {"schedule": {"warmup": 0.5}}, "power": {"schedule": {"name": "poly", "power": 3.0}},
        "seed": {"seed": 4}, "weights": {"class_weights": "inverse"}, "balanced": {"dataset": {"balanced": True}},
        "loss": {"loss": "dice"}, "crop": {"crop": [40, 32]}, "lr": {"lr": 0.001}, "batch": {"batch_size": 3},
    }  # fmt: skip
    for name, change in ways.items():
        settings = {**base, **change}
        if "transforms" in change:
            settings["transforms"] = {**base["transforms"], **change["transforms"]}
        run = train(shapes, tmp_path / name, **settings)
        assert not same(plain.out / "last.safetensors", run.out / "last.safetensors"), name


def test_tensorboard_events(shapes, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(shapes, tmp_path / "r", tensorboard=True, batch_size=1)
    found = events.EventAccumulator(str(run.out / "tensorboard"))
    found.Reload()
    scalars = found.Tags()["scalars"]
    assert {"evaluation/miou", "step/loss", "step/lr"} <= set(scalars)
    assert found.Scalars("evaluation/miou")[-1].value == pytest.approx(run.scores["miou"])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(shapes, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission"):
        train(shapes, tmp_path / "r")


def test_a_file_in_the_folders_place(shapes, tmp_path):
    (tmp_path / "r").write_text("")
    with pytest.raises(OutputError, match="file, not a folder"):
        train(shapes, tmp_path / "r" / "s")


def test_a_full_disk_leaves_the_older_files_whole(shapes, tmp_path, monkeypatch):
    write, calls = checkpoint.atomic, []

    def full(path):
        calls.append(path)
        if len(calls) == 2:
            raise OutputError(f"{path} cannot be written: No space left on device.")
        return write(path)

    monkeypatch.setattr(checkpoint, "atomic", full)
    with pytest.raises(OutputError, match=r"No space left.*older files are whole.*--resume"):
        train(shapes, tmp_path / "r", epochs=3, evaluate_every=1)
    monkeypatch.undo()
    run = pixelwise.train(shapes, out=tmp_path / "r", resume=True, device="cpu")
    straight = train(shapes, tmp_path / "s", epochs=3, evaluate_every=1)
    assert same(run.out / "last.safetensors", straight.out / "last.safetensors")


def test_settings_round_trip_as_they_stand_in_run_json(first):
    stored = json.loads((first.out / "run.json").read_text())["settings"]
    assert to_dict(from_dict(TrainSettings, stored)) == stored
