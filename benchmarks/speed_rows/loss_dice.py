"""Soft Dice of 2x150x128x128 logits against 512x512 truth, forward and backward, beside F.interpolate and smp or MONAI.

MONAI counts absent classes and void otherwise, so its value differs.
"""

from __future__ import annotations

from speed_losses import monai_dice, row, smp_dice

ROW = row("bilinear x4 + Dice, forward and backward, 2x150x128x128 to 512x512", "dice",
          {"smp": smp_dice, "MONAI": monai_dice}, target={"smp": 15, "MONAI": 15})  # fmt: skip
