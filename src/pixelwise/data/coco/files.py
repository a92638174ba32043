"""Where COCO's files lie: the JSON of each split, the folder of its maps, and each listed image on disk."""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pixelwise.data.coco.index import Listed
from pixelwise.data.dataset import Fault
from pixelwise.data.layout import SPLIT_NAMES, Files
from pixelwise.data.layout import index as index_images
from pixelwise.errors import DataError

FIRST = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"(?:info|licenses|images|annotations|categories|type|videos)"\s*:')
OTHER = ("captions_", "person_keypoints_", "image_info_", "stuff_", "panoptic_", "stuffthingmaps")
FOLDERS = ("annotations", "annotation", "labels")


@dataclass(frozen=True)
class Part:
    """One JSON file: its split, if its name or folder says one, and its folder of panoptic maps, if there is one."""

    path: Path
    split: str | None
    maps: Path | None = None


def find_parts(root: Path, *, panoptic: bool) -> list[Part]:
    """The files of a root that are COCO's by their first word; with `panoptic` those beside a folder of their name."""
    folders = [root, *(root / name for name in FOLDERS), *(root / word for word in SPLIT_NAMES)]
    paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.json"))]
    if panoptic:
        paths = [path for path in paths if path.with_suffix("").is_dir()]
    parts = [Part(path, _split(path, root), _maps(path)) for path in paths if _begins(path)]
    if panoptic:
        return [part for part in parts if part.maps is not None]
    parts = [part for part in parts if part.maps is None and not part.path.name.startswith(OTHER)]
    named = [part for part in parts if part.path.name.startswith("instances_")]
    return named or parts


def _begins(path: Path) -> bool:
    """Whether the first name is one of COCO's, and those that it must have occur as well."""
    try:
        with path.open("rb") as file:
            first = FIRST.match(file.read(4096)) is not None
    except OSError:
        return False
    return first and _holds(path, b'"images"') and (_holds(path, b'"annotations"') or _holds(path, b'"categories"'))


def _holds(path: Path, word: bytes) -> bool:
    """Whether the word occurs in a file that is not empty; some GB a second, and nothing is held."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(word) >= 0


def _maps(path: Path) -> Path | None:
    """The folder of a panoptic file's maps; `train.json` beside its images in train/ has none."""
    folder = path.with_suffix("")
    return folder if folder.is_dir() and _holds(path, b'"segments_info"') else None


def _split(path: Path, root: Path) -> str | None:
    """train for instances_train2017.json and for train/_annotations.coco.json; None where nothing says it."""
    words = re.split(r"[^A-Za-z]+", path.stem.lower())
    found = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    if not found and path.parent != root:
        found = [SPLIT_NAMES[path.parent.name]] if path.parent.name in SPLIT_NAMES else []
    return found[0] if found else None


def own_split(part: Part) -> str:
    """The split of a file among several whose name says none: what is special in its name."""
    return part.split or re.sub(r"^(instances|panoptic)_", "", part.path.stem)


def bases(part: Part, root: Path) -> list[Path]:
    """The folders that file names may be relative to, the likeliest first."""
    tail = part.path.stem.rpartition("_")[2]
    words = [word for word, split in SPLIT_NAMES.items() if split == part.split]
    beside = part.path.parent
    tried = [root / "images" / tail, root / tail, *(root / "images" / w for w in words), *(root / w for w in words),
             *(root / w / "images" for w in words), root / "images", root / "JPEGImages", beside / "images", beside,
             root, root / "imgs", root / "image", root / "data"]  # fmt: skip
    return [folder for folder in dict.fromkeys(tried) if folder.is_dir()]


@dataclass
class Pictures:
    """Listed images on disk.

    paths  by their number in the list, None where the file is not there
    """

    paths: list[Path | None] = field(default_factory=list)
    folders: set[Path] = field(default_factory=set)


def find_pictures(images: Sequence[Listed], part: Part, root: Path) -> Pictures:
    """Looks for each image; the folder that had the last one is tried first. Raises DataError where none is found."""
    found, tried = Pictures(), bases(part, root)
    for image in images:
        path = next((base / image.file_name for base in tried if (base / image.file_name).is_file()), None)
        found.paths.append(path)
        if path is not None:
            found.folders.add(path.parent)
            base = next(base for base in tried if base / image.file_name == path)
            tried.remove(base)
            tried.insert(0, base)
    if not found.folders:
        looked = ", ".join(str(base) for base in tried[:6])
        raise DataError(
            f"{part.path}: none of its {len(images)} images is there, the first is '{images[0].file_name}'; looked in "
            f"{looked}. Put them into {root / 'images'}."
        )
    return found


def record_name(image: Listed) -> str:
    """The file name without its ending; without folders where they lead out of the data set."""
    path = PurePosixPath(image.file_name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        path = PurePosixPath(path.name)
    parts = path.with_suffix("").parts
    return "/".join(parts[1:] if len(parts) > 1 and parts[0] in ("images", "JPEGImages") else parts)


def unlisted(found: Sequence[Pictures]) -> list[Fault]:
    """Images that lie beside listed ones and that no file lists."""
    known = {path for pictures in found for path in pictures.paths if path}
    folders = set().union(*(pictures.folders for pictures in found))
    beside = (
        path for folder in sorted(folders) for path in index_images(folder, deep=False, files=Files(faults=[])).values()
    )
    return [Fault("image-unlisted", path) for path in beside if path not in known]
