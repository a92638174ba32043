"""The faults the doctor knows, as a table, and the place where single ones are gathered into findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One kind of fault, with all files that have it.

    severity  "error": training or scoring would stop, or learn what nobody meant. "warning": it runs, and is probably
              not what was meant. "note": worth knowing
    code      short name of the kind, for scripts
    message   what was found
    files     relative to the root, all of them
    details   what is wrong with each file, in the order of `files`; "" where the message says it all
    count     how many
    remedy    what to do, as a command where there is one
    """

    severity: Severity
    code: str
    message: str
    files: tuple[str, ...] = ()
    count: int = 1
    remedy: str = ""
    details: tuple[str, ...] = ()

    def line(self) -> str:
        """The finding in one line, with its first file."""
        if not self.files:
            return self.message
        detail = f": {self.details[0]}" if self.details[0] else ""
        more = ", ..." if len(self.files) > 1 else ""
        return f"{self.message} ({self.files[0]}{detail}{more})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [{"file": f, "detail": d} if d else {"file": f} for f, d in zip(self.files, self.details)]
        return {"severity": self.severity, "code": self.code, "message": self.message, "count": self.count,
                "files": rows, "remedy": self.remedy}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of fault: `one` or `many` (with {n}) begin the message; `remedy` may hold {root} and {file}."""

    severity: Severity
    one: str
    many: str
    remedy: str


KINDS = {
    "layout": Kind(
        "error",
        "a fault of the layout",
        "{n} faults of the layout",
        "Mend what the line says.",
    ),
    "class-table": Kind(
        "error",
        "the class table is faulty",
        "{n} faults in the class table",
        "Each line is `index name r g b`, then perhaps thing, stuff, void or nothing.",
    ),
    "unreadable": Kind(
        "error",
        "1 file that cannot be read",
        "{n} files that cannot be read",
        "Copy them again from their source, or remove image and mask: rm {file}",
    ),
    "gigantic": Kind(
        "error",
        "1 file above the limit of pixels",
        "{n} files above the limit of pixels",
        "Cut them into tiles; a file that can be trusted is read with open_data(..., max_pixels=...).",
    ),
    "image-without-mask": Kind(
        "error",
        "1 image without a mask",
        "{n} images without a mask",
        "Add the mask, or move the image out: mkdir -p {aside} && mv {file} {aside}/",
    ),
    "size-differs": Kind(
        "error",
        "1 mask of another size than its image",
        "{n} masks of another size than their image",
        "Export image and mask at one size; never scale a mask with smoothing.",
    ),
    "lossy-mask": Kind(
        "error",
        "1 mask in lossy compression, which changes ids at every edge",
        "{n} masks in lossy compression, which changes ids at every edge",
        "Export them again as PNG; converting the JPEG does not bring the ids back.",
    ),
    "colour-mask": Kind(
        "error",
        "1 colour mask, and nothing says which colour is which class",
        "{n} colour masks, and nothing says which colour is which class",
        "Write {root}/classes.txt with a line `index name r g b` for each class.",
    ),
    "unknown-colours": Kind(
        "error",
        "1 mask with colours that the class table does not know",
        "{n} masks with colours that the class table does not know",
        "Add the colours to the class table (with the word void where they mean nothing), or export without smoothing.",
    ),
    "unknown-ids": Kind(
        "error",
        "1 mask with ids that the class table does not know",
        "{n} masks with ids that the class table does not know",
        "Add each id to the class table: echo '{id} NAME' >> {table}   (or '{id} NAME void')",
    ),
    "truth": Kind(
        "error",
        "1 mask that contradicts itself or the class table",
        "{n} masks that contradict themselves or the class table",
        "Mend what the line says.",
    ),
    "no-class": Kind(
        "error",
        "the classes cannot be found",
        "{n} reasons why the classes cannot be found",
        "Write {root}/classes.txt with lines `index name`.",
    ),
    "one-pixel": Kind(
        "error",
        "1 image of a single pixel in height or width",
        "{n} images of a single pixel in height or width",
        "Remove image and mask: rm {file}",
    ),
    "mask-without-image": Kind(
        "warning",
        "1 mask without an image, left out",
        "{n} masks without an image, left out",
        "Add the image, or remove the mask: rm {file}",
    ),
    "split-leak": Kind(
        "warning",
        "1 image in two splits: its score says nothing about new images",
        "{n} images in two splits: scores say nothing about new images",
        "Keep each image in one split only.",
    ),
    "small": Kind(
        "warning",
        "1 image below 32 pixels in height or width",
        "{n} images below 32 pixels in height or width",
        "Nets shrink images 16 or 32 times: enlarge them, or leave them out.",
    ),
    "rotated": Kind(
        "warning",
        "1 image with an EXIF rotation, which is applied when it is read",
        "{n} images with an EXIF rotation, which is applied when they are read",
        "Look whether the mask fits the turned image; mogrify -auto-orient {file} makes it plain.",
    ),
    "all-void": Kind(
        "warning",
        "1 mask in which everything is void: nothing is learnt from it",
        "{n} masks in which everything is void: nothing is learnt from them",
        "Label them, or leave them out.",
    ),
    "absent-class": Kind(
        "warning",
        "1 class that never occurs in the training split",
        "{n} classes that never occur in the training split",
        "Add images that show them, or take them out of the class table.",
    ),
    "imbalance": Kind(
        "warning",
        "the classes differ strongly in size",
        "the classes differ strongly in size",
        "pixelwise train {root} --class-weights median --dataset.balanced",
    ),
    "no-split": Kind(
        "note",
        "a split is missing",
        "{n} splits are missing",
        "Write {root}/splits/val.txt, one name a line, and take these names out of train.txt.",
    ),
    "duplicate": Kind(
        "note",
        "1 image that is there twice in its split",
        "{n} images that are there twice in their split",
        "Remove one of each: they count double.",
    ),
    "absent-elsewhere": Kind(
        "note",
        "1 class that never occurs in a split that is scored",
        "{n} classes that never occur in a split that is scored",
        "Its score there is left out of every mean.",
    ),
    "empty-mask": Kind(
        "note",
        "1 mask that shows nothing but the background",
        "{n} masks that show nothing but the background",
        "Fine where the image shows none; else label it.",
    ),
    "no-object": Kind(
        "note",
        "1 image without any object",
        "{n} images without any object",
        "Fine where there is none; else label it.",
    ),
    "channels": Kind(
        "note",
        "images differ in channels",
        "images differ in channels",
        "All are read with the most channels, grey ones repeated.",
    ),
    "alpha": Kind(
        "note",
        "1 image with an alpha channel, which is dropped",
        "{n} images with an alpha channel, which is dropped",
        "open_data(..., channels=4) keeps it.",
    ),
    "sixteen-bit": Kind(
        "note",
        "1 image of 16 bits among others of 8",
        "{n} images of 16 bits among others of 8",
        "All are read as 16 bit, 8-bit values times 257.",
    ),
    "endings": Kind(
        "note",
        "images differ in file format",
        "images differ in file format",
        "",
    ),
    "large": Kind(
        "note",
        "1 image above 50 million pixels",
        "{n} images above 50 million pixels",
        "Training reads the whole image for each crop: tiles are faster.",
    ),
}


@dataclass
class Faults:
    """Gathers single faults; `findings` makes one Finding of each kind, the worst first."""

    root: Path
    table: str = "classes.txt"
    _found: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    _words: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, code: str, path: Path | None = None, detail: str = "", **words: str) -> None:
        """`words` fill the remedy's blanks; the first fault of a kind gives them."""
        self._found.setdefault(code, []).append((self.name(path) if path else "", detail))
        self._words.setdefault(code, words)

    def name(self, path: Path) -> str:
        """Relative to the root where it lies below it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def findings(self) -> tuple[Finding, ...]:
        made = [self._finding(code) for code in KINDS if code in self._found]
        return tuple(sorted(made, key=lambda f: ORDER.index(f.severity)))

    def _finding(self, code: str) -> Finding:
        kind, rows = KINDS[code], sorted(set(self._found[code]))
        files = [row for row in rows if row[0]]
        message = (kind.one if len(rows) == 1 else kind.many).format(n=f"{len(rows):,}")
        loose = [detail for name, detail in rows if not name and detail]
        message += f": {'; '.join(loose)}" if loose else ""
        words = {"root": str(self.root), "table": str(self.root / self.table), "aside": f"{self.root}-aside",
                 "file": str(self.root / files[0][0]) if files else ""}  # fmt: skip
        remedy = kind.remedy.format(**{**words, **self._words[code]})
        return Finding(
            kind.severity, code, message, tuple(f for f, _ in files), len(rows), remedy, tuple(d for _, d in files)
        )

    def __contains__(self, code: str) -> bool:
        return code in self._found

    def files(self, codes: Iterable[str]) -> set[Path]:
        """The files that have one of these faults."""
        return {self.root / name for code in codes for name, _ in self._found.get(code, ()) if name}
