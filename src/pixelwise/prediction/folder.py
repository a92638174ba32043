"""Predicts files and folders: during an image the next is decoded and the last is written.

A bad image does not stop the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelwise.core.atomic import check_writable
from pixelwise.data.io import MAX_PIXELS
from pixelwise.data.windows import Windows, open_windows
from pixelwise.data.writer import Resumable
from pixelwise.errors import ConfigError, DataError, ImageError, PixelwiseError
from pixelwise.prediction.ahead import ahead
from pixelwise.prediction.amount import different_sizes
from pixelwise.prediction.behind import Behind, Turn
from pixelwise.prediction.confidence import confidence
from pixelwise.prediction.large import answer_large, is_large
from pixelwise.prediction.names import Job, plan
from pixelwise.prediction.predictor import Predictor, load
from pixelwise.prediction.resume import Resume, fingerprint
from pixelwise.prediction.writers import (
    Answer,
    Confidence,
    Writer,
    check_large,
    make_writers,
    usual,
)
from pixelwise.views import View


@dataclass(frozen=True)
class PredictionRun:
    """What was done.

    done    (image, files written for it)
    failed  (image or input, reason)
    lost    what the formats written could not hold, a sentence each with its count
    whole   (large image that had to be decoded whole, why)
    """

    done: tuple[tuple[Path, tuple[Path, ...]], ...]
    failed: tuple[tuple[Path, str], ...]
    lost: tuple[str, ...] = ()
    whole: tuple[tuple[Path, str], ...] = ()

    @property
    def ok(self) -> bool:
        return not self.failed


def predict_folder(model: str | Path | Sequence[str | Path] | Predictor, inputs: str | Path | Iterable[str | Path],
                   out: str | Path, *, save: Sequence[str] | None = None, overlay: bool = True,
                   confidence: bool = False, task: str | None = None, device: str | torch.device | None = None,
                   tta: str | Sequence[View] | None = None, precision: str | None = None, engine: str | None = None,
                   exact: bool = False, max_pixels: int = MAX_PIXELS, workers: int | None = None,
                   maps: str = "auto", tile: int | None = None, resume: bool = False,
                   on_image: Callable[[int, int, Path], None] | None = None,
                   on_tile: Callable[[int, int, Path], None] | None = None) -> PredictionRun:  # fmt: skip
    """Predicts every image among `inputs`, files and folders mixed, and writes the answers below `out`.

    model     path of a model file, of several that answer together, or a Predictor (which then has its own task,
              device, tta, engine, max_pixels)
    task      what to answer; None: what the model was trained for
    save      kinds of answers: "classes", "instances", "panoptic", and all of `pixelwise list writers`; None: the one
              usual for the model's task
    overlay, confidence   whether these pictures are written as well
              Each kind has its folder below `out`; see `writers` for their formats and `names` for the names.
    precision, engine, exact   see `load`
    workers   threads that decode images in advance; None: as many as suit the machine
    maps      "png", "tiff" or "auto": maps are TIFF where their image has a place on the earth, and keep it
    tile      images of more than tile x tile pixels are read, answered and written by tiles of that side, or up to
              twice as large where that makes them exact; None: those that would take too much memory at once, by tiles
              that suit the net: see `stitch`
    resume    goes on with what an interrupted run of the same inputs and settings left: finished images are not
              computed again (where a format is asked for that notes nothing, they are), large ones from their last rows
    on_image  called (number done, number in all, image) when all is written of an image, in the order of the images
    on_tile   called (number done, number in all, image) after each tile of a large image
    An image that cannot be read, or does not fit in memory, is in `failed` with its reason and the others are done.
    Raises OutputError at once when `out` cannot be written (no permission, disk full), ConfigError for numbers that
    mean nothing, and what `load` raises.
    """
    for name, number, least in (("tile", tile, 1), ("workers", workers, 0)):
        if number is not None and number < least:
            raise ConfigError(f"{name} must be at least {least}, got {number}.")
    out = Path(out)
    given = [Path(entry) for entry in ([inputs] if isinstance(inputs, str | Path) else inputs)]
    if isinstance(model, Predictor):
        predictor = model
    else:
        predictor = load(model, device, tta, task=task, precision=precision, engine=engine, exact=exact,
                         max_pixels=max_pixels)  # fmt: skip
    pictures = [kind for kind, wanted in (("overlay", overlay), ("confidence", confidence)) if wanted]
    kinds = [*(usual(predictor.task) if save is None else save), *pictures]
    writers = make_writers(kinds, predictor.task, out, maps)
    check_writable(out)
    jobs, failed = plan(given, out)
    predictor.expect(len(jobs), different_sizes([job.path for job in jobs]))
    workers = predictor.choice.workers if workers is None else workers
    left = Resume(out, fingerprint(predictor, sorted(writers), maps, tile), given, wanted=resume)
    run = _Run(predictor, writers, left, tile, len(jobs), failed, on_image, on_tile)
    try:
        with Behind(writers) as behind:
            try:
                for job, future in ahead(run.read, jobs, workers):
                    run.answer(job, future, behind)
                    run.take(behind.ready())
                run.take(behind.ready(room=0))
            except KeyboardInterrupt:
                run.on_image = None
                run.take(behind.ready(room=0))
                raise
    finally:  # also after Ctrl-C: what is done can be used
        finished = writers.items() if run.done else ()
        lost = [f"{kind}: {sentence}" for kind, writer in finished for sentence in writer.finish()]
    if not run.failed:
        left.remove()
    return PredictionRun(tuple(run.done), tuple(run.failed), tuple(lost), tuple(run.whole))


@dataclass
class _Run:
    """One run: what becomes of the images, in their order."""

    predictor: Predictor
    writers: Mapping[str, Writer]
    left: Resume
    tile: int | None
    total: int
    failed: list[tuple[Path, str]]
    on_image: Callable[[int, int, Path], None] | None
    on_tile: Callable[[int, int, Path], None] | None
    done: list[tuple[Path, tuple[Path, ...]]] = field(default_factory=list)
    whole: list[tuple[Path, str]] = field(default_factory=list)
    number: int = 0
    keys: dict[str, str] = field(default_factory=dict)  # of images as they were read: they may change meanwhile
    measuring: threading.Lock = field(default_factory=threading.Lock)  # what the net takes is found once

    def __post_init__(self) -> None:
        self.resumes = all(isinstance(writer, Resumable) for writer in self.writers.values())
        self.sure = Confidence.folder in self.writers

    def known(self, job: Job) -> dict[str, Any] | None:
        """What an earlier run noted of an image that it finished."""
        return self.left.finished.get(self.keys[job.name]) if self.resumes else None

    def read(self, job: Job) -> Tensor | Windows | None:
        """Its pixels, its windows where it is large, None where it is done. Runs in threads of its own."""
        self.keys[job.name] = self.left.key(job.path, job.name)
        if self.known(job) is not None:
            return None
        with self.measuring:
            by_choice = all(writer.BY_BANDS for writer in self.writers.values())
            large = is_large(job.path, self.predictor, self.tile, by_choice=by_choice)
        if large:
            check_large(self.writers, job.path)
            rule = self.predictor.card.preprocessing
            windows = open_windows(job.path, rule, max_pixels=self.predictor.max_pixels)
            if not windows.windowed:
                self.whole.append((job.path, windows.why))
            return windows
        return self.predictor.pixels(job.path)

    def answer(self, job: Job, future: Future[Tensor | Windows | None], behind: Behind) -> None:
        """Predicts one image and has it written."""
        try:
            pixels = future.result()
            if pixels is None:
                entry = self.known(job) or {}
                behind.recall(job, tuple(map(Path, entry["files"])), entry["notes"])
            elif isinstance(pixels, Windows):
                large = answer_large(self.predictor, job, pixels, self.left, self.keys[job.name], tile=self.tile,
                                     sure=self.sure, on_tile=self.on_tile)  # fmt: skip
                behind.write(job, large)
            else:
                behind.write(job, self._whole(job, pixels))
        except (ImageError, MemoryError, RuntimeError) as error:
            behind.failed(job, error)

    def _whole(self, job: Job, pixels: Tensor) -> Answer:
        output = self.predictor.forward(pixels)
        sure = confidence(output, self.predictor.task.classes.channels) if self.sure else None
        return Answer(name=job.name, image=job.path, ending=job.path.suffix, pixels=pixels, confidence=sure,
                      segments=self.predictor.decode(output))  # fmt: skip

    def take(self, written: Iterable[Turn]) -> None:
        """Adds images to `done` or `failed`. Raises what is no image's own fault."""
        for turn in written:
            try:
                files = turn.files()
                if self.resumes and not turn.known:
                    self.left.enter(self.keys[turn.job.name], files, turn.notes())
                self.done.append((turn.job.path, files))
            except DataError as error:  # it is bad, or a format cannot hold what it shows
                self.failed.append((turn.job.path, error.reason if isinstance(error, ImageError) else str(error)))
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                self.failed.append((turn.job.path, NO_MEMORY))
            finally:
                turn.close()
            self.number += 1
            if self.on_image is not None:
                self.on_image(self.number, self.total, turn.job.path)


NO_MEMORY = "does not fit in memory; predict it on another device, or in smaller tiles (--tile)."


def _out_of_memory(error: Exception) -> bool:
    """torch's CPU allocator raises a plain RuntimeError; CUDA's has a type of its own."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    return known and not isinstance(error, PixelwiseError)
