"""Losses that compare regions: Dice and its relatives, Tversky.

Shapes: B batch, K classes, h w the logits' grid, H W full size, I images compared (1 when pooled over the batch, else
B). All take raw logits and return a scalar, computed in float32 (float64 for float64 logits). Logits of another size
than the target's go with `align_corners` and are enlarged bilinearly within the loss, from sums [B, K] that are read
without a full-size map of all classes (`kernels.upsample_loss`; plain PyTorch, which serves float64, compiled nets and
devices without a kernel, does build it). Pixels of `ignore_index` (void) reach
neither value nor gradient, and a batch that is all void gives 0 with zero gradient. All raise ConfigError for shapes,
dtypes and options that cannot be and DataError for an id that is neither a class nor void; `check=False` skips the look
at the ids.

`per_image=True` compares image by image and averages over the images that have a valid pixel; otherwise pixels are
pooled over the batch, which is steadier where classes are rare.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pixelwise.losses.arguments import ClassWeight, Pixels, class_weight, flag, number, prepare, ratio

FLOOR = 1e-7  # of a divisor, as in segmentation_models_pytorch; and what counts as a perfect score under a power


class Overlap(NamedTuple):
    """Soft counts by image and class, over valid pixels."""

    true: Tensor  # [I, K] probability mass on the true class (TP)
    predicted: Tensor  # [I, K] probability mass of the class (TP + FP)
    actual: Tensor  # [I, K] pixels of the class (TP + FN)


def dice(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    smooth: float = 0.0,
    per_image: bool = False,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Soft Dice loss: Milletari, Navab, Ahmadi 2016, arXiv 1606.04797, with sums of p (not of squares).

    Mean over all K classes of 1 - 2 TP / (2 TP + FP + FN). A class absent from the truth adds 0 but is still divided
    by, as in segmentation_models_pytorch's multiclass mode; MONAI lets it add about 1 instead, and agrees with
    `per_image=True` where every image holds every class.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        weight: [K]; the mean over classes becomes sum(w loss) / sum(w).
        smooth: at least 0, in pixels; (TP + smooth) / (TP + FP/2 + FN/2 + smooth). MONAI's constant is twice this one.

    >>> perfect = torch.tensor([[50.0, -50.0], [-50.0, 50.0]]).reshape(1, 2, 1, 2)
    >>> dice(perfect, torch.tensor([[[0, 1]]])).item()
    0.0
    """
    return tversky(
        logits, target, alpha=0.5, beta=0.5, ignore_index=ignore_index, weight=weight, smooth=smooth,
        per_image=per_image, check=check, align_corners=align_corners,
    )  # fmt: skip


