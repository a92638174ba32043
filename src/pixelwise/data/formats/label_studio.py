"""Label Studio exports (labelstud.io): JSON and JSON-MIN with polygons, brush strokes, rectangles, ellipses.

Coordinates are per cent of width and height. Brush strokes are run-length codes of their own kind (`core.brush`). Each
region is an object; later ones lie above earlier ones. A rectangle says where an object is, not which pixels are its
own: its inside is unknown. Keypoints have no area and are left out, and so are predictions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import numpy as np

from pixelwise.core import brush
from pixelwise.core.classes import Classes
from pixelwise.core.polygons import Window
from pixelwise.data.assembly import check_missing, make_data_set, split_entries
from pixelwise.data.dataset import DataSet, Record
from pixelwise.data.io import ENDINGS, MAX_PIXELS, read_header
from pixelwise.data.layout import Files, index
from pixelwise.data.pieces import Drawing, Row, ShapeReader, turned
from pixelwise.data.slices import Slices, walk
from pixelwise.data.table import named_classes
from pixelwise.errors import DataError, nearest

DESCRIPTION = "Label Studio: a JSON or JSON-MIN export with polygons, brush strokes, rectangles; images beside it"
LABELS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels", "labels")
SIGNS = tuple(f'"{word}"'.encode() for word in (*LABELS, "annotations", "completions", "original_width", "annotator"))
UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an uploaded file

Region = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Tasks(ShapeReader):
    """Reads the task of a record; `entry` counts them over all files.

    slices  one per file; `starts` the first entry of each
    """

    slices: tuple[Slices, ...]
    starts: tuple[int, ...]
    classes: Classes
    max_pixels: int = MAX_PIXELS

    def file(self, record: Record) -> Path:
        return self._place(record)[0].path

    def _place(self, record: Record) -> tuple[Slices, int]:
        entry = int(record.entry or 0)
        at = max(k for k, start in enumerate(self.starts) if start <= entry)
        return self.slices[at], entry - self.starts[at]

    def draw(self, record: Record) -> Drawing:
        slices, row = self._place(record)
        (task,) = slices.read(slice(row, row + 1))
        path, task_id = slices.path, task.get("id", row + 1)
        regions = _regions(task) or []
        told = [(r["original_height"], r["original_width"]) for r in regions if r.get("original_height")]
        size = told[0] if told else read_header(record.image, max_pixels=self.max_pixels).size
        if any(other != size for other in told) or not all(isinstance(v, int) and v > 0 for v in size):
            raise DataError(f"{path}: task {task_id}: its regions are of images of several sizes, {sorted(set(told))}.")
        drawing = Drawing(size, path)
        for number, region in enumerate(regions, 1):
            where = f"task {task_id}, region {number}"
            row_of = self._row(drawing, region, where)
            drawing.rows += [row_of] if row_of else []
        drawing.rows.reverse()
        return drawing

    def _row(self, drawing: Drawing, region: Region, where: str) -> Row | None:
        names = _labels(region)
        if len(names) != 1:
            said = f"has the labels {', '.join(names)}; expected one" if names else "has no label"
            raise DataError(f"{drawing.path}: {where} {said}.")
        if names[0] not in self.classes.names:
            raise DataError(f"{drawing.path}: {where} has the label '{names[0]}', which is no class; "
                            f"{nearest(names[0], self.classes.names)}")  # fmt: skip
        label = self.classes.names.index(names[0])
        if "rle" not in region and "points" not in region and "radiusX" not in region:
            return Row(label, box=_rectangle(drawing, region, where))
        window = _window(drawing, region, where)
        return None if window is None else Row(label, [window])


def _regions(task: Mapping[str, Any]) -> list[Region] | None:
    """The drawn regions of a task, geometry and labels in one object; None for a task that nobody annotated."""
    annotations = task.get("annotations", task.get("completions"))
    if annotations is None:  # JSON-MIN: each tool is a member of the task
        found = [region for value in task.values() if isinstance(value, list) for region in value]
        regions = [region for region in found if isinstance(region, dict)]
    else:
        done = [a for a in annotations if not a.get("was_cancelled")]
        if not done:
            return None
        chosen = next((a for a in done if a.get("ground_truth")), done[0])
        regions = [{**r, **r["value"]} for r in chosen.get("result", []) if isinstance(r.get("value"), dict)]
    drawn = [r for r in regions if {"points", "rle", "radiusX"} & r.keys() or {"x", "y", "width", "height"} <= r.keys()]
    labelled = {r.get("id") for r in drawn if _labels(r)}
    return [r for r in drawn if _labels(r) or r.get("id") not in labelled]  # a tool and its label may come as two


def _labels(region: Region) -> list[str]:
    return next((list(map(str, region[word])) for word in LABELS if region.get(word)), [])


def _numbers(drawing: Drawing, region: Region, where: str, *names: str) -> list[float]:
    """Values of a region. Raises DataError for one that is no number."""
    values = [region.get(name, 0) for name in names]
    if not all(isinstance(v, int | float) and np.isfinite(v) for v in values):
        raise DataError(f"{drawing.path}: {where}: {', '.join(names)} must be numbers, got {values}.")
    return [float(v) for v in values]


def _rectangle(drawing: Drawing, region: Region, where: str) -> tuple[float, float, float, float]:
    """x0 y0 x1 y1 in pixels around a rectangle, which is turned about its upper left corner."""
    x, y, w, h, angle = _numbers(drawing, region, where, "x", "y", "width", "height", "rotation")
    height, width = drawing.size
    x, y, w, h = x / 100 * width, y / 100 * height, w / 100 * width, h / 100 * height
    corners = turned((x, y, x + w, y + h), angle, (x, y))
    (x0, y0), (x1, y1) = corners.min(0).clip(0).tolist(), corners.max(0).clip(0, (width, height)).tolist()
    return x0, y0, x1, y1


def _window(drawing: Drawing, region: Region, where: str) -> Window | None:
    height, width = drawing.size
    if "points" in region:
        try:
            points = np.asarray(region["points"], np.float64).reshape(-1, 2) / 100 * (width, height)
        except (TypeError, ValueError):
            raise DataError(f"{drawing.path}: {where}: points must be pairs [x, y] in per cent.") from None
        return drawing.polygon(points, where)
    if "radiusX" in region:
        x, y, rx, ry, angle = _numbers(drawing, region, where, "x", "y", "radiusX", "radiusY", "rotation")
        return drawing.ellipse(x / 100 * width, y / 100 * height, rx / 100 * width, ry / 100 * height, angle)
    try:
        return drawing.mask(brush.decode(region["rle"], drawing.size), 0, 0)
    except DataError as error:
        raise DataError(f"{drawing.path}: {where}: {error}") from None


def recognise(root: Path) -> bool:
    return bool(_exports(root))


def _exports(root: Path) -> list[Path]:
    """JSON files at the root that hold a list, of tasks by the words near its start."""
    found = []
    for path in sorted(root.glob("*.json")):
        with path.open("rb") as file:
            start = file.read(64)
            if not start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                continue  # as most JSON files: there may be thousands
            start += file.read(1 << 16)
        if any(sign in start for sign in SIGNS):
            found.append(path)
    return found


def open(root: Path, *, class_table: Classes | str | Path | None = None, channels: int | None = None, seed: int = 0,
         missing: Literal["refuse", "skip"] = "refuse", max_pixels: int = MAX_PIXELS) -> DataSet:  # fmt: skip
    """Opens a Label Studio export.

    class_table  `Classes`, or the path of a classes.txt; None looks beside the data, and then takes the labels found
    channels     of every image; None takes the most that the images have
    seed         of the split by name, where there is no other
    missing      what to do with a task whose image is not there: "refuse" it, or "skip" it and say so
    Of several annotations of a task the one marked as ground truth is taken, or else the first.
    Raises DataError for what does not fit, naming the file.
    """
    root = Path(root)
    check_missing(missing)
    paths = _exports(root)
    if not paths:
        raise DataError(f"{root}: no JSON export of Label Studio was found; expected a *.json with a list of tasks.")
    files, labels, images = Files(), set[str](), _by_file_name(root)
    slices, starts, entries = list[Slices](), list[int](), dict[str, int]()
    for path in paths:
        starts.append(starts[-1] + len(slices[-1].starts) if slices else 0)
        slices.append(_index(path, starts[-1], root, images, files, labels, entries, missing))
    if not entries:
        raise DataError(f"{paths[0]}: none of its tasks is annotated and has its image below {root}.")
    classes = named_classes(root, class_table, labels, files.notes)
    splits = split_entries(root, files, entries, seed)
    reader = Tasks(slices=tuple(slices), starts=tuple(starts), classes=classes, max_pixels=max_pixels)
    return make_data_set(root, "label_studio", splits, reader, files.notes, classes=classes, task="instance",
                         channels=channels, max_pixels=max_pixels)  # fmt: skip


def _index(path: Path, first: int, root: Path, images: dict[str, list[Path]], files: Files, labels: set[str],
           entries: dict[str, int], missing: str) -> Slices:  # fmt: skip
    """One pass over an export: enters images, labels and entries; returns where each task stands."""
    starts, ends, lost, bare, several = list[int](), list[int](), list[str](), 0, 0
    for element in walk(path, ("",)):
        task = element.value
        if element.member or not isinstance(task, dict):
            raise DataError(f"{path}: is no list of tasks.")
        starts.append(element.start)
        ends.append(element.end)
        regions = _regions(task)
        if regions is None:
            bare += 1
            continue
        several += len([a for a in task.get("annotations", ()) if not a.get("was_cancelled")]) > 1
        told = _told(path, task, element.number)
        image = _find(path, told, images)
        if image is None:
            lost.append(told)
            continue
        name = image.relative_to(root).with_suffix("").as_posix().removeprefix("images/")
        if name in entries and "data" not in task:  # JSON-MIN repeats a task for each of its annotations
            several += 1
            continue
        if name in entries:
            raise DataError(
                f"{path}: task {task.get('id', element.number + 1)} is of the image {image}, as another is."
            )
        entries[name], files.images[name] = first + element.number, image
        labels.update(label for region in regions for label in _labels(region))
    if lost and missing == "refuse":
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise DataError(f"{path}: the image '{lost[0]}'{more} is not below {root}; add it, or leave such images out by "
                        "the format's option missing=skip.")  # fmt: skip
    for count, what in ((len(lost), "name an image that is not there"), (bare, "are not annotated")):
        files.notes += [f"{count} tasks of {path.name} {what}; they are left out."] if count else []
    files.notes += [f"{several} tasks have several annotations; one of each is read."] if several else []
    return Slices.of(path, starts, ends)


def _told(path: Path, task: Mapping[str, Any], number: int) -> str:
    """The image that a task names."""
    data = task.get("data", task)
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    named = [text for text in texts.values() if _file_name(text).lower().endswith(ENDINGS)]
    if "image" in texts or named:
        return texts.get("image") or named[0]
    raise DataError(f"{path}: task {task.get('id', number + 1)} names no image.")


def _file_name(told: str) -> str:
    return PurePosixPath(_location(told)).name


def _location(told: str) -> str:
    """The path in an address: of /data/local-files/?d=a/b.jpg that behind d=."""
    try:
        parts = urlsplit(told)
    except ValueError:
        return told
    inner = parts.query.removeprefix("d=") if parts.query.startswith("d=") else parts.path
    return unquote(inner).replace("\\", "/")


def _by_file_name(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in index(root, files=Files(faults=[])).values():
        found.setdefault(path.name, []).append(path)
    return found


def _find(path: Path, told: str, images: dict[str, list[Path]]) -> Path | None:
    """The image whose path ends most like what is told; the mark of an upload before its name may be missing."""
    parts = PurePosixPath(_location(told)).parts
    if not parts:
        return None
    for name in (parts[-1], UPLOAD.sub("", parts[-1], count=1)):
        alike = sorted(images.get(name, []), key=lambda image: -_shared(image.parts[:-1], parts[:-1]))
        if len(alike) > 1 and _shared(alike[0].parts[:-1], parts[:-1]) == _shared(alike[1].parts[:-1], parts[:-1]):
            raise DataError(
                f"{path}: '{told}' may be {alike[0]} or {alike[1]}; keep the folders that the export names."
            )
        if alike:
            return alike[0]
    return None


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many folders, from the last on, have the same name."""
    pairs: Iterator[tuple[str, str]] = zip(reversed(one), reversed(other))
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
