"""Predicts files and folders: the next image is decoded during this one; a bad one does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.core.atomic import check_writable
from pixelwise.data.io import MAX_PIXELS
from pixelwise.errors import ImageError, PixelwiseError
from pixelwise.prediction.ahead import ahead
from pixelwise.prediction.names import Job, plan
from pixelwise.prediction.predictor import Predictor, load
from pixelwise.prediction.writers import Answer, Writer, make_writers, usual
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


def predict_folder(model: str | Path | Predictor, inputs: str | Path | Iterable[str | Path], out: str | Path, *,
                   save: Sequence[str] | None = None, overlay: bool = True, confidence: bool = False,
                   task: str | None = None, device: str | torch.device | None = None,
                   tta: str | Sequence[View] | None = None, precision: str = "fp32", max_pixels: int = MAX_PIXELS,
                   workers: int = 2,
                   on_image: Callable[[int, int, Path], None] | None = None) -> PredictionRun:  # fmt: skip
    """Predicts every image among `inputs`, files and folders mixed, and writes the answers below `out`.

    model     path of a model file, or a Predictor (which then has its own task, device, tta, precision, max_pixels)
    task      what to answer; None: what the model was trained for
    save      kinds of answers: "classes", "instances", "panoptic", and all of `pixelwise list writers`; None: the one
              usual for the model's task
    overlay, confidence   whether these pictures are written as well
              Each kind has its folder below `out`; see `writers` for their formats and `names` for the names.
    workers   threads that decode images in advance
    on_image  called (number done, number in all, image) after each image
    An image that cannot be read, or does not fit in memory, is in `failed` with its reason and the others are done.
    Raises OutputError at once when `out` cannot be written (no permission, disk full), and what `load` raises.
    """
    out = Path(out)
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if isinstance(model, Predictor):
        predictor = model
    else:
        predictor = load(model, device, tta, task=task, precision=precision, max_pixels=max_pixels)
    pictures = [kind for kind, wanted in (("overlay", overlay), ("confidence", confidence)) if wanted]
    writers = make_writers([*(usual(predictor.task) if save is None else save), *pictures], predictor.task, out)
    check_writable(out)
    jobs, failed = plan(inputs, out)
    done: list[tuple[Path, tuple[Path, ...]]] = []
    try:
        for number, (job, future) in enumerate(ahead(lambda job: predictor.pixels(job.path), jobs, workers), 1):
            reason = _failure(predictor, job, future, list(writers.values()), done)
            if reason is not None:
                failed.append((job.path, reason))
            if on_image is not None:
                on_image(number, len(jobs), job.path)
    finally:  # also after Ctrl-C: what is done can be used
        finished = writers.items() if done else ()
        lost = [f"{kind}: {sentence}" for kind, writer in finished for sentence in writer.finish()]
    return PredictionRun(tuple(done), tuple(failed), tuple(lost))


def _failure(predictor: Predictor, job: Job, future: Future[Tensor], writers: Sequence[Writer],
             done: list[tuple[Path, tuple[Path, ...]]]) -> str | None:  # fmt: skip
    """Predicts one image and adds it to `done`; returns why it could not, if that is the image's own fault."""
    try:
        pixels = future.result()
        output = predictor.forward(pixels)
        answer = Answer(name=job.name, image=job.path, ending=job.path.suffix, pixels=pixels, output=output,
                        segments=predictor.decode(output))  # fmt: skip
        done.append((job.path, tuple(path for writer in writers for path in writer.write(answer))))
    except ImageError as error:
        return error.reason
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return "does not fit in memory; predict it on another device, or in parts."
    return None


def _out_of_memory(error: Exception) -> bool:
    """torch's CPU allocator raises a plain RuntimeError; CUDA's has a type of its own."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    return known and not isinstance(error, PixelwiseError)
