"""Whatever a user gives the command line, it answers in a sentence or two and with the right exit status."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise import cli
from pixelwise.core.classes import Classes

HEIGHT, WIDTH = 24, 32
TINY = ["--model", "unet", "--options", "width=4", "depth=1", "--epochs", "1", "--crop", "16", "--batch-size", "2",
        "--workers", "0", "--device", "cpu", "--no-report"]  # fmt: skip
CLASSES = Classes(names=["ground", "tree", "house"])

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """run(words of the command line ...) -> (exit status, what was printed, what was complained)"""

    def call(*words: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert "Traceback" not in out
        return int(end.value.code or 0), out, err

    return call


def picture(path: Path, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def mask(path: Path, height: int = HEIGHT, width: int = WIDTH, top: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.arange(height * width).reshape(height, width) // 7 % (top + 1)).astype(np.uint8)).save(path)
    return path


def bomb(path: Path, side: int = 60_000) -> Path:
    """A PNG that says it has side x side pixels, in a hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def halved(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A sound data set: four images to train on, one to validate, one to test."""
    root = tmp_path / "data"
    for i in range(6):
        picture(root / "images" / f"{i}.png", seed=i)
        mask(root / "masks" / f"{i}.png")
    (root / "splits").mkdir()
    for split, names in {"train": "0\n1\n2\n3\n", "val": "4\n", "test": "5\n"}.items():
        (root / "splits" / f"{split}.txt").write_text(names)
    (root / "classes.txt").write_text("0 ground\n1 tree\n2 house\n")
    return root


@pytest.fixture
def model(tmp_path: Path, write_model: Callable[..., Path]) -> Path:
    return write_model(tmp_path / "model.safetensors", classes=CLASSES)


# -- data sets that cannot be trained on ------------------------------------------------------------------------------


def no_files(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def jpeg_cut(root: Path) -> None:
    (root / "images/1.png").unlink()
    file = picture(root / "images/1.jpg")
    file.write_bytes(file.read_bytes()[:-20])  # its header is whole


def single_pixel(root: Path) -> None:
    picture(root / "images/1.png", 1, 1)
    mask(root / "masks/1.png", 1, 1)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty folder": (no_files, "the folder is empty"),
    "missing folder": (shutil.rmtree, "there is no such folder"),
    "no masks": (lambda root: shutil.rmtree(root / "masks"), "images without masks"),
    "one mask missing": (lambda root: (root / "masks/1.png").unlink(), "images/1.png"),
    "dangling link": (lambda root: ((root / "masks/1.png").unlink(), (root / "masks/1.png").symlink_to(root / "gone")),
                      "images/1.png"),
    "mask of another size": (lambda root: mask(root / "masks/1.png", 20), "masks/1.png: 32 x 20, its image 32 x 24"),
    "unknown id": (lambda root: mask(root / "masks/1.png", top=3), "masks/1.png: id 3: "),
    "cut PNG": (lambda root: halved(root / "images/1.png"), "images/1.png: is truncated"),
    "cut mask": (lambda root: halved(root / "masks/1.png"), "masks/1.png: is truncated"),
    "cut JPEG": (jpeg_cut, "images/1.jpg: is truncated"),
    "text named png": (lambda root: (root / "images/1.png").write_text("hello, a text"), "images/1.png: is no image"),
    "no bytes": (lambda root: (root / "images/1.png").write_bytes(b""), "images/1.png: the file is empty (0 bytes)"),
    "single pixel": (single_pixel, "images/1.png: 1 x 1 pixels"),
    "bomb": (lambda root: bomb(root / "images/1.png"), "images/1.png: 60,000 x 60,000 pixels"),
    "bomb as mask": (lambda root: bomb(root / "masks/1.png"), "masks/1.png: 60,000 x 60,000 pixels"),
    "class named twice": (lambda root: (root / "classes.txt").write_text("0 a\n1 a\n2 b\n"), "classes.txt"),
    "table of nonsense": (lambda root: (root / "classes.txt").write_text("0\n1,2\n"), "line 1 '0' is no class"),
    "table in UTF-16": (lambda root: (root / "classes.txt").write_text("0 a\n1 b\n2 c\n", encoding="utf-16"),
                        "classes.txt: the class table is no UTF-8 text; save it as UTF-8"),
    "strange name in a split": (lambda root: (root / "splits/train.txt").write_text("0\n77\n"), "no image '77'"),
    "no image to train on": (lambda root: (root / "splits/train.txt").write_text(""), "'train'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_data_set_is_refused_by_name_before_training(name, run, data, tmp_path):
    spoil, words = FAULTS[name]
    spoil(data)
    status, _, err = run("train", data, *TINY, "--out", tmp_path / "run")
    assert status == 2
    assert words in err
    assert len(err.splitlines()) <= 2
    assert not (tmp_path / "run" / "run.json").exists()  # so that the same command works when the data is mended


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "no image to train on"])
def test_check_finds_the_same_fault(name, run, data):
    FAULTS[name][0](data)
    status, out, err = run("check", data)
    assert status in (1, 2)
    assert "error" in out or err.startswith("pixelwise: ")


def test_a_set_without_validation_keeps_its_last_model_and_says_so(run, data, tmp_path):
    (data / "splits/val.txt").write_text("")
    status, out, _ = run("train", data, *TINY, "--out", tmp_path / "run")
    assert status == 0
    assert "'val' has no image" in out
    assert (tmp_path / "run/model.safetensors").exists()


# -- images to predict ------------------------------------------------------------------------------------------------


def test_bad_images_are_named_and_the_others_done(run, data, model, tmp_path):
    images = data / "images"
    halved(images / "0.png")
    (images / "1.png").write_text("hello, a text")
    (images / "2.png").write_bytes(b"")
    bomb(images / "3.png")
    picture(images / "4.png", 1, 1)
    status, out, err = run("predict", model, images, tmp_path / "nowhere", "--out", tmp_path / "out")
    assert status == 1
    assert "\n2 images segmented" in out
    reasons = ["nowhere: there is no such", "0.png: is truncated", "1.png: is no image", "2.png: the file is empty",
               "3.png: has 60000 x 60000 pixels"]  # fmt: skip
    assert len(err.splitlines()) == 5
    assert all(reason in err for reason in reasons)
    assert sorted(p.name for p in (tmp_path / "out/classes").iterdir()) == ["4.png", "5.png"]
    assert Image.open(tmp_path / "out/classes/4.png").size == (1, 1)


def save_modes(folder: Path) -> None:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    for name, mode in {"grey.PNG": "L", "palette.png": "P", "bit.png": "1", "alpha.png": "RGBA", "grey_alpha.png": "LA",
                       "cmyk.JPG": "CMYK", "cmyk2.TIF": "CMYK", "a.gif": "P", "b.bmp": "RGB"}.items():  # fmt: skip
        colour.convert(mode).save(folder / name)
    Image.fromarray(rng.integers(0, 65535, (HEIGHT, WIDTH), dtype=np.uint16)).save(folder / "deep.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    colour.save(folder / "turned.jpg", exif=turned)


def test_every_kind_of_image_gets_an_answer_of_the_size_it_is_seen_at(run, model, tmp_path):
    folder = tmp_path / "图 片"
    folder.mkdir()
    save_modes(folder)
    status, out, err = run("predict", model, f"{folder}/", "--out", tmp_path / "出 来", "--no-overlay")
    assert (status, err) == (0, "")
    assert "\n11 images segmented" in out
    sizes = {p.stem: Image.open(p).size for p in (tmp_path / "出 来/classes").iterdir()}
    assert sizes.pop("turned") == (HEIGHT, WIDTH)
    assert set(sizes.values()) == {(WIDTH, HEIGHT)}
    assert len(sizes) == 10


def test_inputs_of_one_name_do_not_collide_and_linked_folders_are_followed_once(run, model, tmp_path):
    one, two = picture(tmp_path / "a/x/1.png"), picture(tmp_path / "b/x/1.png", seed=1)
    (tmp_path / "a/link").symlink_to(tmp_path / "b")
    (tmp_path / "a/x/circle").symlink_to(tmp_path / "a")
    assert run("predict", model, one, two, "--out", tmp_path / "out", "--no-overlay")[0] == 0
    assert len(list((tmp_path / "out/classes").rglob("1.png"))) == 2
    status, out, _ = run("predict", model, tmp_path / "a", "--out", tmp_path / "out2", "--no-overlay")
    assert status == 0
    assert "\n2 images" in out


# -- where nothing can be written -------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "sub"])
def test_output_that_is_a_file_is_refused(below, run, data, model, tmp_path):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / below
    for words in (["train", data, *TINY], ["evaluate", model, data], ["predict", model, data / "images"]):
        status, _, err = run(*words, "--out", out)
        assert status == 2
        assert f"{out}" in err
        assert "choose another folder" in err
        assert "probe" not in err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """full("200k") -> a folder on a disk of that size"""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("making a small disk takes the right to mount one")
        mounted.append(place)
        return place

    yield mount
    for where in mounted:
        subprocess.run(["umount", str(where)], check=True)


def test_a_full_disk_leaves_whole_files_and_says_what_to_do(run, data, model, full):
    disk = full("24k")
    (disk / "filler").write_bytes(bytes(12_000))
    for words in (["train", data, *TINY], ["predict", model, data / "images", "--confidence"]):
        status, _, err = run(*words, "--out", disk / words[0])
        assert status == 2
        assert "the disk is full; make room" in err
        assert len(err.splitlines()) <= 2
        assert not [p for p in disk.rglob("*") if ".part" in p.name]
    for path in disk.rglob("*.png"):
        Image.open(path).load()
    for path in disk.rglob("*.json"):
        json.loads(path.read_text())
    (disk / "filler").unlink()
    shutil.rmtree(disk / "predict")
    assert "--resume" in run("train", data, *TINY, "--out", disk / "train")[2]  # the run that is there is named


# -- model files ------------------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict], object]) -> None:
    """The file with another header."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def card(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """The file with another card."""

    def on_header(header: dict) -> None:
        stored = json.loads(header["__metadata__"]["card"])
        change(stored["card"])
        header["__metadata__"]["card"] = json.dumps(stored)

    return lambda path: rewritten(path, on_header)


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "There is no model file"),
    "a folder": (lambda p: (p.unlink(), p.mkdir(), (p / "best.safetensors").touch(), (p / "model.safetensors").touch()),
                 "model.safetensors is a folder, a model is one file; give the file in it"),
    "empty": (lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "cut in half": (halved, "is cut short"),
    "an image": (lambda p: Image.new("L", (9, 9)).save(p, "PNG"), "is not a safetensors file"),
    "a pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "is a pickle"),
    "another package's": (lambda p: rewritten(p, lambda h: h.update(__metadata__={"format": "pt"})), "another package"),
    "a newer version's": (lambda p: rewritten(p, lambda h: h["__metadata__"].update(pixelwise="99")), "version 99"),
    "turned weights": (lambda p: rewritten(p, lambda h: h["head.weight"]["shape"].reverse()), "of another shape"),
    "weights of whole numbers": (lambda p: rewritten(p, lambda h: h["head.weight"].update(dtype="I32")),
                                 "of another type: head.weight (torch.int32)"),
    "another net": (card(lambda c: c.update(architecture="unnet")), "did you mean 'unet'?"),
    "a net too large": (card(lambda c: c["options"].update(width=10**12)), "a net that cannot be built"),
    "more classes": (card(lambda c: c.update(outputs=7)), "do not fit the net"),
    "another task": (card(lambda c: c.update(task="zzz")), "no task 'zzz'"),
    "no classes": (card(lambda c: c.pop("classes")), "lacks the field 'classes'"),
    "words for numbers": (card(lambda c: c["preprocessing"].update(mean=["a"])), "preprocessing cannot be made"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_file_that_is_no_model_is_refused_by_name(name, run, data, model, tmp_path):
    spoil, words = MODELS[name]
    spoil(model)
    status, _, err = run("predict", model, data / "images", "--out", tmp_path / "out")
    assert status == 2
    assert str(model) in err
    assert words in err
    assert len(err.splitlines()) == 1
    assert ".." not in err
    assert not (tmp_path / "out").exists()


def test_weights_of_a_bad_file_stop_a_training_before_it_begins(run, data, model, tmp_path):
    halved(model)
    status, _, err = run("train", data, *TINY, "--weights", model, "--out", tmp_path / "run")
    assert status == 2
    assert "is cut short" in err
    assert not (tmp_path / "run/run.json").exists()


@pytest.mark.parametrize("table", ["0 ground\n1 cat\n2 house\n", "0 ground\n1 tree\n2 house\n3 cat\n"])
def test_classes_that_the_model_does_not_know_are_named(table, run, data, model):
    (data / "classes.txt").write_text(table)
    status, _, err = run("evaluate", model, data, "--no-report")
    assert status == 2
    assert "does not know: cat (it knows ground, tree, house)" in err


def test_classes_in_another_order_are_matched_by_name_and_that_is_said(run, data, model, tmp_path):
    (data / "classes.txt").write_text("0 tree\n1 ground\n2 house\n")
    status, out, _ = run("evaluate", model, data, "--no-report", "--out", tmp_path / "scores")
    assert status == 0
    assert "matched to the model's by name" in " ".join(out.split())


# -- words and settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--model", "unett"], "did you mean 'unet'"),
        (["--model", "unet-tinny"], "did you mean 'tiny'"),
        (["--loss", "dise"], "did you mean 'dice'"),
        (["--loss", "focal(gama=2)"], "did you mean 'gamma'"),
        (["--dataset.format", "citiscapes"], "did you mean 'cityscapes'"),
        (["--options", "widht=24"], "did you mean 'width'"),
        (["--options", "width"], "name=value"),
        (["--crop", "7"], "from 8 up"),
        (["--lr", "-1"], "above 0"),
        (["--epochs", "0"], "at least 1"),
        (["--epochs", "1", "--minutes", "5"], "not both"),
        (["--device", "gpu"], "There is no device 'gpu'"),
        (["--dataset.val", "vall"], "It has train (images: 4), val (images: 1), test (images: 1)"),
        (["--weigths", "x"], "Perhaps you meant: --weights"),
        (["--epochs", "abc"], "--epochs is 'abc'; expected a whole number."),
        (["--minutes"], "Missing value for argument '--minutes'. Expected 1 value."),
    ],
)
def test_a_wrong_word_or_number_is_named_with_what_would_be_right(words, answer, run, data, tmp_path):
    status, _, err = run("train", data, *TINY, *words, "--out", tmp_path / "run")
    assert status == 2
    assert answer in err
    assert err.startswith("pixelwise: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run/run.json").exists()


def test_a_run_is_not_written_over_and_resumes_only_as_itself(run, data, tmp_path):
    out = tmp_path / "run"
    assert run("train", data, *TINY, "--out", out)[0] == 0
    before = (out / "model.safetensors").read_bytes()
    status, _, err = run("train", data, *TINY, "--out", out)
    assert status == 2
    assert "holds a run" in err
    assert "--resume" in err
    status, _, err = run("train", data, "--out", out, "--resume", "--epochs", "2")
    assert status == 2
    assert "epochs was 1, not 2" in err
    for change, answer in (({"lr": "fast"}, "'lr' is 'fast'"), ({"epoch": 3}, "did you mean 'epochs'")):
        stored = json.loads((out / "run.json").read_text())
        stored["settings"].update(change)
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy/run.json").write_text(json.dumps(stored))
        status, _, err = run("train", data, "--out", tmp_path / "copy", "--resume")
        assert status == 2
        assert answer in err
        assert "run.json" in err
    assert run("train", data, "--out", out, "--resume")[0] == 0
    assert (out / "model.safetensors").read_bytes() == before


def test_a_run_may_lie_in_the_data_and_the_data_is_still_read(run, data, tmp_path):
    assert run("train", f"{data}/", *TINY, "--out", data / "runs/a")[0] == 0
    assert run("predict", data / "runs/a/model.safetensors", data / "images", "--out", data / "out")[0] == 0
    status, out, _ = run("check", data)
    assert status == 0
    assert "train 4, val 1, test 1" in out


# -- terminals and signals --------------------------------------------------------------------------------------------


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "pixelwise", *map(str, words)]


def test_no_figure_is_cut_on_a_narrow_screen(run, data, model, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for words in (["check", data], ["evaluate", model, data, "--no-report", "--out", tmp_path / "scores"]):
        status, out, _ = run(*words)
        assert status == 0
        table = out[out.index("ground") : out.rindex("house")]
        assert "…" not in table
        assert len(re.findall(r"\d\.\d", table)) >= 6


@pytest.mark.slow
def test_output_fits_narrow_and_plain_terminals(data):
    plain = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "40"}
    done = subprocess.run(command("check", data), env=plain, capture_output=True, text=True)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "1 warning" in done.stdout  # of small images
    assert max(map(len, done.stdout.splitlines())) <= 40


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error():
    words = f"set -o pipefail; {' '.join(command('list', 'losses'))} | head -1"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_ctrl_c_while_predicting_leaves_whole_files(model, tmp_path):
    for i in range(300):
        picture(tmp_path / "many" / f"{i}.png", 60, 80, seed=i)
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs do not hear Ctrl-C
    running = subprocess.Popen(command("predict", model, tmp_path / "many", "--out", tmp_path / "out"),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)  # fmt: skip
    while running.poll() is None and len(list((tmp_path / "out").rglob("*.png"))) < 3:
        pass
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 130
    assert "stopped" in err
    assert "Traceback" not in err
    for path in (tmp_path / "out/classes").iterdir():
        Image.open(path).load()
