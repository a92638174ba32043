"""Crops of 512 x 512 with their masks from the decoded cache, beside torchvision v2 that decodes; see `speed_data`."""

from __future__ import annotations

from speed_data import row_from_cache

ROW = row_from_cache("the same with its mask", masks=True)
