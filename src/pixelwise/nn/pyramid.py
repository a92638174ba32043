"""Feature pyramids (FPN, Lin et al. 2016, 1612.03144) over any encoder, and what pools boxes from them.

FPN and multi-scale RoIAlign (He et al. 2017, 1703.06870) are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import LevelMapper

from pixelwise.errors import ConfigError
from pixelwise.nn.encoder import Encoder

LEAST_STRIDE = 4  # finer maps of an encoder are left out of its pyramid


def norm_layer(kind: str) -> Callable[[int], nn.Module] | None:
    """What makes a norm from a number of channels: "batch", "group" (8 channels a group, as far as they divide; Wu and
    He 2018, 1803.08494) or None for "none". Raises ConfigError for another word."""
    layers: dict[str, Callable[[int], nn.Module] | None] = {"none": None, "batch": nn.BatchNorm2d, "group": _group_norm}
    if kind not in layers:
        raise ConfigError(f"norm is {kind!r}; it can be {', '.join(layers)}.")
    return layers[kind]


def _group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels, eps=eps)


def group_norms(module: nn.Module) -> nn.Module:
    """Turns every batch norm into a group norm, in place, keeping activations that timm fuses with them; returns the
    module. For training from scratch in small batches (He et al. 2018, 1811.08883)."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm: nn.Module = _group_norm(child.num_features, child.eps)
            rest = [getattr(child, part) for part in ("drop", "act") if hasattr(child, part)]
            setattr(module, name, nn.Sequential(norm, *rest) if rest else norm)
        else:
            group_norms(child)
    return module


def coarse(encoder: Encoder, least: int = LEAST_STRIDE) -> Encoder:
    """The encoder without its maps finer than a stride of `least`, and with one map for each stride: the last."""
    keep = list({stride: i for i, stride in enumerate(encoder.strides) if stride >= least}.values())
    channels, strides, picks = (
        [values[i] for i in keep] for values in (encoder.channels, encoder.strides, encoder.picks)
    )
    return Encoder(encoder.body, channels, strides, picks, encoder.multiple)


def halving(encoder: Encoder, name: str) -> Encoder:
    """The encoder with maps from stride 2 or 4 on, for decoders that double the size at each step. `name`: for the
    ConfigError that is raised where a map is not half as fine as the one before."""
    found = coarse(encoder, 2)
    strides = found.strides
    if strides[0] not in (2, 4) or any(b != 2 * a for a, b in pairwise(strides)):
        raise ConfigError(f"The encoder '{name}' has maps at strides {list(strides)}; each must be half as fine as the "
                          "one before, from 2 or 4 on. ResNets are so.")  # fmt: skip
    return found


class Pyramid(nn.Module):
    """Encoder and FPN: images -> {"0": [B, D, h, w], "1": ..., "pool": ...}, the finest first.

    `names` and `strides` of the levels; the last is every second cell of the one before. `multiple`: the input's sides
    must be multiples of it, so that every stride is exact.
    """

    def __init__(self, encoder: Encoder, width: int = 256, norm: str = "none") -> None:
        super().__init__()
        self.encoder = coarse(encoder)
        strides = self.encoder.strides
        self.fpn = FeaturePyramidNetwork(
            list(self.encoder.channels), width, extra_blocks=LastLevelMaxPool(), norm_layer=norm_layer(norm)
        )
        self.width, self.multiple = width, strides[-1]
        self.names = (*(str(i) for i in range(len(strides))), "pool")
        self.strides = (*strides, 2 * strides[-1])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn(dict(zip(self.names, self.encoder(images))))


class RoIAlign(MultiScaleRoIAlign):
    """Boxes -> [P, D, size, size] features, each box from the level that its size asks for.

    levels    {name: stride} of the levels to pool from
    sampling  points a side in each cell; 0: as many as the box has pixels there
    aligned   half a pixel is taken off, so that cells lie as pixels do (detectron2); torchvision's heads do without
    """

    def __init__(self, levels: dict[str, int], size: int, *, sampling: int = 2, aligned: bool = False) -> None:
        super().__init__(list(levels), size, sampling)
        self.aligned = aligned
        strides = list(levels.values())
        self.scales = [1 / stride for stride in strides]
        self.map_levels = LevelMapper(int(math.log2(strides[0])), int(math.log2(strides[-1])))

    def forward(self, x: dict[str, Tensor], boxes: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]) -> Tensor:
        maps = [x[name] for name in self.featmap_names]
        level = self.map_levels(list(boxes))  # [P]
        image = torch.cat([b.new_full((len(b), 1), i) for i, b in enumerate(boxes)])
        rois = torch.cat([image, torch.cat(list(boxes))], 1)  # [P, 5]
        pool = partial(roi_align, output_size=self.output_size, sampling_ratio=self.sampling_ratio,
                       aligned=self.aligned)  # fmt: skip
        found = maps[0].new_zeros(len(rois), maps[0].shape[1], *self.output_size)
        for k, (features, scale) in enumerate(zip(maps, self.scales)):
            rows = (level == k).nonzero()[:, 0]
            found = found.index_put((rows,), pool(features, rois[rows], spatial_scale=scale))
        return found
