"""labelme (github.com/wkentaro/labelme): a JSON file of shapes beside each image, or with the image inside.

Shapes are polygon, rectangle, circle and mask (a small PNG as base64); those of one label and group_id are one object.
Later shapes lie above earlier ones. `__ignore__` is unknown, `_background_` nothing, and both hide what is below them.
Lines and points have no area and are left out. A shape with the flag `crowd` is a crowd.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image

from pixelwise.core.classes import Classes
from pixelwise.core.polygons import Window
from pixelwise.data.assembly import check_missing, make_data_set, split_entries
from pixelwise.data.dataset import DataSet, Record
from pixelwise.data.io import ENDINGS, MAX_PIXELS, read_header
from pixelwise.data.layout import Files
from pixelwise.data.pieces import Drawing, Row, ShapeReader, erase, read_json
from pixelwise.data.table import named_classes
from pixelwise.errors import DataError, nearest

DESCRIPTION = "labelme: a JSON file of polygons, rectangles, circles and masks for each image"
IGNORED, BACKGROUND = "__ignore__", "_background_"
FLAT = ("line", "linestrip", "point", "points")  # shapes without an area
SIGN = re.compile(rb'"(shapes|imagePath|imageData)"\s*:')


@dataclass(frozen=True, kw_only=True)
class ShapeFiles(ShapeReader):
    """Reads the JSON file of a record; `entry` is its path below the root."""

    root: Path
    classes: Classes
    max_pixels: int = MAX_PIXELS

    def file(self, record: Record) -> Path:
        return self.root / str(record.entry)

    def draw(self, record: Record) -> Drawing:
        path = self.file(record)
        content = read_shapes(path)
        height, width = content.get("imageHeight"), content.get("imageWidth")
        if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
            height, width = read_header(record.image, max_pixels=self.max_pixels).size
        drawing = Drawing((height, width), path)
        rows: dict[Any, Row] = {}
        for number, shape in enumerate(content["shapes"], 1):
            where = f"shape {number}"
            window = _window(drawing, shape, where)
            if window is None:
                continue
            name = _label(path, shape, where)
            if name in (IGNORED, BACKGROUND):
                for piece in (piece for row in rows.values() for piece in row.pieces):
                    erase(piece, window)
                drawing.void += [window] if name == IGNORED else []
                continue
            group = shape.get("group_id")
            row = rows.setdefault((name, group) if group is not None else number, Row(self._class(path, name, where)))
            row.pieces.append(window)
            row.crowd |= bool((shape.get("flags") or {}).get("crowd"))
        drawing.rows = list(rows.values())[::-1]
        return drawing

    def _class(self, path: Path, name: str, where: str) -> int:
        if name not in self.classes.names:
            raise DataError(f"{path}: {where} has the label '{name}', which is no class; "
                            f"{nearest(name, self.classes.names)}")  # fmt: skip
        return self.classes.names.index(name)


def read_shapes(path: Path) -> dict[str, Any]:
    """The content of a labelme file. Raises DataError where it is none."""
    content = read_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise DataError(f"{path}: is no labelme file: it has no list 'shapes'.")
    return content


def _label(path: Path, shape: dict[str, Any], where: str) -> str:
    name = shape.get("label")
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: {where} has no label.")
    return name


def _window(drawing: Drawing, shape: dict[str, Any], where: str) -> Window | None:
    kind = shape.get("shape_type") or "polygon"
    if kind in FLAT:
        return None
    if kind in ("polygon", "oriented_rectangle"):
        return drawing.polygon(shape.get("points"), where)
    if kind not in ("rectangle", "circle", "mask"):
        raise DataError(f"{drawing.path}: {where} is of the type '{kind}', which is not known.")
    try:
        (x0, y0), (x1, y1) = np.asarray(shape.get("points"), np.float64).tolist()
    except (TypeError, ValueError):
        raise DataError(f"{drawing.path}: {where}, a {kind}, needs two points x y.") from None
    if kind == "rectangle":
        return drawing.polygon([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], where)
    if kind == "circle":
        radius = float(np.hypot(x1 - x0, y1 - y0))
        return drawing.ellipse(x0, y0, radius, radius)
    return drawing.mask(_png(drawing.path, shape.get("mask"), where), round(min(x0, x1)), round(min(y0, y1)))


def _png(path: Path, text: Any, where: str) -> np.ndarray:
    """The small PNG of a mask, [h, w] bool."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            return np.asarray(image.convert("L") if image.mode != "1" else image) > 0
    except (TypeError, ValueError, OSError, SyntaxError) as error:
        raise DataError(f"{path}: {where}, a mask, holds no PNG as base64 ({error}).") from None


