"""What an interrupted prediction left, so that `--resume` goes on: a journal of finished images, states of large ones.

All of it lies in a hidden folder of the answers, of its own for each set of inputs and settings, so that several runs
may write to one place. It is removed when everything is done.
    journal.jsonl   a line for each finished image: its key, its files, what its writers must remember
    KEY.rows        the scratch file of a large image
    KEY.sure        that of its confidence
    KEY.state.npz   how far it is: the arrays of `stitch`, written whole or not at all after each row of tiles
A key is a hash of the image (path, size, time of change) and of everything that its answer depends on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.core.atomic import atomic, output_error


def fingerprint(predictor: Any, *settings: Any) -> str:
    """A hash of the weights, the card, the task and the views of a predictor, and of further settings."""
    found = hashlib.blake2b(digest_size=16)
    for member in predictor.members:
        for name, tensor in member.net.state_dict().items():
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        found.update(repr((member.card.preprocessing, member.task, member.views, member.engine.wishes)).encode())
    found.update(repr(settings).encode())
    return found.hexdigest()


class Resume:
    """The hidden folder of one run.

    out       the folder of answers
    settings  the fingerprint of everything that the answers depend on
    inputs    files and folders, as given
    wanted    whether to go on with what is there; False: it is thrown away
    finished  the entries of an earlier run's journal by key
    """

    def __init__(self, out: Path, settings: str, inputs: Sequence[Path], *, wanted: bool) -> None:
        about = repr((settings, [str(path.absolute()) for path in inputs]))
        name = hashlib.blake2b(about.encode(), digest_size=8).hexdigest()
        self.folder, self.settings = out / f".pixelwise-{name}", settings
        self.finished: dict[str, dict[str, Any]] = {}
        if wanted:
            self._read()
        else:
            self.remove()

    def key(self, image: Path, name: str) -> str:
        """Of an image whose answer is to be called `name`."""
        with suppress(OSError):
            status = image.stat()
            what = (str(image.resolve()), status.st_size, status.st_mtime_ns, name, self.settings)
            return hashlib.blake2b(repr(what).encode(), digest_size=16).hexdigest()
        return ""

    def _read(self) -> None:
        """The journal, but for a last line that was cut off, and for images whose files are gone."""
        with suppress(FileNotFoundError):
            for line in (self.folder / "journal.jsonl").read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    if all(Path(path).is_file() for path in entry["files"]):
                        self.finished[entry["key"]] = entry

    def enter(self, key: str, files: tuple[Path, ...], notes: Mapping[str, Any]) -> None:
        """An image is finished. One that has no key any more is not noted."""
        if not key:
            return
        entry = {"key": key, "files": [str(path.absolute()) for path in files], "notes": notes}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "journal.jsonl").open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(entry) + "\n")  # the line before may have been cut off
        except OSError as error:
            raise output_error(self.folder, error) from error

    def rows(self, key: str) -> Path:
        """Where the scratch file of a large image lies."""
        return self.folder / f"{key}.rows"

    def sure(self, key: str) -> Path:
        """Where its confidence lies."""
        return self.folder / f"{key}.sure"

    def state(self, key: str) -> dict[str, np.ndarray] | None:
        """How far a large image is; None where nothing is known of it."""
        try:
            with np.load(self.folder / f"{key}.state.npz", allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    def keep(self, key: str, state: Mapping[str, np.ndarray]) -> None:
        """Notes how far a large image is."""
        with atomic(self.folder / f"{key}.state.npz") as part, part.open("wb") as file:
            np.savez(file, **state)  # type: ignore[arg-type]

    def forget(self, key: str) -> None:
        """A large image is done, or cannot be."""
        for path in (self.rows(key), self.sure(key), self.folder / f"{key}.state.npz"):
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):  # if nothing else is in it
            self.folder.rmdir()

    def remove(self) -> None:
        """Everything is done."""
        if self.folder.is_dir():
            try:
                shutil.rmtree(self.folder)
            except OSError as error:
                raise output_error(self.folder, error) from error
