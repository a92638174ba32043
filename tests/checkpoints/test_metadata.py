"""Class names and colours out of mmsegmentation's files, old and new."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

import pixelwise.models.unet as unet
from pixelwise.checkpoints import from_checkpoint, import_checkpoint
from pixelwise.checkpoints.metadata import told_classes
from pixelwise.core.classes import Classes
from pixelwise.core.keys import Dialect
from pixelwise.core.registry import create_model
from pixelwise.data.labels import label_set
from pixelwise.errors import ModelFileError

CITYSCAPES = label_set("cityscapes")
FOREIGN = Dialect(
    signs=(r"^net\.stem\.",),
    rules=((r"net\.(.*)", r"\1"),),
    options=lambda tensors: {"classes": len(tensors["net.head.bias"]), "width": 4, "depth": 1},
    labels={19: "cityscapes"},
)


@pytest.fixture
def save(monkeypatch, tmp_path):
    """save(meta, classes) -> path of a file as mmsegmentation writes them"""
    monkeypatch.setattr(unet, "KEYS", {"foreign": FOREIGN}, raising=False)

    def write(meta, classes=3, **more):
        state = create_model("unet", classes=classes, width=4, depth=1).state_dict()
        path = tmp_path / "a.pth"
        torch.save({"meta": meta, "state_dict": {f"net.{n}": t for n, t in state.items()}, **more}, path)
        return path

    return write


OLD = {"mmseg_version": "0.29.1", "CLASSES": ("road", "kerb ", "sky"), "PALETTE": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
NEW = {"mmengine_version": "0.10.7", "dataset_meta": {"classes": ["road", "kerb", "sky"],
       "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "label_map": None}}  # fmt: skip


@pytest.mark.parametrize("meta", [
    OLD, NEW, {**OLD, "PALETTE": np.array(OLD["PALETTE"])}, {**NEW, "seed": np.int64(3), "time": np.float32(0.5)},
], ids=["old", "new", "array", "numpy numbers"])  # fmt: skip
def test_names_and_colours_come_along(save, meta):
    _, card = from_checkpoint(save(meta))
    assert card.classes.names == ("road", "kerb", "sky")
    assert card.classes.colours == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def test_the_published_set_of_the_same_names_knows_more(save):
    names, colours = list(CITYSCAPES.names), [[k, k, k] for k in range(19)]
    _, card = from_checkpoint(save({"CLASSES": names, "PALETTE": None}, 19))
    assert card.classes == CITYSCAPES
    _, card = from_checkpoint(save({"CLASSES": names, "PALETTE": colours}, 19))
    assert card.classes.things == CITYSCAPES.things
    assert card.classes.colours[4] == (4, 4, 4)
    _, card = from_checkpoint(save({"CLASSES": names[::-1], "PALETTE": None}, 19))
    assert card.classes.names == CITYSCAPES.names[::-1]
    assert card.classes.things == ()


@pytest.mark.parametrize("meta", [{}, {"CLASSES": None, "PALETTE": None}, {"dataset_meta": {}}, {"CLASSES": []}, None])
def test_files_without_names_are_numbered_or_published(save, meta):
    assert from_checkpoint(save(meta))[1].classes.names == ("class 0", "class 1", "class 2")
    assert from_checkpoint(save(meta, 19))[1].classes == CITYSCAPES


@pytest.mark.parametrize(("meta", "classes", "said"), [
    (OLD, 5, r"a\.pth: its meta names 3 classes \(road, kerb, sky\), but its net tells 5 apart\. Give the classes"),
    ({"CLASSES": ["no", "yes"]}, 1, r"names 2 classes \(no, yes\).*tells 1 apart.*threshold"),
    ({**OLD, "PALETTE": [[1, 2, 3]]}, 3, "3 class names but 1 colours"),
    ({**OLD, "PALETTE": [[1, 2]] * 3}, 3, "no list of three numbers"),
    ({**OLD, "PALETTE": 7}, 3, "no list of three numbers"),
    ({**OLD, "PALETTE": [[1, 2, 300]] * 3}, 3, "cannot be.*0..255"),
    ({"CLASSES": ["a", "a ", "b"]}, 3, "cannot be.*differ"),
])  # fmt: skip
def test_what_does_not_fit_the_net_is_refused(save, meta, classes, said):
    with pytest.raises(ModelFileError, match=said):
        from_checkpoint(save(meta, classes))


def test_classes_that_are_given_go_first(save, tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    made = import_checkpoint(save(OLD, 4), tmp_path / "m.safetensors", classes=tmp_path / "classes.txt")
    assert made.card.classes.names == ("a", "b", "c", "d")


def test_a_training_of_mmengine_is_refused_with_what_to_do(save, monkeypatch):
    """Its files hold buffers of numbers logged, objects that opening would have to run."""
    module = ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = type("HistoryBuffer", (), {"__module__": module.__name__})
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = save(NEW, message_hub={"log_scalars": {"loss": module.HistoryBuffer()}})
    with pytest.raises(ModelFileError, match=r"mmengine\.logging\.history_buffer.*key in \("):
        from_checkpoint(path)


def test_files_of_others_have_no_meta():
    for found in ({}, [1], {"meta": 3}, {"meta": {"CLASSES": "road"}}):
        assert told_classes(found, 3, None, "it") is None
    assert told_classes({"meta": OLD}, 3, None, "it") == Classes(
        names=("road", "kerb", "sky"), colours=((1, 2, 3), (4, 5, 6), (7, 8, 9))
    )
