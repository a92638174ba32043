"""What losses need of a softmax over enlarged logits, without the enlarged logits.

Shapes: B batch, K classes, h w the logits' grid, H W the labels' size. `read_softmax` enlarges bilinearly, as
`torch.nn.functional.interpolate(mode="bilinear")` does, and answers maps [B, H, W] and sums [B, K], from which every
loss is made that adds up pixels or compares regions. Nothing of size [B, K, H, W] is built, neither forward nor
backward: the compiled forms hold a few rows of the enlarged logits at a time and in the backward pass compute them
again. The reference, in plain PyTorch, does build them.

Void pixels (label -1) are not looked at. So what a net writes at a point of its grid that no other pixel's
interpolation uses, infinities and NaN included, reaches neither value nor gradient. A point that also takes part in a
pixel with a label reaches that pixel, as interpolation has it. Where the grid has the labels' size every pixel uses its
own point alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.kernels.compiled import form_for

RUN = 64  # pixels added up one after the other in float32


class Readings(NamedTuple):
    """What was read; float32, or float64 where the logits are. None for what was not asked for."""

    log_p: Tensor  # [B, H, W] log of the softmax probability of the label, at most 0; 0 at void
    lse: Tensor | None  # [B, H, W] log of the sum of exp of the logits; 0 at void
    predicted: Tensor | None  # [B, K] the sum of each class's probability over valid pixels
    true: Tensor | None  # [B, K] the same over the pixels of that class's label


def read_softmax(
    logits: Tensor, labels: Tensor, *, align_corners: bool = False, lse: bool = False, masses: bool = False
) -> Readings:
    """Reads the softmax of logits [B, K, h, w] (float32, or float64), enlarged to the labels' size.

    labels         [B, H, W] int32 in 0..K-1, -1 at void. They are not checked.
    align_corners  as in torch's `interpolate`
    lse, masses    whether `lse`, and whether `predicted` and `true` are asked for

    Differentiable once; in float64, on devices without a compiled form and in compiled nets as often as PyTorch is.
    """
    form = form_for(logits, labels) if labels.numel() else "torch"
    if form == "torch" or (form == "triton" and torch.are_deterministic_algorithms_enabled()):
        return reference(logits, labels, align_corners, lse, masses)
    return Readings(*_Fused.apply(logits, labels, align_corners, lse, masses, form))


def enlarge(maps: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """[B, K, h, w] -> [B, K, H, W] bilinearly; the maps themselves where they have that size."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)


def reference(logits: Tensor, labels: Tensor, align_corners: bool, lse: bool, masses: bool) -> Readings:
    """`read_softmax` in plain PyTorch: builds the enlarged logits and their softmax."""
    valid = labels >= 0
    full = enlarge(logits, (labels.shape[1], labels.shape[2]), align_corners).masked_fill(~valid.unsqueeze(1), 0.0)
    if not masses:
        log_p = -F.cross_entropy(full, labels.long(), reduction="none", ignore_index=-1)
        return Readings(log_p, torch.where(valid, full.logsumexp(1), 0.0) if lse else None, None, None)
    log_probs = full.log_softmax(1)  # [B, K, H, W]
    log_p = log_probs.gather(1, labels.clamp_min(0).long().unsqueeze(1)).squeeze(1)
    log_p = torch.where(valid, log_p, 0.0)
    logsum = torch.where(valid, full.logsumexp(1), 0.0) if lse else None
    # At void probabilities are finite, so a product cuts them off as surely as a selection, and faster.
    predicted = (log_probs.exp() * valid.unsqueeze(1)).sum((2, 3))
    return Readings(log_p, logsum, predicted, sum_by_label(torch.where(valid, log_p.exp(), 0.0), labels, full.shape[1]))


def sum_by_label(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The sum of `values` [B, H, W], 0 at void, over the pixels of each label, [B, K].

    Summed in runs of 64 first: added one at a time into a single float32, a class of ten million pixels would stop
    growing. And a one-hot map would be a second [B, K, H, W].
    """
    height, width = values.shape[1:]
    run = torch.arange(width, device=values.device) // RUN
    runs = values.new_zeros(len(values), height, -(-width // RUN) * classes)  # [B, H, W/64 * K]
    summed = runs.scatter_add(2, labels.clamp_min(0).long() + run * classes, values)
    return summed.unflatten(2, (-1, classes)).sum((1, 2))


class _Fused(torch.autograd.Function):
    """The compiled forms: forward keeps each pixel's sum of exponentials, backward computes the softmax again."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, align_corners: bool, lse: bool, masses: bool,
                form: str) -> tuple[Tensor | None, ...]:  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.align_corners, ctx.form = align_corners, form
        log_p, sums, logsum, predicted, true = _form(form).forward(logits, labels, align_corners, lse, masses)
        ctx.save_for_backward(logits, labels, log_p, sums)
        return log_p, logsum, predicted, true

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(grad is None for grad in grads):
            return (None,) * 6
        logits, labels, log_p, sums = ctx.saved_tensors
        return _form(ctx.form).backward(logits, labels, log_p, sums, ctx.align_corners, grads), *(None,) * 5


def _form(name: str) -> Any:
    if name == "numba":
        from pixelwise.kernels import upsample_loss_cpu

        return upsample_loss_cpu
    from pixelwise.kernels import upsample_loss_gpu

    return upsample_loss_gpu
