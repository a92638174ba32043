"""RefineNet (Lin, Milan, Shen, Reid 2016, 1611.06612): an encoder's maps, refined one by one from coarse to fine.

A residual convolution unit RCU adds to x two 3x3 convolutions of it, without norms; chained residual pooling CRP adds a
chain of 5x5 max poolings, each with a 3x3 convolution; fusion brings its inputs to one width by 3x3 convolutions and
adds them on the finer grid. With the encoder's map x_m, brought to `width` channels (the coarsest to twice as many):

    R_m = RCU(CRP(relu(fuse(RCU(RCU(x_m)), RCU(RCU(R_{m+1}))))))     R_4 has one input, so nothing to fuse

and behind R_1 come two more RCU and a 3x3 convolution to the classes. The textbook writes RCU(CRP(fuse(x_m, R_{m+1}))):
there the inputs meet first, whereas in the paper each passes its two units alone before they meet.

`101`, the plain variant, `50` and `152` are named after their ResNet. Their chains have four poolings, as the authors'
published weights, where the paper speaks of two (`pools=2`). `improved` is the authors' later chain, which convolves
before it pools. `small` is a narrow one on a ResNet-18, for training without a GPU.
The known port (DrSleep) is `101`; dropout is its: before the two coarsest maps and before the classes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.keys import Dialect, Rule, prefixed
from pixelwise.core.outputs import Dense, Frame
from pixelwise.nn.encoder import make_encoder
from pixelwise.nn.encoder_keys import RESNET, resnet_name
from pixelwise.nn.heads import dense
from pixelwise.nn.options import check_dropout, check_flags, check_whole

PAPER = {
    "title": "RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic Segmentation",
    "year": 2016,
    "arxiv": "1611.06612",
}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "101": {},
    "50": {"encoder": "resnet50"},
    "152": {"encoder": "resnet152"},
    "improved": {"conv_first": True},
    "small": {"encoder": "resnet18", "width": 64},
}
THIN = {"encoder": "resnet10t", "width": 8, "pools": 2}  # for the tests of what every net promises
LEVELS = (4, 8, 16, 32)


def conv3x3(channels: int, width: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, bias=bias)


class ResidualConvUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))): [B, C, h, w] -> [B, C, h, w]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(width, width, bias=True), conv3x3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True)).add_(x)


class ChainedPooling(nn.Module):
    """relu(x) + b_1 + ... + b_n, b_k = conv(pool(b_{k-1})), b_0 = relu(x): [B, C, h, w] -> [B, C, h, w].

    conv_first   b_k = pool(conv(b_{k-1}))
    """

    def __init__(self, width: int, pools: int, conv_first: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(width, width) for _ in range(pools))
        self.conv_first = conv_first

    def forward(self, x: Tensor) -> Tensor:
        total = branch = F.relu(x)
        for conv in self.convs:
            if self.conv_first:
                branch = F.max_pool2d(conv(branch), 5, stride=1, padding=2)
            else:
                branch = conv(F.max_pool2d(branch, 5, stride=1, padding=2))
            total = total + branch
        return total


class RefineBlock(nn.Module):
    """R_m with the two units through which it enters the next block, or those before the classes.

    channels  of the encoder's map           coarse   width of the block before, 0 where there is none
    """

    def __init__(self, channels: int, width: int, coarse: int, pools: int, conv_first: bool) -> None:
        super().__init__()
        adapt: list[nn.Module] = [conv3x3(channels, width), ResidualConvUnit(width), ResidualConvUnit(width)]
        self.adapt = nn.Sequential(*adapt, *([conv3x3(width, width)] if coarse else []))
        self.fuse = conv3x3(coarse, width) if coarse else None
        units = [ResidualConvUnit(width) for _ in range(3)]
        self.flow = nn.Sequential(ChainedPooling(width, pools, conv_first), *units)

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """[B, C, h, w] of the encoder, [B, D', h / 2, w / 2] of the block before -> [B, D, h, w]."""
        x = self.adapt(x)
        if self.fuse is not None and coarse is not None:
            x = x + F.interpolate(self.fuse(coarse), x.shape[-2:], mode="bilinear", align_corners=True)
        return self.flow(x)


class RefineNet(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H / 4, W / 4]; any H, W from `min_size` up."""

    min_size = 32

    def __init__(self, *, classes: int, channels: int, encoder: str, pretrained: bool, width: int, pools: int,
                 conv_first: bool, dropout: float) -> None:  # fmt: skip
        super().__init__()
        self.encoder = make_encoder(encoder, channels=channels, pretrained=pretrained, levels=LEVELS)
        maps = self.encoder.channels
        self.refine4 = RefineBlock(maps[3], 2 * width, 0, pools, conv_first)
        self.refine3 = RefineBlock(maps[2], width, 2 * width, pools, conv_first)
        self.refine2 = RefineBlock(maps[1], width, width, pools, conv_first)
        self.refine1 = RefineBlock(maps[0], width, width, pools, conv_first)
        self.drop = nn.Dropout(dropout)
        self.head = conv3x3(width, classes, bias=True)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        x1, x2, x3, x4 = self.encoder(images)
        x = self.refine4(self.drop(x4))
        x = self.refine3(self.drop(x3), x)
        x = self.refine2(x2, x)
        x = self.refine1(x1, x)
        return dense(images, frames, self.head(self.drop(x)))


def build(*, classes: int, channels: int = 3, encoder: str = "resnet101", pretrained: bool = False, width: int = 256,
          pools: int = 4, conv_first: bool = False, dropout: float = 0.5) -> RefineNet:  # fmt: skip
    """RefineNet with numbers.

    channels  of the input                 encoder  with maps at strides 4 to 32, see `pixelwise list encoders`
    pretrained  the encoder begins with timm's weights
    width     of the three finer blocks, the coarsest has twice as many channels
    pools     in each chain                conv_first  a chain's convolutions stand before their pooling
    dropout   before the two coarsest blocks and the last convolution
    Raises ConfigError for what cannot be.
    """
    check_whole("RefineNet", channels=channels, width=width, pools=pools)
    check_flags("RefineNet", pretrained=pretrained, conv_first=conv_first)
    check_dropout("RefineNet", dropout=dropout)
    return RefineNet(classes=classes, channels=channels, encoder=encoder, pretrained=pretrained, width=width,
                     pools=pools, conv_first=conv_first, dropout=dropout)  # fmt: skip


# -- the port's files -------------------------------------------------------------------------------------------------


def _options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options of `build` from a file's shapes; no shape tells `conv_first`, which the port does not have."""
    pools = sum(bool(re.fullmatch(r"mflow_conv_g1_pool\.0\.\d_outvar_dimred\.weight", name)) for name in tensors)
    return {"classes": len(tensors["clf_conv.weight"]), "channels": tensors["conv1.weight"].shape[1], "pools": pools,
            "encoder": resnet_name(tensors, ""), "width": len(tensors["p_ims1d2_outl4_dimred.weight"])}  # fmt: skip


def _pooling(match: re.Match[str], names: Collection[str]) -> str:
    """The port counts a chain's convolutions from 1."""
    return f"refine{5 - int(match[1])}.flow.0.convs.{int(match[2]) - 1}.weight"


def _stage(number: int) -> tuple[Rule, ...]:
    """The port counts stages from the coarsest, 1 to 4; the paper's blocks from the finest."""
    here, units = f"refine{5 - number}", ((r"conv", "conv1"), (r"conv_relu_varout_dimred", "conv2"))
    return (
        (rf"p_ims1d2_outl{number}_dimred\.(.+)", rf"{here}.adapt.0.\1"),
        *((rf"adapt_stage{number}_b\.0\.(\d)_{old}\.(.+)", rf"{here}.adapt.\1.{new}.\2") for old, new in units),
        (rf"adapt_stage{number}_b2_joint_varout_dimred\.(.+)", rf"{here}.adapt.3.\1"),
        *((rf"mflow_conv_g{number}_b\.0\.(\d)_{old}\.(.+)", rf"{here}.flow.\1.{new}.\2") for old, new in units),
        (rf"mflow_conv_g{number}_b3_joint_varout_dimred\.(.+)", rf"refine{4 - number}.fuse.\1"),
    )


KEYS = {
    "DrSleep": Dialect(
        signs=(r"^layer4\.", r"^p_ims1d2_outl4_dimred\.", r"^mflow_conv_g4_b\.", r"^clf_conv\."),
        rules=(
            *prefixed("", "encoder.body.", RESNET),
            *(rule for number in (1, 2, 3, 4) for rule in _stage(number)),
            (r"mflow_conv_g(\d)_pool\.0\.(\d)_outvar_dimred\.weight", _pooling),
            (r"clf_conv\.(.+)", r"head.\1"),
        ),
        options=_options,
        labels={21: "voc"},
    ),
}
