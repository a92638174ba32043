"""Where predicted objects meet true ones: the pairs, the pixels they share, and who counts. Objects may overlap.

Truth that is UNKNOWN never counts: it is taken out of predictions before IoU is measured. Crowd is neither matched nor
missed. A prediction without a match that lies for more than half on unknown pixels and on crowd of its class is left
out, as in panoptic quality.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixelwise.core.segments import Segments
from pixelwise.kernels.joint import Codes, joint, pairs
from pixelwise.metrics.histogram import MARKS, check_size, checked_labels, layer_codes


@dataclass(frozen=True)
class Meetings:
    """N true rows and M predicted ones of an image, and the P pairs of one class that share pixels.

    t, p      [P] int64 rows; a pair comes once
    shared    [P] int64 pixels
    iou       [P] float64, 0 where the true row is crowd
    t_label, p_label   [N], [M] int64
    t_area, p_area     [N], [M] int64 pixels
    void      [M] float64 pixels of a prediction that are unknown in the truth
    objects   [N] bool: true rows that are to be found
    alarms    [M] bool: predicted rows that are false unless they are matched
    """

    t: np.ndarray
    p: np.ndarray
    shared: np.ndarray
    iou: np.ndarray
    t_label: np.ndarray
    p_label: np.ndarray
    t_area: np.ndarray
    p_area: np.ndarray
    void: np.ndarray
    objects: np.ndarray
    alarms: np.ndarray


def meet(prediction: Segments, truth: Segments, num_classes: int) -> Meetings:
    """The pairs of one class that meet, in whichever layers. Raises DataError for sizes that differ and false labels.

    Rows without pixels are no objects.
    """
    check_size(prediction, truth)
    p_label = checked_labels(prediction, num_classes, "prediction")
    t_label = checked_labels(truth, num_classes, "truth")
    t, p, shared, void = _meetings(prediction, truth)
    same = t_label[t] == p_label[p]
    t, p, shared = t[same], p[same], shared[same]
    t_area, p_area = truth.pixel_counts.cpu().numpy(), prediction.pixel_counts.cpu().numpy()
    crowd = truth.crowd.cpu().numpy()
    on_crowd = np.bincount(p[crowd[t]], shared[crowd[t]], len(prediction))
    alarms = (p_area > 0) & ~(void + on_crowd > 0.5 * p_area)
    iou = np.where(crowd[t], 0.0, shared / (t_area[t] + p_area[p] - void[p] - shared))
    return Meetings(t, p, shared, iou, t_label, p_label, t_area, p_area, void, (t_area > 0) & ~crowd, alarms)


def _meetings(prediction: Segments, truth: Segments) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """t, p, shared [P]: true and predicted rows that meet, in which layers ever, and the pixels they share.

    And void [M]: pixels of each prediction that are unknown in the truth.
    """
    n, m = len(truth), len(prediction)
    unknown = truth.unknown
    met = []
    void = np.zeros(m)
    for layer in prediction.ids.to(truth.ids.device):
        predicted = layer_codes(layer, m)
        void += joint(Codes(unknown, 0, 2), predicted)[1, MARKS:]
        met += [pairs(layer_codes(own, n), predicted) for own in truth.ids]
    t, p, shared = (np.concatenate(column) for column in zip(*met))
    rows = (t >= MARKS) & (p >= MARKS)  # a row lives in one layer, so each pair of rows comes once
    return t[rows] - MARKS, p[rows] - MARKS, shared[rows], void
