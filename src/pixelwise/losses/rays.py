"""The loss of star-convex polygons (Schmidt et al. 2018, 1806.03535; classes: Weigert and Schmidt 2022, 2203.02284).

    objects   binary cross-entropy of the object probability, whose target is how deep a pixel lies in its object
    rays      0.2 x mean absolute error of the distances, weighted by the target probability; plus 1e-4 x the mean
              absolute distance off the objects, weighted by one minus it
    classes   cross-entropy of the classes, things and nothing, where there are several things

Targets are taken at every `grid`-th pixel, as the authors' code does: depths on the smaller map, distances on the full
one. A pixel of an object of the crowd, of a scribble, or unknown counts nowhere; rays end at it. Boxes and tags own no
pixels and say nothing here. Where objects overlap the lower layer's counts, with the pixels of it that show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.core.rays import Rays
from pixelwise.core.segments import NOTHING, SCRIBBLE, UNKNOWN, Segments, look_up
from pixelwise.core.types import Task
from pixelwise.errors import ConfigError
from pixelwise.kernels.stars import object_probabilities, star_distances
from pixelwise.losses.criterion import Recipe, criterion

RAYS, OFF_OBJECTS = 0.2, 1e-4  # weights, of the authors' code


@dataclass(frozen=True, eq=False)
class Target:
    """What is learnt at every `grid`-th pixel.

    known      [B, h, w] bool
    depths     [B, h, w] float32 in 0..1
    distances  [B, R, h, w] float32 pixels
    labels     [B, h, w] int64 class, the last one for no object
    """

    known: Tensor
    depths: Tensor
    distances: Tensor
    labels: Tensor


def target(truths: Sequence[Segments], rays: int, grid: int, nothing: int) -> Target:
    """From the truth of each image, all of one size; `nothing` is the label where there is no object."""
    maps = torch.stack([_object_map(truth) for truth in truths])  # [B, H, W]
    cells = maps[:, ::grid, ::grid]
    labels = [look_up(_labels(truth, nothing), cell) for truth, cell in zip(truths, cells)]
    return Target(cells != UNKNOWN, object_probabilities(cells), star_distances(maps, rays, grid), torch.stack(labels))


def _object_map(truth: Segments) -> Tensor:
    """[H, W] int32 row of the object at each pixel, NOTHING, or UNKNOWN where what is there is not told apart."""
    unfit = truth.crowd.clone()
    if truth.kind is not None:
        unfit |= truth.kind == SCRIBBLE
    rows = torch.arange(len(truth), dtype=torch.int32, device=unfit.device).masked_fill(unfit, UNKNOWN)
    return look_up(torch.cat([rows, rows.new_tensor([UNKNOWN, NOTHING])]), truth.row_map())


def _labels(truth: Segments, nothing: int) -> Tensor:
    """[N + 2] the class of each row, then of UNKNOWN (any: it does not count) and of NOTHING."""
    return torch.cat([truth.labels, truth.labels.new_tensor([nothing, nothing])])


@criterion.register
def _(output: Rays, truths: Sequence[Segments], task: Task, recipe: Recipe) -> dict[str, Tensor]:
    """objects, rays and, with several things, classes; float32. `recipe.class_weights` weigh the term classes.

    Raises ConfigError when the net's classes are not the task's, and for class weights where there is one class.
    """
    if output.channels != task.classes.channels or not task.classes.nothing:
        raise ConfigError(
            f"The net has {output.channels} classes with nothing as the last, the task {task.name} "
            f"{task.classes.channels}: train it for the task instance, with classes={len(task.classes) + 1}."
        )
    if recipe.class_weights and output.classes is None:
        raise ConfigError("Class weights need several classes of things; there is one. Leave --class-weights out.")
    with torch.autocast(output.objects.device.type, enabled=False):
        wanted = target(truths, output.rays.shape[1], output.grid, output.channels - 1)
        return ray_loss(output, wanted, recipe.class_weights)


def ray_loss(output: Rays, wanted: Target, class_weights: Sequence[float] = ()) -> dict[str, Tensor]:
    """{"objects", "rays", "classes"}, weighted; zero, with a gradient of zero, where nothing is known."""
    known, depths = wanted.known.float(), wanted.depths * wanted.known
    cells = known.sum().clamp_min(1)
    entropy = F.binary_cross_entropy_with_logits(output.objects[:, 0].float(), depths, reduction="none")
    rays = output.rays.float()
    errors = ((rays - wanted.distances).abs().mean(1) * depths).sum() / (depths.sum() + 1e-7 * depths.numel())
    off = (rays.abs().mean(1) * (known - depths)).sum() / cells
    losses = {"objects": (entropy * known).sum() / cells, "rays": RAYS * (errors + OFF_OBJECTS * off)}
    if output.classes is not None:
        weight = torch.tensor(class_weights, device=rays.device) if class_weights else None
        wrong = F.cross_entropy(output.classes.float(), wanted.labels, weight, reduction="none")  # [B, h, w]
        losses["classes"] = (wrong * known).sum() / cells
    return losses
