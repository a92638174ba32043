"""Nearest centres through cells against all pairs and SciPy's tree; centres against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from pixelwise.kernels.grouping import NearestCentre, find_centres, nearest_in_strips


def points(count: int, size: tuple[int, int], seed: int) -> torch.Tensor:
    draw = np.random.RandomState(seed)
    return torch.from_numpy(np.stack([draw.randint(0, n, count) for n in size], 1))


def votes(kind: str, count: int, size: tuple[int, int], centres: torch.Tensor, seed: int) -> torch.Tensor:
    draw = np.random.RandomState(seed)
    if kind == "near":
        found = centres.numpy()[draw.randint(0, len(centres), count)] + draw.randn(count, 2) * 4
    elif kind == "everywhere":
        found = draw.rand(count, 2) * size
    elif kind == "outside":
        found = (draw.rand(count, 2) * 6 - 3) * size
    else:  # on whole and half pixels, where many centres are equally near
        found = draw.randint(0, 2 * max(size), (count, 2)) / 2
    return torch.from_numpy(found).float()


@pytest.mark.parametrize("kind", ["near", "everywhere", "outside", "ties"])
@pytest.mark.parametrize(
    ("count", "size"), [(1, (40, 60)), (2, (40, 60)), (50, (40, 60)), (300, (301, 77)), (9, (1, 500))]
)
def test_cells_find_what_looking_at_every_pair_finds(kind, count, size):
    centres = points(count, size, seed=count)
    places = votes(kind, 4000, size, centres, seed=1)
    assert torch.equal(NearestCentre(centres, size)(places), nearest_in_strips(places, centres))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 80), st.integers(1, 90), st.integers(1, 90))
def test_any_image(seed, count, height, width):
    centres = points(count, (height, width), seed)
    places = votes(("near", "everywhere", "outside", "ties")[seed % 4], 300, (height, width), centres, seed)
    assert torch.equal(NearestCentre(centres, (height, width))(places), nearest_in_strips(places, centres))


def test_the_strips_agree_with_scipy():
    centres = points(200, (256, 512), seed=0)
    places = votes("everywhere", 20_000, (256, 512), centres, seed=2)
    found = nearest_in_strips(places, centres).numpy()
    distances, _ = cKDTree(centres.numpy()).query(places.numpy().astype(float))
    own = np.linalg.norm(places.numpy().astype(float) - centres.numpy()[found], axis=1)
    np.testing.assert_allclose(own, distances, rtol=1e-6, atol=1e-6)


def test_of_equally_near_centres_the_first_wins():
    centres = torch.tensor([[0, 0], [0, 4], [4, 0], [4, 4], [4, 4]])
    middle = torch.tensor([[2.0, 2.0], [4.0, 4.0], [2.0, 4.0]])
    for found in (nearest_in_strips(middle, centres), NearestCentre(centres, (5, 5))(middle)):
        assert found.tolist() == [0, 3, 1]


def test_votes_that_are_not_finite_go_to_the_first():
    centres = torch.tensor([[5, 5], [0, 0]])
    odd = torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0], [-torch.inf, torch.nan], [1e30, 1e30], [0.2, 0.1]])
    for found in (nearest_in_strips(odd, centres), NearestCentre(centres, (9, 9))(odd)):
        assert found.tolist() == [0, 0, 0, 0, 1]


def test_no_votes_and_one_centre():
    one = torch.tensor([[3, 4]])
    assert NearestCentre(one, (9, 9))(torch.zeros(0, 2)).shape == (0,)
    assert NearestCentre(torch.cat([one, one + 1]), (9, 9))(torch.zeros(0, 2)).dtype == torch.int64
    assert NearestCentre(one, (9, 9))(torch.rand(7, 2)).tolist() == [0] * 7


def test_memory_stays_below_centres_times_pixels(monkeypatch):
    """No tensor made on the way comes near 500 x 250,000 numbers."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            nonlocal largest
            made = function(*arguments, **(keywords or {}))
            for tensor in made if isinstance(made, list | tuple) else [made]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return made

    centres = points(500, (500, 500), seed=0)
    places = votes("outside", 250_000, (500, 500), centres, seed=0)
    with Watch():
        NearestCentre(centres, (500, 500))(places)
    assert 500_000 <= largest <= 1 << 22  # the votes themselves are the largest, or a strip of pairs


# -- centres ----------------------------------------------------------------------------------------------------------


def looped(heat: np.ndarray, threshold: float, window: int) -> list[list[int]]:
    reach, found = window // 2, []
    for y, x in np.ndindex(heat.shape):
        around = heat[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        if heat[y, x] > max(threshold, 0) and heat[y, x] == around.max():
            found.append([y, x])
    return found


@pytest.mark.parametrize("window", [1, 3, 7, 15])
def test_centres_are_the_maxima_of_their_windows(window):
    heat = np.random.RandomState(window).rand(23, 31).astype(np.float32) - 0.1
    for threshold in (0.0, 0.5):
        found = find_centres(torch.from_numpy(heat), threshold=threshold, window=window, top_k=10_000)
        assert found.tolist() == looped(heat, threshold, window)


def test_from_top_k_on_only_those_above_the_last():
    heat = torch.zeros(9, 50)
    heat[4, 2::10] = torch.tensor([0.5, 0.9, 0.4, 0.8, 0.7])
    kept = [find_centres(heat, threshold=0.1, window=3, top_k=k)[:, 1].tolist() for k in (6, 5, 3, 1)]
    assert kept == [[2, 12, 22, 32, 42], [2, 12, 32, 42], [12, 32], []]


def test_a_flat_top_is_one_centre():
    heat = torch.full((30, 30), 0.05)
    heat[10:13, 5:25] = 0.8  # longer than the window
    heat[20, 7] = 0.8
    found = find_centres(heat, threshold=0.1, window=7, top_k=200)
    assert found.tolist() == [[10, 5], [20, 7]]


def test_nothing_above_the_threshold():
    assert find_centres(torch.zeros(5, 5), threshold=0.1, window=3, top_k=9).shape == (0, 2)