def tversky(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    smooth: float = 0.0,
    per_image: bool = False,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Tversky loss: Salehi, Erdogmus, Gholipour 2017, arXiv 1706.05721.

    Mean over all K classes of 1 - TP / (TP + alpha FP + beta FN); a class absent from the truth adds 0. alpha = beta =
    0.5 is Dice, alpha = beta = 1 is Jaccard.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        alpha: weighs false positives, at least 0.
        beta: weighs false negatives, at least 0; above alpha it favours recall.
        weight: [K]; the mean over classes becomes sum(w loss) / sum(w).
        smooth: at least 0, in pixels, added above and below.
    """
    pixels = prepare(logits, target, ignore_index, check, align_corners)
    overlap = _overlap(pixels, per_image)
    return _class_mean(_tversky(overlap, alpha, beta, smooth), overlap, class_weight(weight, pixels))


def focal_tversky(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    smooth: float = 0.0,
    per_image: bool = False,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Focal Tversky loss: Abraham, Khan 2018, arXiv 1810.07842.

    Mean over all K classes of (1 - TI)^(1/gamma), TI the Tversky index; the paper sums where this averages, and calls
    beta what is alpha here. This is not segmentation_models_pytorch's `gamma`, which raises the mean over classes to
    the power gamma itself. A class within 1e-7 of perfect adds 0: the slope of the power has no bound there.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        alpha: weighs false positives, at least 0.
        beta: weighs false negatives, at least 0.
        gamma: above 0; the paper uses 4/3 and looks at 1 to 3. At 1 this is `tversky`.
        weight: [K]; the mean over classes becomes sum(w loss) / sum(w).
        smooth: at least 0, in pixels, added above and below.
    """
    gamma = number("gamma", gamma, low=1e-3)
    pixels = prepare(logits, target, ignore_index, check, align_corners)
    overlap = _overlap(pixels, per_image)
    losses = _tversky(overlap, alpha, beta, smooth)
    # Two selections: a power of 0 never enters the graph, so its infinite slope cannot turn into NaN.
    imperfect = losses > FLOOR
    losses = torch.where(imperfect, torch.where(imperfect, losses, 1.0).pow(1 / gamma), 0.0)
    return _class_mean(losses, overlap, class_weight(weight, pixels))


def log_cosh_dice(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    smooth: float = 0.0,
    per_image: bool = False,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Log-cosh Dice loss: Jadon 2020, arXiv 2006.14822: log(cosh(`dice`)).

    Arguments and errors as for `dice`.
    """
    loss = dice(
        logits, target, ignore_index=ignore_index, weight=weight, smooth=smooth, per_image=per_image, check=check,
        align_corners=align_corners,
    )  # fmt: skip
    return loss.cosh().log()


def generalised_dice(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    ignore_index: int = 255,
    per_image: bool = False,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Generalised Dice loss: Sudre, Li, Vercauteren, Ourselin, Cardoso 2017, arXiv 1707.03237.

    1 - 2 sum_k w_k TP_k / sum_k w_k (predicted_k + actual_k), where w_k = 1 / actual_k^2 makes the rarest class count
    most. The weights are the method, so there is no `weight`. A class absent from the truth, whose weight would be
    infinite, is left out of both sums; what is wrongly given to it is missing from the true classes and so still costs.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
    """
    overlap = _overlap(prepare(logits, target, ignore_index, check, align_corners), per_image)
    present = overlap.actual > 0  # [I, K]
    # Scaled so that the rarest class weighs 1: the ratio is the same and nothing is near the smallest float.
    rarest = torch.where(present, overlap.actual, torch.inf).amin(1, keepdim=True)
    weights = torch.where(present, (rarest / overlap.actual) ** 2, 0.0)
    scores = ratio(2 * (weights * overlap.true).sum(1), (weights * (overlap.predicted + overlap.actual)).sum(1))
    seen = present.any(1)  # [I]
    return ratio(torch.where(seen, 1 - scores, 0.0).sum(), seen.sum())


def _overlap(pixels: Pixels, per_image: bool) -> Overlap:
    _, _, predicted, true = pixels.read(masses=True)  # [B, K] each
    assert predicted is not None
    assert true is not None
    actual = _counts(pixels).to(true.dtype)
    if flag("per_image", per_image):
        return Overlap(true, predicted, actual)
    return Overlap(true.sum(0, keepdim=True), predicted.sum(0, keepdim=True), actual.sum(0, keepdim=True))


def _counts(pixels: Pixels) -> Tensor:
    """[B, K] int64 pixels of each class; void is counted as one more, which is left out."""
    labels = pixels.labels.flatten(1)
    counts = torch.zeros(len(labels), pixels.classes + 1, dtype=torch.int64, device=labels.device)
    ones = counts.new_ones(()).expand(labels.shape)
    return counts.scatter_add(1, torch.where(labels < 0, pixels.classes, labels).long(), ones)[:, :-1]


def _tversky(overlap: Overlap, alpha: float, beta: float, smooth: float) -> Tensor:
    """1 - Tversky index, [I, K]."""
    alpha, beta = number("alpha", alpha, low=0.0), number("beta", beta, low=0.0)
    smooth = number("smooth", smooth, low=0.0)
    wrong = alpha * (overlap.predicted - overlap.true) + beta * (overlap.actual - overlap.true)
    return 1 - (overlap.true + smooth) / (overlap.true + wrong + smooth).clamp_min(FLOOR)


def _class_mean(losses: Tensor, overlap: Overlap, weights: Tensor | None) -> Tensor:
    """Mean of losses [I, K] over all classes, absent ones adding 0, and over the images with a valid pixel."""
    losses = torch.where(overlap.actual > 0, losses, 0.0)
    by_image = losses.mean(1) if weights is None else ratio((losses * weights).sum(1), weights.sum())
    seen = overlap.actual.sum(1) > 0  # [I]
    return ratio(by_image.sum(), seen.sum())
