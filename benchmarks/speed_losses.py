"""What the rows `speed_rows/loss_*.py` share: the batch, our losses on the grid, the usual ones on enlarged logits.

A side's work is one forward and backward pass; its answer is the value and a part of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from speed_side import Row, Work
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
SEEN = 4096  # numbers of the gradient that are compared


def batch(classes: int, grid: int, factor: int, images: int = 2) -> tuple[Tensor, Tensor]:
    """Logits [B, K, h, w] as smooth as a net's, and a truth [B, H, W] of blobs that they half know, 2 % void."""
    made = torch.Generator().manual_seed(0)
    coarse = torch.randn(images, classes, 16, 16, generator=made)
    smooth = F.interpolate(coarse, size=(grid, grid), mode="bicubic", align_corners=False)
    logits = 3 * smooth + torch.randn(images, classes, grid, grid, generator=made)
    truth = F.interpolate(smooth, scale_factor=factor, mode="nearest").argmax(1) if factor > 1 else smooth.argmax(1)
    truth[:, : max(1, grid * factor // 50)] = 255 if classes < 255 else -1
    return logits, truth


def work(loss: Loss, classes: int, grid: int, factor: int, images: int = 2) -> Work:
    """Compiles on a tiny batch of the same kind, then gives the pass over the batch."""

    def step(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        logits.grad = None
        value = loss(logits, truth)
        value.backward()
        assert logits.grad is not None
        return value.detach(), logits.grad

    tiny, truth = batch(classes, 16, factor, 1)
    step(tiny.requires_grad_(), truth)
    logits, truth = batch(classes, grid, factor, images)
    logits.requires_grad_()
    return lambda: step(logits, truth)


def enlarged(loss: Loss, factor: int) -> Loss:
    """The usual way: bilinear enlargement, then the loss."""

    def run(logits: Tensor, truth: Tensor) -> Tensor:
        if factor > 1:
            logits = F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
        return loss(logits, truth)

    return run


def on_grid(mix: str, ignore_index: int = 255) -> Loss:
    """Ours, as `criterion` calls it."""
    from pixelwise.losses import parse

    terms = parse(mix)

    def run(logits: Tensor, truth: Tensor) -> Tensor:
        return torch.stack(list(terms(logits, truth, ignore_index=ignore_index, align_corners=False).values())).sum()

    return run


def digest(answer: tuple[Tensor, Tensor]) -> dict[str, Any]:
    value, grad = answer
    flat = grad.flatten()
    some = flat[:: max(1, len(flat) // SEEN)]
    return {"value": float(value), "grad": some.tolist()}


def compare(answers: Mapping[str, Any]) -> str:
    ours, said = answers["pixelwise"], []
    for side, other in answers.items():
        if side != "pixelwise":
            value = abs(ours["value"] - other["value"]) / abs(other["value"])
            theirs = np.array(other["grad"])
            slope = np.abs(np.array(ours["grad"]) - theirs).max() / np.abs(theirs).max()
            said.append(f"{side}: value {value:.0e}, gradient {slope:.0e} of its largest")
    return "; ".join(said)


def row(what: str, mix: str, usual: Mapping[str, Callable[[], Loss]], *, classes: int = 150, grid: int = 128,
        factor: int = 4, images: int = 2, target: Mapping[str, float] | None = None) -> Row:  # fmt: skip
    """A row: `mix` of ours beside losses that take full-size logits."""
    void = 255 if classes < 255 else -1

    def side(make: Callable[[], Loss]) -> Callable[[], Work]:
        return lambda: work(enlarged(make(), factor), classes, grid, factor, images)

    sides = {"pixelwise": lambda: work(on_grid(mix, void), classes, grid, factor, images)}
    return Row(what, {**sides, **{name: side(make) for name, make in usual.items()}}, compare, target or {}, digest)


def cross_entropy(void: int = 255) -> Loss:
    return lambda logits, truth: F.cross_entropy(logits, truth, ignore_index=void)


def smp_dice(void: int = 255) -> Loss:
    from segmentation_models_pytorch.losses import DiceLoss

    return DiceLoss("multiclass", ignore_index=void)


def monai_dice(void: int = 255) -> Loss:
    """MONAI knows no void: as its users do, void becomes class 0."""
    from monai.losses import DiceLoss

    loss = DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=0, smooth_dr=1e-7)
    return lambda logits, truth: loss(logits, truth.masked_fill(truth == void, 0).unsqueeze(1))
