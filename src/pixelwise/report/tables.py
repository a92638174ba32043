"""Scores as a person reads them: headline numbers, a row per class, settings line by line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from pixelwise.core.classes import Classes
from pixelwise.report.runs import PRIMARY

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
    "boundary_precision": ("boundary precision", "share of the answer's borders that are right"),
    "boundary_recall": ("boundary recall", "share of the true borders that were found"),
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
    "ap_all": ("AP of all", "average precision with every detection, not the best 100 of an image and class alone"),
    "ar": ("AR", "average recall, the best 100 detections of an image and class"),
    "ar1": ("AR 1", "average recall, the best detection of an image and class"),
    "ar10": ("AR 10", "average recall, the best 10 detections of an image and class"),
    "ar_small": ("AR small", "average recall of objects below 32 x 32 pixels"),
    "ar_medium": ("AR medium", "average recall of objects of 32 x 32 to 96 x 96 pixels"),
    "ar_large": ("AR large", "average recall of objects above 96 x 96 pixels"),
    "ar_all": ("AR of all", "average recall with every detection"),
    "cityscapes_ap": ("Cityscapes AP", "average precision by Cityscapes' rule, mean over IoU 0.50 to 0.95"),
    "cityscapes_ap50": ("Cityscapes AP50", "average precision by Cityscapes' rule at IoU 0.50"),
    "aji": ("AJI", "aggregated Jaccard index (MoNuSeg's rule), mean over images"),
    "aji_plus": ("AJI+", "aggregated Jaccard index with one-to-one pairs, mean over images"),
    "object_dice": (
        "object Dice",
        "Dice of each object with its partner, by area (GlaS), images pooled",
    ),
    "object_dice_per_image": ("object Dice by image", "object Dice of each image alone, mean over images"),
    "f1": ("F1", "2 TP / (2 TP + FP + FN) of objects, mean over IoU 0.50 to 0.95"),
    "f1_50": ("F1 at 50", "2 TP / (2 TP + FP + FN) of objects at IoU 0.50"),
    "f1_75": ("F1 at 75", "2 TP / (2 TP + FP + FN) of objects at IoU 0.75"),
    "accuracy_50": ("TP/(TP+FP+FN) at 50", "of objects at IoU 0.50"),
    "accuracy_75": ("TP/(TP+FP+FN) at 75", "of objects at IoU 0.75"),
    "accuracy_per_class": ("TP/(TP+FP+FN)", "of objects, mean over IoU 0.50 to 0.95"),
    "tp": ("matched", "segments found"),
    "fp": ("false", "segments where there are none"),
    "fn": ("missed", "segments not found"),
    "loss": ("loss", "on the data that was scored"),
}
COUNTS = ("tp", "fp", "fn")
HEADLINES = ("pixel_accuracy", "mean_accuracy", "mdice", "fwiou", "sq", "rq", "pq_things", "pq_stuff", "ap50", "ap75",
             "ar", "accuracy", "accuracy_50", "f1", "f1_50", "f1_75", "aji", "aji_plus", "object_dice",
             "object_dice_per_image", "cityscapes_ap", "cityscapes_ap50", "ap_all", "ar_all", "ar1", "ar10", "ar_small",
             "ar_medium", "ar_large", "ap_small", "ap_medium", "ap_large", "boundary_iou", "boundary_f")  # fmt: skip


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
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


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
    keys = [primary] if primary else [key for key in PRIMARY.values() if key in metrics][:1]
    keys += [key for key in (*PRIMARY.values(), *HEADLINES) if key not in keys]
    cards = []
    for key in keys:
        value = metrics.get(key)
        if key in metrics and (value is None or isinstance(value, (int, float, np.floating, np.integer))):
            # an accuracy that is one number is that of objects; that of pixels comes by class
            name, explanation = name_of("accuracy_per_class" if key == "accuracy" else key)
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
    """`columns` (name, explanation); `rows` (class, colour, cells); `feet` (title, a cell per column: mean or sum).

    kinds   "thing" or "stuff" by row where there are both, else empty; then the feet have a row for each of the two
    """

    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, list[Cell]]]
    feet: list[tuple[str, list[Cell]]]
    kinds: list[str]
    counted: bool  # whether some columns are counts


def class_table(
    metrics: Mapping[str, Any], classes: Classes, shares: Sequence[float] | None = None
) -> ClassTable | None:
    """Every metric that has a value per class; None when there is none. `shares` [K] of the pixels, 0..1."""
    per_class = {k: v for k, v in metrics.items() if _is_row(k, v, len(classes))}
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
        body.append([_cell(value, key in COUNTS) for value in per_class[key]])
    rows = [(name, css(classes.colours[k]), [column[k] for column in body]) for k, name in enumerate(classes.names)]
    counted = any(key in COUNTS for key in per_class)
    kinds = ["thing" if thing else "stuff" for thing in classes.is_thing]
    kinds = kinds if len(set(kinds)) == 2 and "pq_per_class" in metrics else []
    feet = []
    for title in ("", *dict.fromkeys(kinds)):
        chosen = [k for k in range(len(classes)) if not title or kinds[k] == title]
        means = [_mean([column[k] for k in chosen], name) for column, (name, _) in zip(body, columns)]
        feet.append((title.replace("thing", "things") or ("mean, sum" if counted else "mean"), means))
    return ClassTable(columns, rows, feet, kinds, counted)


def _is_row(key: str, value: Any, length: int) -> bool:
    if key.endswith(("confusion", "_per_threshold")):  # as many thresholds as classes are no classes
        return False
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
