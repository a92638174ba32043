"""Settings to JSON and back, and what is refused on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixelwise.config import OptimSettings, ScheduleSettings, TrainSettings, from_dict, parse_options, to_dict
from pixelwise.errors import ConfigError

FULL = {
    "data": "d", "model": "unet-small", "options": ["width=4"], "out": "o", "task": "panoptic", "minutes": 3,
    "crop": [64, 96],
    "lr": 1, "weights": None, "dataset": {"balanced": True}, "cache": "off",
    "transforms": {"scale": [0.5, 2], "scales": [0.5, 1.0, 2.0]}, "optim": {"name": "sgd", "ema": 0.9},
    "schedule": {"name": "poly", "power": 1},
}  # fmt: skip


def test_round_trip():
    settings = from_dict(TrainSettings, FULL)
    assert (settings.data, settings.lr, settings.crop) == (Path("d"), 1.0, (64, 96))
    assert isinstance(settings.lr, float)
    assert settings.transforms.scale == (0.5, 2.0)
    assert settings.optim == OptimSettings(name="sgd", ema=0.9)
    plain = json.loads(json.dumps(to_dict(settings)))
    assert from_dict(TrainSettings, plain) == settings
    assert from_dict(TrainSettings, to_dict(TrainSettings(Path("x")))) == TrainSettings(Path("x"))


@pytest.mark.parametrize(("change", "message"), [
    ({"epoch": 3}, "run.json: there is no setting 'epoch'; did you mean 'epochs'"),
    ({"optim": {"clp": 3}}, "no setting 'optim.clp'; did you mean 'clip'"),
    ({"zzzzz": 3}, "no setting 'zzzzz'; known: batch_size, cache, cache_folder"),
    ({"epochs": "3"}, "'epochs' is '3'; expected int"), ({"epochs": 2.5}, "'epochs' is 2.5; expected int"),
    ({"epochs": True}, "'epochs' is True"), ({"lr": "1e-3"}, "'lr' is '1e-3'; expected float"),
    ({"lr": True}, "'lr' is True"), ({"resume": 1}, "'resume' is 1; expected bool"),
    ({"model": None}, "'model' is None"),
    ({"task": "panoptik"}, "'task' is 'panoptik'; did you mean 'panoptic'"),
    ({"optim": {"name": "adamv"}}, "'optim.name' is 'adamv'; did you mean 'adam"),
    ({"optim": 3}, "'optim' is 3"), ({"options": "width=4"}, "'options' is 'width=4'"),
    ({"crop": ["a"]}, "'crop.0.' is 'a'"), ({"transforms": {"scale": [1]}}, "'transforms.scale' is .1."),
    ({"data": 3}, "'data' is 3"),
])  # fmt: skip
def test_wrong_keys_types_and_words(change, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(TrainSettings, {"data": "d", **change}, source="run.json")


def test_what_must_be_there():
    with pytest.raises(ConfigError, match="data"):
        from_dict(TrainSettings, {})


@pytest.mark.parametrize("change", [
    {"epochs": 3, "minutes": 3.0}, {"epochs": 0}, {"batch_size": 0}, {"evaluate_every": 0}, {"workers": -1},
    {"stop_after": -1}, {"minutes": 0.0}, {"minutes": float("inf")}, {"lr": 0.0}, {"lr": float("nan")}, {"crop": (4,)},
    {"crop": (64, 64, 64)},
], ids=str)  # fmt: skip
def test_impossible_values(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        TrainSettings(Path("d"), **change)


@pytest.mark.parametrize(("kind", "change"), [
    (OptimSettings, {"accumulate": 0}), (OptimSettings, {"clip": -1.0}), (OptimSettings, {"ema": 1.0}),
    (OptimSettings, {"weight_decay": -1.0}), (OptimSettings, {"momentum": 1.0}), (ScheduleSettings, {"warmup": 1.0}),
    (ScheduleSettings, {"power": 0.0}), (ScheduleSettings, {"factor": 1.0}), (ScheduleSettings, {"patience": -1}),
], ids=str)  # fmt: skip
def test_impossible_values_of_parts(kind, change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        kind(**change)


def test_options_of_a_net():
    words = ("width=24", "norm=group", "bias=false", "up=True", "dropout=0.5", "scale=1e-3", "name=a=b", "empty=")
    assert parse_options(words) == {"width": 24, "norm": "group", "bias": False, "up": True, "dropout": 0.5,
                                    "scale": 1e-3, "name": "a=b", "empty": ""}  # fmt: skip
    assert parse_options(()) == {}
    for word in ("width", "=3", ""):
        with pytest.raises(ConfigError, match="not of the form name=value"):
            parse_options((word,))
