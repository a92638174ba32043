"""Where an answer and the truth disagree, as a picture and in numbers: objects found, missed, false, of a wrong class.

Objects match as in panoptic quality (Kirillov et al. 2018, 1801.00868): by IoU above 0.5 where the truth is known.
The colours are near the palette of Okabe and Ito (2008), which colour-blind people tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pixelwise.core.captions import is_class_map
from pixelwise.core.classes import Classes
from pixelwise.core.drawing import UNKNOWN_COLOUR, edges, fitting, hatched, line_width, paint
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.kernels.joint import Codes, pairs

FALSE = (240, 100, 10)  # a class where there is nothing, an object where there is none
MISSED = (60, 160, 245)  # nothing where there is a class, an object that was not found
CONFUSED = (220, 40, 130)  # one class taken for another
FOUND = (60, 225, 150)  # outline of an object that was found
# of an object: does not count; matched; matched in another class; without partner
NOTED, RIGHT, WRONG, ALONE = range(4)
MARKS = 2  # UNKNOWN and NOTHING come before the rows of a map


@dataclass(frozen=True)
class Matches:
    """What became of each row of a prediction and of the truth, NOTED, RIGHT, WRONG or ALONE: `predicted` [N] and
    `true` [M]. Stuff is NOTED."""

    predicted: np.ndarray
    true: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """Objects: found, missed, false and of a wrong class."""
        return {
            "found": int((self.true == RIGHT).sum()),
            "missed": int((self.true == ALONE).sum()),
            "false": int((self.predicted == ALONE).sum()),
            "wrong class": int((self.true == WRONG).sum()),
        }


def count_objects(segments: Segments, classes: Classes) -> int:
    """How many things own pixels and are no crowd; 0 for class maps, which have one row a class and no objects."""
    if is_class_map(segments, classes):
        return 0
    counted = classes.is_thing[segments.labels.numpy(force=True)] & ~segments.crowd.numpy(force=True)
    return int((counted & (segments.pixel_counts.numpy(force=True) > 0)).sum())


def match_objects(prediction: Segments, truth: Segments, classes: Classes) -> Matches:
    """Matches the objects of an answer and of the truth by IoU above 0.5.

    Crowds count nowhere, nor do predicted objects that lie with more than half of their pixels on what is unknown or a
    crowd, nor class maps, which have one row a class and no objects.
    """
    if is_class_map(truth, classes) or is_class_map(prediction, classes):
        return Matches(np.zeros(len(prediction), int), np.zeros(len(truth), int))
    p, t, inside = _overlaps(prediction, truth)
    counts, uncounted = _areas(prediction, truth)
    union = counts[p] - uncounted[p] + truth.pixel_counts.numpy(force=True)[t] - inside
    labels, true_labels = (s.labels.numpy(force=True) for s in (prediction, truth))
    crowd = truth.crowd.numpy(force=True)
    hidden = uncounted + np.bincount(p, inside * crowd[t], minlength=len(prediction))
    match = (inside > 0.5 * union) & ~crowd[t]
    same = labels[p] == true_labels[t]
    predicted = np.where(classes.is_thing[labels] & (counts > 0) & (2 * hidden <= counts), ALONE, NOTED)
    true = np.where(classes.is_thing[true_labels] & ~crowd & (truth.pixel_counts.numpy(force=True) > 0), ALONE, NOTED)
    for kind, which in ((WRONG, match & ~same), (RIGHT, match & same)):
        for states, rows in ((predicted, p[which]), (true, t[which])):
            states[rows] = np.where(states[rows] == NOTED, NOTED, kind)
    return Matches(predicted, true)


def _overlaps(prediction: Segments, truth: Segments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the prediction, rows of the truth and common pixels, [P] each, of the pairs that have some."""
    codes = [[Codes(layer, UNKNOWN, len(s) + MARKS) for layer in s.ids] for s in (prediction, truth)]
    p, t, counts = (np.concatenate(column) for column in zip(*(pairs(a, b) for a in codes[0] for b in codes[1])))
    rows = (p >= MARKS) & (t >= MARKS)  # a row lies in one layer, so each pair of rows comes once
    return p[rows] - MARKS, t[rows] - MARKS, counts[rows]


def _areas(prediction: Segments, truth: Segments) -> tuple[np.ndarray, np.ndarray]:
    """[N] pixels of each predicted row, and [N] those of them that lie on unknown truth."""
    hidden = np.zeros(len(prediction), np.int64)
    if bool(truth.unknown.any()):
        for layer in prediction.ids[:, truth.unknown.to(prediction.ids.device)].cpu().numpy():
            hidden += np.bincount(layer[layer >= 0], minlength=len(prediction))
    return prediction.pixel_counts.numpy(force=True), hidden


def error_overlay(
    image: Any, prediction: Segments, truth: Segments, classes: Classes | None = None, *, line: int = 0
) -> np.ndarray:
    """[H, W, 3] uint8: the image in grey, and in colour what is wrong: FALSE, MISSED and CONFUSED pixels.

    Pixels whose truth is unknown are hatched. With `classes` objects count as wholes: those without a partner are
    filled and outlined as FALSE or MISSED, those of a wrong class as CONFUSED, and the ones that were found are
    outlined in FOUND, by lines `line` pixels wide, or `line_width`. Raises DataError when the sizes differ.
    """
    picture = fitting(image, truth)
    fitting(image, prediction)
    grey = cv2.convertScaleAbs(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), alpha=0.7, beta=38)
    out = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    nothing = max([-1, *truth.labels.tolist(), *prediction.labels.tolist()]) + 1
    void = nothing + 1  # small numbers, so that maps of bytes hold them
    told = truth.class_map(void, nothing).numpy(force=True)
    said = prediction.class_map(nothing, nothing).numpy(force=True)  # an unknown answer is none
    kinds = (
        (FALSE, (told == nothing) & (said != nothing)),
        (MISSED, (told < nothing) & (said == nothing)),
        (CONFUSED, (told < nothing) & (said < nothing) & (told != said)),
    )
    for colour, where in kinds:
        paint(out, where, colour, 0.65)
    unknown = told == void
    paint(out, unknown, (150, 150, 150), 0.5)
    paint(out, hatched(unknown), UNKNOWN_COLOUR)
    if classes is not None:
        found = match_objects(prediction, truth, classes)
        _draw_objects(out, prediction, truth, found, line or line_width(*truth.size))
    return out


def _draw_objects(out: np.ndarray, prediction: Segments, truth: Segments, found: Matches, thick: int) -> None:
    """Fills and outlines objects by what became of them, in place."""
    for segments, states, alone in ((truth, found.true, MISSED), (prediction, found.predicted, FALSE)):
        for layer in segments.ids.cpu().numpy():
            here = np.append(states, [NOTED, NOTED])[layer]  # the marks index from the end
            for state, colour in ((ALONE, alone), (WRONG, CONFUSED)):
                paint(out, here == state, colour, 0.4)
            rim = edges(layer, thick)
            for state, colour in ((RIGHT, FOUND), (ALONE, alone), (WRONG, CONFUSED)):
                if state != RIGHT or segments is truth:
                    paint(out, rim & (here == state), colour)
