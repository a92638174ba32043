"""Lovasz-softmax: Berman, Rannen Triki, Blaschko 2018, arXiv 1705.08790.

Shapes: B batch, K classes, h w the logits' grid, H W full size, S sets of pixels compared, P pixels of a set.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixelwise.kernels.upsample_loss import enlarge
from pixelwise.losses.arguments import ClassWeight, Pixels, choice, class_weight, flag, prepare, ratio

SORTED_AT_ONCE = 2**22  # errors sorted in one go: 16 MB of values and 32 MB of places, and about as much again


@torch.compiler.disable
def lovasz_softmax(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    classes: str = "present",
    ignore_index: int = 255,
    weight: ClassWeight = None,
    per_image: bool = False,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Lovasz-softmax loss: Berman, Rannen Triki, Blaschko 2018, arXiv 1705.08790.

    The mean over classes of the Lovasz extension of the Jaccard loss at the pixels' errors |truth - p|. The slope of
    the extension at each pixel is written out (see `_jaccard_slopes`) instead of taken as a difference of two nearly
    equal Jaccard indices, which at a million pixels has lost most of float32's digits.

    Errors have to be sorted, so each class's probabilities are built at full size: a few classes at a time, as many as
    have `SORTED_AT_ONCE` pixels together, at least one. Their gradient is taken at once and kept on the logits' grid.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index` (void), which reaches neither value nor gradient; a
            batch that is all void gives 0 with zero gradient.
        classes: "present" takes the mean over classes that occur in the truth (finding them waits for a GPU once per
            set); "all" over all K, an absent one costing its largest error.
        weight: [K]; the mean over those classes becomes sum(w loss) / sum(w).
        per_image: compare image by image and average over the images that have a valid pixel; else pixels are pooled
            over the batch.

    Raises:
        ConfigError: shapes, dtypes and options that cannot be.
        DataError: an id that is neither a class nor void; `check=False` skips the look at the ids.
    """
    choice("classes", classes, ("present", "all"))
    pixels = prepare(logits, target, ignore_index, check, align_corners)
    weights = class_weight(weight, pixels)
    if pixels.labels.numel() == 0:
        return pixels.logits.sum()
    sets = len(pixels.labels) if flag("per_image", per_image) else 1
    lse = pixels.read(lse=True).lse
    total = _Lovasz.apply(pixels.logits, lse, pixels, classes, weights, sets)
    return total if sets == 1 else ratio(total, pixels.valid.flatten(1).any(1).sum())


class _Lovasz(torch.autograd.Function):
    """The sum over sets of the mean over classes; its gradient is known when the value is."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, lse: Tensor, pixels: Pixels, classes: str, weights: Tensor | None,
                sets: int) -> Tensor:  # fmt: skip
        total, slopes = lse.new_zeros(()), torch.zeros_like(logits, memory_format=torch.contiguous_format)
        slopes_of_lse = torch.zeros_like(lse)
        for part in torch.arange(len(logits), device="cpu").tensor_split(sets):
            images = slice(int(part[0]), int(part[-1]) + 1)
            total += _one_set(logits, lse, pixels, classes, weights, images, slopes, slopes_of_lse)
        ctx.save_for_backward(slopes, slopes_of_lse)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slopes, slopes_of_lse = ctx.saved_tensors
        return grad * slopes, grad * slopes_of_lse, None, None, None, None


def _one_set(logits: Tensor, lse: Tensor, pixels: Pixels, classes: str, weights: Tensor | None, images: slice,
             slopes: Tensor, slopes_of_lse: Tensor) -> Tensor:  # fmt: skip
    """The mean over classes for these images taken as one set; its gradients are written to their places."""
    labels, valid = pixels.labels[images], pixels.valid[images]
    chosen = labels[valid].unique() if classes == "present" else torch.arange(pixels.classes, device=labels.device)
    if weights is None:
        factors = lse.new_ones(len(chosen)) / max(1, len(chosen))
    else:
        factors = ratio(weights[chosen], weights[chosen].sum())
    total = lse.new_zeros(())
    for some, factor in zip(*(x.split(max(1, SORTED_AT_ONCE // labels.numel())) for x in (chosen.long(), factors))):
        with torch.enable_grad():
            grid, logsum = logits[images][:, some].detach().requires_grad_(), lse[images].detach().requires_grad_()
            losses = _of_classes(grid, logsum, labels, valid, some, pixels.align_corners)  # [k]
            value = (losses * factor).sum()
            grads = torch.autograd.grad(value, (grid, logsum))
        total += value.detach()
        slopes[images, some] = grads[0]
        slopes_of_lse[images] += grads[1]
    return total


def _of_classes(grid: Tensor, logsum: Tensor, labels: Tensor, valid: Tensor, some: Tensor, align: bool) -> Tensor:
    """[k] the extension for classes `some` [k] of one set: grid [B, k, h, w], logsum [B, H, W]."""
    full = enlarge(grid, (labels.shape[1], labels.shape[2]), align)
    known = valid.unsqueeze(1)
    probs = torch.where(known, full - logsum.unsqueeze(1), -torch.inf).exp().transpose(0, 1).flatten(1)  # [k, P]
    truth = labels.flatten() == some.unsqueeze(1)  # [k, P]
    errors = torch.where(valid.flatten(), (truth.to(probs.dtype) - probs).abs(), 0.0)
    return (errors * _jaccard_slopes(errors.detach(), truth)).sum(1)


@torch.no_grad()
def _jaccard_slopes(errors: Tensor, truth: Tensor) -> Tensor:
    """The Lovasz extension's slope at each pixel, [k, P] in the pixels' own order.

    Going down the sorted errors, each pixel joins the set of mistakes. With I the truth left outside that set and U the
    truth or mistakes, both after the step: a pixel of the truth lowers I by 1 and costs 1/U; any other raises U by 1
    and costs I/(U-1) - I/U = I / (U (U-1)). With no truth at all the first mistake costs 1 and the rest nothing.
    Void comes with error 0 and outside the truth, so it ranks below every mistake and changes no slope that matters.
    """
    order = errors.argsort(1, descending=True)
    ranked = truth.gather(1, order)
    met = ranked.cumsum(1, dtype=torch.int32)
    total = met[:, -1:]
    places = torch.arange(1, errors.shape[1] + 1, device=errors.device, dtype=torch.int32)
    left = (total - met).to(errors.dtype)
    union = (total + places - met).to(errors.dtype)
    costs = torch.where(ranked, 1 / union, left / (union * (union - 1)).clamp_min(1.0))
    costs = torch.where(total > 0, costs, (places == 1).to(errors.dtype))
    return torch.zeros_like(errors).scatter_(1, order, costs)
