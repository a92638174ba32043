"""Star distances and depths against numbers that the authors' package computed (tests/data/stardist.json)."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from pixelwise.kernels.stars import object_probabilities, star_distances, steps_of_maps, steps_of_rays

ORACLE = json.loads((Path(__file__).parent.parent / "data" / "stardist.json").read_text())


def ids_of(name: str) -> torch.Tensor:
    """[1, H, W] rows, -1 where there is no object."""
    return torch.tensor(ORACLE["maps"][name])[None] - 1


@pytest.mark.parametrize("case", ORACLE["targets"], ids=lambda c: f"{c['map']}-{c['rays']}-{c['grid']}")
def test_distances_are_the_authors(case):
    found = star_distances(ids_of(case["map"]), case["rays"], case["grid"])[0].flatten(1).T
    picked = found[case["cells"]] if case["cells"] else found[:0]
    expected = torch.tensor(case["distances"]).reshape(-1, case["rays"])
    torch.testing.assert_close(picked, expected, rtol=0, atol=1e-4)
    assert float(found.double().sum()) == pytest.approx(case["total"], abs=1e-3)


@pytest.mark.parametrize("case", [c for c in ORACLE["targets"] if c["depths"]], ids=lambda c: f"{c['map']}-{c['grid']}")
def test_depths_are_the_authors(case):
    found = object_probabilities(ids_of(case["map"])[:, :: case["grid"], :: case["grid"]])
    torch.testing.assert_close(found.flatten(), torch.tensor(case["depths"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rays", "grid"), [(32, 1), (32, 2), (6, 2), (12, 1), (7, 4)])
def test_two_ways_to_walk_agree(rays, grid):
    """Rays of 60 degrees meet pixels' borders exactly: where they are rounded to depends on the pixel."""
    rng = np.random.default_rng(rays)
    coarse = rng.integers(-1, 6, (3, 9, 11))
    ids = torch.from_numpy(np.kron(coarse, np.ones((1, 7, 5), int)))
    on = (ids[:, ::grid, ::grid] >= 0)[:, None].expand(-1, rays, -1, -1)
    a, b = steps_of_maps(ids, rays, grid), steps_of_rays(ids, rays, grid)
    assert torch.equal(a[on], b[on])


def test_long_objects_and_many_ids():
    ids = torch.full((1, 300, 12), -1)
    ids[0, :, 2:4] = 70_000
    ids[0, 5, 6:] = 1
    far = star_distances(ids, 4)[0, :, 10, 2]  # right, down, left, up
    assert far.tolist() == [1.5, 289.5, 0.5, 10.5]


def test_depth_is_scipys_distance_transform():
    rng = np.random.default_rng(3)
    mask = ndimage.binary_closing(rng.random((2, 60, 70)) > 0.6, np.ones((1, 3, 3)))
    mask[:, 0] = False
    ids = torch.from_numpy(np.where(mask, 5, -1))
    expected = np.stack([ndimage.distance_transform_edt(m) for m in mask])
    expected /= expected.max((1, 2), keepdims=True)
    np.testing.assert_allclose(object_probabilities(ids).numpy(), expected, atol=1e-6)


def test_unknown_is_no_object():
    ids = torch.tensor([[[-2, -2, 0, 0, 0, -1, -2]]])
    assert star_distances(ids, 4)[0, 0, 0].tolist() == [0, 0, 2.5, 1.5, 0.5, 0, 0]
    assert object_probabilities(ids)[0, 0].tolist() == pytest.approx([0, 0, 0.5, 1, 0.5, 0, 0])


def test_images_of_a_batch_do_not_mix():
    maps = [ids_of("touching")[:, :24, :25], ids_of("nasty"), torch.zeros(1, 24, 25, dtype=torch.int64)]
    together = torch.cat(maps)
    for i, alone in enumerate(maps):
        assert torch.equal(star_distances(together, 8, 2)[i], star_distances(alone, 8, 2)[0])
        assert torch.equal(object_probabilities(together)[i], object_probabilities(alone)[0])


def test_two_thousand_objects_take_no_longer_than_two():
    few = torch.full((1, 256, 256), -1)
    few[:, :, :128], few[:, :, 128:] = 0, 1
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    many = ((y // 5) * 52 + x // 5)[None]
    assert int(many.max()) > 2000
    seconds = []
    for ids in (few, many):
        spent = []
        for _ in range(3):  # the least of three, since other work on the machine only adds
            begin = time.process_time()
            star_distances(ids, 32, 2)
            object_probabilities(ids[:, ::2, ::2])
            spent.append(time.process_time() - begin)
        seconds.append(min(spent))
    assert seconds[1] < 2 * seconds[0]
