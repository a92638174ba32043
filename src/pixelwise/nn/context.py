"""Context from the whole image: atrous spatial pyramid pooling (Chen et al. 2017, 1706.05587), pyramid pooling (Zhao et
al. 2016, 1612.01105)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.nn.conv import check_pooled, conv_norm


def cell_means(x: Tensor, cells: int) -> Tensor:
    """[B, C, h, w] -> [B, C, cells, cells] means over cells that share rows and columns where they do not divide.

    While a net is exported they are products with zeros and ones: runtimes have no such pooling for every size.
    """
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, cells)
    rows, columns = (_inside(side, cells, x) for side in x.shape[2:])
    return rows @ x @ columns.T / (rows.sum(1)[:, None] * columns.sum(1))


def _inside(side: int, cells: int, like: Tensor) -> Tensor:
    """[cells, side] 1 where a row or column belongs to a cell, else 0."""
    cell, at = torch.arange(cells, device=like.device)[:, None], torch.arange(side, device=like.device)
    first = (cell * side).div(cells, rounding_mode="floor")
    last = ((cell + 1) * side + cells - 1).div(cells, rounding_mode="floor")
    return ((at >= first) & (at < last)).to(like.dtype)


class ImageMean(nn.Module):
    """[B, C, h, w] -> [B, D, h, w]: the mean of the whole map through a 1x1 convolution, everywhere."""

    def __init__(self, channels: int, width: int, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, nn.BatchNorm2d):
            check_pooled(x, self)
        return F.relu(self.norm(self.conv(x.mean((2, 3), keepdim=True)))).expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid: a 1x1, dilated 3x3 at each rate and the mean, joined: [B, C, h, w] -> [B, D, h, w].

    rates       of the dilated convolutions
    dropout     behind the join
    pooled_norm whether the mean has a batch norm
    atrous      makes a dilated convolution: `conv_norm`, `separable_conv` or one of the same arguments
    join        side of the kernel that joins the branches: 1, in mmsegmentation 3
    """

    def __init__(self, channels: int, width: int, rates: Sequence[int], dropout: float = 0.5, *,
                 pooled_norm: bool = True, atrous: Callable[..., nn.Module] = conv_norm,
                 join: int = 1) -> None:  # fmt: skip
        super().__init__()
        dilated = [atrous(channels, width, 3, dilation=rate) for rate in rates]
        mean = ImageMean(channels, width, norm=pooled_norm)
        self.convs = nn.ModuleList([conv_norm(channels, width), *dilated, mean])
        joined = conv_norm((2 + len(rates)) * width, width, join)
        self.project = nn.Sequential(*joined, nn.Dropout(dropout)) if dropout else joined

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([conv(x) for conv in self.convs], 1))


class PyramidPooling(nn.Module):
    """Means over 1, 2, 3 and 6 cells a side, each through a 1x1 convolution and enlarged, beside the map itself:
    [B, C, h, w] -> [B, C + len(bins) x D, h, w].

    norm_of_one  False leaves the batch norm out of the branch of a single cell (segmentation_models.pytorch)
    windows      cells are windows of h // bins by w // bins, as many as find room; False: cells share what is left over
    """

    def __init__(self, channels: int, width: int, bins: Sequence[int] = (1, 2, 3, 6), *, align_corners: bool = False,
                 norm_of_one: bool = True, windows: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.bins, self.align_corners = tuple(bins), align_corners
        self.norm_of_one, self.windows = norm_of_one, windows
        self.convs = nn.ModuleList(
            conv_norm(channels, width) if size > 1 or norm_of_one
            else nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(inplace=True))
            for size in self.bins
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for size, conv in zip(self.bins, self.convs):
            if size == 1 and self.norm_of_one:
                check_pooled(x, self)
            pooled = conv(self._means(x, size))
            maps.append(F.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=self.align_corners))
        return torch.cat(maps, 1)

    def _means(self, x: Tensor, size: int) -> Tensor:
        if self.windows:
            return F.avg_pool2d(x, [max(1, side // size) for side in x.shape[2:]])
        return cell_means(x, size)
