"""The body of HRNet (Sun et al. 2019, 1904.04514): four branches at strides 4, 8, 16 and 32, side by side to the end.

Its tensors have the names of the authors' code, which mmsegmentation and timm kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.errors import ConfigError
from pixelwise.nn.conv import conv_norm
from pixelwise.nn.upsample import enlarge

STRIDE = 32  # of the coarsest branch


class Basic(nn.Module):
    """The residual block of two 3x3 convolutions (He et al. 2015, 1512.03385): [B, C, h, w] -> [B, C, h, w]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(width, width, 3, act=False)
        self.conv2, self.bn2 = conv_norm(width, width, 3, act=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y.add_(x), inplace=True)


class Bottleneck(nn.Module):
    """The residual block 1x1, 3x3, 1x1, the last four times as wide: [B, C, h, w] -> [B, 4 D, h, w]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(channels, width, act=False)
        self.conv2, self.bn2 = conv_norm(width, width, 3, act=False)
        self.conv3, self.bn3 = conv_norm(width, 4 * width, act=False)
        self.downsample = conv_norm(channels, 4 * width, act=False) if channels != 4 * width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y.add_(self.downsample(x)), inplace=True)


def halvings(channels: int, width: int, count: int, *, act: bool) -> nn.Sequential:
    """`count` 3x3 convolutions of stride 2, of which the last changes the width; `act`: ReLU behind that one too."""
    before = [conv_norm(channels, channels, 3, stride=2) for _ in range(count - 1)]
    return nn.Sequential(*before, conv_norm(channels, width, 3, stride=2, act=act))


class Exchange(nn.Module):
    """Residual blocks on each branch, then every branch becomes the sum of all, brought to its size and width.

    Finer maps come by convolutions of stride 2, coarser ones by a 1x1 convolution and bilinear enlarging.
    """

    def __init__(self, widths: Sequence[int], blocks: int, align_corners: bool, by_factor: bool) -> None:
        super().__init__()
        self.align_corners, self.by_factor = align_corners, by_factor
        self.branches = nn.ModuleList(nn.Sequential(*(Basic(width) for _ in range(blocks))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._route(widths[j], widths[i], i - j) for j in range(len(widths)))
            for i in range(len(widths))
        )

    @staticmethod
    def _route(channels: int, width: int, down: int) -> nn.Module:
        """From one branch to the one `down` levels coarser (below 0: finer)."""
        if down > 0:
            return halvings(channels, width, down, act=False)
        return conv_norm(channels, width, act=False) if down < 0 else nn.Identity()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, C_i, h_i, w_i], the finest first -> maps of the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps)]
        return [F.relu(self._sum(i, maps), inplace=True) for i in range(len(maps))]

    def _sum(self, i: int, maps: list[Tensor]) -> Tensor:
        others = [j for j in range(len(maps)) if j != i]
        total = self._bring(i, others[0], maps)  # a tensor of its own, so all else is added in place
        for j in (*others[1:], i):
            total.add_(self._bring(i, j, maps))
        return total

    def _bring(self, i: int, j: int, maps: list[Tensor]) -> Tensor:
        """The map of branch j as branch i adds it."""
        routes: nn.ModuleList = self.fuse_layers[i]  # type: ignore[assignment]  # ModuleList gives modules
        x = routes[j](maps[j])
        if j <= i:
            return x
        if self.by_factor:
            x = enlarge(x, (x.shape[2] << (j - i), x.shape[3] << (j - i)), self.align_corners)
        return enlarge(x, maps[i].shape[2:], self.align_corners)


class HighResolutionNet(nn.Module):
    """Images [B, C, H, W] -> four maps [B, width 2^i, about H / 2^(i+2), about W / 2^(i+2)].

    width    of the finest branch; each coarser one is twice as wide
    modules  how many exchanges stages 2, 3 and 4 have     blocks  residual ones on each branch before an exchange
    stem     channels of the two first convolutions        first   (blocks, width) of stage 1's bottlenecks
    by_factor   coarser maps are enlarged first by 2, 4 or 8, then to the size of the finer one
    """

    def __init__(self, channels: int, width: int, modules: Sequence[int], blocks: int, stem: int, first: Sequence[int],
                 align_corners: bool, by_factor: bool) -> None:  # fmt: skip
        super().__init__()
        self.conv1, self.bn1 = conv_norm(channels, stem, 3, stride=2, act=False)
        self.conv2, self.bn2 = conv_norm(stem, stem, 3, stride=2, act=False)
        count, narrow = first
        inputs = [stem] + [4 * narrow] * count
        self.layer1 = nn.Sequential(*(Bottleneck(c, narrow) for c in inputs[:-1]))
        self.channels = tuple(width * 2**i for i in range(4))
        self.transition1 = nn.ModuleList(
            [conv_norm(inputs[-1], width, 3), halvings(inputs[-1], 2 * width, 1, act=True)]
        )
        new = [halvings(a, b, 1, act=True) for a, b in pairwise(self.channels[1:])]
        self.transition2 = nn.ModuleList([nn.Identity(), nn.Identity(), new[0]])
        self.transition3 = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Identity(), new[1]])
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(*(Exchange(self.channels[:n], blocks, align_corners, by_factor) for _ in range(count)))
            for n, count in zip((2, 3, 4), modules, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        self._check(images)
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.layer1(x)
        maps = self.stage2([transition(x) for transition in self.transition1])
        maps = self.stage3([*maps, self.transition2[-1](maps[-1])])
        return self.stage4([*maps, self.transition3[-1](maps[-1])])

    def _check(self, images: Tensor) -> None:
        height, width = images.shape[-2:]
        if self.training and len(images) == 1 and max(height, width) <= STRIDE:
            raise ConfigError(
                f"HRNet: of an image of {height}x{width} pixels the coarsest branch sees one cell, and a norm over it "
                f"has no deviation: train on crops above {STRIDE} pixels a side, or on 2 images and more."
            )
