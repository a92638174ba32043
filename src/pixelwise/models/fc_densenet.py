"""FC-DenseNet, "the hundred layers Tiramisu" (Jegou, Drozdzal, Vazquez, Romero, Bengio 2016, 1611.09326).

Dense blocks, in which each layer sees the maps of all layers before it (Huang et al. 2016, 1608.06993):
x_l = H_l([x_0, x_1, ..., x_{l-1}]), H = batch norm, ReLU, 3x3 convolution to `growth` maps, dropout. Down the path a
block keeps its input beside its new maps, which goes on as the skip and, halved, as the next block's input. Up the path
only a block's new maps are enlarged, by a 3x3 transposed convolution of stride 2, and the skip is put beside them.

`103`, the plain variant, `67` and `56` are the paper's, named after their convolutions.
What the paper does around the net: random crops of 224x224, then whole frames; the batch's own statistics at test time
(`batch_statistics=True`: every norm then uses them in evaluation too, and an answer depends on what else is in the
batch); RMSprop; uniform initial weights (He et al. 2015, 1502.01852), as here.
The authors' Lasagne code counts the running statistics among the parameters, and its norms add 1e-4 to the variance;
PyTorch's 1e-5 stands here, as in the known port (bfortuner). That port drops whole channels where the paper and this
file drop single values, and ends with a log-softmax, where this net returns logits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.keys import Dialect
from pixelwise.core.outputs import Dense, Frame
from pixelwise.core.sample import Preprocessing
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.nn.heads import dense
from pixelwise.nn.options import check_dropout, check_flags, check_whole, check_wholes

PAPER = {
    "title": "The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for Semantic Segmentation",
    "year": 2016,
    "arxiv": "1611.09326",
}

LAYERS = [4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4]  # of FC-DenseNet103's blocks: down, bottom, up
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "103": {},
    "67": {"layers": [5] * 11},
    "56": {"layers": [4] * 11, "growth": 12},
}
THIN = {"layers": [2, 2, 2, 2, 2], "growth": 4, "width": 8}  # for the tests of what every net promises


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that, with `batch_statistics`, uses the batch's own statistics in evaluation too."""

    def __init__(self, channels: int, batch_statistics: bool) -> None:
        super().__init__(channels)
        self.batch_statistics = batch_statistics

    def forward(self, x: Tensor) -> Tensor:
        own = self.training or self.batch_statistics
        if own and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            raise ConfigError(
                "FC-DenseNet: a batch norm got a single value per channel, which has no deviation. Use larger images "
                "or --batch-size 2 or more."
            )
        if self.batch_statistics and not self.training:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return super().forward(x)


class DenseLayer(nn.Sequential):
    """H_l: all maps before it, side by side, through norm, ReLU, convolution and dropout -> [B, growth, h, w]."""

    def __init__(self, channels: int, growth: int, kernel: int, dropout: float, batch_statistics: bool) -> None:
        super().__init__()
        self.norm = BatchNorm(channels, batch_statistics)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, growth, kernel, padding=kernel // 2)
        self.drop = nn.Dropout(dropout, inplace=True)

    def forward(self, *maps: Tensor) -> Tensor:
        """Joined in here, so that a checkpointed layer keeps the maps and not each of their joins."""
        return super().forward(torch.cat(maps, 1) if len(maps) > 1 else maps[0])


class DenseBlock(nn.Module):
    """`count` dense layers: maps -> the new maps, each [B, growth, h, w]."""

    def __init__(self, channels: int, count: int, growth: int, **layer: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(channels + i * growth, growth, 3, **layer) for i in range(count))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        new: list[Tensor] = []
        for layer in self.layers:
            new.append(layer(*maps, *new))
        return new


