"""Cityscapes (Cordts et al., CVPR 2016, 1604.01685) exactly as it lies on disk: label ids to the 19 training classes.

    leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    gtFine/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png, ..._gtFine_instanceIds.png
    gtCoarse/ likewise, with the split train_extra
    gtFine/cityscapes_panoptic_SPLIT.json, gtFine/cityscapes_panoptic_SPLIT/*.png   (or ..._SPLIT_trainId)

instanceIds hold label * 1000 + n for single objects; below 1000 they are the label itself: stuff, or a group of things
that nobody told apart, which becomes a crowd. The panoptic files, as cityscapesscripts makes them of these, say the
same in COCO's form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pixelwise.core.classes import Classes
from pixelwise.core.panoptic_truth import Decisions
from pixelwise.core.segments import Segments
from pixelwise.data.assembly import make_data_set
from pixelwise.data.coco.index import Index, index
from pixelwise.data.coco.readers import PanopticMaps
from pixelwise.data.dataset import DataSet, Record
from pixelwise.data.formats.folder import paired
from pixelwise.data.io import MAX_PIXELS
from pixelwise.data.layout import SPLIT_NAMES, Files
from pixelwise.data.table import Table
from pixelwise.data.truth import Maps
from pixelwise.errors import ConfigError, DataError

DESCRIPTION = "Cityscapes: leftImg8bit/ with gtFine/ and gtCoarse/, 19 classes, 8 of them things"

LABELS = (  # id on disk, name, colour, thing
    (7, "road", (128, 64, 128), False),
    (8, "sidewalk", (244, 35, 232), False),
    (11, "building", (70, 70, 70), False),
    (12, "wall", (102, 102, 156), False),
    (13, "fence", (190, 153, 153), False),
    (17, "pole", (153, 153, 153), False),
    (19, "traffic light", (250, 170, 30), False),
    (20, "traffic sign", (220, 220, 0), False),
    (21, "vegetation", (107, 142, 35), False),
    (22, "terrain", (152, 251, 152), False),
    (23, "sky", (70, 130, 180), False),
    (24, "person", (220, 20, 60), True),
    (25, "rider", (255, 0, 0), True),
    (26, "car", (0, 0, 142), True),
    (27, "truck", (0, 0, 70), True),
    (28, "bus", (0, 60, 100), True),
    (31, "train", (0, 80, 100), True),
    (32, "motorcycle", (0, 0, 230), True),
    (33, "bicycle", (119, 11, 32), True),
)
CLASSES = Classes(
    names=tuple(name for _, name, _, _ in LABELS),
    things=tuple(name for _, name, _, thing in LABELS if thing),
    colours=tuple(colour for _, _, colour, _ in LABELS),
    ids=tuple(key for key, _, _, _ in LABELS),
    void=tuple(key for key in range(-1, 34) if key not in {row[0] for row in LABELS}),
)


@dataclass(frozen=True, kw_only=True)
class CityMaps(Maps):
    """instanceIds alone tell everything; labelIds are read where there are none."""

    def __call__(self, record: Record) -> Segments:
        return self.objects(record) if record.instances else self.semantic(record)

    def decisions(self, record: Record) -> Decisions:
        """None: nothing is joined."""
        return Decisions()


def recognise(root: Path) -> bool:
    return (root / "leftImg8bit").is_dir() and any((root / name).is_dir() for name in ("gtFine", "gtCoarse"))


def open(
    root: Path,
    *,
    annotations: Literal["fine", "coarse", "both"] = "fine",
    instances: bool = True,
    panoptic: bool = False,
    missing: Literal["refuse", "skip"] = "refuse",
    max_pixels: int = MAX_PIXELS,
) -> DataSet:
    """Opens Cityscapes.

    annotations  "fine": gtFine. "coarse": gtCoarse for training, with the images of train_extra; val and test stay
                 fine where gtFine is there, since coarse masks cannot score. "both": fine where an image has it,
                 else coarse.
    instances    whether instanceIds are read (panoptic truth) or labelIds alone, which is faster
    panoptic     whether the panoptic PNGs and their JSON are read instead; they are where there are no labelIds
    Raises DataError naming an image without annotation, ConfigError for another word.
    """
    root = Path(root)
    if annotations not in ("fine", "coarse", "both"):
        raise ConfigError(f"annotations is 'fine', 'coarse' or 'both', got {annotations!r}.")
    if not recognise(root):
        raise DataError(f"{root}: expected leftImg8bit/ and gtFine/ (or gtCoarse/), as Cityscapes unpacks.")
    files = Files()
    names: dict[str, list[str]] = {}
    for folder in sorted(p for p in (root / "leftImg8bit").iterdir() if p.is_dir()):
        split = "train" if folder.name == "train_extra" else SPLIT_NAMES.get(folder.name)
        if split is None or (folder.name == "train_extra" and annotations == "fine"):
            continue
        order = _order(root, annotations, split)
        members = [_add(files, root, image, order, instances) for image in sorted(folder.glob("*/*_leftImg8bit.png"))]
        names.setdefault(split, []).extend(members)
    if not files.images:
        raise DataError(
            f"{root}: no image leftImg8bit/SPLIT/CITY/*_leftImg8bit.png was found for annotations={annotations}."
        )
    tables = _panoptic_files(root)
    if panoptic or (not files.masks and tables):
        return _panoptic(root, tables, files, names, missing, max_pixels)
    if not files.masks:
        raise DataError(
            f"{root}: {len(files.images)} images without annotations; expected gtFine/SPLIT/CITY/*_gtFine_labelIds.png."
        )
    _say(files, annotations)
    splits, unpaired = paired(files, names, missing)
    reader = CityMaps(
        table=Table(classes=CLASSES, told_things=True, told_void=True),
        carried=1000,
        crowd_below=1000,
        max_pixels=max_pixels,
    )
    task = "panoptic" if files.instances else "semantic"
    return make_data_set(root, "cityscapes", _in_order(splits), reader, files.notes, classes=CLASSES, task=task,
                         max_pixels=max_pixels, unpaired=tuple(unpaired))  # fmt: skip


def _in_order(splits: dict[str, tuple[Record, ...]]) -> dict[str, tuple[Record, ...]]:
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _panoptic_files(root: Path) -> list[Path]:
    """The JSON of each split that lies beside a folder of maps; of label ids where there are train ids as well."""
    paths = [p for p in sorted((root / "gtFine").glob("cityscapes_panoptic_*.json")) if p.with_suffix("").is_dir()]
    plain = [p for p in paths if not p.stem.endswith("_trainId")]
    return plain or paths


def _panoptic(
    root: Path, tables: list[Path], files: Files, names: dict[str, list[str]], missing: str, max_pixels: int
) -> DataSet:
    """The data set of the panoptic PNGs, found by the name of the image."""
    if not tables:
        raise DataError(f"{root}: there is no gtFine/cityscapes_panoptic_SPLIT.json beside a folder of its name.")
    indexes = [index(path, panoptic=True) for path in tables]
    faults = tuple(fault for i in indexes for fault in i.faults)
    entries: dict[str, tuple[int, Path]] = {}
    start = 0
    for i in indexes:
        entries |= {str(i.images[row].key): (start + row, path) for row, path in _maps(i)}
        start += len(i.images)
    stems = {name: name.rpartition("/")[2] for name in files.images}
    files.instances = {name: entries[stem][1] for name, stem in stems.items() if stem in entries}
    splits, unpaired = paired(files, names, missing)
    splits = {split: tuple(replace(r, entry=entries[stems[r.name]][0]) if r.instances else r for r in group)
              for split, group in splits.items()}  # fmt: skip
    classes = _told_classes(indexes)
    reader = PanopticMaps(tables=tuple(i.table for i in indexes), classes=classes, max_pixels=max_pixels)
    return make_data_set(root, "cityscapes", _in_order(splits), reader, files.notes, classes=classes, task="panoptic",
                         max_pixels=max_pixels, unpaired=tuple(unpaired), faults=faults)  # fmt: skip


def _maps(i: Index) -> Iterator[tuple[int, Path]]:
    """The images of a panoptic file that have an annotation, with their maps."""
    for row in range(len(i.images)):
        if i.table.count(row):
            yield row, i.path.with_suffix("") / i.files[int(i.table.first[row])]


def _told_classes(indexes: list[Index]) -> Classes:
    """The 19 classes by the ids that the files use, label ids or train ids. Raises DataError for others."""
    told = [{str(category["name"]): int(category["id"]) for category in i.categories} for i in indexes]
    for i, ids in zip(indexes, told):
        if ids != told[0] or set(ids) != set(CLASSES.names):
            raise DataError(
                f"{i.path}: has the categories {', '.join(f'{key} {name}' for name, key in ids.items())}; expected "
                "Cityscapes' 19 classes, with the same ids in all splits."
            )
    found = tuple(told[0][name] for name in CLASSES.names)
    return CLASSES if found == CLASSES.ids else replace(CLASSES, ids=found, void=(255,))


def _order(root: Path, annotations: str, split: str) -> tuple[str, ...]:
    """Which annotation of an image is taken first."""
    if annotations == "fine" or (annotations == "coarse" and split != "train" and (root / "gtFine" / split).is_dir()):
        return ("gtFine",)
    return ("gtCoarse",) if annotations == "coarse" else ("gtFine", "gtCoarse")


def _add(files: Files, root: Path, image: Path, order: tuple[str, ...], instances: bool) -> str:
    """Enters one image with its maps, found by name; returns the name."""
    stem = image.name.removesuffix("_leftImg8bit.png")
    split, city = image.parent.parent.name, image.parent.name
    name = f"{split}/{city}/{stem}"
    files.images[name] = image
    for kind in order:
        base = root / kind / split / city
        labels, objects = base / f"{stem}_{kind}_labelIds.png", base / f"{stem}_{kind}_instanceIds.png"
        if labels.is_file():
            files.masks[name] = labels
            if instances and objects.is_file():
                files.instances[name] = objects
            break
    return name


def _say(files: Files, annotations: str) -> None:
    """What the choice of annotations came to."""
    coarse = sum("_gtCoarse_" in path.name for path in files.masks.values())
    if annotations != "fine":
        files.notes.append(f"{len(files.masks) - coarse} images have fine and {coarse} coarse annotations.")
