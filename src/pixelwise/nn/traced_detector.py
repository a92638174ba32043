"""A detector (`models.mask_rcnn`) for other runtimes: the same steps on one image, without a branch that depends on
what is found.

Where the net keeps as many boxes as it finds, here a fixed number is kept and what is none of them is marked by a score
of -1; suppression is torchvision's `nms`, pooling its `roi_align`, which ONNX and OpenVINO have operators for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image, nms

from pixelwise.core.outputs import Dense, Frame
from pixelwise.core.regions import Regions
from pixelwise.kernels.mirror import lacking
from pixelwise.nn.proposals import Anchors

NO_BOX = -1.0  # score of what fills up a fixed number
LEAST_SIDE = 1e-2  # pixels of a detection's box, as torchvision has it


class TracedDetector(nn.Module):
    """images [1, C, H, W] -> boxes [N, 4] in pixels, scores [N], labels [N], masks [N, m, m] in 0..1 by falling score,
    and the logits of the semantic branch where there is one. `names` are theirs, `free` the axes of open size."""

    free = (2, 3)

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.names = ["boxes", "scores", "labels", "masks"] + (["semantic"] if net.semantic is not None else [])
        net.rpn.anchor_generator.set_cell_anchors(torch.float32, next(net.parameters()).device)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        net, (height, width) = self.net, images.shape[-2:]
        least = net.backbone.multiple
        below, right = (torch.sym_max(lacking(side, least), 2 * least - side) for side in (height, width))
        images = F.pad(images, (0, right, 0, below))
        features = net.backbone(images)
        logits = [] if net.semantic is None else [net.semantic(features)]
        features = {name: m.float() for name, m in features.items()}
        proposals, known = self._propose(images, features, (height, width))
        boxes, scores, columns = self._detect(features, proposals, known, (height, width))
        masks = self._masks(features, boxes, columns)
        found = (scores > 0).nonzero()[:, 0]
        labels = torch.tensor(net.things, device=images.device)[columns]
        return boxes[found], scores[found], labels[found], masks[found], *logits

    def _propose(self, images: Tensor, features: dict[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[P, 4] boxes that may hold an object, and which of them are any."""
        rpn, maps = self.net.rpn, list(features.values())
        count, found, surest = rpn.pre_nms_top_n(), [], []
        for score, offset, anchors in zip(*rpn.head(maps), self._anchors(images, maps), strict=True):
            flat = score.float().permute(0, 2, 3, 1).reshape(-1)  # [A]
            deltas = offset.float().unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(-1, 4)
            best = torch.cat([flat, flat.new_full((count,), -torch.inf)]).topk(count)
            rows = best.indices.clamp_max(flat.shape[0] - 1)
            boxes = clip_boxes_to_image(rpn.box_coder.decode_single(deltas[rows], anchors[rows]), size)
            known = _large(boxes, rpn.min_size) & (best.values > -torch.inf)
            found.append(boxes)
            surest.append(_survivors(boxes, torch.where(known, best.values.sigmoid(), NO_BOX), rpn.nms_thresh))
        scores = torch.cat(surest)
        best = scores.topk(min(rpn.post_nms_top_n(), count * len(maps)))
        return torch.cat(found)[best.indices], best.values >= 0

    def _anchors(self, images: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """[A, 4] of each level, as the net's generator makes them."""
        generator, found = self.net.rpn.anchor_generator, []
        for level, (m, cells) in enumerate(zip(maps, generator.cell_anchors, strict=True)):
            height, width = m.shape[-2:]
            step = [images.shape[2] // height, images.shape[3] // width]  # torchvision divides
            if isinstance(generator, Anchors):
                step = [generator.strides[level]] * 2
            y = torch.arange(height, device=m.device)[:, None] * step[0]
            x = torch.arange(width, device=m.device)[None] * step[1]
            x, y = x.expand(height, width), y.expand(height, width)
            shifts = torch.stack([x, y, x, y], 2).reshape(-1, 1, 4)
            found.append((shifts + cells).reshape(-1, 4))
        return found

    def _detect(self, features: dict[str, Tensor], proposals: Tensor, known: Tensor,
                size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Boxes [D, 4], scores [D] (-1: none) and columns [D] of the heads, by falling score; D is what may be kept."""
        heads, keep = self.net.roi_heads, self.net.roi_heads.detections_per_img
        logits, deltas = self.net._classify(features, [proposals])
        sure = logits.roll(1, 1).softmax(-1)[:, 1:]  # [P, T], added up in torchvision's order
        things = sure.shape[1]
        boxes = heads.box_coder.decode_single(deltas.flatten(1), proposals).reshape(-1, 4)
        boxes = clip_boxes_to_image(boxes, size)
        scores = torch.where(known[:, None], sure, NO_BOX).flatten()
        columns = torch.arange(things, device=boxes.device).expand(len(sure), things).flatten()
        chosen = ((scores > heads.score_thresh) & _large(boxes, LEAST_SIDE)).nonzero()[:, 0]
        boxes = torch.cat([boxes[chosen], boxes.new_zeros(keep, 4)])
        scores = torch.cat([scores[chosen], scores.new_full((keep,), NO_BOX)])
        columns = torch.cat([columns[chosen], columns.new_zeros(keep)])
        apart = (columns + 1).to(boxes) * (boxes.max() + 1)  # classes do not overlap: torchvision's trick
        best = _survivors(boxes + apart[:, None], scores, heads.nms_thresh).topk(keep)
        return boxes[best.indices], best.values, columns[best.indices]

    def _masks(self, features: dict[str, Tensor], boxes: Tensor, columns: Tensor) -> Tensor:
        """[D, m, m] in 0..1 of the boxes' own classes."""
        heads = self.net.roi_heads
        pooled = heads.mask_roi_pool(features, [boxes], [(1, 1)])
        masks = heads.mask_predictor(heads.mask_head(pooled)).float()  # [D, T, m, m]
        own = columns[:, None, None, None].expand(-1, 1, *masks.shape[2:])
        return masks.gather(1, own)[:, 0].sigmoid()

    def rebuild(self, images: Sequence[Sequence[Tensor]], frames: tuple[Frame, ...]) -> Regions:
        """The output of which these are the tensors: for each image those of its window alone."""
        net, boxes = self.net, []
        logits: list[Tensor] = []
        for tensors, frame in zip(images, frames):
            top, left = frame.window[:2]
            boxes.append(tensors[0] + tensors[0].new_tensor([left, top, left, top]))
            logits += tensors[4:]
        scores, labels, masks = (tuple(tensors[i] for tensors in images) for i in (1, 2, 3))
        semantic = self._semantic(logits, frames) if logits else None
        return Regions(tuple(boxes), scores, labels, masks, frames, net.things, net.channels, aligned=net.aligned,
                       semantic=semantic, merge=net.merge)  # fmt: skip

    def _semantic(self, logits: Sequence[Tensor], frames: Sequence[Frame]) -> Dense:
        """The semantic branch's maps on one grid, which begins where each image's window does."""
        stride = self.net.backbone.strides[0]
        height, width = (max(m.shape[axis] for m in logits) for axis in (2, 3))
        maps = [F.pad(m, (0, width - m.shape[3], 0, height - m.shape[2]), mode="replicate") for m in logits]
        size = (height * stride, width * stride)
        own = tuple(replace(f, padded=size, window=(0, 0, *f.window[2:])) for f in frames)
        return Dense(torch.cat(maps), own)


def _large(boxes: Tensor, side: float) -> Tensor:
    """[N] bool: both sides of the box have at least so many pixels."""
    return ((boxes[:, 2:] - boxes[:, :2]) >= side).all(1)


def _survivors(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """[N] the scores, and -1 for each box that a surer one overlaps by more than `overlap`."""
    kept = nms(boxes, scores, overlap)
    marks = torch.zeros_like(scores).index_put((kept,), torch.ones((), device=scores.device))
    return torch.where(marks > 0, scores, NO_BOX)
