"""UNet++ (Zhou, Siddiquee, Tajbakhsh, Liang 2018, 1807.10165): a U-Net whose skips are nested and dense.

Node X(i,j) stands on level i (0 the finest) as the j-th of its skip: X(i,0) is the contracting path, and

    X(i,j) = H([up(X(i+1,j-1)), X(i,j-1), ..., X(i,0)])

with H two 3x3 convolutions. Every X(0,j) covers the image at full size, so each gets a 1x1 head. In training all heads
learn (deep supervision), with one weight, as in the paper: `aux` is that of X(0,1) to X(0,3) beside X(0,4). In
evaluation their probabilities are averaged (the paper's accurate mode), or with `levels` = j that of X(0,j) is taken
alone and nothing behind it is computed (the fast mode: a pruned net).

The plain variant is the authors' Keras net: widths 32 to 512, transposed convolutions up, no norm, dropout of 0.5 after
each convolution, 9.04 million parameters. `4uiiurz1` is the well-known PyTorch port 4uiiurz1/pytorch-nested-unet, which
has batch norms, enlarges bilinearly with aligned corners and no convolution, and drops nothing. `resnet34` is that of
segmentation_models.pytorch, over an encoder of any kind: level 0 has half the size, the last node goes through one more
block to full size, enlarging is to the nearest pixel, and deep supervision is left out (here `aux` adds it).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.outputs import Dense, Frame
from pixelwise.errors import ConfigError
from pixelwise.kernels.mirror import lacking, mirror
from pixelwise.models._unetplusplus_keys import KEYS as KEYS
from pixelwise.models.unet import initialise
from pixelwise.nn.encoder import Encoder, make_encoder
from pixelwise.nn.heads import dense
from pixelwise.nn.options import (
    check_choice,
    check_dropout,
    check_encoder_name,
    check_flags,
    check_unused,
    check_weight,
    check_whole,
    check_wholes,
)
from pixelwise.nn.unet_decoder import WIDTHS, SkipBlock, Skips, check_cells, check_widths
from pixelwise.nn.upsample import enlarge

PAPER = {"title": "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", "year": 2018,
         "arxiv": "1807.10165"}  # fmt: skip

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "4uiiurz1": {"norm": "batch", "up": "bilinear", "dropout": 0.0},
    "resnet34": {"encoder": "resnet34", "aux": 0.0},
}
THIN = {"width": 4, "depth": 3, "dropout": 0.0}  # for the tests of what every net promises


def nested(columns: Sequence[Tensor], join: Callable[[int, int, Tensor, list[Tensor]], Tensor]) -> list[Tensor]:
    """[X(0,1), X(0,2), ...] from the contracting path.

    columns  X(0,0), X(1,0), ..., the finest first; as many nodes are made as they allow
    join     (i, j, X(i+1,j-1), [X(i,j-1), ..., X(i,0)]) -> X(i,j)
    """
    rows = [[column] for column in columns]
    for diagonal in range(1, len(columns)):
        for i in range(diagonal - 1, -1, -1):
            j = diagonal - i
            rows[i].append(join(i, j, rows[i + 1][j - 1], rows[i][::-1]))
    return rows[0][1:]


def mean_logits(logits: Sequence[Tensor]) -> Tensor:
    """[B, K, h, w] of which the softmax (for one channel the sigmoid) is the mean of those of several."""
    if len(logits) == 1:
        return logits[0]
    if logits[0].shape[1] == 1:
        return torch.logit(torch.stack([x.float().sigmoid() for x in logits]).mean(0), eps=1e-7)
    total = logits[0].float().log_softmax(1)
    for x in logits[1:]:
        total = torch.logaddexp(total, x.float().log_softmax(1))
    return total - math.log(len(logits))


class Nested(nn.Module):
    """What the net with its own contracting path and that over an encoder have in common: heads, and how they answer.

    heads   of X(0,1), X(0,2), ...; without deep supervision of the last node alone
    aux     weight of the others in training      levels  see `build`
    """

    def __init__(self, heads: Sequence[nn.Module], *, aux: float, levels: int) -> None:
        super().__init__()
        self.heads, self.aux, self.levels = nn.ModuleList(heads), aux, levels

    def nodes_needed(self, depth: int) -> int:
        """How many X(0,j) this forward pass computes."""
        return depth if self.training or not self.levels else self.levels

    def answer(self, images: Tensor, frames: tuple[Frame, ...] | None, finest: Sequence[Tensor]) -> Dense:
        """images, [X(0,1), X(0,2), ...] as the heads take them -> the output."""
        if len(self.heads) == 1:
            return dense(images, frames, self._cut(images, self.heads[0](finest[-1])))
        if self.levels and not self.training:
            return dense(images, frames, self._cut(images, self.heads[self.levels - 1](finest[-1])))
        logits = [self._cut(images, head(x)) for head, x in zip(self.heads, finest)]
        if self.training:
            aux = [(f"level{j}", self.aux, x) for j, x in enumerate(logits[:-1], 1)]
            return dense(images, frames, logits[-1], aux=aux)
        return dense(images, frames, mean_logits([enlarge(x, logits[-1].shape[2:]) for x in logits]))

    def _cut(self, images: Tensor, logits: Tensor) -> Tensor:
        """Without what the image was padded by."""
        return logits[:, :, : images.shape[2], : images.shape[3]]


class UNetPlusPlus(Nested):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from `min_size` up, padded inside.

    `path` holds X(0,0), X(1,0), ..., `nodes` "i_j" X(i,j), `up` what enlarges X(i+1,j-1) for it.
    """

    min_size = 8

    def __init__(self, *, classes: int, channels: int, width: int, depth: int, norm: str, up: str, dropout: float,
                 aux: float, levels: int) -> None:  # fmt: skip
        supervised = depth if aux else 1
        super().__init__([nn.Conv2d(width, classes, 1) for _ in range(supervised)], aux=aux, levels=levels)
        widths = [width * 2**i for i in range(depth + 1)]
        inputs = [channels, *widths]
        self.depth, self.norm = depth, norm
        self.path = nn.ModuleList(_twice(c, w, norm, dropout) for c, w in zip(inputs, widths))
        self.up, self.nodes = nn.ModuleDict(), nn.ModuleDict()
        for i in range(depth):
            for j in range(1, depth - i + 1):
                self.up[f"{i}_{j}"] = _enlarger(widths[i + 1], widths[i], up)
                below = widths[i] if up == "transposed" else widths[i + 1]
                self.nodes[f"{i}_{j}"] = _twice(below + j * widths[i], widths[i], norm, dropout)
        self.apply(initialise)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        stride = 2**self.depth
        if self.norm == "batch":
            check_cells(self, images, stride)
        x = mirror(images, (0, lacking(images.shape[2], stride), 0, lacking(images.shape[3], stride)))
        columns = [self.path[0](x)]
        for block in self.path[1 : self.nodes_needed(self.depth) + 1]:
            columns.append(block(F.max_pool2d(columns[-1], 2)))
        return self.answer(images, frames, nested(columns, self._join))

    def _join(self, i: int, j: int, below: Tensor, earlier: list[Tensor]) -> Tensor:
        return self.nodes[f"{i}_{j}"](torch.cat([self.up[f"{i}_{j}"](below), *earlier], 1))


