"""U-Net (Ronneberger, Fischer, Brox 2015, 1505.04597): a contracting path, an expanding path, skips between them.

The plain variant is the textbook's: padded 3x3 convolutions with batch norm, transposed convolutions up, 31,044,821
parameters for 3 channels and 21 classes. `2015` is the paper's own net: no norm, no padding inside, dropout at the
bottom, and the image mirrored at its borders so that the answer still covers all of it. `fold` moves blocks of pixels
into channels before the first convolution and out of them after the last (sub-pixel convolution, Shi et al. 2016,
1609.05158): most of the time of a narrow U-Net goes into its largest grid, and a fold of 2 has a quarter of it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.outputs import Dense, Frame
from pixelwise.errors import ConfigError
from pixelwise.kernels.mirror import mirror

PAPER = {
    "title": "U-Net: Convolutional Networks for Biomedical Image Segmentation",
    "year": 2015,
    "arxiv": "1505.04597",
}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "small": {"width": 24},
    "tiny": {"width": 12, "depth": 3},
    "folded": {"width": 32, "fold": 2},
    "bilinear": {"up": "bilinear"},
    "2015": {"norm": "none", "padding": "valid", "dropout": 0.5},
}
THIN = {"width": 4, "depth": 3}  # for the tests of what every net promises


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "group":  # 8 channels a group, as far as they divide
        return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


class DoubleConv(nn.Sequential):
    """Twice 3x3 convolution, norm, ReLU: [B, C, H, W] -> [B, D, H, W], or 4 pixels smaller without padding."""

    def __init__(self, channels: int, width: int, *, norm: str, bias: bool, pad: int) -> None:
        parts: list[nn.Module] = []
        for c in (channels, width):
            parts += [nn.Conv2d(c, width, 3, padding=pad, bias=bias), _norm(norm, width), nn.ReLU(inplace=True)]
        super().__init__(*parts)


class Up(nn.Module):
    """Twice the size at half the width, the skip beside it, then two convolutions."""

    def __init__(self, width: int, skip: int, *, up: str, norm: str, bias: bool, pad: int) -> None:
        super().__init__()
        if up == "transposed":
            self.up: nn.Module = nn.ConvTranspose2d(width, skip, 2, stride=2)
        else:  # the paper's 2x2 "up-convolution": enlarge, then convolve to half the width
            self.up = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Conv2d(width, skip, 1, bias=bias)
            )
        self.conv = DoubleConv(2 * skip, skip, norm=norm, bias=bias, pad=pad)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)  # [B, D/2, 2h, 2w]
        dy, dx = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        skip = skip[:, :, dy // 2 : dy // 2 + x.shape[2], dx // 2 : dx // 2 + x.shape[3]]  # crops only without padding
        return self.conv(torch.cat([skip, x], dim=1))


class Body(nn.Module):
    """The two paths without a head: `width` channels at full size, doubled at each of `depth` halvings.

    features(images [B, C, H, W]) -> [B, width, H / fold, W / fold] or, where H and W had to be padded, a little more.
    """

    def __init__(self, *, channels: int, width: int, depth: int, norm: str, up: str, padding: str, bias: bool,
                 dropout: float, fold: int) -> None:  # fmt: skip
        super().__init__()
        widths = [width * 2**i for i in range(depth + 1)]
        settings: dict[str, Any] = {"norm": norm, "bias": bias, "pad": 1 if padding == "same" else 0}
        self.stride, self.margin = fold * 2**depth, 0 if padding == "same" else _valid_margin(depth)
        self.fold, self.norm = fold, norm
        self.stem = DoubleConv(channels * fold**2, width, **settings)
        self.down = nn.ModuleList(DoubleConv(a, b, **settings) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Up(b, a, up=up, **settings) for a, b in reversed(list(pairwise(widths))))
        self.drop = nn.Dropout(dropout)

    def features(self, images: Tensor) -> Tensor:
        x = self._pad(images)
        x = self.stem(F.pixel_unshuffle(x, self.fold) if self.fold > 1 else x)
        skips = [x]
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2))
            if i >= len(self.down) - 2:  # the paper's dropout stands at the end of the contracting path
                x = self.drop(x)
            skips.append(x)
        x = skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
        return x

    def _pad(self, images: Tensor) -> Tensor:
        """Mirrors the borders: up to a multiple of the stride, and by the margin that unpadded convolutions eat."""
        height, width = images.shape[-2:]
        if self.margin == 0:
            below, right = -height % self.stride, -width % self.stride
            if (height + below, width + right) == (self.stride, self.stride) and self._norms_over_cells(len(images)):
                below += self.stride
            return mirror(images, (0, below, 0, right))
        extra = [_valid_size(n, self.stride) - n - 2 * self.margin for n in (height, width)]
        m = self.margin
        return mirror(images, (m, m + extra[0], m, m + extra[1]))

    def _norms_over_cells(self, batch: int) -> bool:
        """Whether a norm takes its statistics at the bottom over one image's cells: one alone has no deviation."""
        return self.norm == "instance" or (self.norm == "batch" and self.training and batch == 1)


