"""The polynomial exp against float64 over the range of float32."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.kernels.compiled import fused
from pixelwise.kernels.exponential import exp

pytest.importorskip("numba")


@fused
def fill(x, out):
    for i in range(len(x)):
        out[i] = exp(x[i])


def filled(x):
    x = np.asarray(x, np.float32)
    out = np.empty_like(x)
    fill(x, out)
    return out


def test_it_is_off_by_at_most_the_stated_units_in_the_last_place():
    bits = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32)  # every exponent, both signs
    x = np.concatenate([bits.view(np.float32), np.linspace(-87.3, 88.3, 2_000_000, dtype=np.float32)])
    x = x[(x > -87.3) & (x < 88.3)]
    exact = np.exp(x.astype(np.float64))
    units = np.abs(filled(x) - exact) / np.spacing(exact.astype(np.float32))
    assert len(x) > 4_000_000
    assert 0.5 < units.max() < 1.1


def test_its_ends():
    assert filled([-np.inf, -1e30, -104, -87.8]).tolist() == [0, 0, 0, 0]
    assert filled([88.5, 1e30, np.inf]).tolist() == [np.inf] * 3
    assert filled([0.0, -0.0, 1e-30]).tolist() == [1, 1, 1]
    assert np.isnan(filled([np.nan])).all()
