"""`Regions`: the output of nets that find objects box by box (Mask R-CNN, He et al. 2017, 1703.06870).

Beside the objects a net may label every pixel (Panoptic FPN, Kirillov et al. 2019, 1901.02446): `semantic`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from pixelwise.core.outputs import Candidates, Dense, Frame, Merge, Window, cut_strips, register
from pixelwise.core.segments import BOX, Segments
from pixelwise.kernels.upsample_argmax import largest_of

BACKGROUND, UNSAMPLED = -1, -2  # in place of a truth row: matched to nothing; not among those drawn
ANCHOR_WEIGHTS, BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)  # scales of the offsets dx dy dw dh

Box = tuple[int, int, int, int]  # x0 y0 x1 y1 in pixels, x1 and y1 excluded


@dataclass(frozen=True, eq=False)
class Sampled:
    """What the loss is computed from: the anchors and boxes that were drawn, and what the net says of them.

    A  anchors of an image, P_i and P  boxes drawn from image i and from all, M  of them on an object, T  things

    anchors       [A, 4] float32 x0 y0 x1 y1 in pixels of the padded input, the same for all images
    anchor_rows   [B, A] int64 row of the truth, BACKGROUND, or UNSAMPLED
    objectness    [B, A] logits                anchor_deltas  [B, A, 4] as `ANCHOR_WEIGHTS` scale them
    boxes, rows   per image [P_i, 4] float32 and [P_i] int64: a row of the truth or BACKGROUND
    class_logits  [P, T+1], the last is background     box_deltas  [P, T, 4] as `BOX_WEIGHTS` scale them
    mask_logits   [M, T, m, m], for the boxes on an object, in their order
    """

    anchors: Tensor
    anchor_rows: Tensor
    objectness: Tensor
    anchor_deltas: Tensor
    boxes: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    class_logits: Tensor
    box_deltas: Tensor
    mask_logits: Tensor
    aux: tuple[tuple[str, float, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Regions:
    """Objects as boxes with a class, a score and a mask of m x m cells in each; in training none, but `sampled`.

    boxes, scores, labels, masks   per image, by falling score: [N, 4] float32 x0 y0 x1 y1 in pixels of the padded
                   input, [N] float32 in 0..1, [N] int64 label (a channel of the net), [N, m, m] float32 in 0..1
    things         the labels that are things, in the order of the heads' outputs
    channels       how many labels there are in all
    aligned        masks are pasted at the centres of pixels (detectron2 from 0.1 on), as aligned RoIAlign pools; else
                   by whole pixels, as torchvision does
    semantic       a channel for each label that is no thing, in rising order, then one for all things; or None
    """

    boxes: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    frames: tuple[Frame, ...]
    things: tuple[int, ...]
    channels: int
    aligned: bool = False
    semantic: Dense | None = None
    sampled: Sampled | None = None
    merge: Merge = field(default_factory=lambda: Merge("paint", overlap=0.5, score=0.5, stuff_area=4096))
    aux: tuple[tuple[str, float, Any], ...] = ()

    @property
    def stuff(self) -> tuple[int, ...]:
        """The labels that are no things, the channel "nothing" among them."""
        return tuple(sorted(set(range(self.channels)) - set(self.things)))

    def original_boxes(self, i: int) -> Tensor:
        """[N, 4] float32 boxes of image i in pixels of the original image."""
        frame, boxes = self.frames[i], self.boxes[i]
        top, left, height, width = frame.window
        offset = boxes.new_tensor([left, top, left, top])
        ratio = boxes.new_tensor(frame.original) / boxes.new_tensor((height, width))
        return (boxes - offset) * ratio.flip(0).repeat(2)

    def probs(self, i: int, window: Window | None = None) -> Tensor:
        """[K, H, W] float32 in 0..1: a pixel of an object has the object's score for its label.

        What is left goes to "nothing", or to the other labels as the semantic branch sees them. Where objects overlap
        the one with the best score shows.
        """
        top, left, height, width = window or (0, 0, *self.frames[i].original)
        owner = self._owner(i, (top, left, height, width))  # [H, W] object or -1
        device = self.masks[i].device
        score = torch.cat([self.scores[i].detach().float(), self.scores[i].new_zeros(1)])[owner]
        probs = torch.zeros(self.channels, height, width, device=device)
        rest = list(self.stuff)
        if self.semantic is None:
            probs[rest[-1:] or slice(None)] = (1 - score) / (1 if rest else self.channels)
        else:
            probs[rest] = self._stuff_probs(i, (top, left, height, width)) * (1 - score)
        label = torch.cat([self.labels[i], self.labels[i].new_zeros(1)])[owner]
        return probs.scatter_add_(0, label[None], score[None])

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] channel with the largest probability."""
        strips = cut_strips(self.frames[i], window, self.channels)
        return torch.cat([largest_of(self.probs(i, strip)) for strip in strips])

    def candidates(self, i: int) -> Candidates:
        """Every object with its mask cut at 0.5, as a window; then the stuff of the semantic branch, one a label.

        The score of stuff is the mean probability of its pixels.
        """
        boxes, crops = [], []
        for _, box, crop in self._pasted(i):
            boxes.append(box)
            crops.append(crop)
        rows = list(zip(self.labels[i].tolist(), self.scores[i].detach().float().tolist()))
        for label, box, crop, score in self._stuff_segments(i):
            boxes.append(box)
            crops.append(crop)
            rows.append((label, score))
        scores = np.zeros((len(rows), self.channels), np.float32)
        for q, (label, score) in enumerate(rows):
            scores[q, label] = score
        size = self.frames[i].original
        return Candidates(scores, np.array(boxes, np.int64).reshape(-1, 4), crops, size, self.merge)

    def _pasted(self, i: int, window: Window | None = None) -> Iterator[tuple[int, Box, np.ndarray]]:
        """(row, x0 y0 x1 y1, bool crop) of the objects of image i, of those that may touch the window where one is
        given; one mask at a time."""
        boxes = self.original_boxes(i).detach().float().cpu()
        top, left, height, width = window or (0, 0, *self.frames[i].original)
        near = torch.ones(len(boxes), dtype=torch.bool)
        if window is not None:  # a box reaches past its edges by a cell of its mask
            reach = (boxes[:, 2:] - boxes[:, :2]) / self.masks[i].shape[-1] + 2
            near = ((boxes[:, :2] - reach < boxes.new_tensor([left + width, top + height])).all(1)
                    & (boxes[:, 2:] + reach > boxes.new_tensor([left, top])).all(1))  # fmt: skip
        rows = near.nonzero()[:, 0]
        masks = self.masks[i].detach().float().cpu()
        paste = paste_at_centres if self.aligned else paste_whole_pixels
        for row in rows.tolist():
            box, crop = paste(masks[row], boxes[row], self.frames[i].original)
            yield row, box, crop

    def _owner(self, i: int, window: Window) -> Tensor:
        """[H, W] int64 on the masks' device: the row that shows at each pixel of the window, -1 where none does."""
        top, left, height, width = window
        owner = np.full((height, width), -1, np.int64)
        for row, (x0, y0, x1, y1), crop in self._pasted(i, window):  # the best first
            ya, yb, xa, xb = max(y0, top), min(y1, top + height), max(x0, left), min(x1, left + width)
            if ya < yb and xa < xb:
                free = owner[ya - top : yb - top, xa - left : xb - left]
                free[crop[ya - y0 : yb - y0, xa - x0 : xb - x0] & (free < 0)] = row
        return torch.from_numpy(owner).to(self.masks[i].device)

    def _stuff_probs(self, i: int, window: Window) -> Tensor:
        """[S, H, W] float32 probabilities of the labels that are no things, adding up to 1."""
        assert self.semantic is not None
        probs = self.semantic.probs(i, window)[:-1]
        return probs / probs.sum(0, keepdim=True).clamp_min(1e-12)

    def _stuff_segments(self, i: int) -> Iterator[tuple[int, Box, np.ndarray, float]]:
        """(label, x0 y0 x1 y1, bool crop, score) of each label that wins somewhere in the semantic branch."""
        if self.semantic is None:
            return
        stuff = self.stuff
        best, top = self._winners(i)
        for k, where in enumerate(ndimage.find_objects(best + 1, max_label=len(stuff))):
            if where is not None:
                crop = best[where] == k
                y, x = where
                yield stuff[k], (x.start, y.start, x.stop, y.stop), crop, float(top[where][crop].mean())

    def _winners(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """[H, W] int32 the winning channel of the semantic branch and float32 its probability."""
        assert self.semantic is not None
        best, top = [], []
        for strip in cut_strips(self.frames[i], None, len(self.stuff) + 1):
            found = self.semantic.probs(i, strip).max(0)
            best.append(found.indices.int().cpu().numpy())
            top.append(found.values.detach().cpu().numpy())
        return np.concatenate(best), np.concatenate(top)


def object_boxes(truth: Segments) -> Tensor:
    """[N, 4] float32 x0 y0 x1 y1: around the pixels of each row, as given where a row is only a box."""
    if truth.kind is None:
        return truth.pixel_boxes
    return torch.where((truth.kind == BOX)[:, None], truth.boxes, truth.pixel_boxes)


def paste_whole_pixels(mask: Tensor, box: Tensor, size: tuple[int, int]) -> tuple[Box, np.ndarray]:
    """Mask [m, m] in a box x0 y0 x1 y1 of an image (H, W) -> (window x0 y0 x1 y1, bool crop), by torchvision's rule:
    a border of a cell around the mask, the box grown with it and cut to whole pixels, the mask resized to that."""
    from torchvision.models.detection.roi_heads import expand_boxes, expand_masks

    padded, scale = expand_masks(mask[None, None], 1)
    x0, y0, x1, y1 = expand_boxes(box[None], scale).to(torch.int64)[0].tolist()
    height, width = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)
    top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1 + 1, size[0]), min(x1 + 1, size[1])
    if bottom <= top or right <= left:
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    full = F.interpolate(padded, size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    crop = full[top - y0 : bottom - y0, left - x0 : right - x0] >= 0.5
    return (left, top, right, bottom), crop.numpy()


def paste_at_centres(mask: Tensor, box: Tensor, size: tuple[int, int]) -> tuple[Box, np.ndarray]:
    """The same, by reading the mask at the centre of each pixel, zero around it (the rule of detectron2)."""
    x0, y0, x1, y1 = box.tolist()
    left, top = max(math.floor(x0) - 1, 0), max(math.floor(y0) - 1, 0)
    right, bottom = min(math.ceil(x1) + 1, size[1]), min(math.ceil(y1) + 1, size[0])
    if bottom <= top or right <= left or x1 <= x0 or y1 <= y0:
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    x = (torch.arange(left, right, dtype=torch.float32) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], 2)  # [H, W, 2]
    crop = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] >= 0.5
    return (left, top, right, bottom), crop.numpy()


register(Sampled, [f.name for f in fields(Sampled) if f.name != "aux"])
register(Regions, ["boxes", "scores", "labels", "masks", "semantic", "sampled"])
