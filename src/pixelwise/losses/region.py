"""Losses that compare regions: Dice and its relatives, Tversky, Lovasz-softmax.

Shapes: B batch, K classes, H W full size, I images compared (1 when pooled over the batch, else B), P pixels. All take
raw logits and return a scalar, computed in float32 (float64 for float64 logits). Pixels of `ignore_index` (void) reach
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

from pixelwise.losses.arguments import ClassWeight, Pixels, choice, class_weight, flag, number, prepare, ratio

FLOOR = 1e-7  # of a divisor, as in segmentation_models_pytorch; and what counts as a perfect score under a power
RUN = 64  # pixels added up one after the other in float32
SORTED_AT_ONCE = 2**24  # errors sorted in one go by Lovasz: 64 MB of values and 128 MB of places


class Overlap(NamedTuple):
    """Soft counts by image and class, over valid pixels."""

    true: Tensor  # [I, K] probability mass on the true class (TP)
    predicted: Tensor  # [I, K] probability mass of the class (TP + FP)
    actual: Tensor  # [I, K] pixels of the class (TP + FN)


def dice(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    smooth: float = 0.0,
    per_image: bool = False,
    check: bool = True,
) -> Tensor:
    """Soft Dice loss: Milletari, Navab, Ahmadi 2016, arXiv 1606.04797, with sums of p (not of squares).

    Mean over all K classes of 1 - 2 TP / (2 TP + FP + FN). A class absent from the truth adds 0 but is still divided
    by, as in segmentation_models_pytorch's multiclass mode; MONAI lets it add about 1 instead, and agrees with
    `per_image=True` where every image holds every class.

    Args:
        logits: [B, K, H, W] floating point.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        weight: [K]; the mean over classes becomes sum(w loss) / sum(w).
        smooth: at least 0, in pixels; (TP + smooth) / (TP + FP/2 + FN/2 + smooth). MONAI's constant is twice this one.

    >>> perfect = torch.tensor([[50.0, -50.0], [-50.0, 50.0]]).reshape(1, 2, 1, 2)
    >>> dice(perfect, torch.tensor([[[0, 1]]])).item()
    0.0
    """
    return tversky(
        logits, target, alpha=0.5, beta=0.5, ignore_index=ignore_index, weight=weight, smooth=smooth,
        per_image=per_image, check=check,
    )  # fmt: skip


def tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    smooth: float = 0.0,
    per_image: bool = False,
    check: bool = True,
) -> Tensor:
    """Tversky loss: Salehi, Erdogmus, Gholipour 2017, arXiv 1706.05721.

    Mean over all K classes of 1 - TP / (TP + alpha FP + beta FN); a class absent from the truth adds 0. alpha = beta =
    0.5 is Dice, alpha = beta = 1 is Jaccard.

    Args:
        logits: [B, K, H, W] floating point.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        alpha: weighs false positives, at least 0.
        beta: weighs false negatives, at least 0; above alpha it favours recall.
        weight: [K]; the mean over classes becomes sum(w loss) / sum(w).
        smooth: at least 0, in pixels, added above and below.
    """
    pixels = prepare(logits, target, ignore_index, check)
    overlap = _overlap(pixels, per_image)
    return _class_mean(_tversky(overlap, alpha, beta, smooth), overlap, class_weight(weight, pixels))


def focal_tversky(
    logits: Tensor,
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
) -> Tensor:
    """Focal Tversky loss: Abraham, Khan 2018, arXiv 1810.07842.

    Mean over all K classes of (1 - TI)^(1/gamma), TI the Tversky index; the paper sums where this averages, and calls
    beta what is alpha here. This is not segmentation_models_pytorch's `gamma`, which raises the mean over classes to
    the power gamma itself. A class within 1e-7 of perfect adds 0: the slope of the power has no bound there.

    Args:
        logits: [B, K, H, W] floating point.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        alpha: weighs false positives, at least 0.
        beta: weighs false negatives, at least 0.
        gamma: above 0; the paper uses 4/3 and looks at 1 to 3. At 1 this is `tversky`.
        weight: [K]; the mean over classes becomes sum(w loss) / sum(w).
        smooth: at least 0, in pixels, added above and below.
    """
    gamma = number("gamma", gamma, low=1e-3)
    pixels = prepare(logits, target, ignore_index, check)
    overlap = _overlap(pixels, per_image)
    losses = _tversky(overlap, alpha, beta, smooth)
    # Two selections: a power of 0 never enters the graph, so its infinite slope cannot turn into NaN.
    imperfect = losses > FLOOR
    losses = torch.where(imperfect, torch.where(imperfect, losses, 1.0).pow(1 / gamma), 0.0)
    return _class_mean(losses, overlap, class_weight(weight, pixels))


def log_cosh_dice(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    smooth: float = 0.0,
    per_image: bool = False,
    check: bool = True,
) -> Tensor:
    """Log-cosh Dice loss: Jadon 2020, arXiv 2006.14822: log(cosh(`dice`)).

    Arguments and errors as for `dice`.
    """
    loss = dice(
        logits, target, ignore_index=ignore_index, weight=weight, smooth=smooth, per_image=per_image, check=check
    )
    return loss.cosh().log()


def generalised_dice(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    per_image: bool = False,
    check: bool = True,
) -> Tensor:
    """Generalised Dice loss: Sudre, Li, Vercauteren, Ourselin, Cardoso 2017, arXiv 1707.03237.

    1 - 2 sum_k w_k TP_k / sum_k w_k (predicted_k + actual_k), where w_k = 1 / actual_k^2 makes the rarest class count
    most. The weights are the method, so there is no `weight`. A class absent from the truth, whose weight would be
    infinite, is left out of both sums; what is wrongly given to it is missing from the true classes and so still costs.

    Args:
        logits: [B, K, H, W] floating point.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
    """
    overlap = _overlap(prepare(logits, target, ignore_index, check), per_image)
    present = overlap.actual > 0  # [I, K]
    # Scaled so that the rarest class weighs 1: the ratio is the same and nothing is near the smallest float.
    rarest = torch.where(present, overlap.actual, torch.inf).amin(1, keepdim=True)
    weights = torch.where(present, (rarest / overlap.actual) ** 2, 0.0)
    scores = ratio(2 * (weights * overlap.true).sum(1), (weights * (overlap.predicted + overlap.actual)).sum(1))
    seen = present.any(1)  # [I]
    return ratio(torch.where(seen, 1 - scores, 0.0).sum(), seen.sum())


def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    classes: str = "present",
    ignore_index: int = 255,
    weight: ClassWeight = None,
    per_image: bool = False,
    check: bool = True,
) -> Tensor:
    """Lovasz-softmax loss: Berman, Rannen Triki, Blaschko 2018, arXiv 1705.08790.

    The mean over classes of the Lovasz extension of the Jaccard loss at the pixels' errors |truth - p|. The slope of
    the extension at each pixel is written out (see `_jaccard_slopes`) instead of taken as a difference of two nearly
    equal Jaccard indices, which at a million pixels has lost most of float32's digits.

    Args:
        logits: [B, K, H, W] floating point.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        classes: "present" takes the mean over classes that occur in the truth (finding them waits for a GPU once per
            set); "all" over all K, an absent one costing its largest error.
        weight: [K]; the mean over those classes becomes sum(w loss) / sum(w).
    """
    choice("classes", classes, ("present", "all"))
    pixels = prepare(logits, target, ignore_index, check)
    weights = class_weight(weight, pixels)
    probs = pixels.logits.softmax(1)  # [B, K, H, W]
    if not flag("per_image", per_image):
        return _lovasz(probs.transpose(0, 1).flatten(1), pixels.ids.flatten(), pixels.valid.flatten(), classes, weights)
    losses = [
        _lovasz(p.flatten(1), i.flatten(), v.flatten(), classes, weights)
        for p, i, v in zip(probs, pixels.ids, pixels.valid, strict=True)
    ]
    seen = pixels.valid.flatten(1).any(1).sum()
    return ratio(torch.stack(losses).sum() if losses else probs.sum(), seen)


def _lovasz(probs: Tensor, ids: Tensor, valid: Tensor, classes: str, weights: Tensor | None) -> Tensor:
    """Lovasz-softmax of one set of pixels: probs [K, P], ids [P], valid [P]."""
    if probs.numel() == 0:
        return probs.sum()
    chosen = ids[valid].unique() if classes == "present" else torch.arange(len(probs), device=ids.device)
    losses = [probs.sum() * 0.0]  # keeps the graph, at gradient 0, when no class is chosen
    for some in chosen.split(max(1, SORTED_AT_ONCE // len(ids))):
        truth = (ids == some.unsqueeze(1)) & valid  # [k, P]
        errors = torch.where(valid, (truth.to(probs.dtype) - probs[some]).abs(), 0.0)
        of_class = (errors * _jaccard_slopes(errors.detach(), truth)).sum(1)  # [k]
        losses.append((of_class if weights is None else of_class * weights[some]).sum())
    count = probs.new_full((), len(chosen)) if weights is None else weights[chosen].sum()
    return ratio(torch.stack(losses).sum(), count)


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


def _overlap(pixels: Pixels, per_image: bool) -> Overlap:
    probs = pixels.logits.softmax(1)  # [B, K, H, W]
    sure = probs.gather(1, pixels.ids.unsqueeze(1)).squeeze(1)  # [B, H, W] p of the true class
    # At void logits are 0 and probabilities finite, so a product cuts them off as surely as a selection, and faster.
    predicted = (probs * pixels.valid.unsqueeze(1)).sum((2, 3))  # [B, K]
    true = _by_class(torch.where(pixels.valid, sure, 0.0), pixels)
    actual = _by_class(pixels.valid.to(probs.dtype), pixels)
    if flag("per_image", per_image):
        return Overlap(true, predicted, actual)
    return Overlap(true.sum(0, keepdim=True), predicted.sum(0, keepdim=True), actual.sum(0, keepdim=True))


def _by_class(values: Tensor, pixels: Pixels) -> Tensor:
    """The sum of `values` [B, H, W] over the pixels of each class, [B, K].

    Summed in runs of 64 first: added one at a time into a single float32, a class of ten million pixels would stop
    growing. And a one-hot map would be a second [B, K, H, W].
    """
    height, width = values.shape[1:]
    run = torch.arange(width, device=values.device) // RUN
    runs = values.new_zeros(len(values), height, -(-width // RUN) * pixels.classes)  # [B, H, W/64 * K]
    summed = runs.scatter_add(2, pixels.ids + run * pixels.classes, values)
    return summed.unflatten(2, (-1, pixels.classes)).sum((1, 2))


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
