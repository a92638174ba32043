"""Which anchors and boxes a detector learns from (Faster R-CNN, Ren et al. 2015, 1506.01497): matched with the truth by
overlap, then drawn. Anchors, samplers and overlaps are torchvision's.

Boxes that lie mostly on unknown pixels or on a crowd are neither positive nor negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from pixelwise.core.regions import BACKGROUND, UNSAMPLED, object_boxes
from pixelwise.core.segments import BOX, MASK, Segments, look_up

IGNORED = UNSAMPLED  # neither positive nor negative is never drawn
PAIRS = 1 << 24  # overlaps held at once
MOSTLY = 0.5  # share of a box's pixels
CPU = torch.device("cpu")


class Anchors(AnchorGenerator):
    """torchvision's anchors, but of exact size (torchvision rounds) and at the strides given (torchvision divides the
    image's size by the map's), as detectron2 has them."""

    def __init__(self, sizes: Sequence[int], ratios: Sequence[float], strides: Sequence[int]) -> None:
        self.strides = tuple(strides)
        super().__init__(tuple((s,) for s in sizes), (tuple(ratios),) * len(sizes))

    def generate_anchors(self, scales: list[int], aspect_ratios: list[float], dtype: torch.dtype = torch.float32,
                         device: torch.device = CPU) -> Tensor:  # fmt: skip
        size = torch.as_tensor(scales, dtype=dtype, device=device)
        tall = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        widths, heights = (size[None] / tall[:, None]).flatten(), (size[None] * tall[:, None]).flatten()
        return torch.stack([-widths, -heights, widths, heights], 1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        like = feature_maps[0]
        self.set_cell_anchors(torch.float32, like.device)
        grids = [list(f.shape[-2:]) for f in feature_maps]
        strides = [[torch.tensor(s, device=like.device)] * 2 for s in self.strides]
        anchors = torch.cat(self.grid_anchors(grids, strides))
        return [anchors] * len(image_list.image_sizes)


@dataclass(frozen=True, eq=False)
class Objects:
    """What of one image's truth boxes are matched with.

    rows [N] int64 of the truth, boxes [N, 4] float32, hollow [N] bool: given as a box, without pixels
    ignored  [H+1, W+1] int32: how many pixels above and left are unknown or crowd; None where none is
    """

    rows: Tensor
    boxes: Tensor
    hollow: Tensor
    ignored: Tensor | None


def objects(truth: Segments, things: Sequence[int]) -> Objects:
    """The rows with the labels `things` that are masks with pixels, or boxes; boxes of masks are those of the pixels.

    Crowds and scribbles are ignored: where no such object covers them, their pixels count as unknown.
    """
    wanted = torch.isin(truth.labels, torch.tensor(list(things), device=truth.labels.device))
    kind = torch.full_like(truth.labels, MASK) if truth.kind is None else truth.kind.long()
    hollow = kind == BOX
    boxes = object_boxes(truth)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    used = wanted & ~truth.crowd & solid & ((kind == MASK) | hollow)
    other = wanted & ~used
    rows = used.nonzero()[:, 0]
    return Objects(rows, boxes[rows].float(), hollow[rows], _ignored(truth, used, other))


def _ignored(truth: Segments, used: Tensor, other: Tensor) -> Tensor | None:
    """The table of `Objects.ignored`: pixels unknown, or of `other` rows, that no `used` row covers."""
    marks = F.pad((2 * used.int() + other.int()).to(torch.int8), (0, 2))  # UNKNOWN and NOTHING: 0
    seen = look_up(marks, truth.ids).amax(0)  # [H, W]
    where = (seen < 2) & ((seen == 1) | truth.unknown)
    if not bool(where.any()):
        return None
    return F.pad(where.int().cumsum(0).cumsum(1), (1, 0, 1, 0)).int()


def match(boxes: Tensor, found: Objects, high: float, low: float, *, best_too: bool = False) -> Tensor:
    """[P] the object (0..N-1) that each of boxes [P, 4] overlaps most, BACKGROUND or IGNORED.

    high, low  overlap from which a box is positive, and below which it is background
    best_too   the best boxes of an object are positive however small the overlap (torchvision's `Matcher`, whose rule
               this is, holds all overlaps at once; here memory is bounded)
    """
    if len(found.rows) == 0:
        index = boxes.new_full((len(boxes),), BACKGROUND, dtype=torch.int64)
    else:
        parts = boxes.split(max(1, PAIRS // len(found.rows)))
        overlaps = [box_iou(found.boxes, part) for part in parts] if len(parts) == 1 else None

        def overlap(k: int) -> Tensor:  # [N, P]; made anew where not all fit into memory
            return overlaps[k] if overlaps else box_iou(found.boxes, parts[k])

        best = torch.stack([overlap(k).amax(1) for k in range(len(parts))]).amax(0) if best_too else None
        index = torch.cat([_match(overlap(k), high, low, best) for k in range(len(parts))])
    return torch.where(_mostly_ignored(boxes, index, found), IGNORED, index)


def _match(overlap: Tensor, high: float, low: float, best: Tensor | None) -> Tensor:
    value, index = overlap.max(0)
    positive = value >= high
    if best is not None:
        positive |= ((overlap == best[:, None]) & (overlap > 0)).any(0)
    rest = torch.where(value < low, BACKGROUND, IGNORED)
    return torch.where(positive, index, rest)


def _mostly_ignored(boxes: Tensor, index: Tensor, found: Objects) -> Tensor:
    """[P] bool: what the image shows of a box is mostly to be ignored; boxes matched to an object of which only the box
    is known are not."""
    if found.ignored is None:
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    height, width = (n - 1 for n in found.ignored.shape)
    x0, x1 = (boxes[:, i].round().long().clamp(0, width) for i in (0, 2))
    y0, y1 = (boxes[:, i].round().long().clamp(0, height) for i in (1, 3))
    table = found.ignored
    inside = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
    areas = (x1 - x0) * (y1 - y0)
    known = torch.cat([found.hollow, found.hollow.new_zeros(2)])[index]  # the marks index from the end
    return (inside > MOSTLY * areas) & ~known


def draw(boxes: Tensor, found: Objects, matcher: Matcher, sampler: BalancedPositiveNegativeSampler) -> Tensor:
    """[P] int64 for boxes [P, 4] of one image: the row of the truth, BACKGROUND, or UNSAMPLED.

    matcher, sampler   torchvision's: the bounds of overlap, how many to draw and the share of positive ones
    """
    index = match(boxes, found, matcher.high_threshold, matcher.low_threshold,
                  best_too=matcher.allow_low_quality_matches)  # fmt: skip
    sign = torch.where(index >= 0, 1, torch.where(index == BACKGROUND, 0, -1))
    positive, negative = sampler([sign])
    drawn = (positive[0] | negative[0]).bool()
    rows = torch.cat([found.rows, found.rows.new_tensor([UNSAMPLED, BACKGROUND])])[
        index
    ]  # the marks index from the end
    return torch.where(drawn, rows, UNSAMPLED)
