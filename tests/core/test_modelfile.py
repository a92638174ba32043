"""The model file: a round trip, and every way in which a file can be wrong."""

import json
import pickle
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pixelwise.core import modelfile
from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import ModelCard, load_model, load_weights_into, read_card, save_model
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Preprocessing
from pixelwise.errors import ModelFileError, OutputError

OPTIONS = {"width": 4, "depth": 2}
CLASSES = Classes(names=["road", "person", "sky"], things=["person"], ids=(7, 24, 23), void=(0, 255))


def make_card(**changes):
    values = {"architecture": "unet", "outputs": 3, "options": OPTIONS, "classes": CLASSES, "task": "semantic",
              "preprocessing": Preprocessing(mean=(0.1, 0.2, 0.3), std=(1, 2, 3)), "thresholds": {},
              "training": {"epochs": 3, "scores": {"miou": 0.5}}}  # fmt: skip
    return ModelCard(**{**values, **changes})


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create_model("unet", classes=3, **OPTIONS)


@pytest.fixture
def path(tmp_path, net):
    save_model(tmp_path / "model.safetensors", net, make_card())
    return tmp_path / "model.safetensors"


def edit_header(path, change):
    """Rewrites the header as someone with an editor and patience would: the length is set right."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    text = change(data[8 : 8 + length].decode()).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def edit_card(path, change):
    def edit(text):
        header = json.loads(text)
        stored = json.loads(header["__metadata__"]["card"])
        change(stored["card"])
        header["__metadata__"]["card"] = json.dumps(stored)
        return json.dumps(header)

    edit_header(path, edit)


def test_round_trip(path, net):
    loaded, card = load_model(path)
    assert card == make_card()
    assert read_card(path) == card
    assert not loaded.training
    images = torch.rand(1, 3, 17, 23)
    with torch.no_grad():
        assert torch.equal(loaded(images).logits, net.eval()(images).logits)


def test_other_tools_can_open_it(path, net):
    tensors = load_file(path)
    assert tensors.keys() == net.state_dict().keys()


def test_card_of_nan_scores(tmp_path, net):
    save_model(tmp_path / "m.safetensors", net, make_card(training={"scores": {"miou": float("nan"), "loss": [1.0]}}))
    assert read_card(tmp_path / "m.safetensors").training == {"scores": {"miou": None, "loss": [1.0]}}


def test_card_that_json_cannot_hold(tmp_path, net):
    with pytest.raises(ModelFileError, match="JSON"):
        save_model(tmp_path / "m.safetensors", net, make_card(training={"net": net}))
    assert list(tmp_path.iterdir()) == []


def test_views_and_channels_last_are_stored_contiguous(tmp_path, net):
    other = create_model("unet", classes=3, **OPTIONS).to(memory_format=torch.channels_last)
    other.load_state_dict(net.state_dict())
    save_model(tmp_path / "m.safetensors", other, make_card())
    for name, value in load_model(tmp_path / "m.safetensors")[0].state_dict().items():
        assert torch.equal(value, net.state_dict()[name])


class Tied(nn.Module):
    """Two names for one weight, and a buffer that is a window of another."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("whole", torch.arange(6.0))
        self.register_buffer("part", self.whole[2:4])


def test_tied_weights_are_written_once(tmp_path, monkeypatch):
    torch.manual_seed(1)
    tied = Tied()
    save_model(tmp_path / "m.safetensors", tied, make_card())
    assert "second.weight" not in load_file(tmp_path / "m.safetensors")
    monkeypatch.setattr(modelfile, "create_model", lambda *a, **k: Tied())
    loaded, _ = load_model(tmp_path / "m.safetensors")
    assert loaded.second.weight is loaded.first.weight
    for name, value in tied.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_meta_weights_are_refused(tmp_path):
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    with pytest.raises(ModelFileError, match="meta"):
        save_model(tmp_path / "m.safetensors", empty, make_card())


# -- files that are wrong ---------------------------------------------------------------------------------------------


def test_missing_names_its_neighbours(path):
    with pytest.raises(ModelFileError, match=r"no model file .*modle.*model\.safetensors"):
        load_model(path.with_name("modle.safetensors"))


def test_folder_names_the_file_in_it(path):
    with pytest.raises(ModelFileError, match=r"is a folder.*model\.safetensors"):
        load_model(path.parent)


@pytest.mark.parametrize("share", [0.5, 0.9999, 0.05, 0.002])
def test_cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelFileError, match="cut short"):
        load_model(path)


def test_empty(path):
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="0 bytes"):
        load_model(path)


def test_bytes_behind_the_end(path):
    path.write_bytes(path.read_bytes() + b"abc")
    with pytest.raises(ModelFileError, match="3 bytes more"):
        load_model(path)


