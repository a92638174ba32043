"""Files of weights in every wrapping that trainings leave."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pixelwise.checkpoints import read_checkpoint
from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import ModelCard, save_model
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Preprocessing
from pixelwise.errors import ModelFileError

STATE = OrderedDict({"conv.weight": torch.randn(3, 2, 1, 1), "norm.num_batches_tracked": torch.tensor(7)})


def same(found):
    return found.keys() == STATE.keys() and all(torch.equal(found[n], STATE[n]) for n in STATE)


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize("wrap", [
    lambda: STATE,
    lambda: {"model": STATE, "optimizer": {"state": {0: torch.ones(2)}}, "iteration": 3},
    lambda: {"state_dict": {"model": STATE}, "epoch": 1},
    lambda: {"module": STATE},
    lambda: {"model_state": STATE, "best_score": np.float64(0.5), "epoch": np.int32(3)},
    lambda: prefixed("module."),
    lambda: {"model": prefixed("module._orig_mod.")},
    lambda: {"state_dict": prefixed("model.")},
], ids=["plain", "model", "nested", "module", "numpy numbers", "DDP", "DDP and compile", "Lightning"])  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappings_of_torch_save(tmp_path, wrap, zipped):
    path = tmp_path / "a.pth"
    torch.save(wrap(), path, _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(path))


def test_safetensors_and_detectron2s_pickle_are_told_by_their_content(tmp_path):
    save_file(dict(STATE), tmp_path / "weights.pth")  # the name lies
    assert same(read_checkpoint(tmp_path / "weights.pth"))
    arrays = {"model": {n: t.numpy() for n, t in STATE.items()}, "__author__": "someone", "matching_heuristics": True}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(arrays))
    assert same(read_checkpoint(tmp_path / "model.pkl"))


def test_one_of_our_own_is_read_too(tmp_path):
    net = create_model("unet", classes=2, width=4, depth=1)
    card = ModelCard(architecture="unet", outputs=2, classes=Classes(names=("a", "b")), task="semantic",
                     preprocessing=Preprocessing(), options={"width": 4, "depth": 1})  # fmt: skip
    save_model(tmp_path / "model.safetensors", net, card)
    assert read_checkpoint(tmp_path / "model.safetensors").keys() == net.state_dict().keys()


class Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path, zipped):
    mark = tmp_path / "ran"
    torch.save({"model": STATE, "extra": Evil(f"touch {mark}")}, tmp_path / "a.pth",
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    with pytest.raises(ModelFileError, match=r"would run its code.*posix\.system.*Save the weights alone"):
        read_checkpoint(tmp_path / "a.pth")
    assert not mark.exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=r"Save the weights alone"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(("value", "said"), [
    ({"epoch": 3, "lr": 0.1}, r"holds no weights.*found epoch, lr"),
    ([torch.ones(2)], r"holds list, not names"),
    ({}, r"found nothing"),
    ({"w": torch.ones(2).to_sparse()}, r"'w' is a sparse"),
])  # fmt: skip
def test_what_holds_no_weights_is_named(tmp_path, value, said):
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=said):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_told(tmp_path, zipped):
    torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "a.pth").read_bytes()
    for part in (0.02, 0.3, 0.7, 0.99):
        (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ModelFileError):
            read_checkpoint(tmp_path / "cut.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(ModelFileError, match="empty"):
        read_checkpoint(tmp_path / "empty.pth")
    with pytest.raises(ModelFileError, match="There is no checkpoint"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(ModelFileError, match="a folder"):
        read_checkpoint(tmp_path)


def test_numpy_arrays_become_tensors_in_this_machines_byte_order(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.arange(3, dtype=">f4")}))
    assert read_checkpoint(tmp_path / "a.pkl")["w"].tolist() == [0, 1, 2]
