"""Average precision of masks (Lin et al. 2014, 1405.0312), counted by COCO's evaluator through faster-coco-eval.

Masks are kept as run-length codes by image index and joined in that order, since the order decides between tied scores
(sorting is stable: within an image the rows' order, then the images'). A detection's area is that of its mask, also
where it brings a box or an area (pycocotools takes a box's where results have both); a true object's is
`Segments.areas`, as annotated where given. Boxes are not scored: there is no box AP here. Crowd is COCO's: detections
on it are ignored. UNKNOWN pixels of the truth act as a crowd region of every class: a detection that matches no object
and lies on them (for a share of its own area of at least the IoU threshold) is ignored. Images without objects keep
their false positives. A class without objects is NaN and left out of the means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.core import rle
from pixelwise.core.classes import Classes
from pixelwise.core.segments import BOX, TAG, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics.histogram import check_size, checked_labels, nan_mean

# areas in pixels, as COCO sorts them, both ends included
RANGES = {"all": [0, 1e5**2], "small": [0, 32**2], "medium": [32**2, 96**2], "large": [96**2, 1e5**2]}


@dataclass(frozen=True)
class _Image:
    """What COCO's evaluator needs of one image, as its annotations without ids."""

    index: int | None
    size: tuple[int, int]
    found: list[dict[str, Any]]
    objects: list[dict[str, Any]]
    unknown: dict[str, Any] | None


class AveragePrecision:
    """Mask AP over IoU 0.50:0.05:0.95, 101 recall points, the best `max_detections` of each image and class.

    COCO looks at 100; where images hold more objects (nuclei), ap_all and ar_all, which look at all, say more.
    Keys of compute(): ap, ap50, ap75, ap_small, ap_medium, ap_large (areas up to 32^2, 96^2 pixels, and above), ap_all;
    ar (mean recall), ar1 and ar10 (with the best 1 and 10 detections only), ar_small, ar_medium, ar_large, ar_all; and
    [K] float64 ap_per_class, ap50_per_class, ap75_per_class. Raises ConfigError for less than 1 class or detection.

    >>> truth = Segments(np.array([[0, 0, -1, 1, 1]], np.int8), labels=[0, 0])
    >>> prediction = Segments(np.array([[0, 0, -1, -1, -1]], np.int8), labels=[0], scores=[0.9])
    >>> metric = AveragePrecision(1)
    >>> metric.update(prediction, truth)
    >>> round(metric.compute()["ap"], 3)  # 51 of the 101 recall points are reached
    0.505
    """

    ranked = True  # wants every object with its score, however unsure

    def __init__(self, classes: Classes | int, *, max_detections: int = 100) -> None:
        self.num_classes = len(classes) if isinstance(classes, Classes) else int(classes)
        if self.num_classes < 1 or max_detections < 1:
            raise ConfigError(f"AveragePrecision needs 1 class and 1 detection; got {classes}, {max_detections}.")
        self.max_detections = int(max_detections)
        self.images: list[_Image] = []
        self.indexes: set[int] = set()

    def update(self, prediction: Segments, truth: Segments, index: int | None = None) -> None:
        """Adds one image. `index` is its place in the data set; images without one follow in the order of arrival.

        True rows that are boxes or tags are left out, and so are true rows without pixels unless an annotated area says
        that there is an object. Raises DataError when the sizes differ, a label is no class or an index comes twice.
        """
        check_size(prediction, truth)
        checked_labels(prediction, self.num_classes, "prediction")
        checked_labels(truth, self.num_classes, "truth")
        if index in self.indexes:
            raise DataError(f"Image {index} was given twice; every image counts once.")
        if index is not None:
            self.indexes.add(index)
        unknown = truth.unknown.cpu().numpy()
        code = rle.encode(unknown) if unknown.any() else None
        self.images.append(_Image(index, truth.size, self._found(prediction), _objects(truth), code))

    def merge(self, other: AveragePrecision) -> None:
        """Takes in another process's images. Raises ConfigError for other settings, DataError for an image in both."""
        mine, theirs = (self.num_classes, self.max_detections), (other.num_classes, other.max_detections)
        if mine != theirs:
            raise ConfigError(f"AveragePrecision of (classes, max_detections) {mine} cannot take in one of {theirs}.")
        twice = self.indexes & other.indexes
        if twice:
            raise DataError(f"Images {sorted(twice)[:5]} are in both parts; every image counts once.")
        self.images = self.images + other.images
        self.indexes = self.indexes | other.indexes

    def compute(self) -> dict[str, Any]:
        """The scores so far, in 0..1; see the class for the keys. NaN where there is no object."""
        precision, recall = self._evaluate()  # [T, R, K, A, 4], [T, K, A, 4]: the last of 1, 10, the limit, all
        precision, recall = (np.where(values < 0, np.nan, values) for values in (precision, recall))
        whole = precision[..., 0, 2]
        at = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}  # rows of IoU thresholds
        out: dict[str, Any] = {name: nan_mean(whole[rows]) for name, rows in at.items()}
        by_range = [(a, name) for a, name in enumerate(RANGES) if name != "all"]
        out |= {f"ap_{name}": nan_mean(precision[..., a, 2]) for a, name in by_range}
        out |= {"ap_all": nan_mean(precision[..., 0, 3]), "ar": nan_mean(recall[..., 0, 2])}
        out |= {name: nan_mean(recall[..., 0, m]) for m, name in ((0, "ar1"), (1, "ar10"))}
        out |= {f"ar_{name}": nan_mean(recall[..., a, 2]) for a, name in by_range}
        out["ar_all"] = nan_mean(recall[..., 0, 3])
        classes = range(self.num_classes)
        return out | {f"{n}_per_class": np.array([nan_mean(whole[r, ..., k]) for k in classes]) for n, r in at.items()}

    def _found(self, prediction: Segments) -> list[dict[str, Any]]:
        scores, labels = prediction.scores.tolist(), prediction.labels.tolist()
        columns = zip(labels, scores, prediction.pixel_counts.tolist(), rle.to_rle(prediction))
        return [_annotation(label, code, area, score=score) for label, score, area, code in columns]

    def _evaluate(self) -> tuple[np.ndarray, np.ndarray]:
        """COCO's precision [T, R, K, A, 4] and recall [T, K, A, 4]; -1 where a class has no object."""
        from faster_coco_eval import COCO, COCOeval_faster

        ordered = sorted(self.images, key=lambda image: (image.index is None, image.index or 0))
        truth, found = _coco(ordered, self.num_classes)
        if not truth["annotations"]:
            k, a = self.num_classes, len(RANGES)
            return np.full((10, 101, k, a, 4), -1.0), np.full((10, k, a, 4), -1.0)
        judge = COCOeval_faster(COCO(truth), COCO(found), "segm", print_function=_silent)
        most = max((len(image.found) for image in ordered), default=1)
        limits = [min(1, self.max_detections), min(10, self.max_detections), self.max_detections, max(most, 1)]
        judge.params.maxDets = sorted(set(limits))
        judge.params.areaRng, judge.params.areaRngLbl = list(RANGES.values()), list(RANGES)
        judge.evaluate()
        judge.accumulate()
        at = [judge.params.maxDets.index(limit) for limit in limits]
        return np.asarray(judge.eval["precision"])[..., at], np.asarray(judge.eval["recall"])[..., at]


