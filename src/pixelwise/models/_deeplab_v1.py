"""DeepLab v1 (Chen et al. 2014, 1412.7062): VGG-16 with a stride of 8 and a large field of view (LargeFOV)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.nn.vgg import VGG, initialise

FC = 16  # width of fc6 and fc7 in widths of VGG's first stage


def large_fov_vgg(channels: int, width: int, ceil: bool) -> VGG:
    """VGG-16 whose poolings have windows of 3, and with `ceil` round up; the last two keep the size, and the fifth
    stage is dilated instead."""
    vgg = VGG(channels, width=width, pool=3, ceil=ceil, strides=(2, 2, 2, 1, 1), dilations=(1, 1, 1, 1, 2))
    vgg.apply(initialise)
    return vgg


class LargeFOV(nn.Module):
    """fc6 as a 3x3 convolution of rate 12, fc7 and fc8 as 1x1, behind a 3x3 mean: maps -> logits [B, K, h, w].

    channels  of the last map        width   of fc6 and fc7, 1024
    """

    def __init__(self, channels: int, classes: int, *, width: int, rate: int, dropout: float) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(channels, width, 3, padding=rate, dilation=rate)
        self.fc7 = nn.Conv2d(width, width, 1)
        self.fc8 = nn.Conv2d(width, classes, 1)
        self.drop = nn.Dropout(dropout)
        self.apply(initialise)
        nn.init.normal_(self.fc8.weight, std=0.01)  # the authors'

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = F.avg_pool2d(maps[-1], 3, 1, 1)
        x = self.drop(F.relu(self.fc6(x), inplace=True))
        x = self.drop(F.relu(self.fc7(x), inplace=True))
        return self.fc8(x)

    @torch.no_grad()
    def decimate(self, fc6: nn.Conv2d, fc7: nn.Conv2d) -> None:
        """Fills fc6 and fc7 from ImageNet's [4096, 512, 7, 7] and [4096, 4096, 1, 1]: every third tap and every fourth
        channel, the paper's "simple decimation"."""
        step = len(fc6.weight) // len(self.fc6.weight)
        self.fc6.weight.copy_(fc6.weight[::step, :, ::3, ::3])
        self.fc7.weight.copy_(fc7.weight[::step, ::step])
        for own, given in ((self.fc6, fc6), (self.fc7, fc7)):
            if own.bias is not None and given.bias is not None:
                own.bias.copy_(given.bias[::step])
