"""An image too large to be seen at once: read by windows, answered tile by tile on a scratch file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from pixelwise.core.bands import Bands
from pixelwise.core.outputs import Window
from pixelwise.core.segments import Segments, look_up, smallest_int
from pixelwise.data.decode import read_header
from pixelwise.data.tiff import read_tags
from pixelwise.data.windows import ANY, Windows
from pixelwise.errors import ImageError, OutputError, PixelwiseError
from pixelwise.prediction.canvas import ScratchCanvas
from pixelwise.prediction.names import Job
from pixelwise.prediction.predictor import Predictor
from pixelwise.prediction.resume import Resume
from pixelwise.prediction.stitch import MEMORY, Progress, answer_by_tiles, tiling_for, too_large
from pixelwise.prediction.tiling import Tiling
from pixelwise.prediction.writers import LargeAnswer

MODEST = 48 << 20  # bytes that a tile may take in a net that looks no further than a small part of it
MUCH = 1 << 29  # bytes of the whole image in such a net from which on it is answered by tiles
SLIGHT = 8  # where tiles overlap by less than one part in so many, smaller ones cost little
OVERVIEW = 1600  # pixels of the longer side of an overview
PIECE = 512  # pixels a side of what is read at once where an image is gone through, about
PATIENCE = 20  # noting how far it is may take one part in so many of the time


def is_large(path: Path, predictor: Predictor, tile: int | None = None, *, by_choice: bool = True) -> bool:
    """Whether an image is answered by tiles, by its header: more than tile x tile pixels, or as `too_large` has it.

    by_choice  whether tiles will do where they are not needed: where class maps are all that is asked for, and the net
               gives by tiles what it gives of the whole image, much less memory then is too much at once
    False for what has no readable header: reading it will say why.
    """
    try:
        tags = read_tags(path)
        if 256 in tags and 257 in tags:
            size = int(tags[257].values[0]), int(tags[256].values[0])
        else:
            size = read_header(path, max_pixels=ANY).size
    except (ImageError, OSError):
        return False
    if tile is not None:
        return size[0] * size[1] > tile * tile
    if too_large(predictor, size):
        return True
    able = by_choice and not predictor.task.countable.any() and too_large(predictor, size, MUCH)
    return able and _is_cheap(_tiling(predictor, size, None))


def answer_large(predictor: Predictor, job: Job, windows: Windows, resume: Resume, key: str, *,
                 tile: int | None = None, sure: bool = False,
                 on_tile: Callable[[int, int, Path], None] | None = None) -> LargeAnswer:  # fmt: skip
    """The answer for an image by windows: on a scratch file, with a table.

    key      of the image, in `resume`
    tile     pixels a side of the tiles; None: as many as memory is planned for
    sure     whether its confidence is wanted: on a scratch file, too
    on_tile  called (tiles done, in all, image)
    How far it is, is noted from time to time and gone on with where `resume` has it. What stops it from outside leaves
    the scratch files behind; its own errors do not. Raises ImageError for a damaged file, OutputError for a full disk.
    """
    size = windows.size
    tiling = _tiling(predictor, size, tile)
    try:
        canvases = _canvases(predictor, resume, key, size, sure=sure)
    except OutputError:
        windows.close()
        raise
    canvas, confidence = canvases[0], canvases[1] if sure else None
    note = _Note(resume, key, canvases, None if on_tile is None else lambda a, b: on_tile(a, b, job.path))
    start = None if any(made.fresh for made in canvases) else resume.state(key)
    try:
        table = answer_by_tiles(predictor, windows.read, size, canvas, tiling=tiling, on_tile=note, start=start,
                                confidence=confidence)  # fmt: skip
    except BaseException as error:
        windows.close()
        for made in canvases:
            made.close()
        if isinstance(error, PixelwiseError):
            resume.forget(key)
        raise
    bands = Bands(size, table.labels.numpy(), table.scores.numpy(), lambda a, b: table.final(canvas.band(a, b)))

    def close() -> None:
        windows.close()
        for made in canvases:
            made.remove()
        resume.forget(key)

    return LargeAnswer(name=job.name, image=job.path, ending=job.path.suffix, bands=bands, confidence=confidence,
                       overview=partial(overview, windows, bands), close=close)  # fmt: skip


def _canvases(predictor: Predictor, resume: Resume, key: str, size: tuple[int, int], *,
              sure: bool) -> list[ScratchCanvas]:  # fmt: skip
    """For rows, and for confidence where it is wanted."""
    task = predictor.task
    most = None if bool(task.countable.any()) else task.classes.channels
    canvases = [ScratchCanvas(resume.rows(key), size, most)]
    if sure:
        try:
            canvases.append(ScratchCanvas(resume.sure(key), size, dtype=np.uint8))
        except OutputError:
            canvases[0].remove()
            raise
    return canvases


def _tiling(predictor: Predictor, size: tuple[int, int], tile: int | None) -> Tiling:
    """By tiles of `tile` pixels a side, or up to twice as many where that makes them exact; None: small ones where that
    costs little and changes nothing."""
    if tile is not None:
        return tiling_for(predictor, size, side=tile)
    small = tiling_for(predictor, size, MODEST)
    return small if _is_cheap(small) else tiling_for(predictor, size, MEMORY)


def _is_cheap(tiling: Tiling) -> bool:
    return tiling.exact and tiling.overlap * SLIGHT <= tiling.side


class _Note:
    """Notes how far an image is, as often as is cheap, and tells who wants to know."""

    def __init__(
        self, resume: Resume, key: str, canvases: list[ScratchCanvas], tell: Callable[[int, int], None] | None
    ) -> None:
        self.resume, self.key, self.canvases, self.tell = resume, key, canvases, tell
        self.last, self.cost = time.monotonic(), 0.0

    def __call__(self, progress: Progress) -> None:
        begin = time.monotonic()
        if progress.state is not None and begin - self.last >= PATIENCE * self.cost:
            for canvas in self.canvases:
                canvas.flush()
            self.resume.keep(self.key, progress.state())
            self.last = time.monotonic()
            self.cost = self.last - begin
        if self.tell is not None:
            self.tell(progress.done, progress.total)


# -- the image gone through -------------------------------------------------------------------------------------------


def pieces(size: tuple[int, int], unit: int = 1) -> Iterator[Window]:
    """Windows (top, left, height, width) that share an image (H, W) out, of sides that are multiples of `unit`."""
    step = max(unit, PIECE // unit * unit)
    for top in range(0, size[0], step):
        for left in range(0, size[1], step):
            yield top, left, min(step, size[0] - top), min(step, size[1] - left)


def overview(windows: Windows, bands: Bands) -> tuple[Tensor, Segments]:
    """Image [C, h, w] and segments reduced by a whole number, so that OVERVIEW holds the longer side.

    Pixels are means, rows those of the middles.
    """
    height, width = windows.size
    factor = -(-max(height, width) // OVERVIEW)
    factor = min(factor, height, width)
    h, w = height // factor, width // factor
    image = torch.empty(0)
    for top, left, rows, columns in pieces((h * factor, w * factor), factor):
        part = windows.read((top, left, rows, columns))
        image = image if image.numel() else torch.empty((len(part), h, w), dtype=part.dtype)
        cells = columns // factor, rows // factor
        planes = [
            cv2.resize(np.ascontiguousarray(plane), cells, interpolation=cv2.INTER_AREA) for plane in part.numpy()
        ]
        y, x = top // factor, left // factor
        image[:, y : y + rows // factor, x : x + columns // factor] = torch.from_numpy(np.stack(planes))
    return image, _reduced(bands, factor, (h, w))


def _reduced(bands: Bands, factor: int, size: tuple[int, int]) -> Segments:
    """The row in the middle of each cell of factor x factor pixels; rows that show nowhere are left out."""
    ids, shown = np.empty(size, np.int32), np.zeros(len(bands) + 2, bool)
    for at, line in enumerate(ids):
        middle = at * factor + factor // 2
        line[:] = bands.read(middle, middle + 1)[0, factor // 2 :: factor][: size[1]]
        shown[line] = True
    rows = np.flatnonzero(shown[:-2])
    kind = smallest_int(len(rows))
    number = torch.full((len(bands) + 2,), -1, dtype=kind)
    number[rows] = torch.arange(len(rows), dtype=kind)
    number[-2] = -2
    small = look_up(number, torch.from_numpy(ids))
    return Segments(small, torch.from_numpy(bands.labels[rows]), torch.from_numpy(bands.scores[rows]))
