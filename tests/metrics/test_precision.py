"""Mask AP against COCO's own evaluator (pycocotools) on nasty data sets."""

from __future__ import annotations

import contextlib
import io
import math
import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pixelwise.core.classes import Classes
from pixelwise.core.segments import BOX, MASK, NOTHING, UNKNOWN, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics import AveragePrecision

# pycocotools itself warns under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Image = tuple[dict, dict]  # prediction and truth: masks [N, H, W], labels, and scores or crowd, areas
KEYS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
        "ar1", "ar10", "ar", "ar_small", "ar_medium", "ar_large", "ap_all", "ar_all")  # fmt: skip


def code(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def coco_scores(images: list[Image], num_classes: int, limit: int = 100) -> tuple[list[float], list[float]]:
    """COCO's twelve averages, AP and AR without a limit, and the AP of each class; -1 replaced by NaN."""
    truth, found = [], []
    for i, (prediction, target) in enumerate(images):
        for j, mask in enumerate(target["masks"]):
            truth.append(
                {"id": len(truth) + 1, "image_id": i + 1, "category_id": int(target["labels"][j]),
                 "segmentation": code(mask), "area": float(target["areas"][j]), "iscrowd": int(target["crowd"][j]),
                 "bbox": [0, 0, 1, 1]})  # fmt: skip
        for j, mask in enumerate(prediction["masks"]):
            found.append({"image_id": i + 1, "category_id": int(prediction["labels"][j]), "segmentation": code(mask),
                          "score": float(prediction["scores"][j])})  # fmt: skip
    sizes = [t["masks"].shape[1:] for _, t in images]
    data = COCO()
    data.dataset = {
        "info": {},
        "images": [{"id": i + 1, "height": h, "width": w} for i, (h, w) in enumerate(sizes)],
        "categories": [{"id": k} for k in range(num_classes)],
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        judge = COCOeval(data, data.loadRes(found) if found else COCO(), "segm")
        judge.params.maxDets = [min(1, limit), min(10, limit), limit, max(limit, 5000)]
        judge.params.imgIds = [i + 1 for i in range(len(images))]
        judge.evaluate()
        judge.accumulate()
    precision, recall = judge.eval["precision"][..., 2], judge.eval["recall"]  # [T, R, K, A], [T, K, A, M]
    values = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., a] for a in (1, 2, 3))]
    values += [*(recall[:, :, 0, m] for m in (0, 1, 2)), *(recall[:, :, a, 2] for a in (1, 2, 3))]
    values += [judge.eval["precision"][..., 0, 3], recall[:, :, 0, 3]]
    values += [precision[:, :, k, 0] for k in range(num_classes)]
    means = [float(v[v > -1].mean()) if (v > -1).any() else math.nan for v in values]
    return means[: len(KEYS)], means[len(KEYS) :]


def our_metric(images: list[Image], num_classes: int, limit: int = 100) -> AveragePrecision:
    metric = AveragePrecision(num_classes, max_detections=limit)
    for i, (prediction, truth) in enumerate(images):
        metric.update(*segments(prediction, truth), index=i)
    return metric


def segments(prediction: dict, truth: dict) -> tuple[Segments, Segments]:
    made = Segments.from_masks(truth["masks"], truth["labels"], crowd=truth["crowd"])
    columns = {"scores": made.scores, "crowd": made.crowd, "given_areas": truth["areas"]}
    return (
        Segments.from_masks(prediction["masks"], prediction["labels"], scores=prediction["scores"]),
        Segments(made.ids, made.labels, **columns),
    )


def assert_as_pycocotools(metric: AveragePrecision, images: list[Image], num_classes: int, limit: int = 100) -> None:
    scores = metric.compute()
    means, per_class = coco_scores(images, num_classes, limit)
    np.testing.assert_allclose([scores[key] for key in KEYS], means, rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores["ap_per_class"], per_class, rtol=0, atol=1e-12)


