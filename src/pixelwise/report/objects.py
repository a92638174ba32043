"""Objects in a report: how many there are and how many are found, and what the colours of pictures say of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelwise.core import disagreement, drawing
from pixelwise.core.classes import Classes
from pixelwise.core.disagreement import count_objects
from pixelwise.report.pictures import Example
from pixelwise.report.plots import Chart, scatter
from pixelwise.report.tables import css


def of_examples(examples: Sequence[Example], classes: Classes | None) -> list[tuple[int, int]]:
    """(true, answered) numbers of objects of each image; empty where there are only classes."""
    if classes is None or not classes.things:
        return []
    return [(count_objects(e.truth, classes), count_objects(e.prediction, classes)) for e in examples]


def counting(pairs: Sequence[tuple[int, int]]) -> list[Chart]:
    """A chart of the objects in each image, true and answered; none where there are no objects."""
    if not any(true or found for true, found in pairs):
        return []
    true, found = np.array(pairs).T
    error = float(np.abs(found - true).mean())
    images = f"{len(pairs)} image{'' if len(pairs) == 1 else 's'}"
    note = f"{found.sum()} answered, {true.sum()} true in {images}; an image's count is off by {error:.1f} on average."
    return [scatter("Objects per image", true.tolist(), found.tolist(), x_label="objects in the truth",
                    y_label="objects in the answer", note=note, diagonal=True)]  # fmt: skip


def legend(examples: Sequence[Example], classes: Classes | None) -> list[tuple[str, str]]:
    """(name, colour) of the classes that the examples show; none for an only class, whose objects have all colours."""
    if classes is None or (len(classes) == 1 and classes.things):
        return []
    seen: set[int] = set()
    for example in examples:
        for segments in (example.truth, example.prediction):
            seen |= set(segments.labels[segments.pixel_counts > 0].tolist())
    return [(n, css(c)) for k, (n, c) in enumerate(zip(classes.names, classes.colours)) if k in seen]


def errors(objects: bool) -> list[tuple[str, str]]:
    """(meaning, colour) of the pictures of errors, for pixels or for objects too."""
    if not objects:
        return [
            ("false: an answer where there is nothing", css(disagreement.FALSE)),
            ("missed: no answer where there is something", css(disagreement.MISSED)),
            ("taken for another class", css(disagreement.CONFUSED)),
            ("unknown: does not count", css(drawing.UNKNOWN_COLOUR)),
        ]
    return [
        ("found: an object matched by IoU above 0.5, outlined", css(disagreement.FOUND)),
        ("false alarm: an object or pixels where there is none", css(disagreement.FALSE)),
        ("missed: an object or pixels without an answer", css(disagreement.MISSED)),
        ("taken for another class", css(disagreement.CONFUSED)),
        ("unknown: does not count", css(drawing.UNKNOWN_COLOUR)),
    ]
