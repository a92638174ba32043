"""Crops of 512 x 512 from JPEGs, image alone, beside torchvision v2 and albumentations; see `speed_data`."""

from __future__ import annotations

from speed_data import row

ROW = row("24 x read, scale 0.5 to 2, crop 512, flip, jitter, normalise a 2048x1024 JPEG", masks=False)
