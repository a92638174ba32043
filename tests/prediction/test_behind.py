"""Writing behind the net: order, faults, and that it really is done meanwhile."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.core.segments import Segments
from pixelwise.errors import ImageError, OutputError
from pixelwise.prediction import folder, predict_folder
from pixelwise.prediction.behind import Behind
from pixelwise.prediction.names import Job
from pixelwise.prediction.writers import Answer, Overlay


class Slow:
    """Takes its time, the longer the lower the number in the image's name."""

    BY_BANDS = False

    def __init__(self, fault=None):
        self.fault, self.seen, self.threads = fault, [], set()

    def write(self, answer):
        time.sleep(0.01 * (5 - int(answer.name)))
        self.threads.add(threading.current_thread().name)
        if answer.name == "2" and self.fault is not None:
            raise self.fault
        self.seen.append(answer.name)
        return (Path(f"{answer.name}.out"),)

    def finish(self):
        return ()


def give(behind, number):
    segments = Segments(torch.zeros(1, 2, 2, dtype=torch.int8), [0])
    pixels = torch.zeros(3, 2, 2, dtype=torch.uint8)
    behind.write(Job(Path(f"{number}.png"), str(number)), Answer(name=str(number), pixels=pixels, segments=segments))


def test_answers_come_back_in_their_order_and_few_wait():
    slow, quick, taken = Slow(), Slow(), []
    with Behind({"slow": slow, "quick": quick}) as behind:
        for number in range(5):
            give(behind, number)
            taken += [(turn.job.name, turn.files()) for turn in behind.ready()]
            assert len(behind.waiting) <= 2
        taken += [(turn.job.name, turn.files()) for turn in behind.ready(room=0)]
    assert taken == [(str(n), (Path(f"{n}.out"), Path(f"{n}.out"))) for n in range(5)]
    assert slow.seen == quick.seen == list("01234")
    assert slow.threads.isdisjoint(quick.threads)
    assert threading.current_thread().name not in slow.threads


def test_the_fault_of_a_writer_belongs_to_its_image():
    with Behind({"slow": Slow(ImageError("2", "no"))}) as behind:
        for number in range(4):
            give(behind, number)
        files = {turn.job.name: turn.files for turn in behind.ready(room=0)}
    assert files["1"]() == (Path("1.out"),)
    with pytest.raises(ImageError):
        files["2"]()
    assert files["3"]() == (Path("3.out"),)


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(tmp_path / f"in/{number}.png")
    return tmp_path / "in"


def test_images_are_computed_while_others_are_written(models, photos, tmp_path, monkeypatch):
    """The first is still being written when the net has the second: it waits for just that."""
    second = threading.Event()
    model = folder.load(models["semantic"], "cpu")
    forward, write = model.forward, Overlay.write

    def notice(pixels):
        if pixels[0, 0, 0] == 1:
            second.set()
        return forward(pixels)

    def patient(self, answer):
        assert answer.name != "0" or second.wait(20), "the net waits for the writer"
        return write(self, answer)

    monkeypatch.setattr(model, "forward", notice)
    monkeypatch.setattr(Overlay, "write", patient)
    run = predict_folder(model, photos, tmp_path / "out")
    assert [path.name for path, _ in run.done] == [f"{n}.png" for n in range(5)]


def test_a_full_disk_stops_all_and_a_faulty_answer_only_itself(models, photos, tmp_path, monkeypatch):
    write = Overlay.write

    def failing(error):
        def fail(self, answer):
            if answer.name == "2":
                raise error
            return write(self, answer)

        return fail

    monkeypatch.setattr(Overlay, "write", failing(ImageError("2", "odd")))
    run = predict_folder(models["semantic"], photos, tmp_path / "out", device="cpu")
    assert [(path.name, reason) for path, reason in run.failed] == [("2.png", "odd")]
    assert len(run.done) == 4
    monkeypatch.setattr(Overlay, "write", failing(OutputError("the disk is full")))
    with pytest.raises(OutputError, match="full"):
        predict_folder(models["semantic"], photos, tmp_path / "out", device="cpu")
