"""Answers by tiles: those of the whole image where the net has a halo, objects joined where tiles meet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Dense, Output
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Preprocessing
from pixelwise.core.segments import UNKNOWN
from pixelwise.errors import ConfigError
from pixelwise.nn.receptive import halo_of
from pixelwise.prediction.stitch import Progress, answer_by_tiles, tiling_for
from pixelwise.prediction.tiling import Tiling
from pixelwise.tasks import Semantic, make_task
from pixelwise.views import PLAIN

CLASSES = Classes(names=["road", "person", "sky"], things=["person"], ids=(7, 24, 23), void=(255,))


class Sheet:
    """A canvas that notes how often each pixel was written."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.rows = np.full(size, -9, np.int32)
        self.times = np.zeros(size, int)

    def put(self, top: int, left: int, rows: np.ndarray) -> None:
        assert rows.dtype == np.int32
        h, w = rows.shape
        self.rows[top : top + h, left : left + w] = rows
        self.times[top : top + h, left : left + w] += 1


@dataclass
class Card:
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


class Asked:
    """A predictor of a net in float64, in which convolutions of any size of image add up to the same labels."""

    def __init__(self, net: nn.Module, task: Any, views: Any = PLAIN) -> None:
        self.net, self.task, self.views, self.card = net.double().eval(), task, views, Card()

    def forward(self, pixels: Tensor) -> Output:
        return self.net(pixels[None].double())


def tiled(asked: Any, image: Tensor, tiling: Tiling | None = None, **words: Any) -> tuple[np.ndarray, Any]:
    """Final rows [H, W] and the table."""
    size = (image.shape[1], image.shape[2])
    sheet = words.pop("sheet", None) or Sheet(size)

    def read(window: tuple[int, int, int, int]) -> Tensor:
        top, left, h, w = window
        assert min(top, left) >= 0
        assert top + h <= size[0]
        assert left + w <= size[1]
        return image[:, top : top + h, left : left + w]

    table = answer_by_tiles(asked, read, size, sheet, tiling=tiling, **words)
    return table.final(sheet.rows), table


SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 4, "depth": 2},
    "unet-bilinear": {"width": 4, "depth": 2},
    "unet-2015": {"width": 4, "depth": 1},
    "unet-milesial": {"width": 4, "depth": 2},
    "unetplusplus": {"width": 2},
    "segnet": {"encoder": "basic", "width": 3},
    "attention_unet": {"width": 2},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_halo_gives_the_labels_of_the_whole_image(name):
    torch.manual_seed(1)
    net = create_model(name, classes=3, **SMALL[name]).double().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=2 / module.weight[0].numel() ** 0.5)
    halo = halo_of(net)
    assert halo is not None
    assert halo.any_size
    image = torch.rand(3, 2 * halo.pixels + 101, 2 * halo.pixels + 130)
    asked = Asked(net, Semantic(CLASSES))
    with torch.no_grad():
        whole = asked.task.decode(asked.forward(image), 0).row_map().numpy()
    margin = -(-halo.pixels // halo.stride) * halo.stride
    core = -(-70 // halo.stride) * halo.stride
    sheet = Sheet(whole.shape)
    rows, table = tiled(asked, image, Tiling(2 * margin + core, 2 * margin, margin, halo.stride, exact=True), sheet=sheet)
    assert (sheet.times == 1).all()
    assert (rows == whole).all()
    assert table.labels.tolist() == [0, 1, 2]
    assert len(np.unique(whole)) > 1
