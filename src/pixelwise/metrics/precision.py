"""Average precision of masks (Lin et al. 2014, 1405.0312), counted by COCO's evaluator through faster-coco-eval.

Masks are kept as run-length codes by image index and merged in that order, since the order decides between tied scores.
A detection's area is that of its mask; a true object's is `Segments.areas`, as annotated where given. Crowd is COCO's:
detections on it are ignored. UNKNOWN pixels of the truth act as a crowd region of every class: a detection that matches
no object and lies on them (share of its area >= the IoU threshold) is ignored. Images without objects keep their false
positives. A class without objects is NaN and left out of the means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.core import rle
from pixelwise.core.classes import Classes
from pixelwise.core.segments import BOX, TAG, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics.histogram import same_size
from pixelwise.metrics.overlap import nan_mean

RANGES = {"all": (0, 1e5**2), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}


@dataclass(frozen=True)
class _Image:
    """What COCO's evaluator needs of one image: (label, code, score) and (label, code, area, crowd)."""

    index: int | None
    size: tuple[int, int]
    found: list[tuple[int, Any, float, int]]
    objects: list[tuple[int, Any, float, bool]]
    unknown: Any


class AveragePrecision:
    """Mask AP over IoU 0.50:0.05:0.95, 101 recall points, the best `max_detections` per image and class.

    Keys of compute(): ap, ap50, ap75, ap_small, ap_medium, ap_large (areas below 32^2, 96^2 pixels, and above),
    ar (mean recall), and [K] float64 ap_per_class, ap50_per_class, ap75_per_class.
    """

    def __init__(self, classes: Classes | int, *, max_detections: int = 100) -> None:
        self.num_classes = classes if isinstance(classes, int) else len(classes)
        if self.num_classes < 1 or max_detections < 1:
            raise ConfigError(f"AveragePrecision needs classes and max_detections >= 1, got {classes}, {max_detections}.")
        self.max_detections = int(max_detections)
        self.images: list[_Image] = []

    def update(self, prediction: Segments, truth: Segments, index: int | None = None) -> None:
        """Adds one image. `index` is its place in the data set; images without one follow in the order of arrival.

        True rows that are boxes or tags are left out, and so are true rows without pixels, unless an annotated area says
        that there is an object. Raises DataError when the sizes differ, a label is no class or an index comes twice.
        """
        same_size(prediction, truth)
        for side, what in ((prediction, "prediction"), (truth, "truth")):
            labels = side.labels
            if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < self.num_classes):
                raise DataError(
                    f"The {what} holds labels {int(labels.min())}..{int(labels.max())}; there are {self.num_classes} "
                    f"classes, 0..{self.num_classes - 1}."
                )
        if index is not None and any(image.index == index for image in self.images):
            raise DataError(f"Image {index} was given twice; every image counts once.")
        unknown = truth.unknown.cpu().numpy()
        code = rle.encode(unknown) if unknown.any() else None
        self.images.append(_Image(index, truth.size, self._found(prediction), _objects(truth), code))

    def merge(self, other: AveragePrecision) -> None:
        """Takes in the images of another process. Raises ConfigError for other settings, DataError for an image twice."""
        mine, theirs = (self.num_classes, self.max_detections), (other.num_classes, other.max_detections)
        if mine != theirs:
            raise ConfigError(f"AveragePrecision of (classes, max_detections) {mine} cannot take in one of {theirs}.")
        twice = {i.index for i in self.images if i.index is not None} & {i.index for i in other.images}
        if twice:
            raise DataError(f"Images {sorted(twice)[:5]} are in both parts; every image counts once.")
        self.images += other.images

    def compute(self) -> dict[str, Any]:
        """The scores so far; see the class for the keys. NaN where there is no object."""
        precision, recall = self._evaluate()  # [T, R, K, A], [T, K, A]
        curve = np.where(precision < 0, np.nan, precision)
        per_class = [[nan_mean(curve[rows, :, k, 0]) for k in range(self.num_classes)] for rows in (slice(None), 0, 5)]
        names = ("ap", "ap50", "ap75")
        out: dict[str, Any] = {"ap": nan_mean(curve[..., 0]), "ap50": nan_mean(curve[0, ..., 0]), "ap75": nan_mean(curve[5, ..., 0])}
        out |= {f"ap_{name}": nan_mean(curve[..., a]) for a, name in enumerate(RANGES) if a}
        out["ar"] = nan_mean(np.where(recall[..., 0] < 0, np.nan, recall[..., 0]))
        return out | {f"{name}_per_class": np.array(values) for name, values in zip(names, per_class)}

    def _found(self, prediction: Segments) -> list[tuple[int, Any, float, int]]:
        """The detections that can count: of each class the best `max_detections`, ties in the order of the rows."""
        scores, labels = prediction.scores.cpu().numpy(), prediction.labels.cpu().numpy()
        order = np.argsort(-scores, kind="stable")
        place = np.zeros(len(order), np.int64)
        for label in np.unique(labels):
            own = labels[order] == label
            place[order[own]] = np.arange(own.sum())
        rows = np.flatnonzero(place < self.max_detections)
        kept = prediction.keep(rows)
        areas = kept.pixel_counts.tolist()
        return list(zip(labels[rows].tolist(), rle.to_rle(kept), scores[rows].tolist(), areas))

    def _evaluate(self) -> tuple[np.ndarray, np.ndarray]:
        """COCO's precision [T, R, K, A] and recall [T, K, A], -1 where a class has no object."""
        from faster_coco_eval import COCO, COCOeval_faster

        ordered = sorted(self.images, key=lambda image: (image.index is None, image.index or 0))
        truth, found = _coco(ordered, self.num_classes)
        if not truth["annotations"]:
            return np.full((10, 101, self.num_classes, 4), -1.0), np.full((10, self.num_classes, 4), -1.0)
        areas = {name: list(bounds) for name, bounds in RANGES.items() if name != "all"}
        judge = COCOeval_faster(COCO(truth), COCO(found), "segm", ranges=areas, print_function=_quiet, rle_iou_max_workers=1)
        judge.params.maxDets = [self.max_detections]
        judge.evaluate()
        judge.accumulate()
        return np.asarray(judge.eval["precision"])[..., 0], np.asarray(judge.eval["recall"])[..., 0]


