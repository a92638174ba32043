"""Inference of DeepLabV3+ ResNet-50 at 512 x 512: as PyTorch runs it in float32, ONNX Runtime, the quickest engine."""

from __future__ import annotations

from inference import row

ROW = row("deeplab-v3plus", "DeepLabV3+ ResNet-50", target=7)
