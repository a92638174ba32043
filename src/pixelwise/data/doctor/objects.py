"""What the objects of one image look like: how many, in how many pieces, whether they overlap or own no pixel."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pixelwise.core.segments import BOX, TAG, Segments
from pixelwise.data.dataset import DataSet, Fault, Record

MANY = 100  # detections of an image that COCO's AP looks at
NEIGHBOURS = np.ones((3, 3), bool)  # pixels that touch at a corner are of one piece


def look_at_objects(truth: Segments, record: Record, dataset: DataSet, *, thorough: bool) -> list[Fault]:
    """Faults of the single objects (things that are no crowd); `thorough` also looks for pieces."""
    path = record.instances or record.semantic or record.image
    labels, counts = truth.labels.numpy(), truth.pixel_counts.numpy()
    single = dataset.classes.is_thing[labels] & ~truth.crowd.numpy()
    faults = []
    if single.sum() > MANY:
        faults.append(Fault("many-objects", path, f"{single.sum():,} objects"))
    drawn = single if truth.kind is None else single & ~np.isin(truth.kind.numpy(), (BOX, TAG))
    empty = np.flatnonzero(drawn & (counts == 0))
    if len(empty):
        faults.append(Fault("no-pixel", path, _named(truth, empty)))
    boxed = np.zeros(0, np.int64) if truth.kind is None else np.flatnonzero(truth.kind.numpy() == BOX)
    if len(boxed):
        faults.append(Fault("boxes-only", path, _named(truth, boxed)))
    if len(truth.ids) > 1:
        shared = int((truth.ids >= 0).sum() - (truth.ids >= 0).any(0).sum())
        faults.append(Fault("overlaps", path, f"{shared:,} pixels of several objects"))
    if thorough:
        several = np.array(_in_pieces(truth, single & (counts > 1)), np.int64)
        if len(several):
            faults.append(Fault("pieces", path, _named(truth, several)))
    return faults


def _in_pieces(truth: Segments, rows: np.ndarray) -> list[int]:
    """The rows among those marked [N] bool that are not in one piece."""
    crops = truth.windows()[1]
    return [int(r) for r in np.flatnonzero(rows) if ndimage.label(crops[r], NEIGHBOURS)[1] > 1]


def _named(truth: Segments, rows: np.ndarray) -> str:
    """'3 objects, ids 17, 18, 19', by their ids on disk."""
    noun = "object" if len(rows) == 1 else "objects"
    if truth.keys is None:
        return f"{len(rows):,} {noun}"
    ids = ", ".join(map(str, truth.keys[rows[:3]].tolist())) + (", ..." if len(rows) > 3 else "")
    return f"{len(rows):,} {noun}, id{'s' if len(rows) > 1 else ''} {ids}"
