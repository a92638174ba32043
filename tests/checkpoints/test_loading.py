"""Nets filled from files and built from files, here with a U-Net under foreign names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import pixelwise.models.unet as unet
from pixelwise.checkpoints import from_checkpoint, import_checkpoint, load_weights
from pixelwise.cli import main
from pixelwise.core.keys import Dialect
from pixelwise.core.modelfile import load_model
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Preprocessing
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.prediction import load

BGR = Preprocessing(order="BGR", size=SizeRule(short=40, long=60))
SMALL = {"width": 4, "depth": 1}


def shapes_tell(tensors):
    return {"classes": len(tensors["net.out.bias"]), "width": tensors["net.out.weight"].shape[1], "depth": 1}


FOREIGN = Dialect(
    signs=(r"^net\.stem\.", r"^net\.out\.weight"),
    rules=((r"net\.out\.(.*)", r"head.\1"), (r"net\.(.*)", r"\1"), (r"loss\..*", "")),
    options=shapes_tell,
    preprocessing=BGR,
    labels={19: "cityscapes"},
    change=lambda name, tensor: tensor.flip(0) if name.startswith("head.") else tensor,  # classes from last to first
)


@pytest.fixture
def foreign(monkeypatch):
    monkeypatch.setattr(unet, "KEYS", {"foreign": FOREIGN}, raising=False)


def as_foreign(net):
    turned = {}
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):  # older files lack it
            continue
        last = name.startswith("head.")
        turned["net." + name.replace("head.", "out.")] = tensor.flip(0) if last else tensor.clone()
    return {**turned, "loss.weight": torch.ones(3)}


def filled(classes=3):
    torch.manual_seed(1)
    net = create_model("unet", classes=classes, **SMALL)
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            if value.is_floating_point():
                value.uniform_(0.1, 1)
    return net.eval()


def save(net, path):
    torch.save({"model": as_foreign(net)}, path)
    return path


def test_a_net_is_filled_from_a_foreign_file(tmp_path, foreign):
    source, net = filled(), create_model("unet", classes=3, **SMALL).eval()
    report = load_weights(net, save(source, tmp_path / "a.pth"))
    assert report.dialect == "foreign"
    assert report.dropped == ("loss.weight",)
    assert set(report.loaded) == {n for n in net.state_dict() if not n.endswith("num_batches_tracked")}
    x = torch.rand(1, 3, 20, 24)
    assert torch.equal(net(x).logits, source(x).logits)


def test_a_net_is_filled_from_a_state_dict_of_either_naming(foreign):
    source = filled()
    for state, dialect in ((source.state_dict(), "pixelwise"), (as_foreign(source), "foreign"),
                           ({"module." + n: t for n, t in source.state_dict().items()}, "pixelwise")):  # fmt: skip
        net = create_model("unet", classes=3, **SMALL)
        assert load_weights(net, state).dialect == dialect
        assert torch.equal(net.head.weight, source.head.weight)


def test_a_net_is_built_from_a_file(tmp_path, foreign):
    source = filled(19)
    net, card = from_checkpoint(save(source, tmp_path / "a.pth"))
    assert (card.architecture, card.outputs, card.options) == ("unet", 19, SMALL)
    assert card.preprocessing == BGR
    assert card.classes.names[:2] == ("road", "sidewalk")
    assert not net.training
    assert torch.equal(net.head.bias, source.head.bias)


def test_classes_without_a_published_set_are_numbered_or_given(tmp_path, foreign):
    path = save(filled(), tmp_path / "a.pth")
    assert from_checkpoint(path)[1].classes.names == ("class 0", "class 1", "class 2")
    (tmp_path / "classes.txt").write_text("crop\nsoil\nweed\n")
    made = import_checkpoint(path, tmp_path / "m.safetensors", classes=tmp_path / "classes.txt")
    assert made.card.classes.names == ("crop", "soil", "weed")
    (tmp_path / "classes.txt").write_text("crop\nweed\n")
    with pytest.raises(ConfigError, match="tells 3 classes apart, the classes given are 2: crop, weed"):
        import_checkpoint(path, tmp_path / "m.safetensors", classes=tmp_path / "classes.txt")


@pytest.mark.parametrize(("change", "said"), [
    (lambda s: s.pop("net.stem.0.weight"), r"1 missing: stem\.0\.weight"),
    (lambda s: s.update(strange=torch.ones(1)), r"1 left over: strange"),
    (lambda s: s.update({"net.more": torch.ones(1)}), r"1 left over: more \(there net\.more\)"),
    (lambda s: s.update({"net.out.weight": torch.ones(5, 4, 1, 1)}),
     r"of another shape: head\.weight \(there net\.out\.weight\): file \[5, 4, 1, 1\], net \[3, 4, 1, 1\]"),
    (lambda s: s.update({"net.out.bias": torch.ones(3, dtype=torch.int32)}), r"not of floating-point numbers: head"),
])  # fmt: skip
def test_what_does_not_fit_is_listed_and_the_net_stays_as_it_was(foreign, change, said):
    state = as_foreign(filled())
    change(state)
    net = create_model("unet", classes=3, **SMALL)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    with pytest.raises(ModelFileError, match=said):
        load_weights(net, state)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


def test_a_file_of_no_known_net_names_the_nearest(tmp_path, foreign):
    torch.save({"net.stem.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(ModelFileError) as error:
        from_checkpoint(tmp_path / "a.pth")
    assert re.search(r"of no net that Pixelwise knows: its 2 tensors are net\.stem\.weight, fc\.bias", str(error.value))
    assert r"Nearest: unet (foreign), of which no key matches ^net\.out\.weight" in str(error.value)
    with pytest.raises(ModelFileError, match="of no net"):
        load_weights(create_model("unet", classes=3, **SMALL), tmp_path / "a.pth")


def test_two_dialects_that_fit_equally_well_must_be_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(unet, "KEYS", {"one": FOREIGN, "two": FOREIGN}, raising=False)
    with pytest.raises(ModelFileError, match=r"may be of unet \(one\) and unet \(two\)"):
        from_checkpoint(save(filled(), tmp_path / "a.pth"))


def test_a_file_that_lacks_what_tells_the_options_is_refused(tmp_path, foreign):
    part = as_foreign(filled())
    del part["net.out.bias"]
    torch.save(part, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=r"unet \(foreign\).*KeyError.*net\.out\.bias"):
        from_checkpoint(tmp_path / "a.pth")


def test_a_file_like_no_net_names_none(tmp_path):
    torch.save({"strange.weight": torch.zeros(3, 3)}, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=r"1 tensors are strange\.weight.*`pixelwise list models`") as error:
        from_checkpoint(tmp_path / "a.pth")
    assert "Nearest" not in str(error.value)


def test_an_unknown_option_or_architecture_is_named(tmp_path, foreign):
    path = save(filled(), tmp_path / "a.pth")
    with pytest.raises(ConfigError, match="did you mean 'norm'"):
        from_checkpoint(path, nrm="group")
    with pytest.raises(ConfigError, match="no model 'unett'; did you mean 'unet'"):
        from_checkpoint(path, "unett")


def test_the_imported_model_predicts_as_its_net_on_the_images_it_expects(tmp_path, foreign, capsys):
    source = filled(19)
    checkpoint, out = save(source, tmp_path / "a.pth"), tmp_path / "model.safetensors"
    with pytest.raises(SystemExit) as end:
        main(["import", str(checkpoint), "--out", str(out)])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert re.search(r"recognised  unet, names as in foreign, [\d,]+ parameters", said)
    assert "classes     19, 8 of them things (road, sidewalk, building, ...)" in said
    assert "images      BGR with a shorter side of 40, a longer of at most 60" in said
    pixels = np.random.default_rng(0).integers(0, 255, (31, 57, 3), dtype=np.uint8)
    probs = load(out, "cpu").output(pixels).probs(0)
    assert probs.shape == (19, 31, 57)
    turned = torch.from_numpy(pixels[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    x = (turned - torch.tensor(BGR.mean).view(1, 3, 1, 1)) / torch.tensor(BGR.std).view(1, 3, 1, 1)
    x = torch.nn.functional.interpolate(x, size=(33, 60), mode="bilinear", align_corners=False)
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(source(x).logits, size=(31, 57), mode="bilinear", align_corners=False)
    assert torch.allclose(probs, logits.softmax(1)[0], atol=1e-5)
    assert load_model(out)[1].training["imported"]["dialect"] == "foreign"


def test_a_model_file_needs_no_import(tmp_path, foreign):
    out = tmp_path / "model.safetensors"
    import_checkpoint(save(filled(19), tmp_path / "a.pth"), out)
    with pytest.raises(ConfigError, match="already"):
        import_checkpoint(out, tmp_path / "again.safetensors")
    with pytest.raises(ConfigError, match="stand in it"):
        from_checkpoint(out, width=4)
    net, card = from_checkpoint(out)
    assert card.outputs == 19
    assert load_weights(net, out).dialect == "pixelwise"
    with pytest.raises(ConfigError, match=r"ends in \.safetensors"):
        import_checkpoint(tmp_path / "a.pth", Path("model.pth"))
