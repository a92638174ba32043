"""Inference of U-Net 31M at 512 x 512: as PyTorch runs it in float32, ONNX Runtime, the quickest engine."""

from __future__ import annotations

from inference import compare, digest, side
from speed_side import Row

NET = "unet"

ROW = Row(
    what="inference at 512x512, U-Net 31M",
    sides={
        "pixelwise": lambda: side(NET, "openvino"),
        "eager float32": lambda: side(NET, "plain"),
        "ONNX Runtime": lambda: side(NET, "onnx"),
    },
    digest=digest,
    compare=compare,
    target={"eager float32": 8},
)
