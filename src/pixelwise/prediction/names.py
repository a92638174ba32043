"""Which images are predicted, and where each answer goes: folders keep their structure and no two answers collide.

The rule: an answer is named by the image's path below the folder that was given (by the file's name where a file was
given), without its ending. Where two images would get one name (also if only by the case of letters), those of unlike
endings keep them, and those of different places get the folders above in front, as few as tell them apart.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pixelwise.data.io import ENDINGS


@dataclass(frozen=True)
class Job:
    """An image and the name of its answer: a relative path with / between folders and no ending of its own."""

    path: Path
    name: str


def plan(inputs: Iterable[str | Path], out: Path) -> tuple[list[Job], list[tuple[Path, str]]]:
    """The images among files and folders, in the order given and by name within a folder, each once.

    Returns (jobs, failed): failed are inputs that do not exist and folders without an image, with the reason. In
    folders only files with an image's ending count, hidden ones and those below `out` do not; links to folders are
    followed, each folder once; a file given by name is always tried.
    """
    found: dict[Path, Path] = {}  # image, resolved -> its path below what was given
    given: dict[Path, Path] = {}  # the same -> as it is written
    failed: list[tuple[Path, str]] = []
    for entry in map(Path, inputs):
        if entry.is_dir():
            images = _images(entry, out)
            if not images:
                failed.append((entry, f"the folder holds no image ({', '.join(ENDINGS)})."))
            pairs = [(image, image.relative_to(entry)) for image in images]
        elif entry.exists():
            pairs = [(entry, Path(entry.name))]
        else:
            failed.append((entry, "there is no such file or folder."))
            continue
        for image, relative in pairs:
            found.setdefault(image.resolve(), relative)
            given.setdefault(image.resolve(), image)
    names = distinct(list(found.items()))
    return [Job(given[path], name) for path, name in zip(found, names)], failed


def _images(folder: Path, out: Path) -> list[Path]:
    keep_out = out.resolve()
    inside = sorted(p for p in _files(folder) if p.suffix.lower() in ENDINGS and p.is_file())
    hidden = [any(part.startswith(".") for part in p.relative_to(folder).parts) for p in inside]
    return [p for p, h in zip(inside, hidden) if not h and keep_out not in p.resolve().parents]


def _files(folder: Path) -> Iterator[Path]:
    """Everything below, through links as well, but into no folder twice: links may go in circles."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in sorted(folders) if os.path.realpath(os.path.join(place, name)) not in seen]
        yield from (Path(place, name) for name in names)


def distinct(images: Sequence[tuple[Path, Path]]) -> list[str]:
    """Names for (resolved path, relative path) by the rule at the top of this file."""
    names = _with_endings([relative for _, relative in images])
    bare = list(names)
    for depth in range(1, max((len(path.parts) for path, _ in images), default=0)):
        uses = Counter(name.casefold() for name in names)
        for i, (path, relative) in enumerate(images):
            if uses[names[i].casefold()] > 1:
                above = path.parts[1 : len(path.parts) - len(relative.parts)]  # the folders over it, without the root
                names[i] = PurePosixPath(*above[max(0, len(above) - depth) :], bare[i]).as_posix()
    return _numbered(names)


def _with_endings(relatives: Sequence[Path]) -> list[str]:
    """Paths without endings, but with them where several endings meet under one name."""
    short = [relative.with_suffix("").as_posix() for relative in relatives]
    endings: dict[str, set[str]] = {}
    for name, relative in zip(short, relatives):
        endings.setdefault(name.casefold(), set()).add(relative.suffix.casefold())
    return [
        relative.as_posix() if len(endings[name.casefold()]) > 1 else name for name, relative in zip(short, relatives)
    ]


def _numbered(names: list[str]) -> list[str]:
    """A last resort for names that differ by case alone, and for one that the steps above made anew: -2, -3, ..."""
    taken: set[str] = set()
    out = []
    for name in names:
        number, free = 1, name
        while free.casefold() in taken:
            number += 1
            free = f"{name}-{number}"
        taken.add(free.casefold())
        out.append(free)
    return out
