"""Inference of FCN ResNet-50, torchvision's at 512 x 512: float32 in PyTorch, ONNX Runtime, the quickest engine."""

from __future__ import annotations

from inference import row

ROW = row("fcn-resnet50", "FCN ResNet-50, torchvision's", target=6)
