"""A large image answered by tiles with a small net of 8 classes, beside MONAI's sliding windows as its docs use them.

8192 x 8192 pixels; PIXELWISE_TILED_SIDE=2048 in the environment tries a smaller one. Theirs is given the whole image
as normalised floats, which are not counted; ours reads windows of stored bytes and normalises them. Both hold the
answer in memory. Ours is that of the whole image (see `tests/prediction/test_stitch.py`), theirs a blend of windows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from speed_side import Row, Work

SIDE, CLASSES = int(os.environ.get("PIXELWISE_TILED_SIDE", 8192)), 8


def net() -> Any:
    """Three convolutions of 16 channels and one to the classes."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels in (3, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, CLASSES, 1)).eval()


def image(side: int) -> np.ndarray:
    """[side, side, 3] uint8: noise in blocks of 8 x 8."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    return np.repeat(np.repeat(blocks, 8, 0), 8, 1)


def ours() -> Work:
    import torch
    from torch import nn

    from pixelwise.core.choice import Wishes
    from pixelwise.core.classes import Classes
    from pixelwise.core.modelfile import ModelCard
    from pixelwise.core.outputs import Dense
    from pixelwise.core.sample import Preprocessing
    from pixelwise.prediction.predictor import Predictor
    from pixelwise.prediction.stitch import segments_by_tiles
    from pixelwise.tasks import make_task
    from pixelwise.views import PLAIN

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = net()

        def forward(self, images: Any, frames: Any = None) -> Dense:
            return Dense(self.layers(images), frames or ())

    classes = Classes(names=[f"class{k}" for k in range(CLASSES)])
    card = ModelCard(architecture="small", outputs=CLASSES, classes=classes, task="semantic",
                     preprocessing=Preprocessing())  # fmt: skip
    predictor = Predictor(Small(), card, make_task("semantic", classes), device=torch.device("cpu"), views=PLAIN,
                          wishes=Wishes("cpu", exact=True))  # fmt: skip

    def answer(pixels: torch.Tensor) -> torch.Tensor:
        return segments_by_tiles(predictor, pixels).ids[0]

    pixels = torch.from_numpy(image(SIDE)).permute(2, 0, 1)
    answer(pixels[:, :640, :640])
    return lambda: answer(pixels)


def theirs() -> Work:
    import torch
    from monai.inferers import sliding_window_inference

    from pixelwise.core.sample import Preprocessing

    model = net()

    @torch.no_grad()
    def answer(images: torch.Tensor) -> torch.Tensor:
        return sliding_window_inference(images, (512, 512), 4, model, overlap=0.25, mode="gaussian").argmax(1)[0]

    pixels = torch.from_numpy(image(SIDE)).permute(2, 0, 1)
    images = torch.empty(1, 3, SIDE, SIDE)
    for top in range(0, SIDE, 512):
        images[:, :, top : top + 512] = Preprocessing()(pixels[None, :, top : top + 512])
    answer(images[:, :, :640, :640])
    return lambda: answer(images)


def digest(rows: Any) -> list[int]:
    """Every fifth pixel of every fifth row, up to a million."""
    step = max(5, SIDE // 1000)
    return np.asarray(rows[::step, ::step]).ravel().tolist()


def compare(answers: Mapping[str, Any]) -> str:
    same = np.mean(np.asarray(answers["pixelwise"]) == np.asarray(answers["MONAI"]))
    return f"equal on {100 * same:.2f} % of pixels"


ROW = Row(
    what=f"{SIDE}x{SIDE} by tiles, small net, {CLASSES} classes",
    sides={"pixelwise": ours, "MONAI": theirs},
    digest=digest,
    compare=compare,
    target={"MONAI": 2.4},
)
