"""Soft Dice of 2x150x128x128 logits against 512x512 truth, forward and backward, beside F.interpolate and smp or MONAI.

The usual way of the target is smp's. MONAI counts absent classes and void otherwise, so its value differs; smp's own
float32 sums are what separates it from ours.
"""

from __future__ import annotations

from speed_losses import monai_dice, row, smp_dice

ROW = row("bilinear x4 + Dice, forward and backward, 2x150x128x128 to 512x512", "dice",
          {"smp": smp_dice, "MONAI": monai_dice}, target={"smp": 15})  # fmt: skip
