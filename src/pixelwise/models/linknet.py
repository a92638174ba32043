"""LinkNet (Chaurasia, Culurciello 2017, 1707.03718): small decoders, each linked to its encoder's input by addition.

A decoder squeezes the channels to a quarter by a 1x1 convolution, doubles the size by a transposed one, and widens by
another 1x1. What it yields is added to the map that went into the stage of the encoder at the same height. At the end
two transposed convolutions and a 3x3 between them answer at full size.

The plain variant is the paper's on a ResNet-18, as its authors' PyTorch code has it (`e-lab`, whose files load): the
last decoder does not enlarge and is linked to the pooled map of the stem. `r34` is larger. `smp` is
segmentation_models.pytorch's: on a ResNet-34, five decoders that all enlarge, by kernels of 4 instead of 3; the fourth
is linked to the stem's map before the pooling, and a 1x1 convolution labels what the fifth yields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise, zip_longest
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.keys import Dialect
from pixelwise.core.outputs import Dense, Frame
from pixelwise.nn.conv import conv_norm
from pixelwise.nn.encoder import Encoder, make_encoder
from pixelwise.nn.encoder_keys import resnet_name
from pixelwise.nn.heads import dense
from pixelwise.nn.options import check_choice, check_flags, check_whole
from pixelwise.nn.pyramid import halving
from pixelwise.nn.smp_keys import SMP_ENCODER, smp_encoder
from pixelwise.nn.unet_decoder import check_cells

PAPER = {
    "title": "LinkNet: Exploiting Encoder Representations for Efficient Semantic Segmentation",
    "year": 2017,
    "arxiv": "1707.03718",
}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "r34": {"encoder": "resnet34"},
    "smp": {"encoder": "resnet34", "form": "smp"},
}
THIN = {"encoder": "test_resnet", "width": 8}  # for the tests of what every net promises


class LinkNet(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from `min_size` up."""

    min_size = 32

    def __init__(self, encoder: Encoder, *, classes: int, width: int, form: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.stem = encoder.strides[0] == 2
        self.pool_stem = self.stem and form == "paper"
        channels = list(encoder.channels[::-1])  # the coarsest first
        if not self.stem:  # one link less
            channels.append(channels[-1])
        if form == "paper":
            strides, kernel = [2] * (len(channels) - 2) + [1], 3
        else:
            channels.append(width)
            strides, kernel = [2] * (len(channels) - 1), 4
        pairs = zip(pairwise(channels), strides, strict=True)
        self.decoders = nn.ModuleList(_decoder(a, b, stride, kernel) for (a, b), stride in pairs)
        self.head = _paper_head(channels[-1], width, classes) if form == "paper" else nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        check_cells(self, images, self.encoder.strides[-1])
        *links, x = self.encoder(images)
        if self.pool_stem:  # ResNets do the same before their first stage
            links[0] = F.max_pool2d(links[0], 3, 2, 1)
        for decoder, link in zip_longest(self.decoders, reversed(links)):
            x = decoder(x)
            if link is not None:
                x = x[..., : link.shape[2], : link.shape[3]] + link  # twice the half of an odd size is one too many
        logits = self.head(x)[..., : images.shape[2], : images.shape[3]]  # [B, K, H, W]
        return dense(images, frames, logits)


def _decoder(channels: int, width: int, stride: int, kernel: int) -> nn.Sequential:
    """[B, C, h, w] -> [B, D, stride x h, stride x w]"""
    quarter = max(1, channels // 4)
    enlarge = _transposed(quarter, quarter, kernel, stride, bias=kernel == 4)
    return nn.Sequential(conv_norm(channels, quarter), enlarge, conv_norm(quarter, width))


def _transposed(channels: int, width: int, kernel: int, stride: int, *, bias: bool) -> nn.Sequential:
    """[B, C, h, w] -> [B, D, stride x h, stride x w] by a kernel of 3 or 4, with norm and ReLU."""
    conv = nn.ConvTranspose2d(channels, width, kernel, stride, 1, stride - 1 if kernel == 3 else 0, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _paper_head(channels: int, width: int, classes: int) -> nn.Sequential:
    """[B, C, h, w] -> [B, K, 4 h, 4 w]"""
    conv = conv_norm(width, width, 3, bias=True)
    return nn.Sequential(_transposed(channels, width, 3, 2, bias=True), conv, nn.ConvTranspose2d(width, classes, 2, 2))


def build(*, classes: int, channels: int = 3, encoder: str = "resnet18", pretrained: bool = False, width: int = 32,
          form: str = "paper") -> LinkNet:  # fmt: skip
    """LinkNet with numbers.

    channels  of the input                 encoder  see `pixelwise list encoders`
    pretrained  the encoder begins with timm's weights
    width     of the last layers           form     "paper" or "smp", see above
    Raises ConfigError for what cannot be, such as an encoder whose maps do not halve from stride 2 or 4 on.
    """
    check_whole("LinkNet", channels=channels, width=width)
    check_flags("LinkNet", pretrained=pretrained)
    check_choice("LinkNet", ("paper", "smp"), form=form)
    body = halving(make_encoder(encoder, channels=channels, pretrained=pretrained, cover=True), encoder)
    return LinkNet(body, classes=classes, width=width, form=form)


# -- files of others --------------------------------------------------------------------------------------------------


def _smp_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    head = tensors["segmentation_head.0.weight"]
    return {**VARIANTS["smp"], **smp_encoder(tensors), "classes": head.shape[0], "width": head.shape[1]}


def _elab_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    names = {re.sub(r"^encoder(\d)\.", r"layer\1.", name): tensor for name, tensor in tensors.items()}
    return {"encoder": resnet_name(names, ""), "channels": tensors["in_block.0.weight"].shape[1],
            "classes": tensors["tp_conv2.weight"].shape[1], "width": tensors["tp_conv2.weight"].shape[0]}  # fmt: skip


KEYS = {
    "smp": Dialect(
        signs=(r"^encoder\.", r"^decoder\.blocks\.0\.block\.1\.0\.", r"^segmentation_head\.0\."),
        rules=(
            *SMP_ENCODER,
            (r"decoder\.blocks\.(\d)\.block\.(.*)", r"decoders.\1.\2"),
            (r"segmentation_head\.0\.(.*)", r"head.\1"),
            (r"classification_head\..*", ""),
        ),
        options=_smp_options,
    ),
    # the authors' PyTorch code ends in a log-softmax, which changes no answer
    "e-lab": Dialect(
        signs=(r"^in_block\.0\.", r"^encoder4\.", r"^decoder4\.tp_conv\.", r"^tp_conv2\."),
        rules=(
            (r"in_block\.0\.(.*)", r"encoder.body.conv1.\1"),
            (r"in_block\.1\.(.*)", r"encoder.body.bn1.\1"),
            (r"encoder(\d)\.(.*)", r"encoder.body.layer\1.\2"),
            *(
                (rf"decoder{4 - i}\.{part}\.([01]\..*)", rf"decoders.{i}.{k}.\1")
                for i in range(4)
                for k, part in enumerate(("conv1", "tp_conv", "conv2"))
            ),
            (r"tp_conv1\.(.*)", r"head.0.\1"),
            (r"conv2\.(.*)", r"head.1.\1"),
            (r"tp_conv2\.(.*)", r"head.2.\1"),
        ),
        options=_elab_options,
    ),
}
