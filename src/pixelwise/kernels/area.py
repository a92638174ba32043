"""Resizing a window of stored pixels: each new pixel is the mean of the source over the area that it covers.

Along each axis a pixel whose centre falls on s covers s - w/2 to s + w/2, with w the step between pixels but at least
1. So shrinking averages and does not alias, and enlarging is bilinear by the half-pixel rule: the mean over an area one
pixel wide is linear interpolation. Beyond the border the source is mirrored, the border pixel repeated. Computed in
float32, first down, then across, products and sums rounded one by one in the order of the taps, and rounded half up at
the end; both forms find the same numbers to the bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from pixelwise.kernels.compiled import compiled, form_for, in_parts

NEXT, AFTER = np.uint32(1), np.uint32(2)  # unsigned: a signed place might count from the end, which Numba would ask


class Taps(NamedTuple):
    """What each new pixel is made of along an axis: `places` [n, T] in the source, `weight` [n, T] float32."""

    places: np.ndarray
    weight: np.ndarray


def taps(count: int, start: float, step: float, source: int) -> Taps:
    """Of `count` pixels with centres on start + step * (i + 1/2), on a source of `source`. A step below 0 flips."""
    width = max(1.0, abs(step))
    centre = start + step * (np.arange(count) + 0.5)
    low, high = (centre - width / 2)[:, None], (centre + width / 2)[:, None]
    index = np.floor(low).astype(np.int64) + np.arange(int(np.ceil(width)) + 1)  # [n, T]
    weight = (np.minimum(index + 1, high) - np.maximum(index, low)).clip(0) / width
    used = (weight > 1e-9).any(0)
    index, weight = index[:, used] % (2 * source), weight[:, used].astype(np.float32)
    return Taps(np.where(index < source, index, 2 * source - 1 - index), np.ascontiguousarray(weight))


def area_means(pixels: np.ndarray, down: Taps, across: Taps) -> np.ndarray:
    """[H, W, C] uint8 or uint16 -> [h, w, C] of the same type; h and w are as many as `down` and `across` have."""
    if form_for(torch.from_numpy(across.weight)) == "torch":
        return _reference(pixels, down, across)
    height, width, channels = len(down.places), len(across.places), pixels.shape[2]
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)  # [H, W C]
    first, last = int(across.places.min()), int(across.places.max()) + 1
    columns = ((across.places - first) * channels).astype(np.uint32)
    out = np.empty((height, width * channels), pixels.dtype)
    rows = down.places.astype(np.uint32)
    work = _three if channels == 3 else _any
    window = flat[:, first * channels : last * channels]

    def part(start: int, stop: int) -> None:
        work(window, rows[start:stop], down.weight[start:stop], columns, across.weight, np.uint32(channels),
             out[start:stop])  # fmt: skip

    in_parts(part, height, least=64)
    return out.reshape(height, width, channels)


def _reference(pixels: np.ndarray, down: Taps, across: Taps) -> np.ndarray:
    first, last = int(across.places.min()), int(across.places.max()) + 1
    window = pixels[:, first:last]
    lines: Any = 0
    for t in range(down.places.shape[1]):
        term = window[down.places[:, t]].astype(np.float32) * down.weight[:, t, None, None]  # [h, W, C]
        lines = lines + term if t else term
    means: Any = 0
    for t in range(across.places.shape[1]):
        term = lines[:, across.places[:, t] - first] * across.weight[:, t, None]  # [h, w, C]
        means = means + term if t else term
    return (means + np.float32(0.5)).astype(pixels.dtype)


@compiled
def _line(pixels: Any, rows: Any, weights: Any, line: Any) -> None:
    """One new row [W C] float32, not yet resized across."""
    row, weight = pixels[rows[0]], weights[0]
    for i in range(len(line)):
        line[i] = np.float32(row[i]) * weight
    for t in range(1, len(rows)):
        row, weight = pixels[rows[t]], weights[t]
        for i in range(len(line)):
            line[i] += np.float32(row[i]) * weight


@compiled
def _three(pixels: Any, rows: Any, down: Any, columns: Any, across: Any, channels: Any, out: Any) -> None:
    """Three channels: their sums stay in registers."""
    line = np.empty(pixels.shape[1], np.float32)
    half = np.float32(0.5)
    for y in range(len(rows)):
        _line(pixels, rows[y], down[y], line)
        row = out[y]
        for x in range(len(columns)):
            at, weight = columns[x, 0], across[x, 0]
            r, g, b = line[at] * weight, line[at + NEXT] * weight, line[at + AFTER] * weight
            for t in range(1, columns.shape[1]):
                at, weight = columns[x, t], across[x, t]
                r += line[at] * weight
                g += line[at + NEXT] * weight
                b += line[at + AFTER] * weight
            row[3 * x], row[3 * x + 1], row[3 * x + 2] = int(r + half), int(g + half), int(b + half)


@compiled
def _any(pixels: Any, rows: Any, down: Any, columns: Any, across: Any, channels: Any, out: Any) -> None:
    line = np.empty(pixels.shape[1], np.float32)
    half = np.float32(0.5)
    for y in range(len(rows)):
        _line(pixels, rows[y], down[y], line)
        row = out[y]
        for x in range(len(columns)):
            for c in range(channels):
                value = line[columns[x, 0] + np.uint32(c)] * across[x, 0]
                for t in range(1, columns.shape[1]):
                    value += line[columns[x, t] + np.uint32(c)] * across[x, t]
                row[x * channels + c] = int(value + half)
