"""U-Net's weights in the names of others: milesial/Pytorch-UNet and segmentation_models.pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pixelwise.core.keys import Dialect
from pixelwise.core.sample import Preprocessing
from pixelwise.nn.smp_keys import SMP_ENCODER, smp_encoder


def _milesial_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Four halvings; enlarged by transposed convolutions where their weights are there, else bilinearly."""
    first = tensors["inc.double_conv.0.weight"]
    return {"classes": len(tensors["outc.conv.weight"]), "channels": first.shape[1], "width": first.shape[0],
            "bias": "inc.double_conv.0.bias" in tensors, "padding": "maps",
            "up": "transposed" if "up1.up.weight" in tensors else "halved"}  # fmt: skip


def smp_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options of a U-Net over an encoder, of which the decoder's widths are those of its blocks."""
    blocks = sum(name.startswith("decoder.blocks.") and name.endswith(".conv2.0.weight") for name in tensors)
    return {**smp_encoder(tensors), "classes": len(tensors["segmentation_head.0.weight"]),
            "decoder": [len(tensors[f"decoder.blocks.{i}.conv2.0.weight"]) for i in range(blocks)],
            "center": "decoder.center.0.0.weight" in tensors}  # fmt: skip


KEYS = {
    "smp": Dialect(
        signs=(r"^encoder\.", r"^decoder\.blocks\.0\.conv1\.0\.", r"^decoder\.blocks\.0\.conv2\.0\.",
               r"^segmentation_head\.0\."),
        rules=(
            *SMP_ENCODER,
            (r"decoder\.(center\.\d\.\d\..*|blocks\.\d\.(?:conv|attention)[12]\..*)", r"decoder.\1"),
            (r"segmentation_head\.0\.(.*)", r"head.\1"),
        ),
        options=smp_options,
    ),
    # photographs are divided by 255, no more; the published weights (2 classes, Carvana) are for halved images of cars
    "milesial": Dialect(
        signs=(r"^inc\.double_conv\.0\.weight$", r"^down4\.maxpool_conv\.1\.", r"^up4\.conv\.", r"^outc\.conv\."),
        rules=(
            (r"inc\.double_conv\.(.*)", r"stem.\1"),
            *((rf"down{i + 1}\.maxpool_conv\.1\.double_conv\.(.*)", rf"down.{i}.\1") for i in range(4)),
            *((rf"up{i + 1}\.up\.(.*)", rf"up.{i}.up.\1") for i in range(4)),
            *((rf"up{i + 1}\.conv\.double_conv\.(.*)", rf"up.{i}.conv.\1") for i in range(4)),
            (r"outc\.conv\.(.*)", r"head.\1"),
        ),
        options=_milesial_options,
        preprocessing=Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)),
    ),
}  # fmt: skip