class FCDenseNet(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from `min_size` up.

    Odd maps lose a line when they are halved; the transposed convolution's 2 n + 1 lines are cut to those of the skip.
    """

    def __init__(self, *, classes: int, channels: int, width: int, growth: int, layers: Sequence[int],
                 dropout: float, batch_statistics: bool) -> None:  # fmt: skip
        super().__init__()
        shared: dict[str, Any] = {"dropout": dropout, "batch_statistics": batch_statistics}
        self.depth = depth = len(layers) // 2
        self.min_size = 2 ** (depth + 1 if batch_statistics else depth)  # more than one value at the bottom, or one
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.halve, self.enlarge = nn.ModuleList(), nn.ModuleList()
        skips = [width]
        for i, count in enumerate(layers[:depth]):
            self.add_module(f"down{i}", DenseBlock(skips[-1], count, growth, **shared))
            skips.append(skips[-1] + count * growth)
            self.halve.append(DenseLayer(skips[-1], skips[-1], 1, **shared))
        self.bottom = DenseBlock(skips[-1], layers[depth], growth, **shared)
        for i, (before, count) in enumerate(pairwise(layers[depth:])):
            new = before * growth
            self.enlarge.append(nn.ConvTranspose2d(new, new, 3, stride=2))
            self.add_module(f"up{i}", DenseBlock(new + skips[-1 - i], count, growth, **shared))
        self.head = nn.Conv2d(skips[1] + (layers[-2] + layers[-1]) * growth, classes, 1)
        self.apply(initialise)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        x, skips = self.stem(images), []
        for i, halve in enumerate(self.halve):
            x = torch.cat([x, *self.get_submodule(f"down{i}")([x])], 1)
            skips.append(x)
            x = F.max_pool2d(halve(x), 2)
        maps = [x]
        new = self.bottom(maps)
        for i, enlarge in enumerate(self.enlarge):
            skip = skips.pop()
            x = enlarge(torch.cat(new, 1))[..., : skip.shape[2], : skip.shape[3]]
            maps = [x, skip]
            new = self.get_submodule(f"up{i}")(maps)
        return dense(images, frames, self.head(torch.cat([*maps, *new], 1)))


def initialise(module: nn.Module) -> None:
    """The authors': uniform with variance 2 / fan-in, biases zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(*, classes: int, channels: int = 3, width: int = 48, growth: int = 16, layers: Sequence[int] = tuple(LAYERS),
          dropout: float = 0.2, batch_statistics: bool = False) -> FCDenseNet:  # fmt: skip
    """FC-DenseNet with numbers.

    channels  of the input          width   of the first convolution         growth   maps that a layer adds
    layers    in each block: down, bottom, up; so an odd number of blocks, from 3 up
    dropout   behind every convolution of a dense layer and before each halving
    batch_statistics  norms use the batch's own statistics in evaluation too, as the paper's results do
    """
    counts = check_wholes("FC-DenseNet", "layers", layers)
    if len(counts) < 3 or len(counts) % 2 == 0:
        raise ConfigError(f"FC-DenseNet: layers is {layers!r}; it must be 3, 5, 7, ... numbers: layers in the blocks "
                          "down, at the bottom and up.")  # fmt: skip
    check_whole("FC-DenseNet", channels=channels, width=width, growth=growth)
    check_dropout("FC-DenseNet", dropout=dropout)
    check_flags("FC-DenseNet", batch_statistics=batch_statistics)
    return FCDenseNet(classes=classes, channels=channels, width=width, growth=growth, layers=counts, dropout=dropout,
                      batch_statistics=batch_statistics)  # fmt: skip


def _options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options of `build` from a file's shapes."""
    found: dict[str, list[int]] = {"denseBlocksDown": [], "bottleneck": [], "denseBlocksUp": []}
    for name in tensors:
        match = re.fullmatch(r"(\w+)\.(\d+|bottleneck)\.layers\.(\d+)\.conv\.weight", name)
        if match and match[1] in found:
            counts, block = found[match[1]], 0 if match[2] == "bottleneck" else int(match[2])
            counts.extend([0] * (block + 1 - len(counts)))
            counts[block] = max(counts[block], int(match[3]) + 1)
    if len(found["denseBlocksDown"]) != len(found["denseBlocksUp"]):
        raise ModelFileError(f"it has {len(found['denseBlocksDown'])} dense blocks down, "
                             f"{len(found['denseBlocksUp'])} up; as many were expected.")  # fmt: skip
    stem, layer = tensors["firstconv.weight"], tensors["denseBlocksDown.0.layers.0.conv.weight"]
    return {"classes": len(tensors["finalConv.weight"]), "channels": stem.shape[1], "width": len(stem),
            "growth": len(layer), "layers": [n for counts in found.values() for n in counts]}  # fmt: skip


KEYS = {
    "bfortuner": Dialect(
        signs=(r"^firstconv\.weight$", r"^denseBlocksDown\.0\.layers\.0\.norm\.", r"^transUpBlocks\.0\.convTrans\."),
        rules=(
            (r"firstconv\.(.+)", r"stem.\1"),
            (r"denseBlocksDown\.(\d+)\.(layers\..+)", r"down\1.\2"),
            (r"transDownBlocks\.(\d+)\.((?:norm|conv)\..+)", r"halve.\1.\2"),
            (r"bottleneck\.bottleneck\.(layers\..+)", r"bottom.\1"),
            (r"transUpBlocks\.(\d+)\.convTrans\.(.+)", r"enlarge.\1.\2"),
            (r"denseBlocksUp\.(\d+)\.(layers\..+)", r"up\1.\2"),
            (r"finalConv\.(.+)", r"head.\1"),
        ),
        options=_options,
        preprocessing=Preprocessing(mean=(0.41189489566336, 0.4251328133025, 0.4326707089857),
                                    std=(0.27413549931506, 0.28506257482912, 0.28284674400252)),
        labels={11: "camvid", 12: "camvid-nothing"},
    ),
}  # fmt: skip
