"""Where the files lie: folders of images and masks, their pairs by name, and the split of each image."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.io import ENDINGS
from pixelwise.errors import DataError, nearest

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
AFFIXES = (
    "_mask",
    "_masks",
    "-mask",
    "_label",
    "_labels",
    "-label",
    "_gt",
    "-gt",
    "_seg",
    "_segmentation",
    "_annotation",
    "_labelIds",
    "_instances",
    "_instance",
    "_L",
    "_lab",
)
SHARES = (("train", 0.7), ("val", 0.15), ("test", 0.15))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names that the folders of a format may have; the first that exists is taken, in upper or lower case.

    images, masks, instances  folder names below the root (or below train/ val/ test/)
    by_split  (images, masks) patterns with {split}, for formats whose folders carry the split in their own name
    lists     folders of split lists, one id a line
    ignored   split lists that are no splits (VOC's trainval)
    """

    images: tuple[str, ...] = ("images", "image", "imgs", "img", "JPEGImages")
    masks: tuple[str, ...] = (
        "masks",
        "mask",
        "labels",
        "label",
        "annotations",
        "annotation",
        "SegmentationClass",
        "gt",
    )
    instances: tuple[str, ...] = ("instances", "instance", "SegmentationObject")
    by_split: tuple[tuple[str, str], ...] = ()
    lists: tuple[str, ...] = ("splits", "ImageSets/Segmentation", "ImageSets")
    ignored: tuple[str, ...] = ("trainval",)


@dataclass(frozen=True)
class Source:
    """A folder of images with the folders of its masks; `split` where the folder itself says it."""

    images: Path
    masks: Path | None
    instances: Path | None
    split: str | None = None


@dataclass
class Files:
    """Every image by name, with its masks by the same name. `images` etc. are {name: path}.

    faults  None: what does not fit is raised. A list: (file, what is wrong) is entered there, and the rest goes on.
    """

    images: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)
    instances: dict[str, Path] = field(default_factory=dict)
    split_of: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lonely: list[Path] = field(default_factory=list)
    faults: list[tuple[Path, str]] | None = None

    def refuse(self, path: Path, message: str) -> None:
        """Raises DataError, or enters the fault where they are collected."""
        if self.faults is None:
            raise DataError(message)
        self.faults.append((path, message))


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that is a folder here, whatever its case."""
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    lower = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()} if folder.is_dir() else {}
    return next((lower[n.lower()] for n in names if n.lower() in lower), None)


def find_sources(root: Path, layout: Layout) -> list[Source]:
    """The folders of images: images/ at the root, or below train/ val/ test/, or the root itself. Raises DataError."""
    images = _child(root, layout.images)
    if images is not None:
        return [Source(images, _child(root, layout.masks), _child(root, layout.instances))]
    sources = []
    for word, split in SPLIT_NAMES.items():
        for image_pattern, mask_pattern in layout.by_split:
            folder, masks = root / image_pattern.format(split=word), root / mask_pattern.format(split=word)
            if folder.is_dir() and masks.is_dir():
                sources.append(Source(folder, masks, None, split))
        folder = root / word
        images = _child(folder, layout.images)
        if images is not None:
            sources.append(Source(images, _child(folder, layout.masks), _child(folder, layout.instances), split))
    if not sources and index(root, deep=False):
        sources = [Source(root, _child(root, layout.masks) or root, _child(root, layout.instances))]
    if not sources:
        raise DataError(_nothing_found(root, layout))
    return sources


def _nothing_found(root: Path, layout: Layout) -> str:
    inside = sorted(p.name for p in root.iterdir())
    if not inside:
        return f"{root}: the folder is empty; expected images/ and masks/ (or instances/)."
    shown = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "")
    return (
        f"{root}: found no folder of images; there are {shown}. Expected one named {', '.join(layout.images)}, beside "
        f"one named {', '.join((*layout.masks, *layout.instances))}; or the same below train/, val/, test/."
    )


def index(folder: Path, *, deep: bool = True, files: Files | None = None) -> dict[str, Path]:
    """{path below the folder without its ending: file} of all images, sorted; two of one name are a fault."""
    found: dict[str, Path] = {}
    for name, path in sorted(_images(str(folder), "", deep)):
        if name in found:
            message = f"{found[name]} and {path} have the same name but for the ending; rename or remove one."
            (files or Files()).refuse(Path(path), message)
            continue
        found[name] = Path(path)
    return found


def _images(folder: str, prefix: str, deep: bool) -> Iterator[tuple[str, str]]:
    """(name below the root without its ending, path) of the image files; hidden ones are left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            stem, ending = os.path.splitext(entry.name)
            if ending.lower() in ENDINGS and entry.is_file():
                yield prefix + stem, entry.path
            elif deep and entry.is_dir():
                yield from _images(entry.path, f"{prefix}{entry.name}/", deep)


