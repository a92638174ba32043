"""Convolution, batch norm, ReLU: the block that most dense nets are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.kernels.atrous import atrous_conv


class AtrousConv(nn.Conv2d):
    """A 3x3 convolution dilated and padded by `rate`, [B, C, H, W] -> [B, D, H, W]: at inference by whichever way is
    the faster one (`kernels/atrous.py`), plain where gradients are wanted or the net is compiled or exported."""

    def __init__(self, channels: int, width: int, rate: int, *, bias: bool = False) -> None:
        super().__init__(channels, width, 3, padding=rate, dilation=rate, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        watched = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()
        even = self.padding == self.dilation == (self.dilation[0],) * 2
        same = even and self.stride == (1, 1)  # else a net was dilated anew
        if watched or self.training or not same:
            return super().forward(x)
        return atrous_conv(x, self.weight, self.bias, self.dilation[0])


def conv_norm(channels: int, width: int, kernel: int = 1, *, stride: int = 1, dilation: int = 1, groups: int = 1,
              bias: bool = False, act: bool = True) -> nn.Sequential:  # fmt: skip
    """[B, C, H, W] -> [B, D, H / stride, W / stride]: convolution, batch norm and, with `act`, ReLU.

    bias   of the convolution, where it does nothing that the norm does not: some files hold one
    """
    padding = dilation * (kernel // 2)
    if kernel == 3 and dilation > 1 and stride == groups == 1:
        conv: nn.Conv2d = AtrousConv(channels, width, dilation, bias=bias)
    else:
        conv = nn.Conv2d(channels, width, kernel, stride, padding, dilation, groups, bias=bias)
    parts: list[nn.Module] = [conv, nn.BatchNorm2d(width)]
    return nn.Sequential(*parts, nn.ReLU(inplace=True)) if act else nn.Sequential(*parts)


def separable_conv(channels: int, width: int, kernel: int = 3, *, dilation: int = 1,
                   between: bool = True) -> nn.Sequential:  # fmt: skip
    """A convolution of each channel alone, then 1x1 over all, with batch norm and ReLU after each of the two; without
    `between` only after the second."""
    depthwise = conv_norm(channels, channels, kernel, dilation=dilation, groups=channels)
    return nn.Sequential(depthwise if between else depthwise[0], *conv_norm(channels, width))


def check_pooled(x: Tensor, module: nn.Module) -> None:
    """For norms behind pooling to one cell. Raises ConfigError in training on a single image: one value per channel
    has no deviation."""
    if module.training and len(x) == 1:
        raise ConfigError(
            "This net takes norms over the mean of an image, which needs at least 2 images in a batch to train on: "
            "use --batch-size 2 or more."
        )
