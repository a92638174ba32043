"""CVAT for images 1.1 (docs.cvat.ai, XML annotation format): one XML file with polygons, masks, boxes, ellipses, tags.

`points` are x,y;x,y in pixels. `rle` of a mask are runs row after row inside its box, the first of pixels outside it.
Shapes of one label and group_id are one object. A shape of higher z_order is closer: it hides the shapes below it,
which is how holes are drawn; of equal ones the later shows. A box says where an object is, not which pixels are its
own: its inside is unknown. Lines and points have no area and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from xml.parsers import expat

import numpy as np

from pixelwise.core.classes import Classes
from pixelwise.core.polygons import Window
from pixelwise.data.assembly import check_missing, make_data_set, split_entries
from pixelwise.data.dataset import DataSet, Record
from pixelwise.data.io import MAX_PIXELS
from pixelwise.data.layout import SPLIT_NAMES, Files, index
from pixelwise.data.pieces import Drawing, Row, ShapeReader, turned
from pixelwise.errors import ConfigError, DataError, nearest

DESCRIPTION = "CVAT for images 1.1: annotations.xml with polygons, masks, boxes; images below images/ or beside it"
FLAT = ("polyline", "points", "cuboid", "skeleton")


TAG = re.compile(rb"""<image(?:[^>"']|"[^"]*"|'[^']*')*>""")


@dataclass
class Image:
    """An <image> element, where it stands in the file, and its shapes: (element, attributes), as text."""

    attributes: dict[str, str]
    start: int
    size: int = 0
    shapes: list[tuple[str, dict[str, str]]] = field(default_factory=list)


class Parser:
    """One pass of expat. Declarations of types and entities are refused, so nothing can be expanded or fetched.

    labels  {name: colour as text} of the head; `used` those of shapes
    flat    how many shapes have no area
    images  the elements, with their shapes only where `shapes`: a set of a million images is then small
    """

    def __init__(self, path: Path, data: bytes, *, shapes: bool) -> None:
        self.path, self.data, self.shapes = path, data, shapes
        self.labels: dict[str, str] = {}
        self.used: set[str] = set()
        self.flat = 0
        self.images: list[Image] = []
        self._stack: list[str] = []
        self._text: list[str] = []
        self._name = ""
        self._expat = expat.ParserCreate()
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._text.append
        self._expat.StartDoctypeDeclHandler = self._refuse
        self._expat.EntityDeclHandler = self._refuse
        try:
            self._expat.Parse(data, True)
        except expat.ExpatError as error:
            raise DataError(f"{path}: is no whole XML file ({error}); copy or export it again.") from None

    def _refuse(self, *_: Any) -> None:
        raise DataError(f"{self.path}: declares a document type or entities, which CVAT never writes; it is not read.")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._text.clear()
        if tag == "track":
            raise DataError(f"{self.path}: is of the kind 'CVAT for video'; export the task as 'CVAT for images 1.1'.")
        if tag == "image":
            self.images.append(Image(attributes, self._expat.CurrentByteIndex))
        elif self._stack and self._stack[-1] == "image":
            self.used.add(attributes.get("label", ""))
            self.flat += tag in FLAT
            if self.shapes:
                self.images[-1].shapes.append((tag, attributes))
        self._stack.append(tag)

    def _end(self, tag: str) -> None:
        self._stack.pop()
        if self._stack[-2:] == ["labels", "label"] and tag == "name":
            self._name = "".join(self._text).strip()
            self.labels[self._name] = ""
        elif self._stack[-2:] == ["labels", "label"] and tag == "color" and self._name:
            self.labels[self._name] = "".join(self._text).strip()
        elif tag == "image":
            self._close(self.images[-1], self._expat.CurrentByteIndex)
        self._text.clear()

    def _close(self, image: Image, at: int) -> None:
        if self.data.startswith(b"</", at):
            image.size = self.data.index(b">", at) + 1 - image.start
        else:  # <image ... /> has no end of its own
            image.size = len(TAG.match(self.data, image.start)[0])  # type: ignore[index]  # it has been parsed


def _read(path: Path, start: int = 0, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None


@dataclass(frozen=True, kw_only=True)
class ImageElements(ShapeReader):
    """Reads the <image> element of a record; `entry` counts them over all files.

    files   the XML files; `places` [E, 3] int64: file number, first byte, size
    hidden  "cut": a shape of higher z_order hides what is below it. "keep": objects overlap
    """

    files: tuple[Path, ...]
    places: np.ndarray
    classes: Classes
    hidden: str = "cut"

    def file(self, record: Record) -> Path:
        return self.files[int(self.places[int(record.entry or 0), 0])]

    def draw(self, record: Record) -> Drawing:
        path = self.file(record)
        _, start, size = self.places[int(record.entry or 0)].tolist()
        (image,) = Parser(path, _read(path, start, size), shapes=True).images
        name = f"image '{image.attributes.get('name')}'"
        drawing = Drawing(_size(path, image), path)
        above = np.zeros(drawing.size, bool)  # what shapes of higher z_order cover
        level, waiting = np.inf, list[Window]()
        rows: dict[Any, Row] = {}
        for z, n, tag, values in _closest_first(path, image, name):
            where = f"{name}, shape {n + 1} ({tag})"
            if z < level:
                for (x0, y0, x1, y1), crop in waiting:
                    above[y0:y1, x0:x1] |= crop
                level, waiting = z, []
            label = self._label(path, values, where)
            if tag == "box":
                rows[n] = Row(label, box=_box(path, values, where))
                continue
            window = _window(drawing, tag, values, where)
            if window is None:
                continue
            waiting.append(window)
            if self.hidden == "cut":
                (x0, y0, x1, y1), crop = window
                window = window[0], crop & ~above[y0:y1, x0:x1]
            group = values.get("group_id", "0")
            rows.setdefault((label, group) if group != "0" else n, Row(label)).pieces.append(window)
        drawing.rows = list(rows.values())
        return drawing

    def _label(self, path: Path, values: Mapping[str, str], where: str) -> int:
        name = values.get("label", "")
        if name not in self.classes.names:
            raise DataError(f"{path}: {where} has the label '{name}', which is no class; "
                            f"{nearest(name, self.classes.names)}")  # fmt: skip
        return self.classes.names.index(name)


def _closest_first(path: Path, image: Image, name: str) -> list[tuple[float, int, str, dict[str, str]]]:
    """(z_order, number, element, attributes) of the shapes with an area: what comes first shows."""
    shapes = [(_number(path, values, "z_order", name, "0"), n, tag, values)
              for n, (tag, values) in enumerate(image.shapes) if tag not in (*FLAT, "tag")]  # fmt: skip
    return sorted(shapes, key=lambda shape: (-shape[0], -shape[1]))


def _number(path: Path, values: Mapping[str, str], name: str, where: str, default: str | None = None) -> float:
    text = values.get(name, default)
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(f"{path}: {where}: {name} is {text!r}, expected a number.")
    return value


def _size(path: Path, image: Image) -> tuple[int, int]:
    name = f"image '{image.attributes.get('name')}'"
    height, width = (int(_number(path, image.attributes, side, name)) for side in ("height", "width"))
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise DataError(f"{path}: {name} is said to have {width} x {height} pixels.")
    return height, width


def _box(path: Path, values: Mapping[str, str], where: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (_number(path, values, side, where) for side in ("xtl", "ytl", "xbr", "ybr"))
    angle = _number(path, values, "rotation", where, "0")
    if angle:
        corners = turned((x0, y0, x1, y1), angle, ((x0 + x1) / 2, (y0 + y1) / 2))
        (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    return x0, y0, x1, y1


def _window(drawing: Drawing, tag: str, values: Mapping[str, str], where: str) -> Window | None:
    path = drawing.path
    if tag == "polygon":
        pairs = [pair.split(",") for pair in values.get("points", "").split(";") if pair]
        if any(len(pair) != 2 for pair in pairs):
            raise DataError(f"{path}: {where}: points must be x,y;x,y;..., got {values.get('points', '')[:60]!r}.")
        return drawing.polygon(pairs, where)
    if tag == "ellipse":
        x, y, rx, ry = (_number(path, values, side, where) for side in ("cx", "cy", "rx", "ry"))
        return drawing.ellipse(x, y, rx, ry, _number(path, values, "rotation", where, "0"))
    if tag != "mask":
        raise DataError(f"{path}: {where} is of a kind that is not known.")
    left, top, width, height = (int(_number(path, values, side, where)) for side in ("left", "top", "width", "height"))
    try:
        runs = np.array(values.get("rle", "").replace(",", " ").split(), np.int64)
    except (ValueError, OverflowError):
        raise DataError(f"{path}: {where}: rle must be whole numbers, got {values.get('rle', '')[:60]!r}.") from None
    if width < 1 or height < 1 or (runs < 0).any() or runs.sum() != width * height:
        raise DataError(
            f"{path}: {where}: the run-length code covers {runs.sum()} pixels, its box {width} x {height} has "
            f"{width * height}."
        )
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return drawing.mask(bits.reshape(height, width), left, top)


def recognise(root: Path) -> bool:
    return bool(_documents(root))


def _documents(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("*.xml")) if b"<annotations" in _read(path, size=4096)]


def open(root: Path, *, hidden: Literal["cut", "keep"] = "cut", channels: int | None = None, seed: int = 0,
         missing: Literal["refuse", "skip"] = "refuse", max_pixels: int = MAX_PIXELS) -> DataSet:  # fmt: skip
    """Opens a CVAT export.

    hidden    what a shape of higher z_order does to those below: "cut" hides them, "keep" lets objects overlap
    channels  of every image; None takes the most that the images have
    seed      of the split by name, where the images name no subset
    missing   what to do with an image that the file lists and that is not there: "refuse" it, or "skip" it and say so
    Raises DataError for what does not fit, naming the file.
    """
    root = Path(root)
    check_missing(missing)
    if hidden not in ("cut", "keep"):
        raise ConfigError(f"hidden is 'cut' or 'keep', got {hidden!r}.")
    paths = _documents(root)
    if not paths:
        raise DataError(f"{root}: no *.xml with <annotations> was found.")
    documents = [Parser(path, _read(path), shapes=False) for path in paths]
    classes = _classes(root, documents)
    files = Files()
    entries, places = _pair(root, documents, files, missing)
    flat = sum(document.flat for document in documents)
    if flat:
        files.notes.append(f"{flat} lines, points, cuboids and skeletons have no area and are left out.")
    splits = split_entries(root, files, entries, seed)
    reader = ImageElements(files=tuple(paths), places=places, classes=classes, hidden=hidden)
    return make_data_set(root, "cvat", splits, reader, files.notes, classes=classes, task="instance",
                         channels=channels, max_pixels=max_pixels)  # fmt: skip


def _classes(root: Path, documents: list[Parser]) -> Classes:
    """The labels of the heads; without one, those of the shapes."""
    labels: dict[str, str] = {}
    for document in documents:
        labels.update(document.labels)
    if not labels:
        labels = dict.fromkeys(sorted(set().union(*(document.used for document in documents)) - {""}), "")
    if not labels:
        raise DataError(f"{root}: {documents[0].path.name} names no label.")
    names = tuple(labels)
    colours = [_colour(text) for text in labels.values()]
    told = all(colour is not None for colour in colours)
    return Classes(names=names, things=names, colours=tuple(c for c in colours if c) if told else (), void=(),
                   nothing=True)  # fmt: skip


def _colour(text: str) -> tuple[int, int, int] | None:
    """'#c06060' -> (192, 96, 96)."""
    try:
        value = int(text.removeprefix("#"), 16) if len(text) == 7 else None
    except ValueError:
        return None
    return None if value is None else (value >> 16, value >> 8 & 255, value & 255)


def _pair(root: Path, documents: list[Parser], files: Files, missing: str) -> tuple[dict[str, int], np.ndarray]:
    """Finds the image of each element; returns the entry of each record's name and the places of all entries."""
    entries: dict[str, int] = {}
    places: list[tuple[int, int, int]] = []
    lost: list[str] = []
    known = None
    for number, document in enumerate(documents):
        for image in document.images:
            told = image.attributes.get("name", "").replace("\\", "/")
            path = _find(root, told, image.attributes.get("subset", ""))
            if path is None:
                known = _by_file_name(root) if known is None else known
                path = known.get(PurePosixPath(told).name)
            if path is None:
                lost.append(told)
                continue
            name = PurePosixPath(told).with_suffix("").as_posix()
            if name in entries:
                raise DataError(f"{document.path}: the image '{told}' is listed twice.")
            subset = image.attributes.get("subset", "").lower()
            if subset:
                files.split_of[name] = SPLIT_NAMES.get(subset, subset)
            files.images[name] = path
            entries[name] = len(places)
            places.append((number, image.start, image.size))
    if lost and missing == "refuse":
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise DataError(f"{documents[0].path}: the image '{lost[0]}'{more} is not below {root}; add it, or leave such "
                        "images out by the format's option missing=skip.")  # fmt: skip
    if lost:
        files.notes.append(f"{len(lost)} images are listed and not there; they are left out, the first '{lost[0]}'.")
    if not entries:
        raise DataError(f"{root}: no image of {documents[0].path.name} is there; expected them below images/.")
    if len(files.split_of) < len(entries):
        files.split_of.clear()
    return entries, np.array(places, np.int64).reshape(-1, 3)


def _find(root: Path, told: str, subset: str) -> Path | None:
    for folder in (root / "images", root, root / "images" / subset):
        if told and (folder / told).is_file():
            return folder / told
    return None


def _by_file_name(root: Path) -> dict[str, Path]:
    """{file name: path} of all images below the root whose name is unique there."""
    found: dict[str, list[Path]] = {}
    for path in index(root, files=Files(faults=[])).values():
        found.setdefault(path.name, []).append(path)
    return {name: paths[0] for name, paths in found.items() if len(paths) == 1}