def gather(root: Path, layout: Layout, files: Files | None = None) -> Files:
    """Finds and pairs everything. Raises DataError where there are no images; refuses images without any mask."""
    files = Files() if files is None else files
    for source in find_sources(root, layout):
        flat = source.images == source.masks
        images = index(source.images, deep=source.images != root, files=files)
        masks = index(source.masks, deep=not flat, files=files) if source.masks and not flat else {}
        if flat:
            images, masks = _divide(images)
        instances = index(source.instances, files=files) if source.instances else {}
        prefix = f"{source.split}/" if source.split else ""
        for kind, found, into in (("mask", masks, files.masks), ("instance map", instances, files.instances)):
            into.update({prefix + name: path for name, path in _pair(images, found, kind, files).items()})
        files.images.update({prefix + name: path for name, path in images.items()})
        if source.split:
            files.split_of.update(dict.fromkeys((prefix + name for name in images), source.split))
    if not files.images:
        raise DataError(f"{root}: its folder of images holds no image ({', '.join(ENDINGS)}).")
    if not files.masks and not files.instances:
        files.refuse(
            root,
            f"{root}: {len(files.images)} images without masks. Training and scoring need a mask for each image, of "
            "the same name, in masks/ (class ids) or instances/ (object ids) beside the images; to predict, give it to "
            "`pixelwise predict`.",
        )
    return files


