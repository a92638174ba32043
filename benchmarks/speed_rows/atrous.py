"""Atrous 3x3 convolution, rate 24, 2048 to 256 channels at 64 x 64 in bfloat16, beside torch's conv2d.

Ours is the layer as the house calls it, on channels-last maps, which takes the way that suits the processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from speed_side import Row, Work

RATE, CHANNELS, WIDTH, SIZE = 24, 2048, 256, 64


def made(last: bool) -> tuple[Any, Any]:
    """The layer in bfloat16 and a map, both channels-last if so wished."""
    import torch

    from pixelwise.nn.conv import AtrousConv

    torch.manual_seed(0)
    order = torch.channels_last if last else torch.contiguous_format
    layer = AtrousConv(CHANNELS, WIDTH, RATE).eval().to(torch.bfloat16, memory_format=order)
    return layer, torch.randn(1, CHANNELS, SIZE, SIZE).to(torch.bfloat16).contiguous(memory_format=order)


def side(way: str, last: bool = True) -> Work:
    import torch
    from torch.nn import functional as F

    from pixelwise.kernels.atrous import shifted_products

    layer, maps = made(last)

    def run() -> Any:
        with torch.inference_mode():
            if way == "layer":
                return layer(maps)
            if way == "products":
                return shifted_products(maps, layer.weight, None, RATE)
            return F.conv2d(maps, layer.weight, padding=RATE, dilation=RATE)

    run()
    return run


def digest(answer: Any) -> Any:
    return answer.float()[0, ::16, ::4, ::4].numpy().tolist()


def compare(answers: Mapping[str, Any]) -> str:
    arrays = {name: np.asarray(answer) for name, answer in answers.items()}
    far = max(float(np.abs(a - arrays["conv2d"]).max()) for a in arrays.values())
    return f"{far / float(np.abs(arrays['conv2d']).max()):.1e} of the largest number apart at most"


ROW = Row(
    what="atrous 3x3, rate 24, 2048 to 256 channels at 64x64, bf16",
    sides={
        "pixelwise": lambda: side("layer"),
        "conv2d": lambda: side("conv", last=False),
        "conv2d, channels-last": lambda: side("conv"),
        "nine shifted products": lambda: side("products"),
    },
    digest=digest,
    compare=compare,
    target={"conv2d": 8},
)
