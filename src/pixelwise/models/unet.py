"""U-Net (Ronneberger, Fischer, Brox 2015, 1505.04597): a contracting path, an expanding path, skips between them.

The plain variant is the textbook's: padded 3x3 convolutions with batch norm, transposed convolutions up, 31,044,821
parameters for 3 channels and 21 classes. `2015` is the paper's own net: no norm, no padding inside, dropout at the
bottom, and the image mirrored at its borders so that the answer still covers all of it. `fold` moves blocks of pixels
into channels before the first convolution and out of them after the last (sub-pixel convolution, Shi et al. 2016,
1609.05158): most of the time of a narrow U-Net goes into its largest grid, and a fold of 2 has a quarter of it.

Two ports, whose files load, are variants. `milesial` is milesial/Pytorch-UNet: no biases before norms, images of any
size as they are, and maps that come out smaller than their skip get zeros at the rim; `milesial-bilinear` halves the
width before it enlarges, so that nothing stands between enlarging and joining. `resnet34` and `resnet50` are those of
segmentation_models.pytorch: an encoder of any kind in place of the contracting path. That departs from the paper in
enlarging without a convolution (to the nearest pixel), in having no skip at full size and in a last convolution of 3x3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.outputs import Dense, Frame
from pixelwise.errors import ConfigError
from pixelwise.kernels.mirror import lacking, mirror
from pixelwise.models._unet_keys import KEYS as KEYS
from pixelwise.nn.encoder import Encoder, make_encoder
from pixelwise.nn.heads import dense
from pixelwise.nn.options import (
    check_choice,
    check_dropout,
    check_encoder_name,
    check_flags,
    check_unused,
    check_whole,
    check_wholes,
)
from pixelwise.nn.unet_decoder import WIDTHS, UNetDecoder, check_cells

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
    "milesial": {"bias": False, "padding": "maps"},
    "milesial-bilinear": {"bias": False, "padding": "maps", "up": "halved"},
    "resnet34": {"encoder": "resnet34"},
    "resnet50": {"encoder": "resnet50"},
}
THIN = {"width": 4, "depth": 3}  # for the tests of what every net promises


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "group":  # 8 channels a group, as far as they divide
        return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


class DoubleConv(nn.Sequential):
    """Twice 3x3 convolution, norm, ReLU: [B, C, H, W] -> [B, D, H, W], or 4 pixels smaller without padding.

    middle  channels between the two, None: `width`
    """

    def __init__(self, channels: int, width: int, *, norm: str, bias: bool, pad: int,
                 middle: int | None = None) -> None:  # fmt: skip
        parts: list[nn.Module] = []
        for c, d in pairwise((channels, middle or width, width)):
            parts += [nn.Conv2d(c, d, 3, padding=pad, bias=bias), _norm(norm, d), nn.ReLU(inplace=True)]
        super().__init__(*parts)


class Up(nn.Module):
    """Twice the size at half the width, the skip beside it, then two convolutions.

    out   channels of the answer
    up    "transposed", "bilinear" (then a 1x1 convolution), or "halved": the map is as wide as the skip already
    rim   a map that comes out smaller than the skip gets zeros around it; False: the skip is cropped
    """

    def __init__(self, width: int, skip: int, out: int, *, up: str, norm: str, bias: bool, pad: int, rim: bool) -> None:
        super().__init__()
        self.rim = rim
        if up == "transposed":
            self.up: nn.Module = nn.ConvTranspose2d(width, skip, 2, stride=2)
        elif up == "halved":
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        else:  # the paper's 2x2 "up-convolution": enlarge, then convolve to half the width
            self.up = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Conv2d(width, skip, 1, bias=bias)
            )
        self.conv = DoubleConv(2 * skip, out, norm=norm, bias=bias, pad=pad, middle=skip)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)  # [B, D/2, 2h, 2w]
        dy, dx = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        if self.rim and (dy or dx):
            x = F.pad(x, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2))
            return self.conv(torch.cat([skip, x], dim=1))
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
        outs = [w // 2 for w in widths[1:-1]] if up == "halved" else widths[1:-1]  # of all blocks up but the last
        if up == "halved":
            widths[-1] //= 2
        settings: dict[str, Any] = {"norm": norm, "bias": bias, "pad": 0 if padding == "valid" else 1}
        self.stride, self.margin = fold * 2**depth, _valid_margin(depth) if padding == "valid" else 0
        self.fold, self.norm, self.rim = fold, norm, padding == "maps"
        self.stem = DoubleConv(channels * fold**2, width, **settings)
        self.down = nn.ModuleList(DoubleConv(a, b, **settings) for a, b in pairwise(widths))
        steps = reversed(list(zip(widths[1:], widths, [width, *outs])))
        self.up = nn.ModuleList(Up(w, skip, out, up=up, rim=self.rim, **settings) for w, skip, out in steps)
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
        """Mirrors the borders: up to a multiple of the stride, or with zeros around maps to at least the stride, and by
        the margin that unpadded convolutions eat."""
        height, width = images.shape[-2:]
        if self.margin == 0:
            below, right = lacking(height, self.stride), lacking(width, self.stride)
            if self.rim:
                below, right = (max(0, self.stride - side) for side in (height, width))
            cells = ((height + below) // self.stride) * ((width + right) // self.stride)
            if cells == 1 and self._norms_over_cells(len(images)):
                below = 2 * self.stride - height
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
        return dense(images, frames, logits)


def _valid_margin(depth: int) -> int:
    """Pixels that unpadded convolutions take from each side of the image: 92 for the paper's depth of 4."""
    return 2 * sum(2**i for i in range(depth)) * 2 + 2 * 2**depth


