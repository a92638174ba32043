"""Stored pixels to the net's input in one pass: (x - mean) * scale per channel, in float32."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.kernels.compiled import compiled, form_for, in_parts

LEAST = 1 << 16  # values that a further thread is worth


def normalise(images: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """[B, C, H, W] uint8, uint16 or float -> float32 in the same memory format.

    mean, scale  [C], or [B, C] where each image has its own. A difference is rounded, then the product: both forms find
    the same numbers to the bit.
    """
    stored = images.dtype in (torch.uint8, torch.uint16) and images.device.type == "cpu"
    if not stored or not images.numel() or form_for(images) == "torch":
        return _reference(images, mean, scale)
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    if not last:
        images = images.contiguous()
    out = torch.empty(images.shape, dtype=torch.float32,
                      memory_format=torch.channels_last if last else torch.contiguous_format)  # fmt: skip
    source, target = (t.permute(0, 2, 3, 1).flatten(1) if last else t.flatten(2) for t in (images, out))
    means, scales = (v.float().expand(images.shape[:2]).numpy() for v in (mean, scale))  # [B, C]
    if last:
        repeat = 64  # whole pixels side by side: what LLVM makes vector instructions of
        means, scales = np.tile(means, (1, repeat)), np.tile(scales, (1, repeat))
    for image, into, m, s in zip(source.numpy(), target.numpy(), means, scales):
        if last:
            in_parts(partial(_interleaved, image, into, m, s), -(-len(image) // len(m)), least=max(1, LEAST // len(m)))
        else:
            in_parts(partial(_planes, image, into, m, s), len(image))
    return out


def _reference(images: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    images = images.to(torch.int32).float() if images.dtype == torch.uint16 else images.float()
    return (images - mean[..., None, None]) * scale[..., None, None]


@compiled
def _interleaved(image: Any, out: Any, means: Any, scales: Any, start: int, stop: int) -> None:
    """Blocks start to stop of len(means) values each, the last perhaps shorter; the pattern begins anew in each."""
    width = len(means)
    for block in range(start, stop):
        source, target = image[block * width : (block + 1) * width], out[block * width : (block + 1) * width]
        for i in range(len(source)):
            target[i] = (np.float32(source[i]) - means[i]) * scales[i]


@compiled
def _planes(image: Any, out: Any, means: Any, scales: Any, start: int, stop: int) -> None:
    for c in range(start, stop):
        source, target, mean, scale = image[c], out[c], means[c], scales[c]
        for i in range(len(source)):
            target[i] = (np.float32(source[i]) - mean) * scale
