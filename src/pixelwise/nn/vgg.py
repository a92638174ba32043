"""VGG-16 (Simonyan, Zisserman 2014, 1409.1556) as the dense nets of 2015 took it apart: thirteen convolutions in five
stages, each ending in a max pooling that a net may widen, round up or keep from striding."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.errors import ConfigError
from pixelwise.nn.encoder import classifier

DEPTHS = (2, 2, 3, 3, 3)  # convolutions in the stages
WIDTHS = (1, 2, 4, 8, 8)  # of the stages, in widths of the first


def stage(channels: int, width: int, depth: int, *, norm: bool = False, padding: int = 1, dilation: int = 1,
          kernel: int = 3, inner: int | None = None, momentum: float = 0.1) -> nn.Sequential:  # fmt: skip
    """`depth` times convolution, batch norm where `norm`, ReLU: [B, channels, H, W] -> [B, width, H, W].

    padding   of the first convolution; the others keep the size    inner  width of all but the last, None: `width`
    The parts are named conv1, norm1, relu1, conv2, ...
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    same = dilation * (kernel // 2)
    widths = [channels] + [inner or width] * (depth - 1) + [width]
    for i, (c, d) in enumerate(pairwise(widths), 1):
        around = same if i > 1 else same + padding - 1
        parts[f"conv{i}"] = nn.Conv2d(c, d, kernel, padding=around, dilation=dilation)
        if norm:
            parts[f"norm{i}"] = nn.BatchNorm2d(d, momentum=momentum)
        parts[f"relu{i}"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)


class VGG(nn.Module):
    """The five stages with their poolings: images -> the five pooled maps, the finest first.

    channels   of the images              width  of the first stage; the others have 2, 4, 8 and 8 times as many
    norm       whether a batch norm follows every convolution, as in timm's vgg16_bn
    padding    of the first convolution: FCN has 100
    pool       side of the poolings' windows: 2, or 3 with a padding of 1      ceil  whether their sizes round up
    strides    of the five poolings       dilations  of the five stages' convolutions
    momentum   of the batch norms
    Parameters are `stage3.conv1.weight` and so on; ImageNet weights come by `load_imagenet`.
    """

    def __init__(self, channels: int = 3, *, width: int = 64, norm: bool = False, padding: int = 1, pool: int = 2,
                 ceil: bool = False, strides: Sequence[int] = (2, 2, 2, 2, 2), dilations: Sequence[int] = (1,) * 5,
                 momentum: float = 0.1) -> None:  # fmt: skip
        super().__init__()
        self.width, self.norm, self.pool, self.ceil, self.strides = width, norm, pool, ceil, tuple(strides)
        self.channels = tuple(width * w for w in WIDTHS)
        inputs = (channels, *self.channels[:-1])
        for i, depth in enumerate(DEPTHS):
            self.add_module(f"stage{i + 1}", stage(
                inputs[i], self.channels[i], depth, norm=norm, padding=padding if i == 0 else 1,
                dilation=dilations[i], momentum=momentum))  # fmt: skip

    @property
    def stages(self) -> list[nn.Sequential]:
        """The five of them, without their poolings."""
        return [self.get_submodule(f"stage{i}") for i in range(1, 6)]  # type: ignore[misc]  # they are Sequential

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> five maps [B, channels[i], h_i, w_i], each after its pooling."""
        x, maps = images, []
        for block, stride in zip(self.stages, self.strides):
            x = F.max_pool2d(block(x), self.pool, stride, padding=self.pool // 3, ceil_mode=self.ceil)
            maps.append(x)
        return maps

    def load_imagenet(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        """Fills the convolutions and norms with timm's weights; returns the first two of its fully connected layers,
        as a 7x7 and a 1x1 convolution of 4096.

        Raises ConfigError for another width than 64, and for weights that are not there.
        """
        if self.width != 64:
            raise ConfigError(f"There are ImageNet weights for a VGG-16 that is 64 wide, not {self.width}: leave width "
                              "or pretrained=true out.")  # fmt: skip
        first = self.get_submodule("stage1.conv1")
        theirs = classifier("vgg16_bn" if self.norm else "vgg16", channels=first.in_channels)  # type: ignore[arg-type]
        kinds = nn.Conv2d | nn.BatchNorm2d
        mine = [m for block in self.stages for m in block if isinstance(m, kinds)]
        for own, given in zip(mine, (m for m in theirs.features if isinstance(m, kinds)), strict=True):
            own.load_state_dict(given.state_dict())
        return theirs.pre_logits.fc1, theirs.pre_logits.fc2


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """For `apply`: convolutions normal with variance 2 / fan-in (He et al. 2015, 1502.01852), biases zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