def _silent(*_: Any) -> None:
    """Takes the evaluator's progress reports."""


def _annotation(label: int, code: dict[str, Any], area: float, *, crowd: bool = False, **more: Any) -> dict[str, Any]:
    # the box is never looked at; COCO would take a detection's area from it where results are loaded from a file
    fixed = {"category_id": label, "segmentation": code, "area": area, "iscrowd": int(crowd), "bbox": [0, 0, 0, 0]}
    return {**fixed, **more}


def _objects(truth: Segments) -> list[dict[str, Any]]:
    counts = truth.pixel_counts > 0
    if truth.given_areas is not None:
        counts |= truth.given_areas > 0
    if truth.kind is not None:
        counts &= (truth.kind != BOX) & (truth.kind != TAG)
    kept = truth.keep(counts)
    columns = zip(kept.labels.tolist(), kept.areas.tolist(), kept.crowd.tolist(), rle.to_rle(kept))
    return [_annotation(label, code, area, crowd=crowd) for label, area, crowd, code in columns]


def _coco(images: list[_Image], num_classes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two COCO data sets, truth and found. Ids of annotations start at 1: COCO's evaluator reads 0 as unmatched."""
    sets: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for i, image in enumerate(images):
        objects = list(image.objects)
        if image.unknown is not None:
            called = sorted({found["category_id"] for found in image.found})
            objects += [_annotation(label, image.unknown, 0, crowd=True) for label in called]
        for entries, new in zip(sets, (objects, image.found)):
            first = len(entries) + 1
            entries += [{**entry, "id": first + j, "image_id": i} for j, entry in enumerate(new)]
    shared = {
        "info": {},
        "images": [{"id": i, "height": image.size[0], "width": image.size[1]} for i, image in enumerate(images)],
        "categories": [{"id": k, "name": str(k)} for k in range(num_classes)],
    }
    return {**shared, "annotations": sets[0]}, {**shared, "annotations": sets[1]}
