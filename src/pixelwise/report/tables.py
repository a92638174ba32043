"""Scores as a person reads them: headline numbers, a row per class, the confusion matrix, settings line by line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from pixelwise.core.classes import Classes

# key of a metric -> (name, what it is)
NAMES = {
    "miou": ("mIoU", "mean over classes of intersection over union"),
    "iou": ("IoU", "intersection over union"),
    "mdice": ("mean Dice", "mean over classes of 2 TP / (2 TP + FP + FN)"),
    "dice": ("Dice", "2 TP / (2 TP + FP + FN), also called F1"),
    "pixel_accuracy": ("pixel accuracy", "share of known pixels with the right class"),
    "mean_accuracy": ("mean accuracy", "mean over classes of the share of its pixels that were found"),
    "accuracy": ("accuracy", "share of the class's pixels that were found (recall)"),
    "fwiou": ("fwIoU", "IoU weighted by the share of pixels"),
    "boundary_iou": ("boundary IoU", "IoU of the strips along the borders"),
    "boundary_f": ("boundary F", "F-measure of the borders"),
    "pq": ("PQ", "panoptic quality: SQ x RQ"),
    "sq": ("SQ", "segmentation quality: mean IoU of matched segments"),
    "rq": ("RQ", "recognition quality: F1 of segments"),
    "pq_things": ("PQ things", "panoptic quality over countable classes"),
    "pq_stuff": ("PQ stuff", "panoptic quality over stuff"),
    "ap": ("AP", "mask average precision, mean over IoU 0.50 to 0.95"),
    "ap50": ("AP50", "average precision at IoU 0.50"),
    "ap75": ("AP75", "average precision at IoU 0.75"),
    "ap_small": ("AP small", "AP of objects below 32 x 32 pixels"),
    "ap_medium": ("AP medium", "AP of objects of 32 x 32 to 96 x 96 pixels"),
    "ap_large": ("AP large", "AP of objects above 96 x 96 pixels"),
    "ar": ("AR", "average recall"),
    "tp": ("matched", "segments found"),
    "fp": ("false", "segments where there are none"),
    "fn": ("missed", "segments not found"),
    "loss": ("loss", "on the data that was scored"),
}
PRIMARY = ("pq", "ap", "miou")
HEADLINES = ("pixel_accuracy", "mean_accuracy", "mdice", "fwiou", "sq", "rq", "pq_things", "pq_stuff", "ap50", "ap75",
             "ar", "ap_small", "ap_medium", "ap_large", "boundary_iou", "miou_boundary", "mean_boundary_iou")  # fmt: skip
CELLS = 40  # classes up to which the confusion matrix is a table; above it is a picture
COUNTED = 20  # classes up to which its cells show counts too


def absent() -> Markup:
    """What stands where a score is NaN."""
    return Markup('<span class="absent" title="absent: nothing to score">–<span class="unseen"> absent</span></span>')


def percent(value: Any, digits: int = 1) -> str | Markup:
    """0.4567 -> "45.7"; NaN and None -> a dash that says absent."""
    return absent() if value is None or math.isnan(float(value)) else f"{100 * float(value):.{digits}f}"


def short(number: float) -> str:
    """1234567 -> "1.2M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """3723 -> "1 h 2 min"; "–" where unknown."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    return f"{minutes} min" if minutes < 60 else f"{hours} h {round(seconds / 60 - 60 * hours)} min"


def name_of(key: str) -> tuple[str, str]:
    """(name, explanation) of a metric's key; a key nobody named is shown as words."""
    return NAMES.get(key) or NAMES.get(key.removesuffix("_per_class")) or (key.replace("_", " "), "")


@dataclass(frozen=True)
class Card:
    """One headline number."""

    name: str
    value: Any
    unit: str = ""
    note: str = ""


def headlines(metrics: Mapping[str, Any], primary: str | None = None) -> list[Card]:
    """The task's primary score first, then what else is known of the whole."""
    keys = [primary] if primary else [key for key in PRIMARY if key in metrics][:1]
    keys += [key for key in (*PRIMARY, *HEADLINES) if key not in keys]
    cards = []
    for key in keys:
        value = metrics.get(key)
        if key in metrics and (value is None or isinstance(value, (int, float, np.floating, np.integer))):
            name, explanation = name_of(key)
            shown = percent(value)
            cards.append(Card(name, shown, "" if isinstance(shown, Markup) else "%", explanation))
    return cards


@dataclass(frozen=True)
class Cell:
    """`text` is shown, `sort` orders, `bar` is 0..1 (None draws none)."""

    text: Any
    sort: float
    bar: float | None = None


@dataclass(frozen=True)
class ClassTable:
    """`columns` (name, explanation); `rows` (class name, colour, cells); `means` one cell per column."""

    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, list[Cell]]]
    means: list[Cell]