def recognise(root: Path) -> bool:
    """Whether one of the first JSON files, up to five in up to a hundred folders, is labelme's."""
    seen = 0
    for number, (place, folders, names) in enumerate(os.walk(root)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if name.endswith(".json") and name != "classes.json"):
            seen += 1
            if _is_labelme(Path(place, name)):
                return True
            if seen == 5:
                return False
        if number == 100:
            break
    return False


def _is_labelme(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(1 << 16)
        file.seek(max(path.stat().st_size - 4096, 0))
        return len(set(SIGN.findall(start + file.read()))) >= 2


def _json_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.json")):
        if path.name != "classes.json" and not any(p.startswith(".") for p in path.relative_to(root).parts):
            yield path


def open(root: Path, *, class_table: Classes | str | Path | None = None, channels: int | None = None, seed: int = 0,
         missing: Literal["refuse", "skip"] = "refuse", max_pixels: int = MAX_PIXELS) -> DataSet:  # fmt: skip
    """Opens a folder of labelme files, at any depth.

    class_table  `Classes`, or the path of a classes.txt; None looks beside the data, and then takes the labels found
    channels     of every image; None takes the most that the images have
    seed         of the split by name, where there is no other
    missing      what to do with an image without JSON file: "refuse" it, or "skip" it and say so
    Raises DataError for what does not fit, naming the file.
    """
    root = Path(root)
    check_missing(missing)
    notes: list[str] = []
    images: dict[Path, Path] = {}
    labels: set[str] = set()
    for path in _json_files(root):
        if _is_labelme(path) or any(path.with_suffix(ending).is_file() for ending in ENDINGS):
            content = read_shapes(path)
            images[path] = _image(path, content)
            labels |= {name for shape in content["shapes"] if isinstance(name := shape.get("label"), str) and name}
    if not images:
        raise DataError(f'{root}: no labelme file (*.json with "shapes") was found.')
    classes = named_classes(root, class_table, labels - {IGNORED, BACKGROUND}, notes)
    classes = classes.only([name for name in classes.names if name != BACKGROUND])
    unpaired = _unpaired(root, set(images.values()), missing, notes)
    names = {path.relative_to(root).with_suffix("").as_posix(): path for path in images}
    files = Files(images={name: images[path] for name, path in names.items()}, notes=notes)
    splits = split_entries(root, files, {name: f"{name}.json" for name in names}, seed)
    reader = ShapeFiles(root=root, classes=classes, max_pixels=max_pixels)
    return make_data_set(root, "labelme", splits, reader, notes, classes=classes, task="instance", channels=channels,
                         max_pixels=max_pixels, unpaired=tuple(unpaired))  # fmt: skip


def _image(path: Path, content: dict[str, Any]) -> Path:
    """The image of a file: where imagePath leads, or one of the same name, or the file itself with the image inside."""
    told = str(content.get("imagePath") or "").replace("\\", "/")
    beside = [path.with_name(PurePosixPath(told).name)] if told else []
    beside += [path.with_name(path.stem + ending) for ending in ENDINGS]
    for image in [path.parent / told] * bool(told) + beside:
        if image.is_file():
            return image
    if content.get("imageData"):
        return path
    raise DataError(f"{path}: its image '{told}' is not there, and imageData is empty; put the image beside the file.")


def _unpaired(root: Path, used: set[Path], missing: str, notes: list[str]) -> list[Path]:
    """Images in the folders of the files that no file belongs to."""
    folders = {image.parent for image in used}
    others = [p for folder in sorted(folders) for p in sorted(folder.iterdir())
              if p.suffix.lower() in ENDINGS and p not in used and p.is_relative_to(root)]  # fmt: skip
    if others and missing == "refuse":
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise DataError(
            f"{others[0]}{more}: no JSON file of that name, so nobody said what it shows. Annotate it, remove it, or "
            "leave such images out by the format's option missing=skip."
        )
    if others:
        notes.append(f"{len(others)} images have no JSON file and are left out, the first {others[0]}.")
    return others
