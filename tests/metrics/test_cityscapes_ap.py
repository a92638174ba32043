"""Cityscapes' instance AP against its own evaluator, frozen from cityscapesScripts 2.3.0 on drawn images."""

from __future__ import annotations

import math
import pickle
import time

import numpy as np
import pytest

from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import ConfigError, DataError
from pixelwise.metrics import CityscapesAP

SIZE = (96, 160)
Image = tuple[np.ndarray, list[tuple[np.ndarray, int, float]]]
# evalInstanceLevelSemanticLabeling: evaluateMatches and computeAverages on `draw(seed, count)`; AP and AP50% of
# [all, person, rider, car]. NumPy 2.4 lacks np.in1d, which it calls: np.isin stood in.
FROZEN: dict[tuple[int, int, bool], tuple[list[float], list[float]]] = {
    (0, 1, False): ([0.2472222222222222, 0.19166666666666668, 0.55, 0.0],
        [0.5972222222222222, 0.7916666666666666, 1.0, 0.0]),
    (1, 6, False): ([0.20788612161915326, 0.25869805387746736, 0.2709386561642201, 0.09402165481577245],
        [0.4255822000312823, 0.58413941686968, 0.5093298722997971, 0.18327731092436975]),
    (2, 6, True): ([0.25271693121693123, 0.1861111111111111, 0.25416666666666665, 0.31787301587301586],
        [0.6625661375661376, 0.75, 0.4583333333333333, 0.7793650793650794]),
    (3, 12, True): ([0.24383383734174024, 0.18736092367671314, 0.34414359531966554, 0.19999699302884197],
        [0.4510915102499921, 0.45038798920377865, 0.5423822402524228, 0.360504301293775]),
    (4, 25, False): ([0.15683562582610006, 0.17705161137553288, 0.06761494615380823, 0.2258403199489591],
        [0.31975646378238404, 0.3171745620356225, 0.1875771568011633, 0.45451767251036634]),
    (6, 2, False): ([0.3005555555555555, 0.0, 0.25166666666666665, 0.65],
        [0.47222222222222215, 0.0, 0.41666666666666663, 1.0]),
}  # fmt: skip