def class_table(metrics: Mapping[str, Any], classes: Classes, shares: Sequence[float] | None = None) -> ClassTable | None:
    """Every metric that has a value per class; None when there is none. `shares` [K] of the pixels, 0..1."""
    per_class = {k: v for k, v in metrics.items() if k != "confusion" and _is_row(v, len(classes))}
    if shares is None:
        shares = pixel_shares(metrics.get("confusion"), len(classes))
    if not per_class and shares is None:
        return None
    columns, body = [], []
    if shares is not None:
        columns.append(("share", "of the known pixels of the truth"))
        body.append([Cell(percent(s, 2 if s < 0.1 else 1), float(s), float(s)) for s in shares])
    for key in sorted(per_class, key=_order):
        columns.append(name_of(key))
        body.append([_cell(value, key in ("tp", "fp", "fn")) for value in per_class[key]])
    rows = [(name, css(classes.colours[k]), [column[k] for column in body]) for k, name in enumerate(classes.names)]
    means = [_mean(column, name) for column, (name, _) in zip(body, columns)]
    return ClassTable(columns, rows, means)


def _is_row(value: Any, length: int) -> bool:
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != length or not length:
        return False
    return all(v is None or isinstance(v, (int, float, np.integer, np.floating)) for v in value)


def _order(key: str) -> tuple[int, str]:
    plain = key.removesuffix("_per_class")
    known = list(NAMES)
    return (known.index(plain) if plain in known else len(known), key)


def _cell(value: Any, count: bool) -> Cell:
    number = math.nan if value is None else float(value)
    if math.isnan(number):
        return Cell(absent(), -1.0)
    return Cell(f"{number:.0f}", number) if count else Cell(percent(number), number, min(1.0, max(0.0, number)))


def _mean(column: list[Cell], name: str) -> Cell:
    known = [cell.sort for cell in column if not isinstance(cell.text, Markup)]
    if not known or name == "share":
        return Cell("", 0.0)
    if column[0].bar is None and all(cell.bar is None for cell in column):
        return Cell(f"{sum(known):.0f}", 0.0)
    return Cell(percent(float(np.mean(known))), 0.0)


def css(colour: Sequence[int]) -> str:
    """(255, 0, 16) -> "#ff0010"."""
    return "#" + "".join(f"{int(v):02x}" for v in colour[:3])


def pixel_shares(counts: Any, num_classes: int) -> list[float] | None:
    """[K] share of the true pixels, from a confusion matrix [K+1, K+1] or pixel counts [K]; None without any."""
    if counts is None:
        return None
    table = np.asarray(counts, dtype=np.float64)
    per_class = (table.sum(1) if table.ndim == 2 else table)[:num_classes]
    whole = table.sum()
    return (per_class / whole).tolist() if whole > 0 and len(per_class) == num_classes else None


@dataclass(frozen=True)
class Confusion:
    """Rows are the truth, columns the prediction, `names` and `colours` of both; one cell is (share of the row, count, strength)."""

    names: list[str]
    colours: list[str]
    cells: list[list[tuple[float, int, float]]]
    counted: bool
    worst: list[tuple[str, str, float, int]]  # truth, prediction, share, count: the commonest mistakes


def confusion(counts: Any, classes: Classes) -> Confusion | None:
    """The matrix [K+1, K+1] normalised by the truth; what is nothing is left out where it never occurs. None without one."""
    if counts is None:
        return None
    table = np.asarray(counts, dtype=np.int64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not table.sum():
        return None
    names = [*classes.names, "nothing"][: len(table)]
    colours = [*(css(c) for c in classes.colours), "#808080"][: len(table)]
    if len(names) > len(classes) and not table[-1].sum() and not table[:, -1].sum():
        table, names, colours = table[:-1, :-1], names[:-1], colours[:-1]
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    cells = [[(float(s), int(n), _strength(s)) for s, n in zip(*row)] for row in zip(share, table)]
    wrong = np.where(np.eye(len(table), dtype=bool), 0, table)
    order = [divmod(int(i), len(table)) for i in np.argsort(-wrong, axis=None, kind="stable")[:8]]
    worst = [(names[t], names[p], float(share[t, p]), int(table[t, p])) for t, p in order if wrong[t, p]]
    return Confusion(names, colours, cells, len(names) <= COUNTED + 1, worst)


def _strength(share: float) -> float:
    """How strongly a cell is tinted, 0..1: a square root, so that mistakes of a few percent are seen."""
    return round(float(share) ** 0.5, 3)


def lines(settings: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted name, value) pairs."""
    found: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += lines(value, f"{prefix}{key}.")
        else:
            text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            found.append((f"{prefix}{key}", "–" if text in (None, "") else str(text)))
    return found
