"""Encoders in the names of other code bases: the rules to rename them, and which one it is by its shapes.

    torchvision        ResNets as timm has them, after a prefix       RESNET
    mmsegmentation     ResNetV1c, whose stem is three 3x3             RESNET_V1C

and, with `MMSEG`, what the published dense nets of mmsegmentation have in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pixelwise.core.keys import Rule, prefixed
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ModelFileError

RESNET: tuple[Rule, ...] = ((r"fc\..*", ""), (r"((?:conv1|bn1|layer[1-4])\..*)", r"\1"))
RESNET_V1C: tuple[Rule, ...] = (
    (r"stem\.([0134])\.(.*)", r"conv1.\1.\2"),
    (r"stem\.6\.(.*)", r"conv1.6.\1"),
    (r"stem\.7\.(.*)", r"bn1.\1"),
    (r"(layer[1-4]\..*)", r"\1"),
)
# of a net that has its encoder as `encoder`: V1c or plain
MMSEG_BACKBONE = prefixed("backbone.", "encoder.body.", (*RESNET_V1C, *RESNET))
MMSEG_AUX: tuple[Rule, ...] = (  # its auxiliary head, here an FCNHead called `aux`
    (r"auxiliary_head\.convs\.0\.conv\.(.*)", r"aux.0.\1"),
    (r"auxiliary_head\.convs\.0\.bn\.(.*)", r"aux.1.\1"),
    (r"auxiliary_head\.conv_seg\.(.*)", r"aux.4.\1"),
)
# Cityscapes is seen at its own size; images are resized through OpenCV, which samples
MMSEG: dict[str, Any] = {
    "labels": {19: "cityscapes", 21: "voc", 150: "ade20k"},
    "sizes": {classes: SizeRule(short=512, long=2048, antialias=False) for classes in (21, 150)},
}
STEMS = {32: "c", 64: "s"}  # width of the first of three convolutions -> what timm's name ends with
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


def resnet_name(tensors: Mapping[str, Tensor], prefix: str, stem: str = "") -> str:
    """timm's name of the ResNet whose tensors begin with `prefix` (with its last dot), e.g. "resnet50", or "resnet50c",
    "resnet50s" with a stem of three convolutions that begins 32 or 64 wide. Raises ModelFileError for another.

    stem   where the first of the three convolutions stands; "": at the places that torchvision and mmsegmentation have
    """
    counts = tuple(1 + max((_block(name, f"{prefix}layer{i}.") for name in tensors), default=-1) for i in range(1, 5))
    first = f"{prefix}layer1.0."
    bottleneck = f"{first}conv3.weight" in tensors
    conv = tensors[f"{first}conv{2 if bottleneck else 1}.weight"]
    found = counts, bottleneck, conv.shape[0], conv.shape[1]
    if found not in RESNETS:
        raise ModelFileError(f"its ResNet has {list(counts)} blocks{' of three convolutions' if bottleneck else ''}, "
                             f"{conv.shape[0]} wide: none that is known.")  # fmt: skip
    places = (stem,) if stem else (f"{prefix}stem.0.weight", f"{prefix}conv1.0.weight")
    deep = next((len(tensors[place]) for place in places if place in tensors), None)
    if deep is not None and deep not in STEMS:
        raise ModelFileError(f"its ResNet's stem of three convolutions begins {deep} wide; 32 and 64 are known.")
    return RESNETS[found] + ("" if deep is None else STEMS[deep])


def mmseg_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options `encoder`, `channels` and `aux` (0 without such a head) of a net in mmsegmentation's names."""
    encoder = resnet_name(tensors, "backbone.")
    stem = tensors.get("backbone.stem.0.weight", tensors.get("backbone.conv1.weight"))
    if stem is None:
        raise ModelFileError("its encoder has no first convolution.")
    aux = 0.4 if "auxiliary_head.conv_seg.weight" in tensors else 0.0
    return {"encoder": encoder, "channels": stem.shape[1], "aux": aux}


def mmseg_dilated_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """`mmseg_encoder` for nets whose encoder is dilated: in blocks of two convolutions mmsegmentation dilates the first
    only, which is "resnet18b" with the plain stem, "resnet18c" with the deep one."""
    told = mmseg_encoder(tensors)
    name = told["encoder"]
    plain_basic = name in ("resnet18", "resnet34")
    return {**told, "encoder": name + "b"} if plain_basic else told


def _block(name: str, stage: str) -> int:
    match = re.match(rf"{re.escape(stage)}(\d+)\.", name)
    return int(match[1]) if match else -1