def _twice(channels: int, width: int, norm: str, dropout: float) -> nn.Sequential:
    """Twice 3x3 convolution, norm, ReLU, dropout: [B, C, H, W] -> [B, width, H, W]; parts conv1, norm1, ..."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for k, c in enumerate((channels, width), 1):
        parts[f"conv{k}"] = nn.Conv2d(c, width, 3, padding=1)
        if norm == "batch":
            parts[f"norm{k}"] = nn.BatchNorm2d(width)
        parts[f"relu{k}"] = nn.ReLU(inplace=True)
        if dropout:
            parts[f"drop{k}"] = nn.Dropout(dropout)
    return nn.Sequential(parts)


def _enlarger(channels: int, width: int, up: str) -> nn.Module:
    if up == "transposed":
        return nn.ConvTranspose2d(channels, width, 2, stride=2)
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


class EncoderUNetPlusPlus(Nested):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H, W], of a pruned net (`levels`) on the half grid.

    Level i of the nest is at stride 2^(i+1). The nodes that the last one is made of, X(i,depth-i), have the decoder's
    widths, all others that of the encoder's map on their level.
    """

    min_size = 32

    def __init__(self, encoder: Encoder, *, classes: int, widths: Sequence[int], aux: float, levels: int) -> None:
        skips = Skips(encoder)
        check_widths(skips, widths)
        depth = len(skips) - 1
        own = [*skips.channels[:depth][::-1], skips.head]  # of the encoder's maps, the finest first
        if aux and not own[0]:
            raise ConfigError("UNet++: this encoder has no map at stride 2, so there are no nodes to supervise: "
                              "aux must be 0.")  # fmt: skip
        small = [nn.Conv2d(own[0], classes, 1) for _ in range(depth - 1)] if aux else []
        super().__init__([*small, nn.Conv2d(widths[-1], classes, 3, padding=1)], aux=aux, levels=levels)
        self.encoder, self.skips, self.depth = encoder, skips, depth
        self.nodes = nn.ModuleDict()

        def width(i: int, j: int) -> int:
            return widths[depth - 1 - i] if i + j == depth and j else own[i]

        for i in range(depth):
            for j in range(1, depth - i + 1):
                if width(i, j):
                    self.nodes[f"{i}_{j}"] = SkipBlock(width(i + 1, j - 1), j * own[i], width(i, j))
        self.last = SkipBlock(widths[-2], 0, widths[-1])
        for part in (self.nodes, self.last):
            part.apply(initialise)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        check_cells(self, images, self.encoder.strides[-1])
        maps = self.encoder(images)
        beside = self.skips.beside(images, maps)[: self.depth][::-1]  # the finest first
        sizes = [size for size, _ in beside]
        empty = maps[-1].new_empty(len(images), 0, 1, 1)  # where the encoder has no map
        columns = [skips[0] if skips else empty.expand(-1, -1, *size) for size, skips in beside] + [maps[-1]]

        def join(i: int, j: int, below: Tensor, earlier: list[Tensor]) -> Tensor:
            name = f"{i}_{j}"
            return self.nodes[name](below, sizes[i], *earlier) if name in self.nodes else columns[i]

        needed = self.nodes_needed(self.depth)
        finest = nested(columns[: needed + 1], join)
        if needed == self.depth:
            finest[-1] = self.last(finest[-1], images.shape[-2:])
        return self.answer(images, frames, finest)


