"""Predicts files and folders: during an image the next is decoded and the last is written.

A bad image does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.core.atomic import check_writable
from pixelwise.data.io import MAX_PIXELS
from pixelwise.errors import ImageError, PixelwiseError
from pixelwise.prediction.ahead import ahead
from pixelwise.prediction.amount import different_sizes
from pixelwise.prediction.behind import Behind
from pixelwise.prediction.names import Job, plan
from pixelwise.prediction.predictor import Predictor, load
from pixelwise.prediction.writers import Answer, Confidence, confidence, make_writers, usual
from pixelwise.views import View


@dataclass(frozen=True)
class PredictionRun:
    """What was done.

    done    (image, files written for it)
    failed  (image or input, reason)
    lost    what the formats written could not hold, a sentence each with its count
    """

    done: tuple[tuple[Path, tuple[Path, ...]], ...]
    failed: tuple[tuple[Path, str], ...]
    lost: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.failed


def predict_folder(model: str | Path | Sequence[str | Path] | Predictor, inputs: str | Path | Iterable[str | Path],
                   out: str | Path, *, save: Sequence[str] | None = None, overlay: bool = True,
                   confidence: bool = False, task: str | None = None, device: str | torch.device | None = None,
                   tta: str | Sequence[View] | None = None, precision: str | None = None, engine: str | None = None,
                   exact: bool = False, max_pixels: int = MAX_PIXELS, workers: int | None = None,
                   on_image: Callable[[int, int, Path], None] | None = None) -> PredictionRun:  # fmt: skip
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
    on_image  called (number done, number in all, image) when all is written of an image, in the order of the images
    An image that cannot be read, or does not fit in memory, is in `failed` with its reason and the others are done.
    Raises OutputError at once when `out` cannot be written (no permission, disk full), and what `load` raises.
    """
    out = Path(out)
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if isinstance(model, Predictor):
        predictor = model
    else:
        predictor = load(model, device, tta, task=task, precision=precision, engine=engine, exact=exact,
                         max_pixels=max_pixels)  # fmt: skip
    pictures = [kind for kind, wanted in (("overlay", overlay), ("confidence", confidence)) if wanted]
    writers = make_writers([*(usual(predictor.task) if save is None else save), *pictures], predictor.task, out)
    check_writable(out)
    jobs, failed = plan(inputs, out)
    predictor.expect(len(jobs), different_sizes([job.path for job in jobs]))
    workers = predictor.choice.workers if workers is None else workers
    results = _Results(len(jobs), failed, on_image)
    try:
        with Behind(writers) as behind:
            try:
                for job, future in ahead(lambda job: predictor.pixels(job.path), jobs, workers):
                    _answer(predictor, job, future, behind)
                    results.take(behind.ready())
                results.take(behind.ready(room=0))
            except KeyboardInterrupt:
                results.on_image = None
                results.take(behind.ready(room=0))
                raise
    finally:  # also after Ctrl-C: what is done can be used
        finished = writers.items() if results.done else ()
        lost = [f"{kind}: {sentence}" for kind, writer in finished for sentence in writer.finish()]
    return PredictionRun(tuple(results.done), tuple(results.failed), tuple(lost))


def _answer(predictor: Predictor, job: Job, future: Future[Tensor], behind: Behind) -> None:
    """Predicts one image and has it written."""
    try:
        pixels = future.result()
        output = predictor.forward(pixels)
        sure = confidence(output, predictor.task.classes.channels) if Confidence.folder in behind.writers else None
        answer = Answer(name=job.name, image=job.path, ending=job.path.suffix, pixels=pixels, confidence=sure,
                        segments=predictor.decode(output))  # fmt: skip
    except (ImageError, MemoryError, RuntimeError) as error:
        behind.failed(job, error)
    else:
        behind.write(job, answer)


@dataclass
class _Results:
    """What became of the images, in their order."""

    total: int
    failed: list[tuple[Path, str]]
    on_image: Callable[[int, int, Path], None] | None
    done: list[tuple[Path, tuple[Path, ...]]] = field(default_factory=list)
    number: int = 0

    def take(self, written: Iterable[tuple[Job, Callable[[], tuple[Path, ...]]]]) -> None:
        """Adds images to `done` or `failed`. Raises what is no image's own fault."""
        for job, files in written:
            try:
                self.done.append((job.path, files()))
            except ImageError as error:
                self.failed.append((job.path, error.reason))
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                self.failed.append((job.path, "does not fit in memory; predict it on another device, or in parts."))
            self.number += 1
            if self.on_image is not None:
                self.on_image(self.number, self.total, job.path)


def _out_of_memory(error: Exception) -> bool:
    """torch's CPU allocator raises a plain RuntimeError; CUDA's has a type of its own."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    return known and not isinstance(error, PixelwiseError)
