"""Encoders in the names of other code bases: the rules to rename them, and which one it is by its shapes.

    torchvision, smp   ResNets as timm has them, after a prefix       RESNET
    mmsegmentation     ResNetV1c, whose stem is three 3x3             RESNET_V1C
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from pixelwise.core.keys import Rule
from pixelwise.errors import ModelFileError

RESNET: tuple[Rule, ...] = ((r"fc\..*", ""), (r"((?:conv1|bn1|layer[1-4])\..*)", r"\1"))
RESNET_V1C: tuple[Rule, ...] = (
    (r"stem\.([0134])\.(.*)", r"conv1.\1.\2"),
    (r"stem\.6\.(.*)", r"conv1.6.\1"),
    (r"stem\.7\.(.*)", r"bn1.\1"),
    (r"(layer[1-4]\..*)", r"\1"),
)
# blocks in the four stages, whether bottlenecks, width of the first 3x3 and of its groups -> timm's name
RESNETS = {
    ((2, 2, 2, 2), False, 64, 64): "resnet18",
    ((3, 4, 6, 3), False, 64, 64): "resnet34",
    ((3, 4, 6, 3), True, 64, 64): "resnet50",
    ((3, 4, 23, 3), True, 64, 64): "resnet101",
    ((3, 8, 36, 3), True, 64, 64): "resnet152",
    ((3, 4, 6, 3), True, 128, 4): "resnext50_32x4d",
    ((3, 4, 23, 3), True, 256, 8): "resnext101_32x8d",
    ((3, 4, 6, 3), True, 128, 128): "wide_resnet50_2",
    ((3, 4, 23, 3), True, 256, 256): "wide_resnet101_2",
}


def resnet_name(tensors: Mapping[str, Tensor], prefix: str) -> str:
    """timm's name of the ResNet whose tensors begin with `prefix` (with its last dot), e.g. "resnet50", or "resnet50c"
    with a stem of three convolutions. Raises ModelFileError for another."""
    counts = tuple(1 + max((_block(name, f"{prefix}layer{i}.") for name in tensors), default=-1) for i in range(1, 5))
    first = f"{prefix}layer1.0."
    bottleneck = f"{first}conv3.weight" in tensors
    conv = tensors[f"{first}conv{2 if bottleneck else 1}.weight"]
    found = counts, bottleneck, conv.shape[0], conv.shape[1]
    if found not in RESNETS:
        raise ModelFileError(f"its ResNet has {list(counts)} blocks{' of three convolutions' if bottleneck else ''}, "
                             f"{conv.shape[0]} wide: none that is known.")  # fmt: skip
    deep = f"{prefix}stem.0.weight" in tensors or f"{prefix}conv1.0.weight" in tensors
    return RESNETS[found] + ("c" if deep else "")


def _block(name: str, stage: str) -> int:
    match = re.match(rf"{re.escape(stage)}(\d+)\.", name)
    return int(match[1]) if match else -1
