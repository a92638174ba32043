"""Inference of FCN ResNet-50, torchvision's at 512 x 512: float32 in PyTorch, ONNX Runtime, the quickest engine."""

from __future__ import annotations

from inference import compare, digest, side
from speed_side import Row

NET = "fcn-resnet50"

ROW = Row(
    what="inference at 512x512, FCN ResNet-50, torchvision's",
    sides={
        "pixelwise": lambda: side(NET, "openvino"),
        "eager float32": lambda: side(NET, "plain"),
        "ONNX Runtime": lambda: side(NET, "onnx"),
    },
    digest=digest,
    compare=compare,
    target={"eager float32": 6},
)
