"""The examples run as they stand: the textbook's Cityscapes example done right, on drawn streets in the same layout."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from pixelwise.data.streets import write_streets

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_streets(tmp_path_factory.mktemp("data") / "streets", train=4, val=2, test=1, size=(64, 128), seed=3)


def test_the_cityscapes_example_trains_scores_and_predicts(
    streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLES / "cityscapes.py"))["main"]
    words = [str(streets), "--model", "unet-tiny", "--epochs", "2", "--batch-size", "2", "--crop", "32", "64"]
    scores = main([*words, "--out", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert scores["iou"].shape == (19,)
    assert 0 <= scores["miou"] <= 1
    assert "train: 4 images" in said
    assert "val: 2 images" in said
    assert "torch.Size([64, 128]) labels" in said  # at the photograph's size, not at the crop's
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_classes_that_the_streets_lack_are_absent_and_not_perfect(streets: Path, tmp_path: Path) -> None:
    main = runpy.run_path(str(EXAMPLES / "cityscapes.py"))["main"]
    scores = main(
        [str(streets), "--model", "unet-tiny", "--epochs", "1", "--batch-size", "2", "--out", str(tmp_path / "run")]
    )
    truck = scores["iou"][14]  # nobody draws a truck: absent is NaN, or 0 where the net predicts one; never 1
    assert np.isnan(truck) or truck == 0
