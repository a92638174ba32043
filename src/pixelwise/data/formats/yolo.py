"""YOLO segmentation as Ultralytics reads it: data.yaml, images, and beside them labels/NAME.txt with a line per object.

    path: .                      the root, or relative to it
    train: images/train          a folder, a list of images, or several of these
    val: images/val
    names: {0: person, 1: car}

A line is `class x1 y1 x2 y2 ...` in shares of width and height; four numbers are a box, x and y of its middle, width,
height. The label file of an image stands where the last folder `images` of its path is named `labels`. An empty file,
or none at all, says that the image shows no object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pixelwise.core.classes import Classes
from pixelwise.data.assembly import make_data_set
from pixelwise.data.dataset import DataSet, Record
from pixelwise.data.io import ENDINGS, MAX_PIXELS, read_header
from pixelwise.data.layout import SPLIT_NAMES, index
from pixelwise.data.pieces import Drawing, Row, ShapeReader
from pixelwise.errors import ConfigError, DataError

DESCRIPTION = "YOLO segmentation (Ultralytics): data.yaml, images/SPLIT, labels/SPLIT/*.txt with polygons"
SPLITS = ("train", "val", "test")
SLACK = 0.01  # how far outside 0..1 a coordinate may lie: exporters round; it is then cut off


@dataclass(frozen=True, kw_only=True)
class LabelFiles(ShapeReader):
    """Reads the text file of a record; `entry` is its path below the root, "" where there is none."""

    root: Path
    classes: Classes
    table: str
    max_pixels: int = MAX_PIXELS

    def file(self, record: Record) -> Path:
        return self.root / str(record.entry) if record.entry else record.image

    def draw(self, record: Record) -> Drawing:
        path = self.file(record)
        drawing = Drawing(read_header(record.image, max_pixels=self.max_pixels).size, path)
        if not record.entry:
            return drawing
        lines = [(number, line.split()) for number, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
        polygons = any(len(words) > 5 for _, words in lines)
        for number, words in lines:
            self._row(drawing, f"line {number}", words, polygons)
        return drawing

    def _row(self, drawing: Drawing, where: str, words: list[str], polygons: bool) -> None:
        try:
            key, *values = [float(word) for word in words]
        except ValueError:
            raise DataError(f"{drawing.path}, {where}: '{' '.join(words)[:60]}' are not all numbers.") from None
        if key not in self.classes.ids:
            raise DataError(
                f"{drawing.path}, {where}: the class {words[0]} is not in {self.table}, which names "
                f"{len(self.classes)} classes, {min(self.classes.ids)} to {max(self.classes.ids)}."
            )
        label = self.classes.ids.index(int(key))
        if len(values) % 2 or len(values) < 4 or (polygons and len(values) < 6):
            raise DataError(
                f"{drawing.path}, {where}: {len(values)} numbers behind the class; expected x and y of at least three "
                "points"
                + (" (a file has polygons or boxes, not both)." if polygons else ", or x y width height of a box.")
            )
        points = np.array(values).reshape(-1, 2)
        if not np.isfinite(points).all() or points.min() < -SLACK or points.max() > 1 + SLACK:
            raise DataError(
                f"{drawing.path}, {where}: coordinates from {points.min():g} to {points.max():g}; expected shares of "
                "width and height, 0 to 1."
            )
        height, width = drawing.size
        if len(values) == 4:
            (x, y), (w, h) = points * (width, height)
            box = (max(x - w / 2, 0), max(y - h / 2, 0), min(x + w / 2, width), min(y + h / 2, height))
            drawing.rows.append(Row(label, box=box))
            return
        window = drawing.polygon(points.clip(0, 1) * (width, height), where)
        if window is not None:
            drawing.rows.append(Row(label, [window]))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the label file cannot be read ({error}).") from None


def _tables(root: Path) -> list[Path]:
    """YAML files at the root that name classes and a split."""
    found = []
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "names:" in text and (any(f"{split}:" in text for split in SPLITS) or ": images/" in text):
            found.append(path)
    return found


def recognise(root: Path) -> bool:
    return bool(_tables(root))


def open(root: Path, *, table: str | None = None, channels: int | None = None,
         max_pixels: int = MAX_PIXELS) -> DataSet:  # fmt: skip
    """Opens a YOLO data set.

    table     name of the YAML file, where several lie at the root
    channels  of every image; None takes the most that the images have
    Raises DataError for what does not fit, naming the file.
    """
    root = Path(root)
    path, content = _read_table(root, table)
    classes = _classes(path, content)
    notes: list[str] = []
    words = (*SPLITS, *(word for word in content if word not in SPLITS and str(content[word]).startswith("images/")))
    splits = {split: tuple(_records(root, path, content, split, notes)) for split in words if content.get(split)}
    splits = {split: records for split, records in splits.items() if records}
    records = [r for group in splits.values() for r in group]
    if not records:
        raise DataError(f"{path}: none of its splits {', '.join(SPLITS)} names a folder or list with images.")
    bare = sum(not r.entry for r in records)
    if bare:
        notes.append(f"{bare} images have no label file: they show no object, as Ultralytics reads it.")
    reader = LabelFiles(root=root, classes=classes, table=path.name, max_pixels=max_pixels)
    return make_data_set(root, "yolo", splits, reader, notes, classes=classes, task="instance", channels=channels,
                         max_pixels=max_pixels)  # fmt: skip


def _read_table(root: Path, name: str | None) -> tuple[Path, dict[str, Any]]:
    found = [root / name] if name else _tables(root)
    if len(found) != 1:
        several = ", ".join(p.name for p in found)
        what = f"{several} all name classes and splits; say which by the option table=NAME" if found else "no data.yaml"
        raise DataError(f"{root}: {what}.")
    path = found[0]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected words like `train: images/train` and `names:`, got {str(content)[:60]!r}.")
    if "kpt_shape" in content:
        raise DataError(f"{path}: is a set of keypoints (kpt_shape), which has no masks.")
    return path, content


def _classes(path: Path, content: dict[str, Any]) -> Classes:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(k, int) and k >= 0 for k in names):
        raise DataError(f"{path}: names must be a list of class names, or lines `index: name`.")
    names = {key: str(names[key]) for key in sorted(names)}
    try:
        return Classes(names=tuple(names.values()), things=tuple(names.values()), ids=tuple(names), void=(),
                       nothing=True)  # fmt: skip
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from None


def _records(root: Path, table: Path, content: dict[str, Any], split: str, notes: list[str]) -> Iterator[Record]:
    entries = content[split] if isinstance(content[split], list) else [content[split]]
    found: dict[str, Record] = {}
    for entry in entries:
        place = _place(root, table, content.get("path"), str(entry))
        if place is None:
            notes.append(f"{table.name} names {split}: {entry}, which is not there.")
            continue
        for image in _listed(place) if place.is_file() else index(place).values():
            record = _record(root, image, split)
            if record.name in found:
                raise DataError(f"{table}: the image {image} stands twice in the split '{split}'.")
            found[record.name] = record
    yield from found.values()


def _place(root: Path, table: Path, base: Any, entry: str) -> Path | None:
    """Where an entry leads: below `path` where that exists here, else below the root, as exports are moved about."""
    bases = [table.parent / str(base)] if base else []
    for folder in (*bases, root):
        for word in (entry, entry.removeprefix("../")):
            if (folder / word).exists():
                return folder / word
    return None


def _listed(path: Path) -> Iterator[Path]:
    """The images of a list, one a line; ./ is the list's own folder. Raises DataError for one that is missing."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        image = path.parent / line.strip()
        if not image.is_file():
            raise DataError(f"{path}, line {number}: there is no image {image}.")
        if image.suffix.lower() not in ENDINGS:
            raise DataError(f"{path}, line {number}: {image} has no image's ending ({', '.join(ENDINGS)}).")
        yield image


def _record(root: Path, image: Path, split: str) -> Record:
    inside = image.relative_to(root) if image.is_relative_to(root) else Path(split, image.name)
    parts = [*inside.parts[:-1], inside.stem]
    folders = [at for at, part in enumerate(image.parts[:-1]) if part == "images"]
    labels = Path()
    if folders:
        labels = Path(*image.parts[: folders[-1]], "labels", *image.parts[folders[-1] + 1 : -1])
    label = (labels if folders else image.parent) / f"{image.stem}.txt"
    if "images" in parts[:-1]:
        parts.remove("images")
    if SPLIT_NAMES.get(parts[0].lower()) != split or len(parts) == 1:
        parts.insert(0, split)
    entry = label.relative_to(root) if label.is_relative_to(root) else label
    return Record("/".join(parts), image, split=split, entry=entry.as_posix() if label.is_file() else "")
