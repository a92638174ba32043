"""Crops of 512 x 512 from JPEGs and their masks, beside torchvision v2 and albumentations; see `speed_data`."""

from __future__ import annotations

from speed_data import row

ROW = row("the same with an 8-bit PNG mask", masks=True)
