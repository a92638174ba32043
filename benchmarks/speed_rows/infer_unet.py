"""Inference of U-Net 31M at 512 x 512: as PyTorch runs it in float32, ONNX Runtime, the quickest engine."""

from __future__ import annotations

from inference import row

ROW = row("unet", "U-Net 31M", target=8)
