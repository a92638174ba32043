"""The five losses of Mask R-CNN (He et al. 2017, 1703.06870), from what `Regions` carries.

The multi-task loss is L_cls + L_box + L_mask; the proposal network adds two, objectness and the offsets of anchors
(Ren et al. 2015, 1506.01497). Offsets are compared by the Huber loss with its bend at 1/9, as torchvision has it (the
papers have 1). A mask is learned for the true class only, cell by cell, with the sigmoid and binary cross-entropy;
its target is the truth pooled like features, in 0..1 (detectron2 cuts it at 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.core.outputs import STRIP
from pixelwise.core.regions import (
    ANCHOR_WEIGHTS,
    BACKGROUND,
    BOX_WEIGHTS,
    UNSAMPLED,
    Regions,
    Sampled,
    object_boxes,
)
from pixelwise.core.segments import MASK, Segments, look_up
from pixelwise.core.types import Task
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import VOID, Recipe, class_targets, criterion, void_label

BEND = 1 / 9  # of the Huber loss, in units of the scaled offsets


@criterion.register
def _(output: Regions, truths: Sequence[Segments], task: Task, recipe: Recipe) -> dict[str, Tensor]:
    """{"objectness", "anchor", "class", "box", "mask"}, float32; with a semantic branch also the terms of the mix.

    `recipe.class_weights` weigh the classes in the class term. Raises ConfigError for an output made without truths.
    """
    sampled = output.sampled
    if sampled is None:
        raise ConfigError(
            "The loss of region nets is computed from boxes drawn by the truth: call the net with `truths`. Validation "
            "does not, so with such a net choose the best model by its score (--monitor score)."
        )
    with torch.autocast(sampled.anchors.device.type, enabled=False):
        losses = proposal_losses(sampled, truths)
        losses |= box_losses(sampled, truths, output.things, _class_weights(output, sampled, recipe))
        losses["mask"] = mask_loss(sampled, truths, output.things, output.aligned)
        if output.semantic is not None:
            losses |= _semantic(output, truths, task, recipe)
    return losses


def proposal_losses(sampled: Sampled, truths: Sequence[Segments]) -> dict[str, Tensor]:
    """{"objectness", "anchor"}: mean over the drawn anchors of the batch of binary cross-entropy, and of the Huber loss
    of the offsets of those on an object."""
    drawn, positive = sampled.anchor_rows != UNSAMPLED, sampled.anchor_rows >= 0  # [B, A]
    count = max(1, int(drawn.sum()))
    entropy = F.binary_cross_entropy_with_logits(sampled.objectness[drawn], positive[drawn].float(), reduction="sum")
    offsets = [
        _huber(deltas[on], sampled.anchors[on], object_boxes(truth)[rows[on]], ANCHOR_WEIGHTS)
        for deltas, on, rows, truth in zip(sampled.anchor_deltas, positive, sampled.anchor_rows, truths)
    ]
    return {"objectness": entropy / count, "anchor": torch.stack(offsets).sum() / count}


def box_losses(sampled: Sampled, truths: Sequence[Segments], things: Sequence[int],
               weights: Tensor | None = None) -> dict[str, Tensor]:  # fmt: skip
    """{"class", "box"}: mean over the drawn boxes of the batch of cross-entropy (weighted by `weights` [T+1]), and of
    the Huber loss of the offsets for the true class of those on an object."""
    columns = torch.cat([_columns(truth, rows, things) for truth, rows in zip(truths, sampled.rows)])  # [P]
    count = max(1, len(columns))
    total = count if weights is None else weights[columns].sum().clamp_min(1e-6)
    entropy = F.cross_entropy(sampled.class_logits, columns, weights, reduction="sum")
    matched = [object_boxes(truth)[rows[rows >= 0]] for truth, rows in zip(truths, sampled.rows)]
    on = columns < len(things)
    deltas = sampled.box_deltas[on, columns[on]]  # [M, 4]
    offset = _huber(deltas, torch.cat(sampled.boxes)[on], torch.cat(matched), BOX_WEIGHTS)
    return {"class": entropy / total, "box": offset / count}


def mask_loss(sampled: Sampled, truths: Sequence[Segments], things: Sequence[int], aligned: bool = False) -> Tensor:
    """Mean over the cells of all boxes on an object of the true class's binary cross-entropy.

    Pixels that are unknown or of a crowd do not count: a cell weighs by its known share. Rows given as boxes have no
    mask to learn.
    """
    start, sums, counts = 0, [sampled.mask_logits.sum() * 0], [sampled.mask_logits.new_zeros(())]
    cells = sampled.mask_logits.shape[-1]
    for boxes, rows, truth in zip(sampled.boxes, sampled.rows, truths):
        boxes, rows = boxes[rows >= 0], rows[rows >= 0]
        logits = sampled.mask_logits[start : start + len(rows)]
        logits = logits[torch.arange(len(rows), device=rows.device), _columns(truth, rows, things)]  # [M, m, m]
        start += len(rows)
        if truth.kind is not None:
            solid = truth.kind[rows] == MASK
            boxes, rows, logits = boxes[solid], rows[solid], logits[solid]
        target, known = mask_targets(truth, rows, boxes, cells, aligned)
        sums.append(F.binary_cross_entropy_with_logits(logits, target, known, reduction="sum"))
        counts.append(target.new_tensor(float(target.numel())) if known is None else known.sum())
    return torch.stack(sums).sum() / torch.stack(counts).sum().clamp_min(1.0)


@torch.no_grad()
def mask_targets(truth: Segments, rows: Tensor, boxes: Tensor, cells: int,
                 aligned: bool = False) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """[M, m, m] share of each cell of boxes [M, 4] that rows [M] of the truth cover; the share that is known, or None
    where all is.

    RoIAlign of the masks with m = `cells`. Few full-size masks are held at once, whatever the number of objects.
    """
    target = boxes.new_zeros(len(boxes), cells, cells)
    height, width = truth.size
    for part in rows.unique().split(max(1, 4 * STRIP // (height * width))):
        here = torch.isin(rows, part).nonzero()[:, 0]
        masks = (truth.ids[None] == part[:, None, None, None]).any(1).float()  # [s, H, W]
        target[here] = _pool(masks, torch.searchsorted(part, rows[here]), boxes[here], cells, aligned)
    crowd = look_up(F.pad(truth.crowd, (0, 2)), truth.ids).any(0)
    unknown = truth.unknown | crowd  # [H, W]
    if not bool(unknown.any()):
        return target, None
    known = _pool((~unknown)[None].float(), torch.zeros_like(rows), boxes, cells, aligned)
    return target, known.maximum(target)  # what an object covers is known, though a crowd may cover it too


def _pool(masks: Tensor, index: Tensor, boxes: Tensor, cells: int, aligned: bool) -> Tensor:
    """[M, m, m] means over the cells of boxes [M, 4], each in the mask `index` [M] of masks [s, H, W]."""
    from torchvision.ops import roi_align

    rois = torch.cat([index[:, None].to(boxes), boxes], 1)
    return roi_align(masks[:, None], rois, (cells, cells), aligned=aligned)[:, 0]


def _huber(deltas: Tensor, boxes: Tensor, truth: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Sum over boxes [M, 4] of the Huber loss of offsets [M, 4] from those that lead to the truth [M, 4]."""
    from torchvision.models.detection._utils import BoxCoder

    target = BoxCoder(weights).encode_single(truth, boxes)
    return F.smooth_l1_loss(deltas, target, beta=BEND, reduction="sum")