def discs(rng: np.random.Generator, count: int, size: tuple[int, int], radius: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    at, r = rng.random((count, 2)) * size, rng.uniform(*radius, count)
    return np.hypot(y - at[:, 0, None, None], x - at[:, 1, None, None]) < r[:, None, None]


def draw(rng: np.random.Generator, num_classes: int, *, objects: int, ties: bool, crowd: float = 0.0,
         size: tuple[int, int] = (80, 110), radius: tuple[float, float] = (4, 30)) -> Image:  # fmt: skip
    count = int(rng.integers(0, objects + 1))
    true = discs(rng, count, size, radius)
    true = true[true.any((1, 2))]
    shifts = rng.integers(-4, 5, (len(true), 2))
    found = [np.roll(mask, shift, (0, 1)) for mask, shift in zip(true, shifts) if rng.random() < 0.8]
    extra = discs(rng, int(rng.integers(0, 4)), size, radius)
    found = np.concatenate([np.array(found, bool).reshape(-1, *size), extra, true[:1]])
    labels = rng.integers(0, num_classes, len(true))
    guess = np.concatenate([labels, rng.integers(0, num_classes, len(found))])[: len(found)]
    scores = rng.integers(0, 4, len(found)) / 4 if ties else rng.random(len(found))
    return (
        {"masks": found, "labels": guess, "scores": scores.astype(np.float32)},
        {"masks": true, "labels": labels, "crowd": rng.random(len(true)) < crowd,
         "areas": true.sum((1, 2)) * rng.choice([1.0, 0.7])},
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_equals_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = int(rng.choice([1, 2, 5]))
    options = {"objects": 6, "ties": seed % 2 == 0, "crowd": 0.3 * (seed % 3 == 0)}
    images = [draw(rng, k, **options) for _ in range(6)]
    assert_as_pycocotools(our_metric(images, k), images, k)


def test_ties_over_many_images_are_broken_as_coco_breaks_them() -> None:
    rng = np.random.default_rng(5)
    images = [draw(rng, 1, objects=4, ties=True) for _ in range(12)]
    in_order = our_metric(images, 1)
    assert_as_pycocotools(in_order, images, 1)
    assert our_metric(images[::-1], 1).compute()["ap"] != in_order.compute()["ap"]  # so the order does matter


def test_any_sharding_gives_the_same_scores() -> None:
    rng = np.random.default_rng(6)
    images = [draw(rng, 2, objects=4, ties=True) for _ in range(11)]
    whole = our_metric(images, 2).compute()
    for count in (2, 3, 11):
        parts = [AveragePrecision(2) for _ in range(count)]
        for i in rng.permutation(len(images)):
            parts[i % count].update(*segments(*images[i]), index=int(i))
        joined = pickle.loads(pickle.dumps(parts[-1]))
        for part in parts[:-1]:
            joined.merge(pickle.loads(pickle.dumps(part)))
        scores = joined.compute()
        assert whole.keys() == scores.keys()
        for key, value in whole.items():
            np.testing.assert_array_equal(scores[key], value, err_msg=key)


@pytest.mark.parametrize("limit", [1, 3, 100, 300])
def test_only_the_best_detections_of_each_class_count(limit: int) -> None:
    rng = np.random.default_rng(7)
    images = [draw(rng, 2, objects=30, ties=True, size=(60, 60), radius=(2, 5)) for _ in range(3)]
    assert_as_pycocotools(our_metric(images, 2, limit), images, 2, limit)


def test_more_objects_than_coco_looks_at() -> None:
    masks = np.zeros((150, 20, 300), bool)
    for j in range(150):
        masks[j, :, 2 * j] = True
    shared = {"masks": masks, "labels": np.zeros(150)}
    image = (
        shared | {"scores": np.linspace(1, 0.1, 150, dtype=np.float32)},
        shared | {"crowd": np.zeros(150, bool), "areas": masks.sum((1, 2))},
    )
    assert our_metric([image], 1).compute()["ap"] == pytest.approx(67 / 101)  # recall ends at 100 / 150
    assert our_metric([image], 1, limit=150).compute()["ap"] == 1.0
    assert_as_pycocotools(our_metric([image], 1), [image], 1)


def nasty(objects: int) -> list[Image]:
    """Ties, crowd, small objects, an image without answers, and one without truth."""
    rng = np.random.default_rng(11)
    options = {"ties": True, "crowd": 0.2, "size": (64, 160), "radius": (2, 5)}
    images = [draw(rng, 2, objects=objects, **options) for _ in range(2)]
    none = {"masks": np.zeros((0, 64, 160), bool), "labels": np.zeros(0, int)}
    images.append((none | {"scores": np.zeros(0, np.float32)}, images[0][1]))
    images.append((images[1][0], none | {"crowd": np.zeros(0, bool), "areas": np.zeros(0)}))
    return images


@pytest.mark.parametrize("limit", [1, 5, 10])
def test_crowded_images_with_ties_crowd_and_empty_sides(limit: int) -> None:
    images = nasty(200)
    assert max(len(prediction["masks"]) for prediction, _ in images) > 20
    assert_as_pycocotools(our_metric(images, 2, limit), images, 2, limit)


@pytest.mark.slow  # pycocotools tries each pair in Python
@pytest.mark.parametrize("limit", [100, 150])
def test_more_than_a_hundred_objects_with_ties_crowd_and_empty_sides(limit: int) -> None:
    images = nasty(700)
    assert max(int((prediction["labels"] == 0).sum()) for prediction, _ in images) > 150
    assert_as_pycocotools(our_metric(images, 2, limit), images, 2, limit)


def test_a_detection_with_box_and_area_counts_by_its_mask() -> None:
    rng = np.random.default_rng(12)
    images = [draw(rng, 2, objects=6, ties=False) for _ in range(6)]
    plain, boxed = our_metric(images, 2), AveragePrecision(2)
    for i, image in enumerate(images):
        prediction, truth = segments(*image)
        whole = torch.tensor([[0.0, 0.0, 110.0, 80.0]]).expand(len(prediction), 4)
        areas = torch.full((len(prediction),), 9000.0)
        boxed.update(replace(prediction, given_boxes=whole, given_areas=areas), truth, index=i)
    np.testing.assert_equal(boxed.compute(), plain.compute())
    assert_as_pycocotools(boxed, images, 2)


@pytest.mark.slow
def test_two_thousand_objects_fit_in_little_time_and_memory() -> None:
    ids = np.arange(2048, dtype=np.int16).reshape(32, 64).repeat(32, 0).repeat(32, 1)
    truth = Segments(ids, np.zeros(2048))
    metric = AveragePrecision(1)
    start = time.process_time()
    metric.update(Segments(np.roll(ids, 3, 1), np.zeros(2048), scores=np.linspace(1, 0.01, 2048)), truth)
    scores = metric.compute()
    assert time.process_time() - start < 20  # a few seconds where nothing else runs
    assert scores["ap"] == pytest.approx(0.5 * 5 / 101, abs=0.01)  # 100 of them reach 5 of the 101 recall points
    assert scores["ap_all"] == pytest.approx(0.7, abs=0.01)  # 29 / 35 of each agree
    assert len(pickle.dumps(metric)) < 1_000_000


def square(x: int, side: int = 10, size: tuple[int, int] = (20, 60)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[5 : 5 + side, x : x + side] = True
    return mask


def one(masks: list[np.ndarray], scores: list[float] | None = None, label: int = 0, crowd: bool = False) -> Segments:
    stacked = np.array(masks, bool).reshape(-1, 20, 60)
    return Segments.from_masks(stacked, [label] * len(stacked), scores=scores, crowd=[crowd] * len(stacked))


def test_false_positives_of_an_empty_image_count() -> None:
    metric = AveragePrecision(1)
    metric.update(one([square(0)], [0.5]), one([square(0)]))
    assert metric.compute()["ap"] == 1.0
    metric.update(one([square(0)], [0.9]), one([]))
    assert metric.compute()["ap"] == pytest.approx(0.5)


def test_without_images_objects_or_answers() -> None:
    metric = AveragePrecision(3)
    assert math.isnan(metric.compute()["ap"])
    metric.update(one([square(0)], [0.5]), one([]))
    assert math.isnan(metric.compute()["ap"])
    assert np.isnan(metric.compute()["ap_per_class"]).all()
    metric.update(one([]), one([square(0)], label=1))
    scores = metric.compute()
    assert scores["ap"] == 0.0  # the classes 0 and 2 have no object and are left out
    np.testing.assert_array_equal(scores["ap_per_class"], [math.nan, 0.0, math.nan])
    assert scores["ap50_per_class"].dtype == np.float64
    assert all(type(scores[key]) is float for key in (*KEYS, "ar"))


def test_an_overlap_of_exactly_one_half_matches_at_the_threshold_of_one_half() -> None:
    metric = AveragePrecision(1)
    half = square(0) & (np.arange(60) < 5)
    metric.update(one([half], [0.5]), one([square(0)]))
    scores = metric.compute()
    assert (scores["ap50"], scores["ap75"]) == (1.0, 0.0)
    assert scores["ap"] == pytest.approx(0.1)


def test_unknown_pixels_excuse_detections_of_every_class() -> None:
    void = square(20, 14)
    truth = Segments.from_masks(square(0)[None], [0], void=void)
    mostly = square(16)  # 6 of its 10 columns are unknown
    metric = AveragePrecision(2)
    metric.update(one([square(0), square(22), mostly], [0.5, 0.9, 0.9]), truth)
    scores = metric.compute()
    assert scores["ap50"] == 1.0
    assert scores["ap75"] == pytest.approx(0.5)  # 6 / 10 does not reach the threshold: a false positive
    other = AveragePrecision(2)
    other.update(one([square(0), square(22)], [0.5, 0.9]), one([square(0)]))
    assert other.compute()["ap50"] == pytest.approx(0.5)  # known to be nothing: a false positive
    assert np.isnan(scores["ap_per_class"][1])  # unknown pixels are no objects


def test_unknown_pixels_equal_a_crowd_of_pycocotools() -> None:
    rng = np.random.default_rng(8)
    images, metric = [], AveragePrecision(2)
    for i in range(6):
        prediction, truth = draw(rng, 2, objects=4, ties=True)
        void = discs(rng, 1, (80, 110), (15, 40))[0] & ~truth["masks"].any(0)
        predicted, known = segments(prediction, truth)
        ids = known.ids.clone()
        ids[:, torch.from_numpy(void)] = UNKNOWN
        metric.update(predicted, Segments(ids, known.labels, crowd=known.crowd, given_areas=truth["areas"]), index=i)
        crowds = {"masks": np.stack([void, void]), "labels": [0, 1], "crowd": [True, True], "areas": [0, 0]}
        images.append((prediction, {key: np.concatenate([truth[key], crowds[key]]) for key in truth}))
    assert_as_pycocotools(metric, images, 2)


def test_annotated_areas_decide_the_size_class() -> None:
    made = one([square(0)])
    metric = AveragePrecision(1)
    metric.update(one([square(0)], [1.0]), Segments(made.ids, made.labels, given_areas=[2000.0]))
    scores = metric.compute()
    assert math.isnan(scores["ap_small"])
    assert scores["ap_medium"] == 1.0


def test_rows_that_are_no_masks_and_rows_without_pixels_are_no_objects() -> None:
    ids = np.full((20, 60), NOTHING, np.int8)
    ids[square(0)] = 0
    metric = AveragePrecision(1)
    metric.update(one([square(0)], [1.0]), Segments(ids, [0, 0, 0], kind=[MASK, BOX, MASK]))
    assert metric.compute()["ap"] == 1.0
    # an annotation too thin to cover a pixel is an object all the same
    metric.update(one([]), Segments(ids, [0, 0], given_areas=[100, 0.4]))
    assert metric.compute()["ar"] == pytest.approx(1 / 3)


def test_classes_may_be_named() -> None:
    metric = AveragePrecision(Classes(names=("cell",), things=("cell",)))
    metric.update(one([square(0)], [1.0]), one([square(0)]))
    assert metric.compute()["ap_per_class"].tolist() == [1.0]


def test_what_cannot_be_is_refused() -> None:
    metric = AveragePrecision(1)
    metric.update(one([]), one([]), index=3)
    with pytest.raises(DataError, match="Image 3 was given twice"):
        metric.update(one([]), one([]), index=3)
    with pytest.raises(DataError, match=r"labels 1\.\.1"):
        metric.update(one([square(0)], [1.0], label=1), one([]))
    with pytest.raises(DataError, match=r"\[20, 61\]"):
        metric.update(Segments.empty((20, 61)), one([]))
    again = AveragePrecision(1)
    again.update(one([]), one([]), index=3)
    with pytest.raises(DataError, match=r"\[3\]"):
        metric.merge(again)
    with pytest.raises(ConfigError, match="cannot take in"):
        metric.merge(AveragePrecision(2))
    with pytest.raises(ConfigError):
        AveragePrecision(0)
    with pytest.raises(ConfigError):
        AveragePrecision(1, max_detections=0)
