"""Exported files give what the net gives, say what they take, and are not kept where they do not."""

from __future__ import annotations

import json

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

import pixelwise.export as export
from pixelwise import load
from pixelwise.cli import main
from pixelwise.core.classes import Classes
from pixelwise.core.sample import Preprocessing
from pixelwise.core.sizes import SizeRule
from pixelwise.data.streets import draw_scene
from pixelwise.errors import ConfigError, DataError, ExportError, ImageError, ModelFileError
from pixelwise.export import agreement, export_model, exporting, run_exported
from pixelwise.export.running import open_exported

ENDINGS = exporting.ENDINGS


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """{runtime: exported file of the semantic model, with probabilities}"""
    folder = tmp_path_factory.mktemp("exported")
    return {to: export_model(models["semantic"], to, folder / f"m{ending}", probabilities=True)
            for to, ending in ENDINGS.items()}  # fmt: skip


@pytest.mark.parametrize("to", ENDINGS)
def test_the_file_labels_pixels_as_the_predictor_does(files, models, to):
    image = draw_scene(1, 0, (75, 101)).image
    found = run_exported(files[to].path, image)
    output = load(models["semantic"], device="cpu", exact=True).output(image)
    assert files[to].agreement["fp32"].good
    assert found["labels"].shape == (75, 101)
    assert found["labels"].dtype == np.uint8
    assert (found["labels"] == output.class_map(0).numpy()).mean() > 0.9999
    np.testing.assert_allclose(found["probs"], output.probs(0).numpy(), atol=1e-4)


@pytest.mark.parametrize("to", ENDINGS)
def test_the_file_says_what_it_takes(files, to):
    _, about = open_exported(files[to].path)
    taken = {"name": "images", "layout": "NHWC", "dtype": "uint8", "channels": 3, "order": "RGB", "range": 255.0,
             "least": 8, "batch": "any", "resize_first": None}  # fmt: skip
    assert about["input"] == taken
    assert (about["outputs"], about["answer"], about["labels"]) == (
        ["labels", "probs"],
        "labels",
        ["road", "person", "sky"],
    )
    assert len(about["palette"]) == 3
    assert about["card"]["task"] == "semantic"


def test_the_lines_of_the_docstring_run_without_pixelwise(files, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "photo.jpg"), draw_scene(2, 0, (64, 80)).image)
    (tmp_path / "model.onnx").write_bytes(files["onnx"].path.read_bytes())
    monkeypatch.chdir(tmp_path)
    lines = [line[4:] for line in export.__doc__.splitlines() if line.startswith("    ")]
    assert len(lines) == 5
    seen = {}
    exec("\n".join(lines), seen)
    assert seen["labels"].shape == (64, 80)
    about = onnxruntime.InferenceSession("model.onnx").get_modelmeta().custom_metadata_map["pixelwise"]
    assert json.loads(about)["labels"] == ["road", "person", "sky"]


@pytest.mark.parametrize("ending", ENDINGS.values())
@pytest.mark.filterwarnings("ignore")  # torch warns of what it cannot read
def test_a_damaged_file_is_named(tmp_path, ending):
    path = tmp_path / f"m{ending}"
    path.write_bytes(b"something else")
    with pytest.raises(ModelFileError, match=rf"m\{ending} cannot be opened as an exported model"):
        run_exported(path, np.zeros((20, 20, 3), np.uint8))


def test_an_image_that_is_too_small_is_refused(files):
    with pytest.raises(ImageError, match=r"5 x 40 pixels.*at least 8"):
        run_exported(files["torch"].path, np.zeros((5, 40, 3), np.uint8))


def test_other_batches_and_sizes_are_taken(files):
    run, _ = open_exported(files["onnx"].path)
    assert run(np.zeros((3, 33, 40, 3), np.uint8))["labels"].shape == (3, 33, 40)


