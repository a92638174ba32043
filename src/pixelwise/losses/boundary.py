"""Boundary loss: Kervadec, Bouchtiba, Desrosiers, Granger, Dolz, Ben Ayed 2019, arXiv 1812.07032.

Shapes: B batch, K classes, H W full size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from pixelwise.errors import ConfigError
from pixelwise.kernels.upsample_loss import enlarge
from pixelwise.losses.arguments import Pixels, prepare, ratio, whole


def boundary_loss(
    logits: Tensor | Pixels,
    target: Tensor,
    *,
    classes: Sequence[int] | None = None,
    maps: Tensor | None = None,
    ignore_index: int = 255,
    check: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Boundary loss: the mean of p_k times the signed distance to the boundary of class k in the truth, in pixels.

    The mean is over valid pixels and the chosen classes. Probability inside its class is rewarded and outside charged,
    both by how far from the boundary, so values can be negative. A class absent from an image adds 0 there. Meant
    beside a region loss (`dice+0.01*boundary`): alone it is content with an empty mask. Its maps of distances have the
    size [B, K, H, W], and so has the softmax here: unlike the other losses it does build the enlarged logits.

    Args:
        logits: [B, K, H, W] floating point, or [B, K, h, w] with `align_corners`; computed in float32 (float64 for
            float64 logits).
        target: [B, H, W] integer ids in 0..K-1, or `ignore_index` (void), which reaches neither value nor gradient; a
            batch that is all void gives 0 with zero gradient.
        classes: ids that count, by default all; the paper leaves out the background.
        maps: [B, K, H, W] from `distance_maps`, where they were made beforehand (in the workers, say). Without them
            they are computed here with scipy on the CPU, which waits for a GPU.
        check: look for ids that are neither a class nor void.

    Raises:
        ConfigError: shapes, dtypes or options that do not fit.
        DataError: an id that is neither a class nor void.
    """
    pixels = prepare(logits, target, ignore_index, check, align_corners)
    chosen = _chosen(classes, pixels.classes)
    wanted = (len(pixels.labels), pixels.classes, *pixels.size)
    if maps is None:
        maps = distance_maps(pixels.labels, pixels.classes, ignore_index=-1)
    elif tuple(maps.shape) != wanted:
        raise ConfigError(f"maps must be [B, K, H, W] = {list(wanted)}, got {list(maps.shape)}")
    valid = pixels.valid.unsqueeze(1)
    signed = torch.where(valid, maps.detach().to(pixels.logits)[:, chosen], 0.0)
    full = enlarge(pixels.logits, pixels.size, pixels.align_corners).masked_fill(~valid, 0.0)
    products = full.softmax(1)[:, chosen] * signed  # [B, k, H, W]
    return ratio(products.sum(), pixels.valid.sum() * len(chosen))


def distance_maps(target: Tensor, classes: int, *, ignore_index: int = 255) -> Tensor:
    """Signed Euclidean distance in pixels to each class of a truth, [B, K, H, W] float32 on the target's device.

    At a pixel of another class: the distance d to the nearest pixel of class k. At a pixel of class k: 1 - d, with d
    the distance to the nearest pixel of another class, so 0 on the inner edge (the authors' own rule). 0 everywhere for
    a class that is absent from an image or alone in it, which has no boundary. Void is neither: it has value 0 and no
    distance is measured to it, so padding an image with void changes nothing.

    Args:
        target: [B, H, W] integer ids; an id outside 0..classes-1 has no map but counts as another class.
        classes: K.
    """
    ids = target.detach().cpu().long().numpy()
    maps = np.zeros((ids.shape[0], classes, *ids.shape[1:]), dtype=np.float32)
    for image, planes in zip(ids, maps, strict=True):
        valid = image != ignore_index
        for k in np.unique(image[valid]):
            if 0 <= k < classes:
                planes[k] = _signed_distance(image == k, valid)
    return torch.from_numpy(maps).to(target.device)


def _signed_distance(inside: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    outside = valid & ~inside
    inside = valid & inside
    if not outside.any():  # scipy's transform is undefined where there is nothing to measure to
        return np.zeros(inside.shape, np.float32)
    to_class = distance_transform_edt(~inside)
    to_others = distance_transform_edt(~outside)
    return np.where(outside, to_class, np.where(inside, 1 - to_others, 0)).astype(np.float32)


def _chosen(classes: Sequence[int] | None, count: int) -> list[int]:
    if classes is None:
        return list(range(count))
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not classes:
        raise ConfigError(f"classes must be a list of class ids, got {classes!r}")
    chosen = [whole("a class", k) for k in classes]
    if max(chosen) >= count or len(set(chosen)) < len(chosen):
        raise ConfigError(f"classes must be different ids in 0..{count - 1}, got {list(classes)}")
    return chosen
