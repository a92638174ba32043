"""Padding by mirrored borders, of any width: torch's own reflection stops after one turn."""

from __future__ import annotations

import torch
from torch import Tensor


def lacking(size: int, multiple: int) -> int:
    """How many pixels `size` lacks to a multiple. With no negative number in it, which the runtimes of exported nets
    divide each in their own way."""
    return (size + multiple - 1) // multiple * multiple - size


def mirror(images: Tensor, pads: tuple[int, int, int, int]) -> Tensor:
    """Pads [B, C, H, W] by (top, bottom, left, right) pixels, mirrored as often as the size asks for.

    The border pixel is not repeated; images in channels-last memory stay so.
    """
    top, bottom, left, right = pads
    if not torch.compiler.is_exporting() and not any(pads):  # an exported program is for any size
        return images
    rows = _folded(images.shape[2], top, bottom, images.device)
    columns = _folded(images.shape[3], left, right, images.device)
    padded = images[:, :, rows][:, :, :, columns]  # loses the memory format
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return padded.contiguous(memory_format=torch.channels_last) if last else padded


def _folded(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Indexes -before .. size+after-1 folded back at both borders."""
    index = torch.arange(-before, size + after, device=device)
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    index = index - (index / period).floor().long() * period  # the remainder, which ONNX has for fixed periods only
    return torch.minimum(index, period - index)