def test_16_bit_grey_and_single_channels(write_model, tmp_path):
    classes = Classes(names=["cell"], things=["cell"])
    model = write_model(tmp_path / "m.safetensors", classes=classes, channels=1, top=65535.0)
    made = export_model(model, "torch")
    image = np.random.default_rng(0).integers(0, 65536, (40, 50), dtype=np.uint16)
    expected = load(model, device="cpu", exact=True).output(image).class_map(0).numpy()
    assert made.path == tmp_path / "m.pt2"
    assert (run_exported(made.path, image)["labels"] == expected).mean() > 0.9999
    assert set(np.unique(expected)) == {0, 1}  # the class, and nothing: no logit above zero


def test_a_file_that_answers_otherwise_is_not_kept(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "Deployed", Wrong)
    out = tmp_path / "m.pt2"
    with pytest.raises(SystemExit) as end:
        main(["export", str(models["semantic"]), "--to", "torch", "--out", str(out)])
    assert end.value.code == 1
    assert "answers otherwise than the net does" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class Wrong(exporting.Deployed):
    """Errs at a fifth of the pixels, but not where the net itself is asked."""

    def forward(self, images):
        labels = super().forward(images)[0]
        return (torch.where(images[..., 0] > 128, 1 - labels.clamp_max(1), labels),)


def test_the_command_prints_the_agreement(models, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), draw_scene(0, 1, (48, 64)).image)
    with pytest.raises(SystemExit) as end:
        main(
            [
                "export",
                str(models["semantic"]),
                "--to",
                "torch",
                "--out",
                str(tmp_path / "m.pt2"),
                "--images",
                str(folder),
            ]
        )
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "100.0000% of 3,072 pixels of 1 images equal" in said
    assert str(tmp_path / "m.pt2") in said


def test_what_cannot_be_exported_is_said(models, write_model, tmp_path):
    with pytest.raises(ConfigError, match=r"no export to 'onx'; did you mean 'onnx'"):
        export_model(models["semantic"], "onx")
    with pytest.raises(ConfigError, match=r"ends in \.onnx"):
        export_model(models["semantic"], "onnx", tmp_path / "m.pb")
    stretched = Preprocessing(percentiles=(1.0, 99.0))
    model = write_model(tmp_path / "m.safetensors", preprocessing=stretched)
    with pytest.raises(ConfigError, match="bincount"):
        export_model(model, "onnx")
    with pytest.raises(DataError, match="has no image"):
        export_model(models["semantic"], "torch", tmp_path / "m.pt2", images=tmp_path)
    for name, said in (("m.safetensors", "ends in"), ("none.onnx", "no such file")):
        with pytest.raises(ModelFileError, match=said):
            run_exported(tmp_path / name, np.zeros((9, 9, 3), np.uint8))
    assert not list(tmp_path.glob("m.[px]*"))


def test_a_size_rule_is_left_to_the_caller(write_model, tmp_path):
    model = write_model(tmp_path / "m.safetensors", preprocessing=Preprocessing(size=SizeRule(short=40)))
    made = export_model(model, "torch")
    _, about = open_exported(made.path)
    assert about["input"]["resize_first"]["short"] == 40
    assert about["input"]["dtype"] == "float32"
    assert run_exported(made.path, np.zeros((80, 100, 3), np.uint8))["labels"].shape == (40, 50)


def test_where_there_is_nothing_to_compare_that_is_said():
    nothing = agreement.Agreement(images=2, pixels=0, equal=1.0, ties=0, what="objects")
    assert nothing.good
    assert str(nothing) == "no objects on 2 images, so nothing was compared: name images that show some by --images"


def test_thresholds_of_agreement():
    found = agreement.Agreement(images=1, pixels=1000, equal=0.997, ties=3, what="pixels")
    assert found.good
    assert not agreement.Agreement(1, 1000, 0.997, 2, "pixels").good
    assert not agreement.Agreement(1, 1000, 0.99, 0, "numbers").good
    with pytest.raises(ExportError, match=r"99\.8"):
        exporting._refuse(agreement.Agreement(1, 1000, 0.99, 10, "pixels"), "bf16", None, known=True)