def _columns(truth: Segments, rows: Tensor, things: Sequence[int]) -> Tensor:
    """The heads' output for rows of the truth; background, the last, for BACKGROUND."""
    labels = torch.tensor(list(things), device=rows.device)
    found = torch.searchsorted(labels, truth.labels)  # rising
    return torch.cat([found, found.new_tensor([len(things)])])[torch.where(rows == BACKGROUND, len(found), rows)]


def _class_weights(output: Regions, sampled: Sampled, recipe: Recipe) -> Tensor | None:
    """[T+1] weights of the heads' classes; background has that of the channel "nothing" where it stands for that."""
    given = recipe.class_weights
    if not given:
        return None
    alone = len(output.stuff) == 1 and output.semantic is None
    weights = [*(given[k] for k in output.things), given[output.stuff[0]] if alone else 1.0]
    return torch.tensor(weights, device=sampled.anchors.device)


def _semantic(output: Regions, truths: Sequence[Segments], task: Task, recipe: Recipe) -> dict[str, Tensor]:
    """The mix over the semantic branch, whose channels are the stuff and, the last, all things."""
    assert output.semantic is not None
    target, void = class_targets(truths, task), void_label(task)  # [B, H, W]
    channel = torch.full((max(output.channels, VOID + 1),), len(output.stuff), device=target.device)
    channel[list(output.stuff)] = torch.arange(len(output.stuff), device=target.device)
    target = torch.where(target == void, void, channel[target.long().clamp_min(0)])
    given = recipe.class_weights
    weight = None
    if given:
        things = sum(given[k] for k in output.things) / len(output.things)
        weight = torch.tensor([*(given[k] for k in output.stuff), things], device=target.device)
    height, width = output.semantic.frames[0].padded
    target = F.pad(target, (0, width - target.shape[2], 0, height - target.shape[1]), value=void)
    terms = recipe.mix(output.semantic.logits, target, ignore_index=void, weight=weight,
                       align_corners=output.semantic.align_corners)  # fmt: skip
    return {"semantic." + name: loss for name, loss in terms.items()}