def _valid_size(size: int, stride: int) -> int:
    """The least input, at least `size` and its margins, on which every pooling halves an even number.

    From `bottom` cells before the convolutions at the bottom, two of which eat 4, every step down or up doubles.
    """
    eaten = 4 * (stride - 1)  # by the convolutions on one of the two paths, in pixels of the input
    bottom = 4 + (size + eaten + stride - 1) // stride
    return stride * bottom + eaten


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


class EncoderUNet(nn.Module):
    """An encoder, the decoder with its maps as skips, a 3x3 convolution to the classes.

    net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from `min_size` up.
    """

    min_size = 32

    def __init__(self, encoder: Encoder, decoder: UNetDecoder, head: nn.Conv2d) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.decoder.apply(initialise)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        check_cells(self, images, self.encoder.strides[-1])
        return dense(images, frames, self.head(self.decoder(images, self.encoder(images))))


# defaults of the options of the one kind, which do nothing beside the other
PLAIN: dict[str, Any] = {"width": 64, "depth": 4, "norm": "batch", "up": "transposed", "padding": "same", "bias": True,
                         "dropout": 0.0, "fold": 1}  # fmt: skip
WITH_ENCODER: dict[str, Any] = {"pretrained": False, "decoder": WIDTHS, "center": False}


def build(*, classes: int, channels: int = 3, width: int = 64, depth: int = 4, norm: str = "batch",
          up: str = "transposed", padding: str = "same", bias: bool = True, dropout: float = 0.0, fold: int = 1,
          encoder: str = "", pretrained: bool = False, decoder: Sequence[int] = WIDTHS,
          center: bool = False) -> UNet | EncoderUNet:  # fmt: skip
    """U-Net with numbers.

    channels  of the input               width    channels at full size        depth  halvings (1 to 6)
    norm      batch, group, instance or none
    up        transposed; bilinear, then a 1x1 convolution to half the width; or halved: bilinear with aligned corners,
              the block before having halved the width
    padding   same: images are mirrored up to a multiple of the stride; valid: the 2015 paper's, with mirrored borders;
              maps: images as they are, zeros around maps smaller than their skip
    bias      in convolutions before a norm
    dropout   after the two deepest blocks        fold     side of the pixel blocks folded into channels (1: none)
    encoder   "": none, the two paths above; else see `pixelwise list encoders`, and of the above only `channels` counts
    pretrained  the encoder begins with timm's weights
    decoder   channels of the blocks over an encoder, the coarsest first
    center    two more convolutions on the encoder's coarsest map
    Raises ConfigError for what cannot be, and for options of the one kind with the other.
    """
    given: dict[str, Any] = {"width": width, "depth": depth, "norm": norm, "up": up, "padding": padding, "bias": bias,
             "dropout": dropout, "fold": fold}  # fmt: skip
    over: dict[str, Any] = {"pretrained": pretrained, "center": center,
                            "decoder": tuple(decoder) if isinstance(decoder, list) else decoder}  # fmt: skip
    check_whole("U-Net", channels=channels)
    check_encoder_name("U-Net", encoder)
    if encoder:
        check_unused("U-Net", given, PLAIN, f"encoder={encoder}")
        return _over_encoder(classes, channels, encoder, **over)
    check_unused("U-Net", over, WITH_ENCODER, "no encoder")
    check_whole("U-Net", width=width)
    check_choice("U-Net", ("batch", "group", "instance", "none"), norm=norm)
    check_choice("U-Net", ("transposed", "bilinear", "halved"), up=up)
    check_choice("U-Net", ("same", "valid", "maps"), padding=padding)
    check_choice("U-Net", (1, 2, 3, 4, 5, 6), depth=depth)
    check_choice("U-Net", (1, 2, 4), fold=fold)
    check_dropout("U-Net", dropout=dropout)
    check_flags("U-Net", bias=bias)
    if fold > 1 and padding != "same":
        raise ConfigError("U-Net: fold goes with padding='same'.")
    if up == "halved" and width % 2:
        raise ConfigError(f"U-Net: width is {width}; up='halved' needs an even number.")
    return UNet(classes=classes, channels=channels, **given)


def _over_encoder(classes: int, channels: int, encoder: str, pretrained: bool, decoder: Any,
                  center: bool) -> EncoderUNet:  # fmt: skip
    widths = check_wholes("U-Net", "decoder", decoder)
    check_flags("U-Net", pretrained=pretrained, center=center)
    body = make_encoder(encoder, channels=channels, pretrained=pretrained)
    head = nn.Conv2d(widths[-1], classes, 3, padding=1)
    return EncoderUNet(body, UNetDecoder(body, widths, center=center), head)
