"""What the data holds, for the report: how often each class comes, objects per image, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.core.classes import Classes
from pixelwise.report.plots import Chart, histogram, scatter
from pixelwise.report.tables import css, percent, pixel_shares, short


@dataclass(frozen=True)
class Row:
    """One class: its share of the known pixels, how many, and in how many images."""

    name: str
    colour: str
    share: float
    pixels: int
    images: int


@dataclass(frozen=True)
class Summary:
    """Facts, a row per class, charts."""

    facts: list[tuple[str, Any]]
    rows: list[Row]
    charts: list[Chart]
    has_images: bool


def summary(statistics: Any, classes: Classes | None) -> Summary | None:
    """From `Statistics` or its `to_dict()`; keys that are missing are left out. None where there are no statistics."""
    if statistics is None:
        return None
    told: Mapping[str, Any] = statistics if isinstance(statistics, Mapping) else statistics.to_dict()
    counts, images = told.get("pixel_counts"), told.get("image_counts")
    rows = []
    if counts is not None and classes is not None and len(counts) == len(classes):
        shares = pixel_shares(counts, len(classes)) or [0.0] * len(classes)
        seen = images if images is not None else [0] * len(classes)
        colours = map(css, classes.colours)
        rows = [Row(*row) for row in zip(classes.names, colours, shares, map(int, counts), map(int, seen))]
    objects = told.get("objects")
    charts = []
    if isinstance(objects, (list, tuple)) and any(objects):
        chart = histogram("Objects per image", objects, x_label="objects in an image", y_label="images")
        charts += [chart] if chart else []
    return Summary(_facts(told, _sizes(told)), rows, charts + _size_chart(_sizes(told)), images is not None)


def _sizes(told: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """(height, width, images) of every size."""
    sizes = told.get("sizes") or []
    entries = [(*size, n) for size, n in sizes.items()] if isinstance(sizes, Mapping) else sizes
    return [(int(h), int(w), int(n)) for h, w, n in entries]


def _facts(told: Mapping[str, Any], sizes: list[tuple[int, int, int]]) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = []
    if told.get("images"):
        facts.append(("images", f"{told['images']:,}"))
    if sizes:
        heights, widths = [s[0] for s in sizes], [s[1] for s in sizes]
        one = f"{widths[0]} x {heights[0]} pixels, all alike"
        many = f"{min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} high"
        facts.append(("size", one if len(sizes) == 1 else many))
    for key, name in (("mean", "mean per channel"), ("std", "deviation per channel")):
        if told.get(key) is not None and len(told[key]):
            values = " ".join(f"{float(v):.3f}" for v in list(told[key])[:6])
            facts.append((name, values + (" ..." if len(told[key]) > 6 else "")))
    objects = told.get("objects")
    if isinstance(objects, (list, tuple)) and any(objects):
        facts.append(("objects", f"{sum(objects):,}"))
    known = float(np.sum(told.get("pixel_counts") or 0)) + float(told.get("nothing") or 0)
    for key, name in (("void", "unknown pixels"), ("nothing", "pixels of no class")):
        if told.get(key):
            share = float(told[key]) / (known + float(told.get("void") or 0))
            facts.append((name, f"{short(float(told[key]))} ({percent(share)} %)"))
    return facts


def _size_chart(sizes: list[tuple[int, int, int]]) -> list[Chart]:
    if len(sizes) < 2:
        return []
    note = f"{sum(s[2] for s in sizes)} images in {len(sizes)} sizes"
    widths, heights = [s[1] for s in sizes], [s[0] for s in sizes]
    title, x_label, y_label = "Sizes of the images", "width, pixels", "height, pixels"
    return [scatter(title, widths, heights, x_label=x_label, y_label=y_label, note=note)]
