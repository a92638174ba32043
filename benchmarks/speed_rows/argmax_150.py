"""Labels of 150 classes, four times enlarged to 1024 x 2048, beside F.interpolate and argmax.

The logits are smooth fields with a little noise, as a net gives them. The environment variable ROUGH draws mere noise
instead, where hardly a class can be ruled out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from speed_side import Row, Work

GRID, FACTOR = (256, 512), 4


def logits(classes: int, grid: tuple[int, int] = GRID) -> Any:
    """[1, K, h, w] float32."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    noise = torch.randn(1, classes, *grid)
    if os.environ.get("ROUGH"):
        return noise
    coarse = torch.randn(1, classes, grid[0] // 16, grid[1] // 16)
    return noise.mul_(0.1).add_(F.interpolate(coarse, size=grid, mode="bicubic"), alpha=3)


def ours(classes: int) -> Work:
    from pixelwise.core.outputs import Dense, Frame

    def read(maps: Any) -> Any:
        height, width = (FACTOR * side for side in maps.shape[2:])
        return Dense(maps, (Frame.whole(height, width),)).class_map(0)

    read(logits(classes, (16, 32)))
    maps = logits(classes)
    return lambda: read(maps)


def theirs(classes: int) -> Work:
    from torch.nn import functional as F

    maps, size = logits(classes), (FACTOR * GRID[0], FACTOR * GRID[1])
    return lambda: F.interpolate(maps, size=size, mode="bilinear", align_corners=False).argmax(1)[0]


def reference(classes: int) -> Work:
    """The labels that ours must be to the bit."""
    from pixelwise.kernels.compiled import only

    work = ours(classes)

    def read() -> Any:
        with only("torch"):
            return work()

    return read


def compare(answers: Mapping[str, Any]) -> str:
    mine, other, same = (np.asarray(answers[side]) for side in SIDES)
    return (
        f"{int((mine != same).sum())} pixels differ from the reference, {int((mine != other).sum())} from interpolate"
    )


SIDES = ("pixelwise", "F.interpolate and argmax", "reference in strips")


def row(classes: int, target: float) -> Row:
    makers = (lambda: ours(classes), lambda: theirs(classes), lambda: reference(classes))
    return Row(
        what=f"bilinear x4 and argmax to 1024x2048, {classes} classes" + (", noise" if os.environ.get("ROUGH") else ""),
        sides=dict(zip(SIDES, makers)),
        compare=compare,
        target={SIDES[1]: target},
    )


ROW = row(150, 40)
