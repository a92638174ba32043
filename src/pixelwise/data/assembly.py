"""What every format does last: records by split, a look at the images, and the data set of it all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelwise.core.classes import Classes
from pixelwise.data import look
from pixelwise.data.dataset import DataSet, Reader, Record
from pixelwise.data.io import MAX_PIXELS
from pixelwise.data.layout import Files, Layout, split_files
from pixelwise.errors import ConfigError


def check_missing(missing: Any) -> None:
    """Raises ConfigError for a word that does not say what to do with images without truth."""
    if missing not in ("refuse", "skip"):
        raise ConfigError(f"missing is 'refuse' or 'skip', got {missing!r}.")


def split_entries(root: Path, files: Files, entries: Mapping[str, str | int],
                  seed: int) -> dict[str, tuple[Record, ...]]:  # fmt: skip
    """The images of `files` as records by split, each with the key of its annotation."""
    return {
        split: tuple(Record(name, files.images[name], split=split, entry=entries[name]) for name in members)
        for split, members in split_files(root, Layout(), files, seed).items()
    }


def make_data_set(root: Path, format: str, splits: dict[str, tuple[Record, ...]], reader: Reader, notes: list[str], *,
                  classes: Classes, task: str, channels: int | None = None, max_pixels: int = MAX_PIXELS,
                  **more: Any) -> DataSet:  # fmt: skip
    """The data set of these records; some images are looked at for channels and depth, and `notes` hear of mixtures.

    task      its default task
    channels  of every image; None takes the most that the images have
    more      further fields of `DataSet`
    """
    pictures = look.look_at_images([r.image for group in splits.values() for r in group], notes, max_pixels)
    return DataSet(
        root=root,
        format=format,
        classes=classes,
        splits=splits,
        reader=reader,
        notes=tuple(notes),
        channels=channels or pictures.channels,
        dtype=pictures.dtype,
        default_task=task,
        max_pixels=max_pixels,
        **more,
    )
