"""The cache of a training: no weight depends on it, earlier runs' words are still read, and what is chosen is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pixelwise.cli import parse
from pixelwise.config import TrainSettings, to_dict
from pixelwise.data.cache import Memory
from pixelwise.data.disk import Disk
from pixelwise.errors import ConfigError
from pixelwise.training import Training, caching
from pixelwise.training.folder import resumed

WORDS = ["--model", "unet", "--options", "width=4", "depth=2", "--crop", "32", "--device", "cpu", "--precision", "fp32",
         "--batch-size", "2", "--epochs", "2", "--workers", "0", "--no-report"]  # fmt: skip


def test_a_training_is_the_same_with_a_cache_on_disk(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    weights = []
    for kind in (["off"], ["disk", "--cache-folder", str(tmp_path / "cache"), "--cache-gb", "0.5"]):
        out = tmp_path / kind[0]
        Training(parse(["train", str(shapes), *WORDS, "--cache", *kind, "--out", str(out)])).run()
        weights.append(load_file(out / "last.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert len(list((tmp_path / "cache").glob("*.item"))) == 6
    assert f"cache     {tmp_path / 'cache'}: at most 0.5 GB\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "disk" / "run.json").read_text())["plan"]["cache"] == "disk"


@pytest.mark.parametrize(("old", "word"), [(None, "auto"), (True, "memory"), (False, "off")])
@pytest.mark.parametrize("planned", [True, False])
def test_runs_from_before_are_still_read(old: bool | None, word: str, planned: bool, tmp_path: Path) -> None:
    settings = TrainSettings(data=tmp_path, out=tmp_path / "run", resume=True)
    stored = to_dict(settings)
    for name in ("cache", "cache_folder", "cache_gb"):
        del stored[name]
    stored["dataset"]["cache"] = old
    plan = {"crop": [32, 32], "batch_size": 1, "epochs": 1, "minutes": None, "lr": 1e-3, "workers": 0, "cache": planned,
            "evaluate_every": None, "device": "cpu", "precision": "fp32", "said": []}  # fmt: skip
    settings.out.mkdir()
    (settings.out / "run.json").write_text(json.dumps({"settings": stored, "plan": plan}))
    found, its_plan = resumed(settings)
    assert found.cache == word
    assert its_plan is not None
    assert its_plan.cache == ("memory" if planned else "off")
    again, _ = resumed(replace(settings, cache="disk", cache_gb=2.0))  # it may change
    assert (again.cache, again.cache_gb) == ("disk", 2.0)


@pytest.mark.parametrize(("change", "message"), [
    ({"cache_folder": Path("x")}, "for --cache disk; it is auto"),
    ({"cache_gb": 1.0, "cache": "memory"}, "it is memory"), ({"cache_gb": 0.0, "cache": "disk"}, "must be above 0"),
])  # fmt: skip
def test_what_would_do_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(Path("d"), **change)


def test_auto_is_memory_while_it_fits_and_else_says_what_would_help() -> None:
    settings: Any = TrainSettings(Path("d"))
    data: Any = SimpleNamespace(channels=3, dtype="uint8")
    stats: Any = SimpleNamespace(sizes={(1000, 1000): 2, (500, 1000): 2})
    assert caching.decoded_bytes(data, stats, 10) == 10 * 750_000 * 4
    said: list[str] = []
    assert caching.pick_cache(settings, data, stats, 100, said) == "memory"
    assert not said
    assert caching.pick_cache(settings, data, stats, 4000, said) == "off"
    assert said == ["images are decoded anew each time; --cache disk would keep them, 12 GB"]
    assert caching.pick_cache(replace(settings, cache="disk"), data, stats, 100, said) == "disk"


def test_a_small_bound_and_a_folder_that_refuses_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    settings = TrainSettings(Path("d"), cache="disk", cache_folder=tmp_path / "cache", cache_gb=1.0)
    assert isinstance(caching.open_cache("disk", settings, 4e9, said.append), Disk)
    assert said == [f"cache     {tmp_path / 'cache'}: at most 1.0 GB, which is room for about 25% of the images"]
    (tmp_path / "file").write_text("")
    caching.open_cache("disk", replace(settings, cache_folder=tmp_path / "file"), 1e9, said.append)
    assert "takes nothing more" in said[1]
    assert caching.open_cache("off", settings, 1e9, said.append) is None
    assert isinstance(caching.open_cache("memory", settings, 1e9, said.append), Memory)
    assert len(said) == 2
    caching.open_cache("memory", settings, 1e10, said.append)
    assert said[2] == "cache     in memory: at most 2.1 GB, which is room for about 21% of the images"
