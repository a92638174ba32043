"""What is refused before any data is read, and what a net's file says about its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelwise.cli import parse
from pixelwise.config import DataSettings, TrainSettings
from pixelwise.core.classes import Classes
from pixelwise.core.registry import create_model
from pixelwise.errors import ConfigError
from pixelwise.models import mask_rcnn
from pixelwise.nn import encoder
from pixelwise.tasks import make_task
from pixelwise.training import Training
from pixelwise.training import plan as plans

SETTINGS = TrainSettings(Path("data"))
CLASSES = Classes(names=["soil", "crop", "weed"], things=["crop", "weed"])


def test_losses_that_a_net_cannot_take_are_refused():
    with pytest.raises(ConfigError, match=r"--loss dice: stardist gives no class to each pixel"):
        plans.check_words(replace(SETTINGS, model="stardist", loss="dice"))
    with pytest.raises(ConfigError, match=r"--class-weights enet: .* mask_rcnn has losses of its own"):
        plans.check_words(replace(SETTINGS, model="mask_rcnn", class_weights="enet"))
    with pytest.raises(ConfigError, match="--class-weights enet: no term of the loss dice takes them; add ce"):
        plans.check_words(replace(SETTINGS, loss="dice", class_weights="enet"))
    with pytest.raises(ConfigError, match="--monitor loss: panoptic_fpn-small has a loss in training alone"):
        plans.check_words(replace(SETTINGS, model="panoptic_fpn-small", monitor="loss"))


def test_the_loss_is_the_nets_own_unless_another_is_asked_for():
    assert str(plans.mix_of(SETTINGS)) == "ce+dice"
    assert str(plans.mix_of(replace(SETTINGS, loss="ce"))) == "ce"
    assert plans.mix_of(replace(SETTINGS, model="mask_rcnn-small")) is None


@pytest.mark.parametrize(("model", "task", "says"), [
    ("mask_rcnn-small", "panoptic", "mask_rcnn-small is trained for the task instance, not panoptic"),
    ("panoptic_deeplab", "semantic", "for the task panoptic or instance, not semantic"),
    ("stardist", "semantic", "not semantic"),
])  # fmt: skip
def test_tasks_that_a_net_cannot_learn_are_refused(model, task, says):
    with pytest.raises(ConfigError, match=says):
        plans.check_task(replace(SETTINGS, model=model), make_task(task, CLASSES))
    plans.check_task(replace(SETTINGS, model="unet"), make_task(task, CLASSES))


class Pictures:
    """What `model_options` reads of a data set."""

    channels = 3


@pytest.mark.parametrize(("task", "things"), [("panoptic", [1, 2]), ("instance", [0, 1])])
def test_nets_that_must_know_their_things_are_told(task, things):
    settings = replace(SETTINGS, model="panoptic_deeplab-small")
    options = plans.model_options(settings, Pictures(), make_task(task, CLASSES))
    assert options == {"channels": 3, "things": things}
    assert np.flatnonzero(make_task(task, CLASSES).classes.is_thing).tolist() == things
    assert plans.model_options(SETTINGS, Pictures(), make_task(task, CLASSES)) == {"channels": 3}


def test_weights_from_elsewhere_are_asked_for_once_and_no_model_file_wants_them(streets, tmp_path, monkeypatch):
    asked = []
    build = encoder._build

    def offline(name, channels, pretrained, *rest, **more):
        asked.append(pretrained)
        return build(name, channels, False, *rest, **more)

    monkeypatch.setattr(encoder, "_build", offline)
    words = [f"{name}={value}" for name, value in mask_rcnn.THIN.items()]
    settings = ["train", str(streets), "--model", "mask_rcnn", "--task", "instance", "--crop", "32", "--device", "cpu",
                "--batch-size", "1", "--out", str(tmp_path), "--options", *words, "pretrained=true"]  # fmt: skip
    training = Training(parse(settings))
    assert asked.count(True) == 1
    assert "pretrained" not in training._card({}).options


class Photographs:
    """What `preprocessing_of` reads of a data set and its statistics."""

    def __init__(self, channels: int = 3, dtype: str = "uint8") -> None:
        self.channels, self.dtype = channels, dtype
        self.mean, self.std = np.full(channels, 0.4), np.full(channels, 0.1)

    def preprocessing(self, settings, net=None, said=None):
        say = (lambda line: None) if said is None else said.append
        return plans.preprocessing_of(settings, self, self, torch.nn.Identity() if net is None else net, say)


def test_colours_are_normalised_as_the_encoders_weights_expect(monkeypatch):
    """timm's loading is replaced; it stands in its description that this net was trained with means of a half."""
    import timm

    real, loaded = timm.create_model, []

    def offline(name, pretrained=False, **options):
        loaded.append(pretrained)
        return real(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    settings = replace(SETTINGS, model="mask_rcnn-small", options=("pretrained=true",))
    net = create_model("mask_rcnn-small", classes=3, encoder="tf_mobilenetv3_small_minimal_100", pretrained=True)
    assert True in loaded
    said: list[str] = []
    found = Photographs().preprocessing(settings, net, said)
    assert (found.mean, found.std, found.range, found.order) == ((0.5,) * 3, (0.5,) * 3, 255.0, "RGB")
    assert said == ["input     mean 0.5 0.5 0.5, deviation 0.5 0.5 0.5: those of the encoder's weights"]
    assert Photographs().preprocessing(settings).mean == (0.485, 0.456, 0.406)  # weights in a net's own layers
    for kind in (Photographs(4), Photographs(3, "uint16")):
        assert kind.preprocessing(settings, net, said).mean == (0.4,) * kind.channels
        assert "mean and deviation of the data" in said[-1]
    assert Photographs().preprocessing(replace(settings, options=()), net).mean == (0.4,) * 3


def test_percentiles_of_16_bits_keep_their_range():
    settings = replace(SETTINGS, dataset=DataSettings(percentiles=(1.0, 99.8)))
    for dtype, top in (("uint8", 255.0), ("uint16", 65535.0)):
        found = Photographs(1, dtype).preprocessing(settings)
        assert (found.range, found.percentiles, found.mean) == (top, (1.0, 99.8), (0.0,))
