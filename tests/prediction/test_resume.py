"""What is noted for a run that goes on: whole or not at all, and for these images and settings alone."""

import numpy as np
import pytest
from PIL import Image

from pixelwise.prediction import load, predict_folder
from pixelwise.prediction.resume import Resume, fingerprint


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    return path


def opened(tmp_path, settings="s", wanted=True, inputs=("in",)):
    from pathlib import Path

    return Resume(tmp_path / "out", settings, [Path(entry) for entry in inputs], wanted=wanted)


def test_a_journal_is_read_again_without_what_was_cut_off(tmp_path, image):
    first = opened(tmp_path)
    keys = [first.key(image, name) for name in "abc"]
    for key in keys:
        first.enter(key, (image,), {"overlay": {"height": 3}})
    journal = first.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    second = opened(tmp_path)
    assert list(second.finished) == keys[:2]
    assert second.finished[keys[0]]["notes"] == {"overlay": {"height": 3}}
    second.enter(keys[2], (image,), {})
    assert list(opened(tmp_path).finished) == keys
    assert opened(tmp_path, wanted=False).finished == {}
    assert opened(tmp_path).finished == {}


def test_an_image_whose_files_are_gone_is_not_finished(tmp_path, image):
    first = opened(tmp_path)
    first.enter("key", (tmp_path / "gone.png",), {})
    assert opened(tmp_path).finished == {}


def test_keys_and_folders_are_of_image_name_and_settings(tmp_path, image):
    keys = {opened(tmp_path, settings).key(image, name) for settings in "xy" for name in "ab"}
    image.write_bytes(b"22")
    keys.add(opened(tmp_path, "x").key(image, "a"))
    assert len(keys) == 5
    folders = {opened(tmp_path, s, inputs=i).folder for s in "xy" for i in (["in"], ["other"], ["in", "other"])}
    assert len(folders) == 6


def test_a_state_is_whole_or_nothing(tmp_path):
    left = opened(tmp_path)
    assert left.state("key") is None
    left.keep("key", {"a": np.arange(3), "b": np.float32(2)})
    assert left.state("key")["a"].tolist() == [0, 1, 2]
    file = left.folder / "key.state.npz"
    file.write_bytes(file.read_bytes()[:-30])
    assert left.state("key") is None
    left.forget("key")
    assert not left.folder.exists()


def test_a_fingerprint_is_of_weights_task_and_settings(models, write_model, tmp_path):
    one = load(models["panoptic"], "cpu")
    same = load(models["panoptic"], "cpu")
    assert fingerprint(one, 1) == fingerprint(same, 1)
    others = {fingerprint(one, 1), fingerprint(one, 2), fingerprint(load(models["panoptic"], "cpu", score=0.3), 1),
              fingerprint(load(models["panoptic"], "cpu", tta="flip"), 1),
              fingerprint(load(models["panoptic"], "cpu", task="semantic"), 1)}  # fmt: skip
    same.net.head.bias.data += 1
    others.add(fingerprint(same, 1))
    assert len(others) == 6


def test_an_image_that_vanished_is_never_known(tmp_path, image):
    """Its key would be that of every other one that vanished."""
    first = opened(tmp_path)
    gone = tmp_path / "gone.png"
    first.enter(first.key(gone, "gone"), (image,), {})
    assert opened(tmp_path).finished == {}


def test_an_image_that_changed_while_it_was_computed_is_computed_again(models, tmp_path, monkeypatch):
    model, path, seen = load(models["semantic"], "cpu"), tmp_path / "a.png", []
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    forward = model.forward

    def change(pixels):
        seen.append(int(pixels.max()))
        Image.fromarray(np.full((20, 20, 3), 255, np.uint8)).save(path)
        return forward(pixels)

    monkeypatch.setattr(model, "forward", change)
    for resume in (False, True):
        predict_folder(model, [path, tmp_path / "nowhere"], tmp_path / "out", resume=resume)
    assert seen == [0, 255]
