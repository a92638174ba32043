"""Losses that add up pixels: cross-entropy, focal, OHEM and top-k cross-entropy.

Shapes: B batch, K classes, h w the logits' grid, H W full size, P = B*H*W pixels. All take raw logits and return a
scalar, computed in float32 (float64 for float64 logits). Logits of another size than the target's go with
`align_corners` and are enlarged bilinearly within the loss: no full-size map of all classes is built (`kernels.
upsample_loss`; in plain PyTorch, which serves float64, compiled nets and devices without a kernel, it is). OHEM and
top-k choose among the [B, H, W] losses. Pixels of `ignore_index` (void) reach neither value nor gradient, and a batch
that is all void gives 0 with zero gradient. `pixel_weight` [B, H, W] scales each pixel's loss; means stay over pixels,
except that top-k weighs before it chooses, so that heavy pixels are chosen first. All raise what `arguments.prepare`
raises: ConfigError for shapes, dtypes and options that cannot be, DataError for an id that is neither a class nor void.
`check=False` skips the look at the ids, which on a GPU waits for the GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixelwise.errors import ConfigError
from pixelwise.kernels.upsample_loss import enlarge
from pixelwise.losses.arguments import ClassWeight, Pixels, class_weight, number, prepare, ratio, whole


def cross_entropy(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    pixel_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Cross-entropy: the mean of -log p_t over valid pixels, as torch computes it wherever that is not NaN.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        weight: [K] weights of classes; the sum is divided by the sum of the weights of the valid pixels, as torch does,
            so a common factor in the weights changes nothing.
        label_smoothing: in 0..1; the truth becomes (1 - s) one-hot + s / K, weighted as torch weights it.

    >>> round(cross_entropy(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)).item(), 4)
    1.3863
    """
    label_smoothing = number("label_smoothing", label_smoothing, low=0.0, high=1.0)
    pixels = prepare(logits, target, ignore_index, check, align_corners)
    weights = class_weight(weight, pixels)
    losses = _weighted(-pixels.read(lse=label_smoothing > 0).log_p, weights, pixels)  # [B, H, W]
    if label_smoothing > 0:
        share = label_smoothing / pixels.classes
        losses = (1 - label_smoothing) * losses + share * _weighted_sum_of_logs(weights, pixels)
        losses = torch.where(pixels.valid, losses, 0.0)
    return ratio(_scaled(losses, pixel_weight, pixels).sum(), _weight_total(weights, pixels))


def _weighted_sum_of_logs(weights: Tensor | None, pixels: Pixels) -> Tensor:
    """[B, H, W] the sum over classes of w_k (-log p_k).

    A weighted sum of logits may be taken before they are enlarged, since enlarging is linear: a map of one channel.
    """
    lse = pixels.read(lse=True).lse
    assert lse is not None
    if weights is None:
        mixed = pixels.logits.sum(1, keepdim=True)  # [B, 1, h, w]
    else:
        mixed = (pixels.logits * weights.view(-1, 1, 1)).sum(1, keepdim=True)
    total = pixels.classes if weights is None else weights.sum()
    return total * lse - enlarge(mixed, pixels.size, pixels.align_corners).squeeze(1)


