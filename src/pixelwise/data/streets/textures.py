"""Grey textures of the drawn streets: tiles that wrap round, made once per process from fixed seeds."""

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]  # [h, w], 128 leaves a colour as it is
Pixels = npt.NDArray[np.uint8]  # [h, w, 3] RGB

TILE = 512  # pixels; a power of two, so that the octaves of `fractal` wrap without a seam


@cache
def fractal(seed: int = 0, octaves: int = 6) -> npt.NDArray[np.float32]:
    """Value noise summed over octaves: `[TILE, TILE]` float32 in 0..1, wraps in both directions."""
    rng = np.random.default_rng(seed)
    total = np.zeros((TILE, TILE), np.float32)
    for octave in range(octaves):
        cells = 4 << octave
        grid = np.pad(rng.random((cells, cells), np.float32), 2, mode="wrap")
        step = TILE // cells
        fine = cv2.resize(grid, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        total += np.asarray(fine, np.float32)[2 * step : 2 * step + TILE, 2 * step : 2 * step + TILE] / 2.0**octave
    total -= total.min()
    return total / total.max()


@cache
def grain(seed: int = 1) -> npt.NDArray[np.float32]:
    """Gaussian noise of deviation 1: `[TILE, TILE, 3]` float32, the sensor noise of every scene."""
    return np.random.default_rng(seed).standard_normal((TILE, TILE, 3), np.float32)


def _grey(values: npt.NDArray[np.float32]) -> Grey:
    return np.clip(values, 0, 255).astype(np.uint8)


@cache
def asphalt() -> Grey:
    """Fine grit over broad stains, at 64 pixels a metre."""
    grit = cv2.GaussianBlur(grain(2)[..., 0], (0, 0), 0.8)
    return _grey(128 + 15 * grit + 50 * (fractal(3, 4) - 0.5))


@cache
def paving(pattern: str) -> Grey:
    """Slabs or small stones with dark joints, at 64 pixels a metre; `pattern` is slabs, stones or bricks."""
    rows, columns = {"slabs": (16, 16), "stones": (64, 64), "bricks": (64, 32)}[pattern]
    high, wide = TILE // rows, TILE // columns
    rng = np.random.default_rng(rows * 100 + columns)
    tile = np.full((TILE, TILE), 104.0, np.float32)
    tones = 128 + (8 if pattern == "slabs" else 10) * rng.standard_normal((rows, columns))
    joint = max(1, high // 12)
    for row in range(rows):
        shift = (row % 2) * wide // 2
        line = np.full((high - joint, TILE), 100.0, np.float32)
        for column in range(columns):
            line[:, column * wide : (column + 1) * wide - joint] = tones[row, column]
        tile[row * high : (row + 1) * high - joint] = np.roll(line, shift, 1)
    return _grey(tile + 7 * grain(4)[..., 0])


@cache
def masonry(material: str, halvings: int = 0) -> Grey:
    """Wall texture at 32 pixels a metre, halved for walls far away; `material` is brick, plaster, stone or metal."""
    if halvings:
        half = cv2.resize(masonry(material, halvings - 1), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        return np.asarray(half, np.uint8)
    stains = 26 * (fractal(5, 5) - 0.5)
    if material == "plaster":
        return _grey(126 + 1.4 * stains + 4 * grain(6)[..., 0])
    if material == "metal":
        ribs = 12 * np.sin(np.arange(TILE, dtype=np.float32) * (2 * np.pi / 16))[None]
        return _grey(128 + stains + ribs)
    rows, columns = (128, 64) if material == "brick" else (64, 32)
    rng = np.random.default_rng(rows)
    tones = (13 if material == "brick" else 9) * rng.standard_normal((rows, columns)).astype(np.float32)
    high, wide = TILE // rows, TILE // columns
    wall = np.repeat(np.repeat(tones, high, 0), wide, 1) + 126
    wall[:, wide - 1 :: wide] = 146 if material == "brick" else 104
    bands = [np.roll(wall[r * high : (r + 1) * high], (r % 2) * wide // 2, 1) for r in range(rows)]
    wall = np.concatenate(bands)
    wall[high - 1 :: high] = 150 if material == "brick" else 104
    return _grey(wall + stains)


def crop(tile: npt.NDArray, top: int, left: int, height: int, width: int) -> npt.NDArray:
    """A `[height, width]` window of a tile that repeats for ever."""
    for axis, (start, length) in enumerate(((top, height), (left, width))):
        period = tile.shape[axis]
        start %= period
        pieces, missing = [], length
        while missing > 0:
            piece = tile[start : start + missing] if axis == 0 else tile[:, start : start + missing]
            pieces.append(piece)
            missing -= piece.shape[axis]
            start = 0
        tile = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis)
    return tile


def tint(grey: Grey, colour: tuple[float, float, float]) -> Pixels:
    """A grey texture in a colour: 128 gives the colour itself."""
    return np.asarray(cv2.merge([cv2.convertScaleAbs(grey, alpha=channel / 128) for channel in colour]), np.uint8)
