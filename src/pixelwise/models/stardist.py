"""StarDist (Schmidt, Weigert, Broaddus, Myers 2018, 1806.03535): objects are star-convex polygons, cells in hundreds.

Several classes as in Weigert and Schmidt 2022 (2203.02284). A U-Net says for each cell of its grid how deep the cell
lies in an object, and how far the object reaches along 32 rays; overlapping polygons are thinned out by their score.
Why this net for crowded small objects: touching cells are told apart because each pixel knows its own object's whole
outline, a few thousand steps on a CPU train it, and the authors' own code is there to be held against.

    loss             `losses/rays.py`      post-processing  `core/rays.py`
    backbone         the U-Net of `models/unet.py` on a grid of every second pixel, then 128 features, then the heads

Where this differs from the authors' net: batch norm after each convolution, transposed convolutions on the way up, and
by default the image is folded onto the grid (blocks of pixels become channels) instead of being convolved at full size
and pooled, which costs a third of the time; `stem=pool` is theirs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

import pixelwise.losses.rays  # noqa: F401  # registers the loss of `Rays` with `criterion`
from pixelwise.core.outputs import Frame
from pixelwise.core.rays import Rays
from pixelwise.errors import ConfigError
from pixelwise.kernels.mirror import lacking
from pixelwise.models.unet import Body, DoubleConv, initialise

PAPER = {
    "title": "Cell Detection with Star-convex Polygons",
    "year": 2018,
    "arxiv": "1806.03535",
}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "tiny": {"width": 12, "depth": 2, "features": 32},
    "2018": {"grid": 1, "norm": "none", "unit": 1.0},
    "2022": {"grid": 2, "stem": "pool", "norm": "none", "unit": 1.0},
}
THIN = {"width": 4, "depth": 2, "features": 8, "rays": 8}  # for the tests of what every net promises

TASKS = ("instance",)  # it knows no stuff: on panoptic truth its classes would be nothing
LOSS = None  # its own


class StarDist(nn.Module):
    """net(images [B, C, H, W]) -> Rays on a grid of h = ceil(H / grid) by w = ceil(W / grid) cells; any H, W."""

    min_size = 8

    def __init__(self, *, classes: int, channels: int, rays: int, grid: int, stem: str, width: int, depth: int,
                 features: int, norm: str, dropout: float, unit: float, **reading: Any) -> None:  # fmt: skip
        super().__init__()
        self.grid, self.unit, self.reading = grid, unit, {"grid": grid, **reading}
        pooled = stem == "pool" and grid > 1
        settings: dict[str, Any] = {"norm": norm, "bias": True, "pad": 1}
        steps = grid.bit_length() - 1 if pooled else 0
        self.pooled = nn.ModuleList(DoubleConv(width if i else channels, width, **settings) for i in range(steps))
        self.body = Body(channels=width if pooled else channels, width=width, depth=depth, norm=norm, up="transposed",
                         padding="same", bias=True, dropout=dropout, fold=1 if pooled else grid)  # fmt: skip
        self.features = _features(width, features)
        self.objects = nn.Conv2d(features, 1, 1)
        self.rays = nn.Conv2d(features, rays, 1)
        things = classes - 1
        self.features_class = _features(width, features) if things > 1 else None
        self.classes = nn.Conv2d(features, classes, 1) if things > 1 else None
        self.apply(initialise)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Rays:
        height, width = images.shape[-2:]
        x = images
        if len(self.pooled):
            x = F.pad(x, (0, lacking(width, self.grid), 0, lacking(height, self.grid)), mode="replicate")
        for block in self.pooled:
            x = F.max_pool2d(block(x), 2)
        h, w = (height + self.grid - 1) // self.grid, (width + self.grid - 1) // self.grid
        x = self.body.features(x)[:, :, :h, :w]  # [B, width, h, w]
        seen = self.features(x)
        classes = None
        if self.classes is not None and self.features_class is not None:
            classes = self.classes(self.features_class(x))  # [B, K, h, w]
        frames = frames or (Frame.whole(height, width),) * len(images)
        return Rays(self.objects(seen), self.unit * self.rays(seen), classes, frames, **self.reading)


def _features(width: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, features, 3, padding=1), nn.ReLU(inplace=True))


def build(*, classes: int, channels: int = 3, rays: int = 32, grid: int = 2, stem: str = "fold", width: int = 32,
          depth: int = 3, features: int = 128, norm: str = "batch", dropout: float = 0.0, unit: float = 8.0,
          nms: float = 0.4, threshold: float = 0.1, border: int = 0) -> StarDist:  # fmt: skip
    """StarDist with numbers.

    classes   things and, last, nothing           channels   of the input
    rays      of a polygon (3 to 128)             grid       one cell for so many pixels a side: 1, 2 or 4
    stem      fold: blocks of pixels become channels; pool: convolutions at full size, then pooling (the authors')
    width     channels on the grid                depth      halvings of it (1 to 6)
    features  before the heads                    norm       batch, group, instance or none
    dropout   after the two deepest blocks      unit       pixels in which the last layer counts distances: numbers
              around one are learnt sooner than numbers around ten (the authors' net has 1)
    nms       share of the smaller polygon that may be shared (0.4: the authors' default); `threshold`, `border`: see
              `core.rays.Rays`
    """
    words = {"grid": (grid, (1, 2, 4)), "stem": (stem, ("fold", "pool")), "depth": (depth, (1, 2, 3, 4, 5, 6)),
             "norm": (norm, ("batch", "group", "instance", "none"))}  # fmt: skip
    for name, (value, allowed) in words.items():
        if isinstance(value, bool) or value not in allowed:
            raise ConfigError(f"StarDist: {name} is {value!r}; it can be {', '.join(map(str, allowed))}.")
    numbers = {"classes": (classes, 2), "channels": (channels, 1), "rays": (rays, 3), "width": (width, 1),
               "features": (features, 1), "border": (border, 0)}  # fmt: skip
    for name, (number, least) in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < least or (name == "rays" and rays > 128):
            most = " to 128" if name == "rays" else " up"
            raise ConfigError(f"StarDist: {name} is {number!r}; it must be a whole number from {least}{most}.")
    if isinstance(unit, bool) or not isinstance(unit, (int, float)) or not 0 < unit < 1000:
        raise ConfigError(f"StarDist: unit is {unit!r}; it must be a number of pixels above 0.")
    for name, share, top in (("nms", nms, 1.0), ("threshold", threshold, 1.0), ("dropout", dropout, 0.999)):
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= top:
            raise ConfigError(f"StarDist: {name} is {share!r}; it must be a number in 0..{top:g}.")
    return StarDist(classes=classes, channels=channels, rays=rays, grid=grid, stem=stem, width=width, depth=depth,
                    features=features, norm=norm, dropout=dropout, unit=unit, nms=nms, threshold=threshold,
                    border=border)  # fmt: skip
