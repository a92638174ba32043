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
from PIL import Image

from pixelwise.core import disagreement, drawing
from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments

WIDTH, HEIGHT = 480, 640  # the largest picture, in pixels
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
    drawn = [[(title, alt, _fitting(picture)) for title, alt, picture in _views(e, classes)] for e in examples]
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
    name = example.name
    return [
        ("image", f"The image {name}", image),
        ("truth", f"Truth of {name}: {_contents(truth, classes)}", drawing.overlay(image, truth, classes)),
        ("prediction", f"Prediction for {name}: {_contents(prediction, classes)}",
         drawing.overlay(image, prediction, classes)),
        ("errors", f"Errors in {name}, in colour on grey",
         disagreement.error_overlay(image, prediction, truth, classes)),
    ]  # fmt: skip


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


def _fitting(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return _scaled(picture, min(1.0, WIDTH / width, HEIGHT / height))


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