def _divide(found: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks of one folder: a mask is named as its image and an affix."""
    masks = {
        name: path
        for name, path in found.items()
        if any(name.endswith(a) and name[: -len(a)] in found for a in AFFIXES)
    }
    return {name: path for name, path in found.items() if name not in masks}, masks


def _pair(images: Mapping[str, Path], masks: Mapping[str, Path], kind: str, files: Files) -> dict[str, Path]:
    """{image name: mask path}; where the plain names do not fit, one affix for all of them is looked for and said."""
    if not masks:
        return {}
    best, affix = {n: p for n, p in masks.items() if n in images}, ""
    if len(best) < len(masks):
        for candidate in AFFIXES:
            stripped = {n.removesuffix(candidate): p for n, p in masks.items() if n.endswith(candidate)}
            fits = {n: p for n, p in stripped.items() if n in images}
            if len(fits) > len(best):
                best, affix = fits, candidate
    if affix:
        files.notes.append(f"The {kind} of an image is the file named as it and '{affix}'.")
    used = set(best.values())
    lonely = [path for path in masks.values() if path not in used]
    if lonely:
        files.lonely += lonely
        files.notes.append(f"{len(lonely)} {kind}s have no image and are left out, the first {lonely[0]}.")
    return best


# -- splits -----------------------------------------------------------------------------------------------------------


def find_lists(root: Path, layout: Layout) -> dict[str, Path]:
    """{split: list file}: *.txt in a folder of lists, or train.txt, val.txt, test.txt at the root."""
    for name in layout.lists:
        lists = sorted((root / name).glob("*.txt")) if (root / name).is_dir() else []
        lists = [p for p in lists if p.stem not in layout.ignored]
        if lists:
            return {SPLIT_NAMES.get(p.stem.lower(), p.stem): p for p in lists}
    return {split: root / f"{word}.txt" for word, split in SPLIT_NAMES.items() if (root / f"{word}.txt").is_file()}


def read_list(path: Path, files: Files) -> list[str]:
    """The names in a list. Refuses, naming list and line, one that has no image and a repeated one."""
    names: dict[str, int] = {}
    last = Counter(name.rpartition("/")[2] for name in files.images)
    short = {name.rpartition("/")[2]: name for name in files.images if last[name.rpartition("/")[2]] == 1}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        files.refuse(path, f"{path}: the list cannot be read ({error}).")
        return []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (line.lstrip().startswith("#") and line.strip() not in files.images):
            continue
        name = _name_in(line.strip(), files.images, short)
        if name is None:
            hint = nearest(line.strip(), short) if len(short) < 2000 else ""  # seeking takes its time
            hint = "" if hint.startswith("known") and len(short) > 12 else hint
            missing = f"{path}, line {number}: there is no image '{line.strip()}'"
            files.refuse(path, f"{missing}; {hint}" if hint else f"{missing}.")
        elif name in names:
            files.refuse(path, f"{path}, line {number}: '{name}' stands there already, in line {names[name]}.")
        else:
            names[name] = number
    return list(names)


def _name_in(line: str, images: Mapping[str, Path], short: Mapping[str, str]) -> str | None:
    """The image a line means: its name, its file name, or `image mask` as SegNet's lists have it."""
    for word in (line, line.split()[0]):
        path = Path(word)
        bare = path.with_suffix("").as_posix() if path.suffix.lower() in ENDINGS else path.as_posix()
        for guess in (word, bare):
            if guess in images:
                return guess
        if bare.rpartition("/")[2] in short:
            return short[bare.rpartition("/")[2]]
    return None


def hashed_split(name: str, seed: int = 0) -> str:
    """train, val or test from the name alone, so that files added later move no other: 70, 15, 15 %."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    at = int.from_bytes(digest, "big") / 2**64
    for split, share in SHARES:
        at -= share
        if at < 0:
            return split
    return SHARES[-1][0]


def split_files(root: Path, layout: Layout, files: Files, seed: int) -> dict[str, list[str]]:
    """{split: names}: by lists, else by folders, else by the hash of the name, which is said in the notes."""
    lists = find_lists(root, layout)
    if lists:
        splits = {split: read_list(path, files) for split, path in lists.items()}
        listed = Counter(name for names in splits.values() for name in names)
        twice = [name for name, count in listed.items() if count > 1]
        if twice:
            files.notes.append(f"{len(twice)} images stand in several split lists, the first '{twice[0]}'.")
        left = len(files.images) - len(listed)
        if left:
            files.notes.append(f"{left} images stand in no split list and are left out.")
        return _ordered(splits)
    if not files.split_of:
        first = {name: name.partition("/")[0].lower() for name in files.images}
        if all(word in SPLIT_NAMES for word in first.values()):
            files.split_of = {name: SPLIT_NAMES[word] for name, word in first.items()}
    found = bool(files.split_of)
    splits = {}
    for name in files.images:
        splits.setdefault(files.split_of[name] if found else hashed_split(name, seed), []).append(name)
    if not found:
        sizes = ", ".join(f"{split} {len(splits.get(split, ()))}" for split, _ in SHARES)
        files.notes.append(
            f"No split is given: images are divided by a hash of their name (seed {seed}): {sizes}. "
            "Files added later move none of them; write splits/train.txt, val.txt, test.txt to choose."
        )
    return _ordered(splits)


def _ordered(splits: dict[str, list[str]]) -> dict[str, list[str]]:
    known = [s for s, _ in SHARES]
    return {s: splits[s] for s in sorted(splits, key=lambda s: (known.index(s) if s in known else 9, s)) if splits[s]}