def _quiet(*_: Any) -> None:
    """faster-coco-eval reports its progress; a metric does not."""


def _objects(truth: Segments) -> list[tuple[int, Any, float, bool]]:
    owns = truth.pixel_counts > 0
    if truth.given_areas is not None:
        owns |= truth.given_areas > 0
    if truth.kind is not None:
        owns &= (truth.kind != BOX) & (truth.kind != TAG)
    kept = truth.keep(owns)
    return list(zip(kept.labels.tolist(), rle.to_rle(kept), kept.areas.tolist(), kept.crowd.tolist()))


def _coco(images: list[_Image], num_classes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two COCO data sets. Detections carry no box of their own choice, so that their area is the mask's."""
    listed = [{"id": i, "height": image.size[0], "width": image.size[1]} for i, image in enumerate(images)]
    categories = [{"id": k, "name": str(k)} for k in range(num_classes)]
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for i, image in enumerate(images):
        entries = list(image.objects)
        if image.unknown is not None:
            entries += [(k, image.unknown, 0.0, True) for k in sorted({label for label, *_ in image.found})]
        for label, code, area, crowd in entries:
            objects.append({"id": len(objects) + 1, "image_id": i, "category_id": label, "segmentation": code,
                            "area": area, "iscrowd": int(crowd), "bbox": [0, 0, 0, 0]})  # fmt: skip
        for label, code, score, area in image.found:
            found.append({"id": len(found) + 1, "image_id": i, "category_id": label, "segmentation": code,
                          "score": score, "area": area, "iscrowd": 0, "bbox": [0, 0, 0, 0]})  # fmt: skip
    shared = {"images": listed, "categories": categories, "info": {}}
    return {**shared, "annotations": objects}, {**shared, "annotations": found}
