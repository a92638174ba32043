"""The image through a `Placement`: only what the output shows is computed, and shrinking averages."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pixelwise.data.geometry import Placement, apply, scaling, translation
from pixelwise.kernels.area import Taps, area_means, taps

REDUCE_ABOVE = 1.1  # below this factor bilinear reading sees every source pixel well enough
MARGIN = 3  # source pixels kept around what the output shows, for the interpolation's neighbours


def rows_seen(p: Placement) -> tuple[int, int]:
    """First and last row (excluded) of the source that `warp_image` looks at."""
    if p.bend is not None:
        return 0, p.source[0]
    if p.aligned:
        at = _picked(p, 1) if _whole_steps(p) else _taps(p, 1).places
        return int(at.min()), int(at.max()) + 1
    return _cuts(p, _extent(p, None), _factors(p))[1]


def warp_image(pixels: np.ndarray, p: Placement, first: int = 0) -> np.ndarray:
    """[H, W, C] uint8 or uint16 -> [h, w, C]; beyond the border the image is mirrored.

    Where the output is smaller than what it shows, pixels are averaged over their area, so nothing aliases: where rows
    stay rows over exactly the area of each new one (`kernels.area`), else before they are read bilinearly.
    `pixels` begins with row `first` of the source and holds all that `rows_seen` tells.
    """
    if _whole_steps(p):
        return np.ascontiguousarray(pixels[_taken(_picked(p, 1) - first)][:, _taken(_picked(p, 0))])
    if p.aligned:
        down = _taps(p, 1)
        return area_means(pixels, down._replace(places=down.places - first), _taps(p, 0))
    points = None
    if p.bend is not None:
        x, y = np.arange(p.size[1], dtype=np.float32) + 0.5, np.arange(p.size[0], dtype=np.float32) + 0.5
        points = p.to_source(x[None], y[:, None])  # [H, W] each
    factors = _factors(p)
    window, origin, shrink = _reduced(pixels, _cuts(p, _extent(p, points), factors), factors, first)
    to_window = scaling(*shrink) @ translation(-origin[0], -origin[1])
    if points is not None:
        sx, sy = apply(translation(-0.5, -0.5) @ to_window, *points)
        sx, sy = sx.astype(np.float32, copy=False), sy.astype(np.float32, copy=False)
        return _by_fours(window, lambda part: cv2.remap(part, sx, sy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    matrix = (translation(-0.5, -0.5) @ to_window @ p.affine @ translation(0.5, 0.5))[:2]
    size, flags = (p.size[1], p.size[0]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return _by_fours(
        window, lambda part: cv2.warpAffine(part, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT)
    )


def _whole_steps(p: Placement) -> bool:
    """Whether every output pixel is exactly one source pixel (crops, flips, pads)."""
    m = p.affine
    if not p.aligned or abs(abs(m[0, 0]) - 1) > 1e-9 or abs(abs(m[1, 1]) - 1) > 1e-9:
        return False
    return float(np.abs(m[:2, 2] - np.round(m[:2, 2])).max()) <= 1e-9


def _picked(p: Placement, axis: int) -> np.ndarray:
    """The source pixel of each output pixel along an axis (0: x, 1: y), where steps are whole."""
    m, count, size = p.affine, p.size[1 - axis], p.source[1 - axis]
    at = np.floor(m[axis, axis] * (np.arange(count) + 0.5) + round(m[axis, 2])).astype(np.int64)
    at %= 2 * size  # mirrored with the border pixel repeated
    return np.where(at < size, at, 2 * size - 1 - at)


def _taken(at: np.ndarray) -> slice | np.ndarray:
    """The same as a slice, which copies nothing, where neighbours lie side by side."""
    step = int(at[1] - at[0]) if len(at) > 1 else 1
    if abs(step) != 1 or (np.diff(at) != step).any():
        return at
    stop = int(at[-1]) + step
    return slice(int(at[0]), None if stop < 0 else stop, step)


def _taps(p: Placement, axis: int) -> Taps:
    """What each output pixel is made of along an axis (0: x, 1: y), where rows stay rows."""
    m = p.affine
    return taps(p.size[1 - axis], float(m[axis, 2]), float(m[axis, axis]), p.source[1 - axis])


def _factors(p: Placement) -> np.ndarray:
    """Source pixels per output pixel, along x and y."""
    return np.hypot(p.affine[:2, 0], p.affine[:2, 1])


def _extent(p: Placement, points: tuple[np.ndarray, np.ndarray] | None) -> tuple[float, float, float, float]:
    """x0 y0 x1 y1: the part of the source plane that the output shows."""
    if points is None:
        h, w = p.size
        points = p.to_source(np.array([0.0, w, 0.0, w]), np.array([0.0, 0.0, h, h]))
    return float(points[0].min()), float(points[1].min()), float(points[0].max()), float(points[1].max())


def _cuts(
    p: Placement, extent: tuple[float, float, float, float], factors: np.ndarray
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Columns (first, last) and rows (first, last) of the source that the output needs; last excluded."""
    cuts = []
    for axis, size in ((0, p.source[1]), (1, p.source[0])):
        margin = MARGIN * max(1.0, float(factors[axis]))
        low, high = int(np.floor(extent[axis] - margin)), int(np.ceil(extent[axis + 2] + margin))
        if extent[axis] < 0 or extent[axis + 2] > size:  # mirrored parts may lie anywhere
            low, high = 0, size
        cuts.append((max(0, low), min(size, high)))
    return cuts[0], cuts[1]


def _reduced(
    pixels: np.ndarray, cuts: tuple[tuple[int, int], tuple[int, int]], factors: np.ndarray, first: int
) -> tuple[np.ndarray, tuple[int, int], tuple[float, float]]:
    """Cuts out what is seen and averages it down: the window, its origin (x, y) and its scale (x, y), at most 1."""
    target, shrink = [], []
    for (low, high), factor in zip(cuts, factors):
        count = max(1, round((high - low) / factor)) if factor > REDUCE_ABOVE else high - low
        target.append(count)
        shrink.append(count / (high - low))
    (x0, x1), (y0, y1) = cuts
    window = pixels[y0 - first : y1 - first, x0:x1]
    if shrink != [1.0, 1.0]:
        window = _by_fours(window, lambda part: cv2.resize(part, (target[0], target[1]), interpolation=cv2.INTER_AREA))
    return window, (x0, y0), (shrink[0], shrink[1])


def _by_fours(pixels: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """OpenCV's warps take four channels at most: more go in groups."""
    channels = pixels.shape[2]
    if channels <= 4:
        out = change(pixels)
        return out[:, :, None] if out.ndim == 2 else out
    parts = [change(np.ascontiguousarray(pixels[:, :, c : c + 4])) for c in range(0, channels, 4)]
    return np.concatenate([part[:, :, None] if part.ndim == 2 else part for part in parts], axis=2)