def focal(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: ClassWeight | float = None,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    pixel_weight: Tensor | None = None,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Focal loss: Lin, Goyal, Girshick, He, Dollar 2017, arXiv 1708.02002, in its softmax form.

    Mean over valid pixels of alpha_t (1 - p_t)^gamma (-log p_t). p_t is the plain softmax probability of the true
    class: alpha and weight are multiplied afterwards and never bend it. gamma = 0 is cross-entropy.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        gamma: at least 0; how strongly pixels that are already right are held back.
        alpha: [K] factors by true class, or one factor for all. They scale the loss: the mean stays over pixels.
        weight: [K] as for `cross_entropy`: the sum is divided by the weights of the valid pixels, so that only their
            proportions matter.
    """
    gamma = number("gamma", gamma, low=0.0)
    pixels = prepare(logits, target, ignore_index, check, align_corners)
    factors = _alpha(alpha, pixels)
    weights = class_weight(weight, pixels)
    log_p = pixels.read().log_p
    # 1 - p without cancellation. Below the floor the slope of a power under 1 would be infinite; there it is cut to 0.
    wrong = -torch.expm1(log_p)
    losses = wrong.clamp_min(torch.finfo(wrong.dtype).tiny).pow(gamma) * -log_p
    losses = _weighted(_weighted(losses, factors, pixels), weights, pixels)
    return ratio(_scaled(losses, pixel_weight, pixels).sum(), _weight_total(weights, pixels))


def ohem_cross_entropy(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    pixel_weight: Tensor | None = None,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Cross-entropy on hard pixels only: Shrivastava, Gupta, Girshick 2016, arXiv 1604.03540, in HRNet's pixel form.

    With the p_t of the batch's N valid pixels sorted upwards from 0, the threshold is raised to the one at place
    min(min_kept, N - 1); the mean is over the pixels strictly below it. So about `min_kept` pixels always count, more
    where more are hard. Pixels tied with a raised threshold drop out; where that leaves none (a single easy pixel),
    the value is 0, where HRNet's code gives NaN.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        threshold: p_t in 0..1 below which a pixel is hard.
        min_kept: pixels of the whole batch, at least 0.
        weight: [K]; scales each pixel's loss after the choice. The mean is over kept pixels, not over weights.
    """
    threshold = number("threshold", threshold, low=0.0, high=1.0)
    min_kept = whole("min_kept", min_kept)
    pixels = prepare(logits, target, ignore_index, check, align_corners)
    weights = class_weight(weight, pixels)
    log_p = pixels.read().log_p  # [B, H, W]
    losses = _scaled(_weighted(-log_p, weights, pixels), pixel_weight, pixels)
    with torch.no_grad():
        easy = torch.where(pixels.valid, log_p.exp(), 2.0).flatten()  # [P]; void sorts last
        kept = easy < _raised(threshold, min_kept, easy, pixels.valid.sum())  # never void: 2 is below no threshold
    return ratio(torch.where(kept, losses.flatten(), 0.0).sum(), kept.sum())


def _raised(threshold: float, min_kept: int, easy: Tensor, count: Tensor) -> Tensor:
    """The larger of `threshold` and the value at place min(min_kept, count - 1) of `easy` [P] sorted upwards."""
    if easy.numel() == 0:
        return easy.new_tensor(threshold)
    hardest = easy.topk(min(min_kept + 1, easy.numel()), largest=False, sorted=True).values
    place = (count - 1).clamp(0, min_kept)  # on the device: the count of valid pixels is never waited for
    return hardest.gather(0, place.reshape(1)).clamp_min(threshold)


def topk_cross_entropy(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    fraction: float = 0.2,
    ignore_index: int = 255,
    weight: ClassWeight = None,
    pixel_weight: Tensor | None = None,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Mean cross-entropy of the hardest share of the valid pixels: Wu, Shen, van den Hengel 2016, arXiv 1605.06885.

    k = floor(fraction * valid pixels of the batch), at least 1, and the mean is over those k. DeepLab's code takes its
    share of *all* pixels and divides by it, so void dilutes the loss there: with fraction 1 and half the batch void it
    is half of cross-entropy. Here fraction 1 is cross-entropy, and without void the two agree.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`.
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index`.
        fraction: share of valid pixels kept, in 0..1.
        weight: [K]; scales each pixel's loss before the choice. The mean is over kept pixels, not over weights.
    """
    fraction = number("fraction", fraction, low=0.0, high=1.0)
    pixels = prepare(logits, target, ignore_index, check, align_corners)
    losses = _scaled(_weighted(-pixels.read().log_p, class_weight(weight, pixels), pixels), pixel_weight, pixels)
    # Void sorts last at -1. The most that can be kept is known here, how many are is known to the device only.
    ranked = torch.where(pixels.valid, losses, -1.0).flatten()
    most = min(int(fraction * ranked.numel()) + 1, ranked.numel())
    ranked = ranked.topk(most, sorted=True).values
    count = pixels.valid.sum()
    keep = torch.minimum((fraction * count.to(ranked.dtype)).floor().clamp_min(1.0), count.to(ranked.dtype))
    kept = torch.arange(most, device=ranked.device) < keep
    return ratio(torch.where(kept, ranked, 0.0).sum(), kept.sum())


def _scaled(losses: Tensor, pixel_weight: Tensor | None, pixels: Pixels) -> Tensor:
    """losses [B, H, W], 0 at void, times the weights. Raises ConfigError for weights of another shape."""
    if pixel_weight is None:
        return losses
    if pixel_weight.shape != losses.shape:
        raise ConfigError(f"pixel_weight must be [B, H, W] = {list(losses.shape)}, got {list(pixel_weight.shape)}")
    return torch.where(pixels.valid, losses * pixel_weight.detach().to(losses), 0.0)


def _weighted(losses: Tensor, weights: Tensor | None, pixels: Pixels) -> Tensor:
    """losses [B, H, W] times the weight of each pixel's class."""
    return losses if weights is None else losses * pixels.of_label(weights)


def _alpha(alpha: ClassWeight | float, pixels: Pixels) -> Tensor | None:
    if isinstance(alpha, int | float):
        return pixels.logits.new_full((pixels.classes,), number("alpha", alpha, low=0.0))
    return class_weight(alpha, pixels, "alpha")


def _weight_total(weights: Tensor | None, pixels: Pixels) -> Tensor:
    """The sum of the weights of the valid pixels, or their number."""
    if weights is None:
        return pixels.valid.sum()
    return torch.where(pixels.valid, pixels.of_label(weights), 0.0).sum()