class UNet(Body):
    """The paths and a 1x1 convolution to the classes.

    net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from `min_size` up, padded inside and cut.
    """

    min_size = 8

    def __init__(self, *, classes: int, width: int, fold: int, **paths: Any) -> None:
        super().__init__(width=width, fold=fold, **paths)
        self.head = nn.Conv2d(width, classes * fold**2, 1)
        self.apply(initialise)
        _start_even(self.head, fold)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        height, width = images.shape[-2:]
        x = self.head(self.features(images))
        logits = F.pixel_shuffle(x, self.fold) if self.fold > 1 else x
        if logits.shape[-2:] != images.shape[-2:]:
            logits = logits[:, :, :height, :width]  # [B, K, H, W]
        return Dense(logits, frames or (Frame.whole(height, width),) * len(images))


def _valid_margin(depth: int) -> int:
    """Pixels that unpadded convolutions take from each side of the image: 92 for the paper's depth of 4."""
    return 2 * sum(2**i for i in range(depth)) * 2 + 2 * 2**depth


def _valid_size(size: int, stride: int) -> int:
    """The least input, at least `size` and its margins, on which every pooling halves an even number."""
    depth = stride.bit_length() - 1
    bottom = 1
    while True:
        n = bottom  # size at the bottom, before its convolutions
        for _ in range(depth):
            n = 2 * n + 4
        out = bottom - 4
        for _ in range(depth):
            out = 2 * out - 4
        if out >= size and n >= size:
            return n
        bottom += 1


def initialise(module: nn.Module) -> None:
    """The paper's: normal with variance 2 / fan-in (He et al. 2015, 1502.01852), biases zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _start_even(head: nn.Conv2d, fold: int) -> None:
    """The pixels of a folded block begin with one weight each class, so that no checkerboard has to be unlearned
    (ICNR, Aitken et al. 2017, 1707.02937)."""
    with torch.no_grad():
        head.weight.copy_(head.weight[:: fold**2].repeat_interleave(fold**2, dim=0))


def build(*, classes: int, channels: int = 3, width: int = 64, depth: int = 4, norm: str = "batch",
          up: str = "transposed", padding: str = "same", bias: bool = True, dropout: float = 0.0,
          fold: int = 1) -> UNet:  # fmt: skip
    """U-Net with numbers.

    channels  of the input               width    channels at full size        depth  halvings (1 to 6)
    norm      batch, group, instance or none      up       transposed or bilinear
    padding   same, or valid: the 2015 paper's, with mirrored borders     bias   in convolutions before a norm
    dropout   after the two deepest blocks        fold     side of the pixel blocks folded into channels (1: none)
    """
    words = {"norm": (norm, ("batch", "group", "instance", "none")), "up": (up, ("transposed", "bilinear")),
             "padding": (padding, ("same", "valid")), "depth": (depth, (1, 2, 3, 4, 5, 6)),
             "fold": (fold, (1, 2, 4))}  # fmt: skip
    for name, (value, allowed) in words.items():
        if isinstance(value, bool) or value not in allowed:
            raise ConfigError(f"U-Net: {name} is {value!r}; it can be {', '.join(map(str, allowed))}.")
    if fold > 1 and padding == "valid":
        raise ConfigError("U-Net: fold goes with padding='same'.")
    for name, number in {"width": width, "channels": channels}.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigError(f"U-Net: {name} is {number!r}; it must be a whole number from 1 up.")
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ConfigError(f"U-Net: dropout is {dropout!r}; it must be a number in [0, 1).")
    if not isinstance(bias, bool):
        raise ConfigError(f"U-Net: bias is {bias!r}; it can be true or false.")
    return UNet(classes=classes, channels=channels, width=width, depth=depth, norm=norm, up=up, padding=padding,
                bias=bias, dropout=dropout, fold=fold)  # fmt: skip