def draw(seed: int, count: int, ties: bool) -> list[Image]:
    """Images as ids (-1 nothing, 0 void, 1..3 groups of a class, 1000 k + n objects) and detections (mask, k, score).

    Drawn by RandomState, whose stream is frozen.
    """
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]

    def discs(many: int, low: float, high: float) -> list[np.ndarray]:
        at, radius = rng.rand(many, 2) * SIZE, rng.uniform(low, high, many)
        return list(np.hypot(y - at[:, 0, None, None], x - at[:, 1, None, None]) < radius[:, None, None])

    images = []
    for _ in range(count):
        ids, found = np.full(SIZE, -1), []
        true = discs(rng.randint(0, 9), 3, 20)
        for n, mask in enumerate(true):
            ids[mask] = 1000 * rng.randint(1, 4) + n
        for mask in discs(rng.randint(0, 3), 8, 20):
            ids[mask] = rng.choice([0, 1, 2, 3])
        for n in np.unique(ids[ids >= 1000]):
            for _ in range(rng.randint(0, 4)):
                mask = np.roll(ids == n, rng.randint(-3, 4, 2), (0, 1))
                found.append((mask, n // 1000 if rng.rand() < 0.9 else rng.randint(1, 4)))
        found += [(mask, rng.randint(1, 4)) for mask in discs(rng.randint(0, 4), 3, 16)]
        scores = rng.randint(1, 5, len(found)) / 4 if ties else rng.randint(1, 1000, len(found)) / 1000
        images.append((ids, [(mask, k, float(s)) for (mask, k), s in zip(found, scores)]))
    return images


def segments(image: Image) -> tuple[Segments, Segments]:
    ids, found = image
    rows = [int(i) for i in np.unique(ids) if i > 0]
    truth = Segments.from_masks(
        np.array([ids == i for i in rows], bool).reshape(-1, *SIZE),
        [i - 1 if i < 1000 else i // 1000 - 1 for i in rows],
        crowd=[i < 1000 for i in rows],
        void=ids == 0,
    )
    masks = np.array([mask for mask, _, _ in found], bool).reshape(-1, *SIZE)
    prediction = Segments.from_masks(masks, [k - 1 for _, k, _ in found], scores=[score for *_, score in found])
    return prediction, truth


@pytest.mark.parametrize("case", FROZEN)
def test_equals_cityscapes_scripts(case: tuple[int, int, bool]) -> None:
    metric = CityscapesAP(3)
    for image in draw(*case):
        metric.update(*segments(image))
    scores = metric.compute()
    for name, expected in zip(("cityscapes_ap", "cityscapes_ap50"), FROZEN[case]):
        found = [scores[name], *scores[f"{name}_per_class"]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


def test_any_sharding_and_order_gives_the_same_bits() -> None:
    images = draw(5, 9, True)
    whole, parts = CityscapesAP(3), [CityscapesAP(3) for _ in range(3)]
    for i, image in enumerate(images):
        whole.update(*segments(image))
        parts[i % 3].update(*segments(image), index=i)
    joined = CityscapesAP(3)
    for part in parts[::-1]:
        joined.merge(pickle.loads(pickle.dumps(part)))
    for key, value in whole.compute().items():
        np.testing.assert_array_equal(joined.compute()[key], value, err_msg=key)


def block(x: int, width: int = 12) -> np.ndarray:
    mask = np.zeros((20, 80), bool)
    mask[:, x : x + width] = True
    return mask


def score(
    found: list[np.ndarray], true: list[np.ndarray], scores: list[float] | None = None, **columns: object
) -> float:
    metric = CityscapesAP(1)
    prediction = Segments.from_masks(np.array(found, bool).reshape(-1, 20, 80), [0] * len(found), scores=scores)
    metric.update(prediction, Segments.from_masks(np.array(true, bool).reshape(-1, 20, 80), [0] * len(true), **columns))
    return metric.compute()["cityscapes_ap50"]


def test_rules_one_by_one() -> None:
    assert score([block(0)], [block(0)]) == 1.0
    assert score([], [block(0)]) == 0.0
    assert math.isnan(score([block(0)], []))
    assert score([block(0)], [block(0, 24)]) == 0.0  # an IoU of exactly one half is no match
    assert math.isnan(score([block(0)], [block(0, 4)]))  # 80 pixels are too small to be asked for
    assert score([block(0), block(20, 4)], [block(0), block(20, 4)], [0.5, 0.9]) == 1.0  # nor is finding them wrong
    assert score([block(0), block(20)], [block(0), block(20)], [0.5, 0.9], crowd=[False, True]) == 1.0
    assert score([block(0), block(0)], [block(0)], [0.9, 0.5]) == 1.0  # the second one is false, but after full recall
    assert score([block(0), block(1)], [block(0)], [0.5, 0.9]) == 1.0  # the surest is right, not the nearest
    assert score([block(0), block(20)], [block(0)], [0.5, 0.9], void=block(26, 50)) == 0.25
    assert score([block(0), block(20)], [block(0)], [0.5, 0.9], void=block(25, 50)) == 1.0  # 7 of 12 columns are void


def test_nothing_that_counts_is_found() -> None:
    assert score([block(30)], [block(0)], void=block(25, 50)) == 0.0


def test_many_objects_are_counted_in_little_time_and_memory() -> None:
    ids = np.arange(2048, dtype=np.int16).reshape(32, 64).repeat(32, 0).repeat(32, 1)
    truth = Segments(ids, np.zeros(2048))
    prediction = Segments(np.roll(ids, 3, 1), np.zeros(2048), scores=np.linspace(0, 1, 2048))
    metric = CityscapesAP(1)
    start = time.process_time()
    metric.update(prediction, truth)
    scores = metric.compute()
    assert time.process_time() - start < 2.0
    assert scores["cityscapes_ap50"] == 1.0
    assert len(pickle.dumps(metric)) < 100_000


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 class"):
        CityscapesAP(0)
    with pytest.raises(ConfigError, match="cannot take in"):
        CityscapesAP(1).merge(CityscapesAP(2))
    with pytest.raises(DataError, match="labels"):
        CityscapesAP(1).update(Segments(np.zeros((2, 2), np.int8), [1]), Segments.empty((2, 2), fill=UNKNOWN))
