"""Maps of rows, as `Segments.ids` are: picked at places, counted, looked up. -1 and -2 are marks, no rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pixelwise.kernels.compiled import compiled, form_for

_HERE = torch.empty(0)  # arrays are on the CPU


def pick(ids: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """ids [L, H, W] at rows [h] and columns [w] (int64, each inside) -> [L, h, w]."""
    if form_for(_HERE) == "torch":
        return np.take(ids[:, rows], columns, axis=2)
    out = np.empty((len(ids), len(rows), len(columns)), ids.dtype)
    _pick(ids, rows, columns.astype(np.uint64), out)
    return out


@compiled
def _pick(ids: Any, rows: Any, columns: Any, out: Any) -> None:
    for layer in range(out.shape[0]):
        for y in range(out.shape[1]):
            row, into = ids[layer, rows[y]], out[layer, y]
            for x in range(len(columns)):
                into[x] = row[columns[x]]


def count(ids: np.ndarray, rows: int) -> np.ndarray:
    """Any shape -> [rows + 2] int64: how often -2, -1, 0, 1, ... rows - 1 occur."""
    _check(ids, rows)
    if form_for(_HERE) == "torch":
        return np.bincount(ids.ravel().astype(np.int64) + 2, minlength=rows + 2)
    counts = np.zeros((4, rows + 2), np.int64)
    _count(np.ascontiguousarray(ids).reshape(-1), counts)
    return counts.sum(0)


def _check(ids: np.ndarray, rows: int) -> None:
    """Raises IndexError for a row that is none: compiled code would read and write elsewhere."""
    if ids.size and (ids.max() >= rows or ids.min() < -2):
        raise IndexError(f"a map of {rows} rows holds {ids.min()} to {ids.max()}")


@compiled
def _count(ids: Any, counts: Any) -> None:
    """Neighbours are mostly equal: four counters a value, so that none waits for the one before."""
    whole = len(ids) // 4 * 4
    for i in range(0, whole, 4):
        for k in range(4):
            counts[k, np.uint64(np.int64(ids[i + k]) + 2)] += 1
    for i in range(whole, len(ids)):
        counts[0, np.uint64(np.int64(ids[i]) + 2)] += 1


def replaced(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values[row] at each pixel, in the type of `values` [N + 2], which ends with those for -2 and for -1."""
    _check(ids, len(values) - 2)
    if form_for(_HERE) == "torch":
        return values[ids]
    flat = np.ascontiguousarray(ids).reshape(-1)
    out = np.empty(flat.shape, values.dtype)
    _replace(flat, np.roll(values, 2), out)
    return out.reshape(ids.shape)


@compiled
def _replace(ids: Any, values: Any, out: Any) -> None:
    for i in range(len(ids)):
        out[i] = values[np.uint64(np.int64(ids[i]) + 2)]
