"""Heads of DeepLab v3 (Chen et al. 2017, 1706.05587) and v3+ (Chen et al. 2018, 1802.02611), and its dilation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.errors import ConfigError
from pixelwise.nn.context import ASPP
from pixelwise.nn.conv import conv_norm, separable_conv
from pixelwise.nn.encoder import dilate_evenly

# what makes the 3x3 convolutions of a head: plain ones; each channel alone, then 1x1, with norms after both; after both
CONVOLUTIONS: dict[str, Callable[..., nn.Module]] = {
    "plain": conv_norm,
    "separable": separable_conv,
    "bare": partial(separable_conv, between=False),
}


class AtrousHead(nn.Module):
    """v3: ASPP on the last map, 1x1 to the classes. Maps, the finest first -> logits [B, K, h, w] on the last's grid.

    channels      of the last map               width       of the ASPP
    convolution   a key of CONVOLUTIONS         join        side of the kernel that joins the branches
    smooth        3x3 convolutions behind the ASPP
    dropout       of single values behind the join, or, with `late`, of whole maps before the last convolution
    """

    def __init__(self, channels: int, classes: int, *, width: int, rates: Sequence[int], convolution: str, join: int,
                 smooth: int, dropout: float, late: bool) -> None:  # fmt: skip
        super().__init__()
        conv = CONVOLUTIONS[convolution]
        self.aspp = ASPP(channels, width, rates, 0.0 if late else dropout, atrous=conv, join=join)
        self.smooth = nn.Sequential(*(conv(width, width, 3) for _ in range(smooth)))
        self.drop = nn.Dropout2d(dropout if late else 0.0)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.classify(self.drop(self.smooth(self.aspp(maps[-1]))))


class DecoderHead(AtrousHead):
    """v3+: what v3 has before its last convolution, enlarged to the first map, which stands beside it through a 1x1;
    then 3x3 convolutions. Maps, the finest first -> logits [B, K, h, w] on the first's grid.

    fine     channels of the first map          skip   channels that it is brought to
    refine   3x3 convolutions behind the join   align_corners   how the last map is enlarged
    """

    def __init__(self, channels: int, classes: int, *, fine: int, skip: int, refine: int, align_corners: bool,
                 width: int, rates: Sequence[int], convolution: str, join: int, smooth: int, dropout: float,
                 late: bool) -> None:  # fmt: skip
        super().__init__(channels, classes, width=width, rates=rates, convolution=convolution, join=join,
                         smooth=smooth, dropout=dropout, late=late)  # fmt: skip
        conv = CONVOLUTIONS[convolution]
        self.align_corners = align_corners
        self.skip = conv_norm(fine, skip)
        inputs = [width + skip] + [width] * (refine - 1)
        self.refine = nn.Sequential(*(conv(c, width, 3) for c in inputs))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x, skip = self.smooth(self.aspp(maps[-1])), self.skip(maps[0])
        x = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return self.classify(self.drop(self.refine(torch.cat([x, skip], 1))))


def dilate(body: nn.Module, multi_grid: Sequence[int]) -> None:
    """Dilates each stage of a ResNet evenly and block i of the last one `multi_grid[i]` times more, in place, as the
    authors' code has it. Raises ConfigError for other encoders and where the blocks are not as many."""
    blocks = getattr(body, "layer4", None)
    if not isinstance(blocks, nn.Sequential):
        raise ConfigError("DeepLab: multi_grid is for ResNets; for other encoders give multi_grid=[].")
    if len(blocks) != len(multi_grid):
        raise ConfigError(f"DeepLab: multi_grid is {list(multi_grid)}, one number for each block of the encoder's last "
                          f"stage, which has {len(blocks)}; [] leaves the dilation to the encoder.")  # fmt: skip
    dilate_evenly(body)
    for block, factor in zip(blocks, multi_grid):
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
                step = int(conv.dilation[0]) * factor
                conv.dilation = conv.padding = (step, step)
