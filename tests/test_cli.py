"""The command line: quick help, the nearest word, one line for an error, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pixelwise import cli
from pixelwise.cli import main, parse
from pixelwise.data.io import write_png
from pixelwise.errors import DataError


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pixelwise", *words], capture_output=True, text=True, timeout=120)


def test_help_is_quick():
    """Seconds of this process' children: another's load on the machine does not count."""
    spent = []
    for words in ((), ("train", "--help"), ("--help",)):
        before, wall = os.times(), time.monotonic()
        assert run(*words).returncode == 0
        after = os.times()
        busy = after.children_user + after.children_system - before.children_user - before.children_system
        spent.append(min(busy, time.monotonic() - wall))
    assert min(spent) < 0.5


def test_help_imports_nothing_heavy():
    code = ("import sys\nfrom pixelwise.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass\n"
            "print(*{m.split('.')[0] for m in sys.modules}, file=sys.stderr)")  # fmt: skip
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(found.stderr.split()) & {"torch", "numpy", "cv2", "accelerate", "timm"}
    for word in ("check", "train", "evaluate", "predict", "list"):
        assert word in found.stdout


@pytest.mark.parametrize(("words", "nearest"), [
    (["train", "d", "--epoch", "3"], "--epochs"), (["train", "d", "--optim.clp", "1"], "--optim.clip"),
    (["train", "d", "--task", "panoptik"], "panoptic"), (["predict", "m", "i", "--overlays"], "overlay"),
    (["train", "d", "--epochs", "many"], "epochs"), (["trian", "d"], "train"), (["train"], "PATH"),
])  # fmt: skip
def test_words_that_are_none(words, nearest, capfd):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert nearest in capfd.readouterr().err


def test_dotted_names_reach_the_settings():
    words = ["train", "d", "--optim.name", "sgd", "--optim.ema", "0.9", "--schedule.power", "2", "--dataset.balanced",
             "--transforms.scale", "0.5", "2", "--crop", "64", "--options", "width=4", "norm=group", "--no-report",
             "--cache", "off", "--minutes", "None", "--weights", "m.safetensors"]  # fmt: skip
    settings = parse(words)
    assert (settings.data, settings.weights) == (Path("d"), Path("m.safetensors"))
    assert (settings.optim.name, settings.optim.ema, settings.schedule.power) == ("sgd", 0.9, 2.0)
    assert settings.dataset.balanced is True
    assert settings.cache == "off"
    assert settings.transforms.scale == (0.5, 2.0)
    assert (settings.crop, settings.options, settings.report) == ((64,), ("width=4", "norm=group"), False)


def test_the_other_commands():
    assert parse(["evaluate", "m", "d", "--split", "val"]).split == "val"
    predict = parse(["predict", "m", "a.png", "b", "--out", "o", "--no-overlay"])
    assert (predict.images, predict.out, predict.overlay) == ((Path("a.png"), Path("b")), Path("o"), False)
    assert parse(["predict", "m", "a.png", "--save", "classes", "panoptic"]).save == ("classes", "panoptic")
    assert parse(["check", "d", "--quick", "--json"]).json
    assert parse(["list", "losses"]).what == "losses"


def leave(words: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        main(words)
    return left.value.code


def test_errors_are_a_line_or_two(tmp_path, capsys):
    assert leave(["train", str(tmp_path / "none")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("pixelwise: ")
    assert str(tmp_path / "none") in said.err
    assert len(said.err.splitlines()) <= 2
    assert "Traceback" not in said.err
    assert leave(["train", str(tmp_path), "--epochs", "2", "--minutes", "2"]) == 2
    assert "not both" in capsys.readouterr().err
    assert leave(["predict", str(tmp_path / "m.safetensors"), "x.png"]) == 2
    assert "m.safetensors" in capsys.readouterr().err


def test_debug_shows_where(tmp_path):
    found = run("train", str(tmp_path / "none"), "--debug")
    assert found.returncode != 0
    assert "Traceback" in found.stderr
    assert "DataError" in found.stderr
    with pytest.raises(DataError, match="none"):
        main(["check", "--debug", str(tmp_path / "none")])


def test_ctrl_c(monkeypatch, capsys):
    def stop(command):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.RUN, cli.List, stop)
    assert leave(["list", "models"]) == 130
    assert capsys.readouterr().err == "pixelwise: stopped\n"


def test_a_reader_that_has_gone_is_no_error():
    code = "from pixelwise import cli; cli.RUN[cli.List] = lambda c: print('x' * 99999); cli.main(['list', 'losses'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait() == 0, said
    assert "Traceback" not in said
    assert "Exception" not in said


def test_convert_says_what_was_written_and_lost(tmp_path, capsys):
    for name in ("a", "b"):
        for folder, array in (("images", np.zeros((6, 8, 3), np.uint8)), ("masks", np.arange(48).reshape(6, 8) % 3)):
            write_png(tmp_path / "set" / folder / f"{name}.png", array.astype(np.uint8))
    (tmp_path / "set/classes.txt").write_text("0 road\n1 car thing\n2 void void\n")
    (tmp_path / "set/train.txt").write_text("a\nb\n")
    words = ["convert", str(tmp_path / "set"), "--to", "coco", "--out", str(tmp_path / "out"), "--to-options",
             "masks=rle"]  # fmt: skip
    for code in (0, 2):  # the second time the folder is no longer empty
        with pytest.raises(SystemExit) as left:
            main([*words, "--images", "link"])
        assert left.value.code == code
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "train: 2 images", f"4 segments written as coco, images linked: {tmp_path / 'out'}",
        "lost: Unknown pixels, now nothing: 32.", "lost: Segments of stuff, now objects: 2.",
        "lost: Ids on disk that were taken or below 1, numbered anew: 4.",
    ]  # fmt: skip
    assert "holds files already" in told.err
    assert (tmp_path / "out/train/a.png").is_symlink()
