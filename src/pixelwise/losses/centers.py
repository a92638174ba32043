"""Loss of `Centers` (Panoptic-DeepLab, Cheng et al. 2020, 1911.10194): per-pixel classes by the recipe's mix, 200 x the
squared error of the heat, 0.01 x the absolute error of the offsets.

All on the grid of the padded input, to which the net's maps are enlarged first, as in the authors' code. The heat is a
Gaussian with a deviation of 8 pixels of that grid around each thing's centre of mass (rounded down, cut at 3 deviations
and a pixel; of several the highest). Offsets count on things only, in pixels of that grid. Pixels of things of fewer
than 64 x 64 pixels count threefold in the losses of classes that add up pixels. `Goal` holds these numbers.

A pixel counts for the heat where it is known and not part of a crowd (ground and stuff are negatives). Where this
differs from the authors' code: a crowd has no bump there its neighbours would have to learn (theirs ignores the crowd's
own pixels but keeps its bump); boxes, tags and scribbles, whose extent is unknown, have none either and their pixels
count for the classes alone. Of overlapping things the lower layer shows, and centres are of what shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelwise.core.centers import Centers, Goal
from pixelwise.core.outputs import STRIP, heads
from pixelwise.core.segments import MASK, UNKNOWN, Segments, look_up
from pixelwise.core.types import Task
from pixelwise.losses.arguments import ratio
from pixelwise.losses.criterion import Recipe, class_targets, criterion, void_label

HEAT, OFFSETS = 200.0, 0.01  # weights of the paper
LEAST_SIGMA = 1.0  # pixels: a narrower bump misses the grid


@dataclass(frozen=True, eq=False)
class Target:
    """What the maps should be for B images.

    heat     [B, H, W] float32 in 0..1        counts   [B, H, W] bool: where the heat is known
    offsets  [B, 2, H, W] float32 (dy, dx)    things   [B, H, W] bool: where the offsets are known
    small    [B, H, W] bool: pixels of things below `Goal.small_area`
    """

    heat: Tensor
    counts: Tensor
    offsets: Tensor
    things: Tensor
    small: Tensor


@criterion.register
def _(output: Centers, truths: Sequence[Segments], task: Task, recipe: Recipe) -> dict[str, Tensor]:
    """The mix's terms, `heat` and `offsets`, each with its weight; without any thing the offsets' is 0."""
    labels = class_targets(truths, task)  # [B, H, W]
    weight = torch.tensor(recipe.class_weights, device=labels.device) if recipe.class_weights else None
    losses: dict[str, Tensor] = {}
    for prefix, factor, head in heads(output):
        found = targets(truths, head.grouping.things, head.goal)
        pixels = torch.where(found.small, head.goal.small_weight, 1.0) if head.goal.small_weight != 1 else None
        dense = head.classes
        terms = recipe.mix(dense.logits, labels, ignore_index=void_label(task), weight=weight, pixel_weight=pixels,
                           align_corners=dense.align_corners)  # fmt: skip
        heat, offsets = head.full_centres()
        terms["heat"] = HEAT * _mean((heat[:, 0].float() - found.heat).square(), found.counts)
        wrong = (offsets.float() - found.offsets).abs().mean(1)  # [B, H, W]
        terms["offsets"] = OFFSETS * _mean(wrong, found.things)
        losses |= {prefix + name: factor * loss for name, loss in terms.items()}
    return losses


def _mean(errors: Tensor, counts: Tensor) -> Tensor:
    """Mean where it counts, 0 with zero gradient where nothing does."""
    return ratio(torch.where(counts, errors, 0.0).sum(), counts.sum())


def targets(truths: Sequence[Segments], things: Sequence[int], goal: Goal) -> Target:
    """What Panoptic-DeepLab should answer for these truths, all of one size, at that size.

    things  labels that have centres

    >>> truth = Segments.from_ids([[0, 7, 7, 7]], {7: 0}, nothing=[0])
    >>> targets([truth], [0], Goal()).offsets[0, 1]
    tensor([[ 0.,  1.,  0., -1.]])
    """
    parts = [_target(truth, things, goal) for truth in truths]
    return Target(*(torch.stack(column) for column in zip(*parts)))


def _target(truth: Segments, things: Sequence[int], goal: Goal) -> tuple[Tensor, ...]:
    rows = truth.row_map()
    whole = ~truth.crowd if truth.kind is None else ~truth.crowd & (truth.kind == MASK)  # [N]
    thing = whole & torch.isin(truth.labels, torch.as_tensor(things, dtype=torch.int64, device=rows.device))
    areas, centres = _centres_of_mass(rows, len(truth))
    counts = look_up(torch.cat([whole, whole.new_tensor([False, True])]), rows)
    is_thing = look_up(torch.cat([thing, thing.new_zeros(2)]), rows)
    small = look_up(torch.cat([thing & (areas < goal.small_area), thing.new_zeros(2)]), rows)
    grid = torch.meshgrid(
        *(torch.arange(n, device=rows.device, dtype=torch.float32) for n in rows.shape), indexing="ij"
    )
    offsets = torch.stack([look_up(torch.cat([c, c.new_zeros(2)]), rows) - g for c, g in zip(centres, grid)])
    present = thing & (areas > 0)
    sigmas = areas.new_full(areas.shape, goal.sigma)
    if goal.spread > 0:
        sigmas = (goal.spread * areas.sqrt()).clamp(min(LEAST_SIGMA, goal.sigma), goal.sigma)
    heat = bumps(centres[:, present].int(), sigmas[present], rows.shape)
    return heat, counts, offsets * is_thing, is_thing, small


def _centres_of_mass(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pixels [N] and mean position [2, N] (y, x) of each row of the map [H, W], both float32, in one pass."""
    height, width = rows.shape
    shifted = rows.long() - UNKNOWN  # 0 and 1: no row
    flat = shifted + (count + 2) * torch.arange(height, device=rows.device)[:, None]
    lines = torch.bincount(flat.flatten(), minlength=(count + 2) * height).view(height, count + 2)
    along = torch.arange(width, device=rows.device, dtype=torch.float64).expand(height, width)
    x = torch.bincount(shifted.flatten(), along.flatten(), minlength=count + 2)
    y = (lines * torch.arange(height, device=rows.device)[:, None]).sum(0).double()
    areas = lines.sum(0)
    means = torch.stack([y, x]) / areas.clamp_min(1)
    return areas[2:].float(), means[:, 2:].float()


def bumps(centres: Tensor, sigmas: Tensor, size: Sequence[int]) -> Tensor:
    """[H, W] float32: at each pixel the highest of N Gaussians of height 1.

    centres [2, N] integer (y, x) inside the image; sigmas [N] in pixels; cut off 3 sigmas and a pixel from the centre.
    """
    height, width = int(size[0]), int(size[1])
    heat = sigmas.new_zeros(height * width)
    if not centres.shape[1]:
        return heat.view(height, width)
    reach = (3 * sigmas).round() + 1  # [N]
    radius = int(reach.max())
    steps = torch.arange(-radius, radius + 1, device=sigmas.device)
    for part in torch.arange(len(sigmas), device=sigmas.device).split(max(1, STRIP // len(steps) ** 2)):
        y, x = (centres[axis, part, None].long() + steps for axis in (0, 1))  # [n, R]
        fall = torch.exp(-steps.square() / (2 * sigmas[part, None].square()))
        fall = torch.where(steps.abs() <= reach[part, None], fall, 0.0)
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]  # [n, R, R]
        places = (y[:, :, None] * width + x[:, None, :])[inside]
        heat.scatter_reduce_(0, places, (fall[:, :, None] * fall[:, None, :])[inside], "amax")
    return heat.view(height, width)
