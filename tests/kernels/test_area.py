"""Means over the area of new pixels: against torch, OpenCV and sums over a finer grid, and form against form."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelwise.kernels.area import area_means, taps
from pixelwise.kernels.compiled import only


def picture(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(height)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    down, across = (taps(n, 0.0, m / n, m) for n, m in zip(size, pixels.shape))
    return area_means(pixels, down, across)


@pytest.mark.parametrize("size", [(40, 50), (47, 91), (33, 61)])
def test_enlarging_is_torchs_bilinear(size: tuple[int, int]) -> None:
    pixels = picture(33, 50, 3)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    expected = F.interpolate(planes, size, mode="bilinear")[0].permute(1, 2, 0).numpy()
    assert np.abs(resized(pixels, size) - expected).max() <= 0.501


@pytest.mark.parametrize("size", [(20, 25), (9, 31), (33, 7), (1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shrinking_is_opencvs_area(size: tuple[int, int], dtype: type) -> None:
    pixels = picture(33, 50, 3, dtype)
    expected = cv2.resize(pixels.astype(np.float64), size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(resized(pixels, size) - expected).max() <= 0.52


@pytest.mark.parametrize("step", [0.4, 1.0, 1.7, -2.3, -1.0])
def test_a_pixel_is_the_mean_of_what_it_covers(step: float) -> None:
    """Sums over a grid a thousand times finer, mirrored at the border, where the window sticks out on both sides."""
    source = picture(12, 1, 1)[:, 0, 0].astype(float)
    count, start = 15, -3.3 if step > 0 else 14.1
    fine = np.repeat(np.concatenate([source[::-1], source] * 4), 1000)  # begins at -36
    places, weight = taps(count, start, step, len(source))
    assert np.allclose(weight.sum(1), 1)
    for i in range(count):
        centre, width = start + step * (i + 0.5), max(1, abs(step))
        low, high = (round(1000 * (centre + side * width / 2 + 36)) for side in (-1, 1))
        assert (source[places[i]] * weight[i]).sum() == pytest.approx(fine[low:high].mean(), abs=0.3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("steps", [(0.6, 0.37), (1.0, -1.3), (-2.7, 3.1)])
def test_both_forms_agree_to_the_bit(channels: int, dtype: type, steps: tuple[float, float]) -> None:
    pixels = picture(40, 60, channels, dtype)
    down = taps(23, 5.2 if steps[0] > 0 else 35.0, steps[0], 40)
    across = taps(31, 3.1 if steps[1] > 0 else 50.0, steps[1], 60)
    strided = np.concatenate([pixels, pixels], 1)[:, :60]
    with only("torch"):
        expected = area_means(strided, down, across)
    with only("numba"):
        assert np.array_equal(area_means(pixels, down, across), expected)
        assert np.array_equal(area_means(strided, down, across), expected)
    assert expected.dtype == dtype
    assert expected.shape == (23, 31, channels)


def test_threads_change_nothing() -> None:
    pixels = picture(300, 200, 3)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(resized(pixels, (290, 170)))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found)
