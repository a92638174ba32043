"""Hungarian set loss for `Queries`: MaskFormer, Cheng et al. 2021, 2107.06278; costs of Mask2Former, 2022, 2112.01527.

Each true segment is matched to one query so that the sum of costs is least; cost of a pair and loss are 2 x class + 5 x
binary cross-entropy + 5 x Dice. Queries without a segment learn the class "no segment", with weight 0.1. Every
auxiliary output is matched anew.

Where this differs from the papers: they compare masks on the upsampled image (2021) or on 12,544 drawn points (2022).
Here all pixels count, on the net's grid: a cell's target is the share of it that the segment covers. Both masks' terms
are linear in the target, so this is the loss over all pixels of the image, with the logit constant within a cell; it
draws nothing and holds no mask at full size. Unknown pixels count nowhere: cells weigh by the share of them that is
known, and an image of which nothing is known adds nothing at all. With them all known, on a full-size grid, the values
are the papers'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from pixelwise.core.outputs import STRIP, Queries, heads
from pixelwise.core.segments import NOTHING, Segments
from pixelwise.core.types import Task
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe, criterion

CLASS, MASK, DICE = 2.0, 5.0, 5.0  # weights of the terms, in the cost and in the loss
NO_SEGMENT = 0.1  # weight of the class "no segment"


@dataclass(frozen=True, eq=False)
class Target:
    """The true segments of one image on the net's grid, as P = h w cells.

    labels  [N] int64
    masks   [N, P] float32 in 0..1: the share of a cell that the segment covers
    known   [P] float32 in 0..1: the share of a cell that is known
    """

    labels: Tensor
    masks: Tensor
    known: Tensor


@criterion.register
def _(output: Queries, truths: Sequence[Segments], task: Task, recipe: Recipe) -> dict[str, Tensor]:
    """class, mask and dice, each with its weight; then those of auxiliary outputs behind their prefix.

    `recipe.class_weights` weigh the classes in the class term. Crowd rows and rows without pixels are matched to
    nothing. Raises ConfigError when the net's classes are not the task's.
    """
    found: dict[tuple[int, ...], list[Target]] = {}  # by grid: the layers of one decoder share it
    losses: dict[str, Tensor] = {}
    for prefix, factor, head in heads(output):
        if isinstance(head, Queries):
            grid = tuple(head.masks.shape[-2:])
            nothing = _nothing_label(head, task)
            if grid not in found:
                found[grid] = [target(truth, grid, nothing) for truth in truths]
            terms = set_loss(head, found[grid], _class_weights(head, recipe))
        else:
            terms = criterion(replace(head, aux=()), truths, task, recipe)
        losses |= {prefix + name: factor * loss for name, loss in terms.items()}
    return losses


def _nothing_label(output: Queries, task: Task) -> int | None:
    """The label of the channel "nothing", which a net for `task.classes.channels` has, or None."""
    known, classes = output.classes.shape[-1] - 1, len(task.classes)
    if known not in (classes, task.classes.channels):
        raise ConfigError(
            f"The net has {known} classes and 'no segment', the task {task.name} {task.classes.channels}: "
            f"create the net with classes={task.classes.channels}."
        )
    return classes if known > classes else None


def _class_weights(output: Queries, recipe: Recipe) -> Tensor:
    """[K+1] weights in the class term."""
    weights = torch.ones(output.classes.shape[-1], device=output.classes.device)
    given = recipe.class_weights[: len(weights) - 1]
    weights[: len(given)] = torch.tensor(given, device=weights.device)
    weights[-1] = NO_SEGMENT
    return weights


def target(truth: Segments, grid: Sequence[int], nothing: int | None = None) -> Target:
    """The segments of `truth` that own pixels and are no crowd, on a grid (h, w); pixels known to be nothing too, as a
    segment with the label `nothing`, where the net has that channel."""
    rows = truth.ids.unique()
    rows = rows[rows >= 0].long()
    rows = rows[~truth.crowd[rows]]
    known = _pool((~truth.unknown)[None], grid)[0]
    masks = [known.new_zeros(0, len(known))]
    height, width = truth.size
    for part in rows.split(max(1, STRIP // max(1, height * width))):
        masks.append(_pool((truth.ids[None] == part[:, None, None, None]).any(1), grid))
    labels = truth.labels[rows]
    if nothing is not None:
        ground = _pool((truth.row_map() == NOTHING)[None], grid)
        if bool(ground.any()):
            masks.append(ground)
            labels = torch.cat([labels, labels.new_tensor([nothing])])
    return Target(labels, torch.cat(masks), known)


def _pool(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """[N, H, W] bool -> [N, h w] float32 shares."""
    return F.interpolate(masks[None].float(), size=tuple(grid), mode="area")[0].flatten(1)


def set_loss(output: Queries, targets: Sequence[Target], weights: Tensor) -> dict[str, Tensor]:
    """{"class", "mask", "dice"} of one output without its auxiliary ones, weighted, in float32.

    weights  [K+1] of the classes; the class term is the weighted mean over all queries of the batch. The mask terms are
    sums over matched pairs divided by their number in the batch (over all processes, as a mean of one process).
    """
    with torch.autocast(output.masks.device.type, enabled=False):
        class_logits, sums = output.classes.float(), []
        labels = class_logits.new_full(class_logits.shape[:2], class_logits.shape[-1] - 1, dtype=torch.int64)  # [B, Q]
        for i, truth in enumerate(targets):
            logits = _known_logits(output.masks[i], truth)  # [Q, P]
            query, row = match(logits, class_logits[i], truth)
            labels[i, query] = truth.labels[row]
            sums.append(_pair_losses(logits[query], truth.masks[row], truth.known).sum(1))
        seen = torch.tensor([bool(t.known.any()) for t in targets], device=labels.device)
        count = _pairs_everywhere(sum(min(len(t.labels), labels.shape[1]) for t in targets), labels.device)
        mask, dice = torch.stack(sums).sum(0) / count
        return {
            "class": CLASS * _class_loss(class_logits, labels, weights, seen),
            "mask": MASK * mask,
            "dice": DICE * dice,
        }


def _class_loss(logits: Tensor, labels: Tensor, weights: Tensor, seen: Tensor) -> Tensor:
    """Weighted mean over the queries of images of which something is known; exactly 0 where there is none."""
    if not bool(seen.any()):
        return logits[seen].sum()
    return F.cross_entropy(logits[seen].flatten(0, 1), labels[seen].flatten(), weights)


def _known_logits(logits: Tensor, truth: Target) -> Tensor:
    """[Q, h, w] -> [Q, P] float32; 0, cut off from the graph, where nothing is known."""
    return logits.float().flatten(1).masked_fill(truth.known == 0, 0.0)


@torch.no_grad()
def match(logits: Tensor, class_logits: Tensor, truth: Target) -> tuple[Tensor, Tensor]:
    """The pairs (query, row) of least total cost, by rising query: min(Q, N) of them.

    logits [Q, P], class_logits [Q, K+1]. Values that are no numbers count as the largest cost, so that a net that has
    diverged shows in the loss and not in the matching.
    """
    costs = CLASS * -class_logits.softmax(-1)[:, truth.labels]  # [Q, N]
    total = truth.known.sum().clamp_min(1e-6)
    inside, outside = F.softplus(-logits), F.softplus(logits)
    costs += MASK * (inside @ truth.masks.T + outside @ (truth.known - truth.masks).T) / total
    probs = logits.sigmoid()
    both, sizes = probs @ truth.masks.T, (probs @ truth.known)[:, None] + truth.masks.sum(1)
    costs += DICE * (1 - (2 * both + 1) / (sizes + 1))
    pairs = linear_sum_assignment(np.nan_to_num(costs.cpu().double().numpy(), nan=1e9, posinf=1e9, neginf=-1e9))
    query, row = (torch.from_numpy(side).to(logits.device) for side in pairs)
    return query, row


def _pair_losses(logits: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """[2, M]: binary cross-entropy and Dice of M matched pairs; logits and masks [M, P]."""
    entropy = F.softplus(-logits) * masks + F.softplus(logits) * (known - masks)
    probs = logits.sigmoid()
    both, sizes = (probs * masks).sum(1), (probs * known).sum(1) + masks.sum(1)
    return torch.stack([entropy.sum(1) / known.sum().clamp_min(1e-6), 1 - (2 * both + 1) / (sizes + 1)])


def _pairs_everywhere(count: int, device: torch.device) -> Tensor:
    """The number of matched pairs by which to divide: the mean over processes, at least 1."""
    pairs = torch.tensor(float(count), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(pairs)
        pairs /= dist.get_world_size()
    return pairs.clamp_min(1.0)
