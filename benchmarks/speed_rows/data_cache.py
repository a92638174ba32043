"""Crops of 512 x 512 from the decoded cache, beside torchvision v2 that decodes; see `speed_data`."""

from __future__ import annotations

from speed_data import row_from_cache

ROW = row_from_cache("24 x the crop of a 2048x1024 image from the decoded cache", masks=False)
