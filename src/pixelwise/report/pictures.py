"""Examples of an evaluation as pictures in the page: image, truth, prediction, errors, as data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from PIL import Image

from pixelwise.core import disagreement, drawing
from pixelwise.core.captions import is_class_map, write_captions
from pixelwise.core.classes import Classes
from pixelwise.core.colours import instance_colours
from pixelwise.core.segments import Segments

WIDTH, HEIGHT = 480, 640  # the largest picture, in pixels
COLUMN, LETTERS = 312, 11  # width of a picture on a wide screen, and of letters there, in pixels
DRAWN = 2_000_000  # pixels at which overlays are drawn before they are made small
BUDGET = 3_500_000  # bytes that all pictures may take
# quality of JPEG and size of the picture; the first at which all fit. The last is small enough for pure noise
QUALITIES = ((88, 1.0), (75, 1.0), (60, 1.0), (60, 0.7), (45, 0.5))


class Example(Protocol):
    """One scored image: `image` [C, H, W] or [H, W, C] as `displayable` takes it, truth and prediction of its size."""

    @property
    def name(self) -> str: ...
    @property
    def image(self) -> Any: ...
    @property
    def truth(self) -> Segments: ...
    @property
    def prediction(self) -> Segments: ...
    @property
    def score(self) -> float: ...


@dataclass(frozen=True)
class Figure:
    """One example drawn: `views` are (title, alternative text, data URI, width, height)."""

    name: str
    score: float
    views: tuple[tuple[str, str, str, int, int], ...]


def best_and_worst(examples: Sequence[Example], count: int) -> tuple[list[Example], list[Example]]:
    """Up to `count` examples from either end of the scores, none in both; those without a score are left out."""
    scored = sorted((e for e in examples if not math.isnan(e.score)), key=lambda e: e.score)
    worst = scored[: min(count, len(scored) - len(scored) // 2)]
    return scored[len(worst) :][::-1][:count], worst


def draw(examples: Sequence[Example], classes: Classes) -> list[Figure]:
    """Four pictures an example, at the best quality at which all of them fit into BUDGET bytes."""
    drawn = [_views(example, classes) for example in examples]
    encoded: list[list[bytes]] = []
    for quality, scale in QUALITIES:
        encoded = [[_jpeg(_scaled(picture, scale), quality) for _, _, picture in views] for views in drawn]
        if sum(len(code) for codes in encoded for code in codes) * 4 / 3 <= BUDGET:
            break
    figures = []
    for example, views, codes in zip(examples, drawn, encoded):
        shown = []
        for (title, alt, picture), code in zip(views, codes):
            uri = "data:image/jpeg;base64," + base64.b64encode(code).decode()
            shown.append((title, alt, uri, picture.shape[1], picture.shape[0]))
        figures.append(Figure(example.name, example.score, tuple(shown)))
    return figures


def _views(example: Example, classes: Classes) -> list[tuple[str, str, np.ndarray]]:
    image, truth, prediction = drawing.displayable(example.image), example.truth, example.prediction
    step = math.ceil((image.shape[0] * image.shape[1] / DRAWN) ** 0.5)
    if step > 1:
        truth, prediction = _every(truth, step), _every(prediction, step)
        image = cv2.resize(image, truth.size[::-1], interpolation=cv2.INTER_AREA)
    name, scale = example.name, min(1.0, WIDTH / image.shape[1], HEIGHT / image.shape[0])
    line = max(1, round(1 / scale))  # so that outlines are a pixel wide when the picture has been made small
    errors = disagreement.error_overlay(image, prediction, truth, classes, line=line)
    return [
        ("image", f"The image {name}", _scaled(image, scale)),
        (f"truth{_objects(truth, classes)}", f"Truth of {name}: {_contents(truth, classes)}",
         _overlay(image, truth, classes, scale, line)),
        (f"prediction{_objects(prediction, classes)}", f"Prediction for {name}: {_contents(prediction, classes)}",
         _overlay(image, prediction, classes, scale, line)),
        (f"errors{_agreement(prediction, truth, classes)}", f"Errors in {name}, in colour on grey",
         _scaled(errors, scale)),
    ]  # fmt: skip


def _overlay(image: np.ndarray, segments: Segments, classes: Classes, scale: float, line: int) -> np.ndarray:
    """The overlay made small, and then written on, so that letters keep their size."""
    picture = _scaled(drawing.overlay(image, segments, classes, captions=False, line=line), scale)
    small = _nearest(segments, picture.shape[:2])
    height = round(LETTERS * max(1.0, picture.shape[1] / COLUMN))
    write_captions(picture, small, classes, instance_colours(segments, classes), height=height)
    return picture


def _nearest(segments: Segments, size: Sequence[int]) -> Segments:
    """The same segments on a grid of `size` (height, width): what lies under the centres of its pixels."""
    if tuple(size) == segments.size:
        return segments
    rows, columns = (
        ((torch.arange(count) + 0.5) * (source / count)).long().clamp(max=source - 1)
        for count, source in zip(size, segments.size)
    )
    ids = segments.ids.cpu()[:, rows][:, :, columns]
    return Segments(ids, segments.labels.cpu(), scores=segments.scores.cpu(), crowd=segments.crowd.cpu())


def _objects(segments: Segments, classes: Classes) -> str:
    """ ": 3 objects", or nothing where there are only classes."""
    if not classes.things or is_class_map(segments, classes):
        return ""
    count = disagreement.count_objects(segments, classes)
    return f": {count} object{'' if count == 1 else 's'}"


def _agreement(prediction: Segments, truth: Segments, classes: Classes) -> str:
    """ ": 5 found, 1 missed", or nothing where there are no objects on either side."""
    counts = disagreement.match_objects(prediction, truth, classes).counts
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f": {said}" if said else ""


def _every(segments: Segments, step: int) -> Segments:
    """The same segments on every `step`-th pixel."""
    ids = segments.ids[:, step // 2 :: step, step // 2 :: step]
    return Segments(ids, segments.labels, scores=segments.scores, crowd=segments.crowd)


def _contents(segments: Segments, classes: Classes) -> str:
    """The classes by falling area, for those who cannot see the picture."""
    areas = np.zeros(len(classes))
    np.add.at(areas, segments.labels.numpy(force=True), segments.pixel_counts.numpy(force=True))
    order = [k for k in np.argsort(-areas, kind="stable") if areas[k] > 0]
    return ", ".join(classes.names[k] for k in order[:6]) or "nothing"


def _scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return picture
    height, width = picture.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def png(picture: np.ndarray) -> str:
    """A picture with few colours as a data URI, exact."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
