"""Maps of rows: form against form, and against NumPy's own indexing."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.kernels.compiled import only
from pixelwise.kernels.rows import count, pick, replaced


def rows_map(rows: int, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(rows).integers(-2, rows, shape).astype(dtype)


@pytest.mark.parametrize(("rows", "dtype"), [(0, np.int8), (1, np.int8), (127, np.int8), (1000, np.int16),
                                             (1000, np.int32), (5, np.int64)])  # fmt: skip
@pytest.mark.parametrize("form", ["torch", "numba"])
def test_they_are_numpys(rows: int, dtype: type, form: str) -> None:
    ids = rows_map(rows, dtype, (2, 37, 53))
    strided = np.ascontiguousarray(ids.transpose(2, 1, 0)).transpose(2, 1, 0)
    at, across = np.array([0, 36, 5, 5]), np.arange(52, -1, -3)
    with only(form):  # type: ignore[arg-type]
        for given in (ids, strided):
            assert np.array_equal(pick(given, at, across), ids[:, at][:, :, across])
            expected = [(ids == row).sum() for row in range(-2, rows)]
            assert count(given, rows).tolist() == expected
            for kind in (np.int8, np.int64, np.float32, bool):
                values = np.random.default_rng(0).integers(0, 2, rows + 2).astype(kind)
                found = replaced(given, values)
                assert found.dtype == kind
                assert np.array_equal(found, values[ids])
        assert count(ids[:, :0], rows).sum() == 0


@pytest.mark.parametrize("form", ["torch", "numba"])
@pytest.mark.parametrize("strange", [3, -3])
def test_a_row_that_is_none_is_refused(form: str, strange: int) -> None:
    ids = np.array([[0, 2, strange]], np.int16)
    with only(form):  # type: ignore[arg-type]
        with pytest.raises(IndexError, match="3 rows"):
            count(ids, 3)
        with pytest.raises(IndexError, match="3 rows"):
            replaced(ids, np.zeros(5))
