"""The U-Net decoder over any encoder, as segmentation_models.pytorch has it: from the coarsest map up, each time twice
as large (nearest), the encoder's map of that size beside it, then two 3x3 convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.errors import ConfigError
from pixelwise.nn.conv import conv_norm
from pixelwise.nn.encoder import Encoder

WIDTHS = (256, 128, 64, 32, 16)  # of the blocks, the coarsest first
Size = tuple[int, int]


class SkipBlock(nn.Module):
    """Enlarges a map to `size` (nearest), puts skips behind it, convolves twice: -> [B, width, *size].

    channels  of the map      skip  of all skips together
    """

    def __init__(self, channels: int, skip: int, width: int) -> None:
        super().__init__()
        self.conv1 = conv_norm(channels + skip, width, 3)
        self.conv2 = conv_norm(width, width, 3)

    def forward(self, x: Tensor, size: Size, *skips: Tensor) -> Tensor:
        x = F.interpolate(x, size, mode="nearest")
        return self.conv2(self.conv1(torch.cat([x, *skips], 1) if skips else x))


class Skips:
    """Which of an encoder's maps stand beside the decoder's steps, which go from its coarsest map to full size.

    channels  of the skip of each step, the coarsest first; 0 where the encoder has no map, as at full size
    Raises ConfigError for an encoder whose coarsest stride is no power of two.
    """

    def __init__(self, encoder: Encoder) -> None:
        last = encoder.strides[-1]
        if last & (last - 1):
            raise ConfigError(f"A U-Net halves its maps; the encoder's coarsest has stride {last}, no power of two.")
        places = {stride: i for i, stride in enumerate(encoder.strides)}
        self.strides = [last >> step for step in range(1, int(math.log2(last)) + 1)]  # 16, 8, 4, 2, 1
        self.picks = [places.get(stride) if stride > 1 else None for stride in self.strides]
        self.channels = [0 if pick is None else encoder.channels[pick] for pick in self.picks]
        self.head = encoder.channels[-1]  # channels of the coarsest map

    def __len__(self) -> int:
        return len(self.strides)

    def beside(self, images: Tensor, maps: Sequence[Tensor]) -> list[tuple[Size, tuple[Tensor, ...]]]:
        """Of each step the size to enlarge to, and the skip if there is one."""
        height, width = images.shape[-2:]
        found: list[tuple[Size, tuple[Tensor, ...]]] = []
        for stride, pick in zip(self.strides, self.picks):
            skips = () if pick is None else (maps[pick],)
            size = (skips[0].shape[-2], skips[0].shape[-1]) if skips else (height // stride, width // stride)
            found.append((size, skips))
        return found


class UNetDecoder(nn.Module):
    """Images and the encoder's maps -> [B, widths[-1], H, W].

    widths  of the blocks, the coarsest first, one for each halving
    center  two more convolutions on the coarsest map first, as smp has them over VGGs
    """

    def __init__(self, encoder: Encoder, widths: Sequence[int] = WIDTHS, *, center: bool = False) -> None:
        super().__init__()
        self.skips = Skips(encoder)
        check_widths(self.skips, widths)
        head = self.skips.head
        self.center = nn.Sequential(conv_norm(head, head, 3), conv_norm(head, head, 3)) if center else nn.Identity()
        inputs = [head, *widths[:-1]]
        self.blocks = nn.ModuleList(SkipBlock(c, s, w) for c, s, w in zip(inputs, self.skips.channels, widths))

    def forward(self, images: Tensor, maps: Sequence[Tensor]) -> Tensor:
        x = self.center(maps[-1])
        for block, (size, skips) in zip(self.blocks, self.skips.beside(images, maps)):
            x = block(x, size, *skips)
        return x


def check_widths(skips: Skips, widths: Sequence[int]) -> None:
    """Raises ConfigError unless there is one width for each halving of the encoder."""
    if len(widths) != len(skips):
        raise ConfigError(f"decoder is {list(widths)}; this encoder halves {len(skips)} times, so it must be "
                          f"{len(skips)} numbers.")  # fmt: skip


def check_cells(net: nn.Module, images: Tensor, stride: int) -> None:
    """Raises ConfigError in training on one image that shrinks to one cell: batch norms have no deviation there."""
    if net.training and len(images) == 1 and max(images.shape[-2:]) <= stride:
        raise ConfigError(f"One image of {images.shape[-1]} x {images.shape[-2]} pixels shrinks to a single cell, of "
                          f"which a norm has no deviation: train on more than {stride} pixels or 2 images a "
                          "batch.")  # fmt: skip
