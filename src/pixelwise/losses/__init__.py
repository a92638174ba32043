"""Losses for segmentation: each `(logits [B, K, H, W], target [B, H, W], *, ignore_index=255, ...) -> scalar`.

    pixel     cross_entropy, focal, ohem_cross_entropy, topk_cross_entropy
    region    dice, generalised_dice, log_cosh_dice, tversky, focal_tversky
    lovasz    lovasz_softmax
    boundary  boundary_loss, distance_maps
    matched   the Hungarian set loss of `Queries`, which `criterion.criterion` chooses by the kind of output
    mix       parse("ce+0.5*dice") -> Mix, which gives {name: weighted loss}; names(), table()
    weights   class_weights(counts, rule) and its rules

Logits [B, K, h, w] on a coarser grid than the target's are enlarged within a loss that is told how (`align_corners`).
Common to all: computed in float32 or better; void (`ignore_index`) reaches neither value nor gradient; all void is
exactly 0 with zero gradient; an id that is neither class nor void raises DataError.
"""

import pixelwise.losses.matched  # noqa: F401  # registers the loss of `Queries` with `criterion`
from pixelwise.losses.boundary import boundary_loss, distance_maps
from pixelwise.losses.lovasz import lovasz_softmax
from pixelwise.losses.mix import Mix, Term, names, parse, table
from pixelwise.losses.pixel import cross_entropy, focal, ohem_cross_entropy, topk_cross_entropy
from pixelwise.losses.region import dice, focal_tversky, generalised_dice, log_cosh_dice, tversky
from pixelwise.losses.weights import class_weights

__all__ = [
    "Mix",
    "Term",
    "boundary_loss",
    "class_weights",
    "cross_entropy",
    "dice",
    "distance_maps",
    "focal",
    "focal_tversky",
    "generalised_dice",
    "log_cosh_dice",
    "lovasz_softmax",
    "names",
    "ohem_cross_entropy",
    "parse",
    "table",
    "topk_cross_entropy",
    "tversky",
]
