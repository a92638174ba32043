"""Cross-entropy plus Dice, 2x150x128x128 logits against 512x512 truth, beside F.interpolate, torch and smp."""

from __future__ import annotations

from speed_losses import Loss, cross_entropy, row, smp_dice


def both() -> Loss:
    first, second = cross_entropy(), smp_dice()
    return lambda logits, truth: first(logits, truth) + second(logits, truth)


ROW = row("bilinear x4 + cross-entropy + Dice, forward and backward, 2x150x128x128 to 512x512", "ce+dice",
          {"F.cross_entropy + smp": both})  # fmt: skip
