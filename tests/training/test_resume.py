"""A training that is killed, interrupted or spread over processes goes on to the bit where it stopped."""

from __future__ import annotations

import json
import shlex
import signal

import pytest
import torch
from safetensors.torch import load_file

from pixelwise import evaluate, open_data
from pixelwise.cli import parse
from pixelwise.training import Training, loop
from pixelwise.training.interrupt import interruptible

SETTINGS = ["--model", "unet", "--options", "width=4", "depth=2", "dropout=0.3", "--crop", "32", "--device", "cpu",
            "--precision", "fp32", "--batch-size", "1", "--epochs", "3", "--evaluate-every", "2", "--workers", "1",
            "--optim.accumulate", "2", "--no-report"]  # fmt: skip


def log_of(out):
    """Everything but the clock's."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def assert_same_files(one, other):
    for name in ("last.safetensors", "model.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a), name


def run(words):
    """The training in this process, each step in the log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 1)
        return Training(parse(["train", *words])).run()


@pytest.fixture(scope="module")
def straight(shapes, tmp_path_factory):
    """The training without a break."""
    out = tmp_path_factory.mktemp("straight") / "run"
    run([str(shapes), *SETTINGS, "--out", str(out)])
    return out


@pytest.mark.parametrize(("at", "save"), [
    (9, 0.0),  # a state after each step
    pytest.param(14, 1e9, marks=pytest.mark.slow),  # back to the state of the last evaluation
    pytest.param(3, 1e9, marks=pytest.mark.slow),  # before the first state
])  # fmt: skip
def test_killed_and_resumed_to_the_bit(at, save, command, shapes, straight, tmp_path, capsys):
    out = tmp_path / "run"
    killed = command(["train", str(shapes), *SETTINGS, "--out", str(out)], kill="SIGKILL", at=at, save=save)
    assert killed.returncode == -9
    run([str(shapes), "--out", str(out), "--resume"])
    assert ("resumed   at step" in capsys.readouterr().out) == (at != 3)
    assert_same_files(out, straight)
    assert log_of(out) == log_of(straight)


@pytest.mark.parametrize(("number", "at"), [
    (signal.SIGINT, 8),  # in the second epoch
    (signal.SIGINT, 9),  # between the two batches of a step, which is finished first
    (signal.SIGTERM, 18),  # at the very last batch: there is still the evaluation to come
])  # fmt: skip
def test_interrupted_and_resumed_to_the_bit(number, at, shapes, straight, tmp_path, monkeypatch, capsys):
    out, calls, step = tmp_path / "run", [], loop.Training._step

    def count(self, batch):
        calls.append(batch)
        if len(calls) == at:
            signal.raise_signal(number)
        return step(self, batch)

    before = signal.getsignal(number)
    monkeypatch.setattr(loop.Training, "_step", count)
    stopped = run([str(shapes), *SETTINGS, "--out", str(out)])
    monkeypatch.undo()
    assert signal.getsignal(number) == before
    assert not stopped.complete
    assert len(calls) == at + at % 2
    assert stopped.model == out / "last.safetensors"
    assert stopped.model.exists()
    how = capsys.readouterr().out.split("go on with: ")[1].splitlines()[0]
    assert shlex.split(how) == ["pixelwise", "train", str(shapes), "--out", str(out), "--resume"]
    assert run(shlex.split(how)[2:]).complete
    assert_same_files(out, straight)
    assert log_of(out) == log_of(straight)


def test_a_second_ctrl_c_stops_at_once():
    with interruptible() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_start_weights_are_kept_when_killed_before_the_first_state(command, shapes, straight, tmp_path):
    words = ["train", str(shapes), *SETTINGS, "--weights", str(straight / "model.safetensors"), "--out"]
    assert command([*words, str(tmp_path / "a")]).returncode == 0
    assert command([*words, str(tmp_path / "b")], kill="SIGKILL", at=2).returncode == -9
    assert command(["train", str(shapes), "--out", str(tmp_path / "b"), "--resume"]).returncode == 0
    assert_same_files(tmp_path / "a", tmp_path / "b")


PAIR = ["--model", "unet", "--options", "width=4", "depth=2", "--crop", "32", "--device", "cpu", "--precision", "fp32",
        "--batch-size", "1", "--epochs", "2", "--workers", "0", "--no-report", "--lr", "0.003",
        "--loss", "ce"]  # fmt: skip


def test_two_processes_train_as_one(command, shapes, tmp_path):
    """Two copies with a batch of 1 (and no norm) learn what one process does with a batch of 2; 3 images to validate
    are an odd number for two, and the scores are those of one process. Dice would differ: it pools over the images that
    one process holds."""
    words = ["train", str(shapes), *PAIR, "--options", "width=4", "depth=2", "norm=none"]
    two = command([*words, "--out", str(tmp_path / "two")], processes=2)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("training  2 epochs") == 1
    words[words.index("--batch-size") + 1] = "2"
    one = command([*words, "--out", str(tmp_path / "one")])
    assert one.returncode == 0, one.stderr
    a, b = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)
    scores = evaluate(
        tmp_path / "two" / "last.safetensors", open_data(shapes), split="val", device="cpu", boundary=False
    )
    found = log_of(tmp_path / "two")[-1]["metrics"]
    assert found["images"] == 3
    assert found["miou"] == pytest.approx(scores.score, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [[], ["--shard"]], ids=["copies", "shards"])
def test_two_processes_are_resumed(shard, command, shapes, tmp_path):
    """Copies and shards: killed after a state, gone on with, the same as without a break; other numbers are refused."""
    words = ["train", str(shapes), *PAIR, "--options", "width=4", "depth=2", "dropout=0.3", *shard, "--out"]
    assert command([*words, str(tmp_path / "a")], processes=2).returncode == 0
    killed = command([*words, str(tmp_path / "b")], kill="SIGKILL", at=4, save=0.0, processes=2)
    assert killed.returncode != 0
    if not shard:
        alone = command(["train", str(shapes), "--out", str(tmp_path / "b"), "--resume"])
        assert alone.returncode == 2
        assert "belongs to world 2, this run has 1" in alone.stderr
    resumed = command(["train", str(shapes), "--out", str(tmp_path / "b"), "--resume"], processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed   at step 3" in resumed.stdout
    assert_same_files(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_two_processes_stop_together(command, shapes, tmp_path):
    """The signal reaches both, at whatever step they are: they save and leave at the same one."""
    words = ["train", str(shapes), *PAIR, "--out", str(tmp_path / "r")]
    stopped = command(words, kill="SIGINT", at=2, processes=2)
    assert "go on with: pixelwise train" in stopped.stdout, stopped.stderr
    resumed = command(["train", str(shapes), "--out", str(tmp_path / "r"), "--resume"], processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "r" / "model.safetensors").exists()