PLAIN: dict[str, Any] = {"width": 32, "depth": 4, "norm": "none", "up": "transposed", "dropout": 0.5}
WITH_ENCODER: dict[str, Any] = {"pretrained": False, "decoder": WIDTHS}


def build(*, classes: int, channels: int = 3, width: int = 32, depth: int = 4, norm: str = "none",
          up: str = "transposed", dropout: float = 0.5, aux: float = 1.0, levels: int = 0, encoder: str = "",
          pretrained: bool = False, decoder: Sequence[int] = WIDTHS) -> Nested:  # fmt: skip
    """UNet++ with numbers.

    channels  of the input                width  channels at full size, doubled at each halving
    depth     halvings (1 to 6)           norm   none or batch
    up        transposed convolutions, or bilinear with aligned corners
    dropout   after each convolution
    aux       weight of the losses of X(0,1), X(0,2), ... beside that of the last node, 1 in the paper; 0: they have no
              heads, and only the last node answers
    levels    in evaluation, 0: the mean of all heads, j: the head of X(0,j) alone; over an encoder all of its stages
              are computed nevertheless
    encoder   "": none; else see `pixelwise list encoders`, and of the above only channels, aux and levels count
    pretrained  the encoder begins with timm's weights
    decoder   channels over an encoder of X(i,depth-i), the coarsest first, and of the block to full size
    Raises ConfigError for what cannot be, and for options of the one kind with the other.
    """
    given: dict[str, Any] = {"width": width, "depth": depth, "norm": norm, "up": up, "dropout": dropout}
    over: dict[str, Any] = {"pretrained": pretrained,
                            "decoder": tuple(decoder) if isinstance(decoder, list) else decoder}  # fmt: skip
    check_whole("UNet++", channels=channels)
    check_weight("UNet++", aux=aux)
    check_encoder_name("UNet++", encoder)
    if encoder:
        check_unused("UNet++", given, PLAIN, f"encoder={encoder}")
        widths = check_wholes("UNet++", "decoder", over["decoder"])
        check_flags("UNet++", pretrained=pretrained)
        body = make_encoder(encoder, channels=channels, pretrained=pretrained)
        net: Any = EncoderUNetPlusPlus(body, classes=classes, widths=widths, aux=aux, levels=levels)
    else:
        check_unused("UNet++", over, WITH_ENCODER, "no encoder")
        check_whole("UNet++", width=width)
        check_choice("UNet++", (1, 2, 3, 4, 5, 6), depth=depth)
        check_choice("UNet++", ("none", "batch"), norm=norm)
        check_choice("UNet++", ("transposed", "bilinear"), up=up)
        check_dropout("UNet++", dropout=dropout)
        net = UNetPlusPlus(classes=classes, channels=channels, aux=aux, levels=levels, **given)
    check_choice("UNet++", range(net.depth + 1), levels=levels)
    if 0 < levels < net.depth and not aux:
        raise ConfigError(
            f"UNet++: levels is {levels}, but with aux=0 only the last node, X(0,{net.depth}), has a head."
        )
    return net
