"""Joint histograms: each form against counting in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import DataError
from pixelwise.kernels import joint as module
from pixelwise.kernels.compiled import numba, only
from pixelwise.kernels.joint import Codes, joint, pairs

FORMS = ["torch", pytest.param("numba", marks=pytest.mark.skipif(numba is None, reason="Numba is not installed"))]
TYPES = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def expected(a, b):
    table = np.zeros((a.count, b.count), np.int64)
    np.add.at(table, (a.values.numpy().astype(np.int64) - a.low, b.values.numpy().astype(np.int64) - b.low), 1)
    return table


def blocks(count, low, shape, kind, seed=0):
    """A map of 7 x 5 blocks with a tenth of noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, count, (shape[0] // 7 + 1, shape[1] // 5 + 1))
    values = np.kron(coarse, np.ones((7, 5), np.int64))[: shape[0], : shape[1]]
    values = np.where(rng.random(shape) < 0.1, rng.integers(0, count, shape), values)
    return Codes(torch.from_numpy(values + low).to(kind), low, count)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("left", TYPES)
@pytest.mark.parametrize("right", TYPES)
def test_all_integer_types_count_alike(form, left, right):
    a, b = blocks(20, 0 if left == torch.uint8 else -2, (33, 47), left), blocks(9, 0, (33, 47), right, 1)
    with only(form):
        table = joint(a, b)
        i, j, counts = pairs(a, b)
    assert table.dtype == np.int64
    assert np.array_equal(table, expected(a, b))
    assert all(np.array_equal(x, y) for x, y in zip((i, j), np.nonzero(table)))
    assert np.array_equal(counts, table[i, j])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("count_a", "count_b"), [(1, 1), (1, 700), (256, 256), (5000, 5000), (70000, 3)])
def test_few_numbers_and_many(form, count_a, count_b):
    a, b = blocks(count_a, -2, (90, 101), torch.int32), blocks(count_b, 5, (90, 101), torch.int32, 1)
    with only(form):
        i, j, counts = pairs(a, b)
    keys = (a.values.numpy().astype(np.int64).ravel() + 2) * count_b + b.values.numpy().ravel() - 5
    found, times = np.unique(keys, return_counts=True)
    assert np.array_equal(i * count_b + j, found)
    assert np.array_equal(counts, times)


@pytest.mark.parametrize("form", FORMS)
def test_layouts_void_alone_and_nothing_at_all(form):
    a, b = blocks(30, -2, (40, 60), torch.int16), blocks(40, -2, (60, 40), torch.int16)
    turned = Codes(b.values.T, b.low, b.count)
    void = Codes(torch.full((40, 60), 255, dtype=torch.uint8), 0, 256)
    with only(form):
        assert np.array_equal(joint(a, turned), expected(a, turned))
        thin = [Codes(side.values[::2, 1::3], side.low, side.count) for side in (a, turned)]
        assert np.array_equal(joint(*thin), expected(*thin))
        assert joint(void, void)[255, 255] == 2400
        empty = Codes(torch.zeros(0, 5, dtype=torch.int16), 0, 3)
        assert not joint(empty, empty).any()
        assert [len(part) for part in pairs(empty, empty)] == [0, 0, 0]
        marks = Codes(a.values > 3, 0, 2)
        assert np.array_equal(joint(marks, a), expected(marks, a))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [torch.int16, torch.int64])
@pytest.mark.parametrize("wrong", [-3, 30])
def test_numbers_that_are_none_are_refused(form, kind, wrong):
    a, b = blocks(30, -2, (40, 60), kind), blocks(40000, 0, (40, 60), torch.int32)
    a.values[20, 30] = wrong
    with only(form):
        with pytest.raises(DataError, match=rf"{min(wrong, -2)}\.\.{max(wrong, 27)}, expected -2\.\.27"):
            joint(a, Codes(b.values % 7, 0, 7))
        with pytest.raises(DataError, match=r"expected -2\.\.27"):
            pairs(a, b)


def test_a_number_beyond_32_bits_is_no_small_one():
    a = Codes(torch.tensor([[0, 2**32 + 1]]), 0, 3)
    with pytest.raises(DataError):
        joint(a, a)


def test_several_threads_add_up(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(module, "PART", 50_000)
    a, b = blocks(20, 0, (900, 1000), torch.uint8), blocks(9, 0, (900, 1000), torch.uint8, 1)
    assert np.array_equal(joint(a, b), expected(a, b))
    a, b = blocks(4000, 0, (900, 1000), torch.int16), blocks(3000, 0, (900, 1000), torch.int32, 1)
    with only("torch"):
        plain = pairs(a, b)
    assert all(np.array_equal(x, y) for x, y in zip(pairs(a, b), plain))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 9), st.integers(0, 9), st.integers(-5, 5))
@settings(max_examples=40, deadline=None)
def test_maps_drawn_at_random(count_a, count_b, height, width, low):
    rng = np.random.default_rng(count_a * 100 + count_b)
    a = Codes(torch.from_numpy(rng.integers(0, count_a, (height, width)) + low).to(torch.int8), low, count_a)
    b = Codes(torch.from_numpy(rng.integers(0, count_b, (height, width)) + low), low, count_b)
    assert np.array_equal(joint(a, b), expected(a, b))
