"""UNet++'s weights in the names of others: segmentation_models.pytorch and 4uiiurz1/pytorch-nested-unet."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from pixelwise.core.keys import Dialect
from pixelwise.core.sample import Preprocessing
from pixelwise.nn.smp_keys import SMP_ENCODER, smp_encoder

PORT = {"norm": "batch", "up": "bilinear", "dropout": 0.0}


def _smp_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The decoder's widths are those of the nodes that the last one is made of, x_0_0, x_0_1, ..."""
    steps = sum(name.startswith("decoder.blocks.x_0_") and name.endswith(".conv2.0.weight") for name in tensors)
    return {**smp_encoder(tensors), "classes": len(tensors["segmentation_head.0.weight"]), "aux": 0.0,
            "decoder": [len(tensors[f"decoder.blocks.x_0_{k}.conv2.0.weight"]) for k in range(steps)]}  # fmt: skip


def _smp_node(match: re.Match[str], names: Collection[str]) -> str:
    """smp numbers levels from the coarsest, and nodes from the last: x_d_l is X(i,j) of i = depth-1-l, j = l-d+1."""
    d, level = int(match[1]), int(match[2])
    depth = max(int(name.split(".")[2].split("_")[2]) for name in names if name.startswith("decoder.blocks.x_"))
    return f"last.{match[3]}" if level == depth else f"nodes.{depth - 1 - level}_{level - d + 1}.{match[3]}"


def _4uiiurz1_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """With four heads it answers by the last one alone."""
    first, deep = tensors["conv0_0.conv1.weight"], "final1.weight" in tensors
    return {**PORT, "classes": len(tensors["final1.weight" if deep else "final.weight"]),
            "channels": first.shape[1], "width": len(first), "aux": 1.0 if deep else 0.0,
            "levels": 4 if deep else 0}  # fmt: skip


def _up_first(name: str, tensor: Tensor) -> Tensor:
    """A node there reads [X(i,0), ..., X(i,j-1), up]; here [up, X(i,j-1), ..., X(i,0)]."""
    match = re.fullmatch(r"nodes\.\d_(\d)\.conv1\.weight", name)
    if not match:
        return tensor
    *earlier, up = tensor.split([len(tensor)] * int(match[1]) + [tensor.shape[1] - int(match[1]) * len(tensor)], 1)
    return torch.cat([up, *earlier[::-1]], 1)


IMAGENET = Preprocessing()
PARTS = (("conv", "conv"), ("bn", "norm"))
KEYS = {
    "smp": Dialect(
        signs=(
            r"^encoder\.",
            r"^decoder\.blocks\.x_0_0\.conv1\.0\.",
            r"^decoder\.blocks\.x_1_1\.",
            r"^segmentation_head\.0\.",
        ),
        rules=(
            *SMP_ENCODER,
            (r"decoder\.blocks\.x_(\d)_(\d)\.(.*)", _smp_node),
            (r"decoder\.center\..*", ""),  # over VGGs, never used
            (r"segmentation_head\.0\.(.*)", r"heads.0.\1"),
        ),
        options=_smp_options,
    ),
    # its images are read by OpenCV, normalised, and divided by 255 once more
    "4uiiurz1": Dialect(
        signs=(r"^conv0_0\.conv1\.", r"^conv4_0\.bn2\.", r"^conv0_4\.conv1\.", r"^conv1_2\.", r"^final\d?\.weight$"),
        rules=(
            *((rf"conv(\d)_0\.{theirs}([12])\.(.*)", rf"path.\1.{ours}\2.\3") for theirs, ours in PARTS),
            *((rf"conv(\d)_(\d)\.{theirs}([12])\.(.*)", rf"nodes.\1_\2.{ours}\3.\4") for theirs, ours in PARTS),
            (r"final\.(.*)", r"heads.0.\1"),
            *((rf"final{j}\.(.*)", rf"heads.{j - 1}.\1") for j in range(1, 5)),
        ),
        options=_4uiiurz1_options,
        preprocessing=Preprocessing(order="BGR", mean=IMAGENET.mean, std=tuple(255 * s for s in IMAGENET.std)),
        change=_up_first,
    ),
}
