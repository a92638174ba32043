"""Cross-entropy of 2x150x128x128 logits against 512x512 truth, forward and backward, beside F.interpolate and torch."""

from __future__ import annotations

from speed_losses import cross_entropy, row

ROW = row("bilinear x4 + cross-entropy, forward and backward, 2x150x128x128 to 512x512", "ce",
          {"F.cross_entropy": cross_entropy}, target={"F.cross_entropy": 6})  # fmt: skip