class Bomb:
    """What a hostile pickle does when it is opened."""

    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('exploded').touch()",)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_torch_pickle_renamed(path, net, new):
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=new)
    with pytest.raises(ModelFileError, match="is a pickle"):
        load_model(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_renamed_is_never_run(path, protocol, monkeypatch):
    monkeypatch.chdir(path.parent)
    path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    with pytest.raises(ModelFileError, match="is a pickle"):
        load_model(path)
    assert not (path.parent / "exploded").exists()


def test_other_kinds_of_file(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        load_model(path)
    path.write_text("just text, and enough of it to be read")
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        load_model(path)


def test_another_package(tmp_path):
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match=r"another package.*encoder\.weight"):
        load_model(tmp_path / "m.safetensors")


def test_newer_format(path):
    edit_header(path, lambda text: text.replace('"pixelwise":"1"', '"pixelwise":"2"'))
    with pytest.raises(ModelFileError, match=r"format version 2.*pip install --upgrade"):
        load_model(path)


@pytest.mark.parametrize("mark", ["one", "-1", "0", "1.5"])
def test_format_that_is_no_number(path, mark):
    edit_header(path, lambda text: text.replace('"pixelwise":"1"', f'"pixelwise":"{mark}"'))
    with pytest.raises(ModelFileError, match="edited"):
        load_model(path)


@pytest.mark.parametrize(
    "change",
    [lambda t: t[:-20], lambda t: "[]", lambda t: t.replace('"data_offsets"', '"offsets"'), lambda t: "{}" + t],
    ids=["half", "list", "no offsets", "two"],
)
def test_broken_header(path, change):
    edit_header(path, change)
    with pytest.raises(ModelFileError, match=r"model\.safetensors"):
        load_model(path)


def test_broken_card(path):
    edit_header(path, lambda text: text.replace('\\"task\\":', '\\"task\\"'))
    with pytest.raises(ModelFileError, match="card in its header cannot be read"):
        load_model(path)


def test_class_count_edited(path):
    """One class more in the header than the weights have: the tensors that do not fit are named."""
    edit_card(path, lambda card: card.update(outputs=4))
    said = r"2 of another shape: head\.weight \(file \[3, 4, 1, 1\], net \[4, 4, 1, 1\]\)"
    with pytest.raises(ModelFileError, match=said):
        load_model(path)


def test_depth_edited(path):
    edit_card(path, lambda card: card["options"].update(depth=3))
    with pytest.raises(ModelFileError, match=r"missing: down\.2.*and \d+ more"):
        load_model(path)
    edit_card(path, lambda card: card["options"].update(depth=1))
    with pytest.raises(ModelFileError, match=r"unexpected: down\.1"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("task"), "lacks the field 'task'"),
        (lambda c: c.update(tusk="semantic"), "did you mean 'task'"),
        (lambda c: c.update(outputs="3"), "'outputs' must be int"),
        (lambda c: c.update(outputs=True), "'outputs' must be int"),
        (lambda c: c.update(classes=[]), "'classes' must be dict"),
        (lambda c: c["classes"].update(names=["a", "a", "b"]), "stand more than once"),
        (lambda c: c["classes"].update(color=1), "no field 'color'"),
        (lambda c: c["classes"].pop("names"), "names"),
        (lambda c: c["preprocessing"].update(channels=4), "4 channels but 3 values of mean"),
        (lambda c: c["preprocessing"].update(std=[0, 1, 1]), "must be above 0"),
        (lambda c: c.update(architecture="unte"), "did you mean 'unet'"),
        (lambda c: c["options"].update(widht=3), "did you mean 'width'"),
        (lambda c: c["options"].update(width="wide"), "cannot be built"),
    ],
)
def test_edited_card(path, change, said):
    edit_card(path, change)
    with pytest.raises(ModelFileError, match=said) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_header_of_absurd_length(path):
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{" + bytes(100))
    with pytest.raises(ModelFileError, match="cut short"):
        load_model(path)


# -- writing that fails -----------------------------------------------------------------------------------------------


def test_unwritable_folder(tmp_path, net):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="another folder"):
        save_model(tmp_path / "file" / "m.safetensors", net, make_card())


def test_disk_full_keeps_the_old_file(path, net):
    """A limit on the size of files stands for the full disk: the write fails in its middle, as there."""
    before = path.read_bytes()
    script = """if True:
        import resource, signal, sys
        from pixelwise.core.modelfile import load_model, save_model
        from pixelwise.errors import OutputError
        net, card = load_model(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save_model(sys.argv[1], net, card)
        except OutputError as error:
            print("OutputError:", error)
    """
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert "OutputError:" in done.stdout
    assert "choose another folder" in done.stdout
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# -- starting from other weights --------------------------------------------------------------------------------------


def test_weights_into_other_classes(path, net):
    torch.manual_seed(5)
    other = create_model("unet", classes=7, **OPTIONS)
    head = other.head.weight.detach().clone()
    kept, dropped = load_weights_into(other, path)
    assert len(kept) == len(net.state_dict()) - 2
    assert dropped == ["head.weight (file [3, 4, 1, 1], net [7, 4, 1, 1])", "head.bias (file [3], net [7])"]
    assert torch.equal(other.head.weight, head)
    assert torch.equal(other.stem[0].weight, net.stem[0].weight)


def test_weights_of_a_deeper_net_list_both_sides(path):
    other = create_model("unet", classes=3, width=4, depth=1)
    kept, dropped = load_weights_into(other, path)
    assert "stem.0.weight" in kept
    assert "down.1.0.weight (not in the net)" in dropped


def test_weights_of_which_none_fits(path):
    other = create_model("unet", classes=3, width=6, depth=2, channels=5)
    with pytest.raises(ModelFileError, match="none of its weights fits"):
        load_weights_into(other, path)
