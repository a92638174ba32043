"""EfficientNet (Tan, Le 2019, 1905.11946) and MobileNetV2 (Sandler et al. 2018, 1801.04381) with the feature maps that
segmentation_models.pytorch takes: the stem's instead of the first stage's, the last 1x1 convolution's instead of the
last stage's. timm's own pyramids of these nets, under timm's names, end each stride with its last stage.

Its EfficientNets also pad by fixed numbers, those that TensorFlow's "same" gives at the size that each was published
for; TensorFlow itself, and timm, pad by the size at hand. Of b0 it takes the map at stride 16 behind the first block of
the fifth stage instead of the third. Those with "timm-" before the name pad evenly, and know no such exception.
In training it drops whole blocks at random, which is left out here."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

SIZES = (224, 240, 260, 300, 380, 456, 528, 600)  # that EfficientNets b0 to b7 were published for
# our name -> timm's, whether the finest map is the stem's or the coarsest the head's or all stand behind what strides,
# and the size to pad as at, or 0
NETS = {
    **{f"efficientnet-b{i}": (f"tf_efficientnet_b{i}", "stem", size) for i, size in enumerate(SIZES)},
    **{f"timm-efficientnet-b{i}": (f"efficientnet_b{i}", "stem", 0) for i in range(9)},
    "mobilenet_v2": ("mobilenetv2_100", "head", 0),
    "mobilenet_v3_large": ("mobilenetv3_large_100", "strided", 0),
}


class PaddedConv(nn.Conv2d):
    """A convolution with the weights of another, that pads `before` above and at the left, `after` below and right."""

    def __init__(self, conv: nn.Conv2d, before: int, after: int) -> None:
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], groups=conv.groups,
                         bias=conv.bias is not None, device=conv.weight.device)  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        self.around = (before, after, before, after)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.around) if any(self.around) else input)


def pad_as_at(net: nn.Module, size: int) -> None:
    """Lets the strided convolutions of timm's EfficientNet pad at every size as they would at `size`, in place."""
    strided = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.stride[0] == 2]
    for name, conv in strided:
        halved = -(-size // 2)
        total = max(2 * (halved - 1) + conv.kernel_size[0] - size, 0)
        parent, _, last = name.rpartition(".")
        setattr(net.get_submodule(parent), last, PaddedConv(conv, total // 2, total - total // 2))
        size = halved


class PaddedPool(nn.AvgPool2d):
    """Averages over every window of a map that zeros widen to keep its size."""

    def forward(self, input: Tensor) -> Tensor:
        lost = int(self.kernel_size) - 1  # type: ignore[arg-type]  # a number, see below
        around = (lost // 2, lost - lost // 2)
        return super().forward(F.pad(input, (*around, *around)))


def pad_by_numbers(net: nn.Module) -> nn.Module:
    """Lets the unstrided average pools of timm's dilated ResNets pad by numbers that do not depend on the size, in
    place: timm reckons them at every size, to the same, in ways that exported nets cannot hold. Returns the net."""
    from timm.layers.pool2d_same import AvgPool2dSame

    for name, pool in list(net.named_modules()):
        if isinstance(pool, AvgPool2dSame) and pool.stride == (1, 1):
            parent, _, last = name.rpartition(".")
            side = int(pool.kernel_size[0])  # type: ignore[index]  # a pair, as timm has it
            evened = PaddedPool(side, 1, count_include_pad=pool.count_include_pad)
            setattr(net.get_submodule(parent), last, evened)
    return net


class FeatureInfo:
    """Channels and strides of the maps, asked as those of timm's nets."""

    def __init__(self, channels: list[int], strides: list[int]) -> None:
        self._channels, self._strides = channels, strides

    def channels(self) -> list[int]:
        return self._channels

    def reduction(self) -> list[int]:
        return self._strides


class TappedNet(nn.Module):
    """Images -> maps, the finest first: the stem's where `early`, those behind the blocks in `taps`, and the last of
    them through the head where `headed`. The parts are timm's, by timm's names.
    """

    early: bool
    headed: bool
    taps: frozenset[tuple[int, int]]  # stage and block
    conv_stem: nn.Module
    bn1: nn.Module
    act1: nn.Module
    blocks: Any
    conv_head: nn.Module
    bn2: nn.Module

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.act1(self.bn1(self.conv_stem(images)))
        maps = [x] if self.early else []
        for i, stage in enumerate(self.blocks):
            for j, block in enumerate(stage):
                x = block(x)
                if (i, j) in self.taps:
                    maps.append(x)
        if self.headed:
            maps[-1] = self.bn2(self.conv_head(x))
        return maps


class StagedNet(TappedNet):
    """Images -> maps at strides 2, 4, 8, 16, 32, as segmentation_models.pytorch takes them.

    net     timm's EfficientNet or MobileNetV2      special  "stem" or "head"      size  see NETS
    levels  how many of the maps; None: all. What lies behind the last one is not kept.
    output_stride  what lies between two maps is dilated where their stride would be larger, from its first block on, as
            segmentation_models.pytorch has it; timm's own lets the first one be
    """

    def __init__(self, net: Any, special: str, size: int = 0, levels: int | None = None,
                 output_stride: int = 32) -> None:  # fmt: skip
        super().__init__()
        info = net.feature_info
        stages = [int(entry["module"].split(".")[1]) for entry in info]  # the one that each map is taken behind
        channels, strides = ([entry[key] for entry in info] for key in ("num_chs", "reduction"))
        if size:
            pad_as_at(net, size)
        if special == "stem":
            channels[0] = net.conv_stem.out_channels
        else:
            channels[-1] = net.conv_head.out_channels
        keep = len(stages) if levels is None else levels
        self.early = special == "stem"
        self.headed = special == "head" and keep == len(stages)
        taps = [(stage, len(net.blocks[stage]) - 1) for stage in stages]  # stage and block that each map is behind
        if size == SIZES[0]:
            taps[3] = (taps[3][0], 0)
        self.taps = frozenset(taps[1 if self.early else 0 : keep])
        self.conv_stem, self.bn1, self.blocks = net.conv_stem, net.bn1, net.blocks[: stages[keep - 1] + 1]
        self.act1 = nn.Identity()  # of the stem; timm's whole nets have it in their norm
        if self.headed:
            self.conv_head, self.bn2 = net.conv_head, net.bn2
        self._dilate(strides[1:] if self.early else strides, output_stride)
        self.feature_info = FeatureInfo(channels[:keep], [min(stride, output_stride) for stride in strides[:keep]])

    def _dilate(self, strides: list[int], most: int) -> None:
        """Lets blocks not stride beyond `most`; `strides` of the maps in the order of their blocks."""
        passed = 0
        for i, stage in enumerate(self.blocks):
            for j, block in enumerate(stage):
                rate = strides[min(passed, len(strides) - 1)] // most
                for conv in block.modules():
                    if rate > 1 and isinstance(conv, nn.Conv2d):
                        around = rate * (conv.kernel_size[0] // 2)
                        conv.stride, conv.dilation, conv.padding = (1, 1), (rate, rate), (around, around)
                        if isinstance(conv, PaddedConv):
                            conv.around = (0, 0, 0, 0)
                passed += (i, j) in self.taps


class StridedNet(TappedNet):
    """Images -> maps at strides 2, 4, 8, 16, 32 of MobileNetV3 (large) as torchvision takes them: behind the first
    block of a stride, not the last, and at last behind the 1x1 convolution. A dilated stage is so from its first block
    on, and the epsilon of norms is 0.001.

    net  timm's MobileNetV3 with features only      levels  see `StagedNet`
    """

    TAPS = ((1, 0), (2, 0), (3, 0), (6, 0))  # stage and block that each map but the stem's is behind

    def __init__(self, net: Any, levels: int | None = None) -> None:
        super().__init__()
        keep = len(self.TAPS) + 1 if levels is None else levels
        tapped = [net.blocks[stage][block] for stage, block in self.TAPS]
        last = [part.conv_pwl if hasattr(part, "conv_pwl") else part.conv for part in tapped]
        channels = [net.conv_stem.out_channels] + [conv.out_channels for conv in last]
        self.early, self.headed, self.taps = True, False, frozenset(self.TAPS[: keep - 1])
        end = self.TAPS[keep - 2][0] + 1 if keep > 1 else 0
        self.conv_stem, self.bn1, self.act1, self.blocks = net.conv_stem, net.bn1, net.act1, net.blocks[:end]
        self.feature_info = FeatureInfo(channels[:keep], net.feature_info.reduction()[:keep])
        for stage in self.blocks:
            convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
            for conv in convs:
                conv.dilation = convs[-1].dilation
                conv.padding = (conv.dilation[0] * (conv.kernel_size[0] // 2),) * 2
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 0.001, 0.01
