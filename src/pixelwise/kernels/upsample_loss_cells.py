"""Numba's fast form of `upsample_loss`: exponentials of a whole cell of the grid from two.

Between two neighbours on the grid logits are a straight line a + d w, so that exponentials of pixels at equal steps
are a geometric sequence: exp(a + d w0), times exp(d step) from pixel to pixel. A cell is the stretch of a row between
two grid columns; every fourth pixel starts anew, so that rounding does not add up. Cells lie side by side in vector
lanes, 16 to a block. A band is a few rows of pixels between the same two grid rows; its sums and coefficients stay in
the first cache while classes are gone through one by one.

Exponentials are taken less the largest logit at the four corners, over all classes. Where that is far above a pixel's
own largest, or a line is too steep, or a logit is not finite, numbers could be lost: such bands are told of and left to
`upsample_loss_rows`.

Layouts, all flat float32: `values` [C+1] logits at the cells' ends; `top` [C] the reference; `first` [Q, C] weights of
the first pixels; sums and coefficients of a row of pixels [blocks, Q, 4, 16]; Q fours of pixels to a cell, C = 16
blocks. The inner loops are of 16, load before they store and index from 0 up: otherwise they would not become vector
instructions.
"""

from __future__ import annotations

import numpy as np

from pixelwise.kernels.compiled import compiled, fused, reordered
from pixelwise.kernels.exponential import exp
from pixelwise.kernels.upsample_geometry import Geometry, Room
from pixelwise.kernels.upsample_loss_rows import add_point, row_of

LOST = np.float32(1e-18)  # a sum of exponentials so small may have lost some that matter
SURE = np.float32(1e-3)  # from here on the log of a quotient keeps more digits than a difference of logs
ONE, ZERO = np.float32(1), np.float32(0)


@fused
def between(first: np.float32, second: np.float32, share: np.float32) -> np.float32:
    return first + (second - first) * share


@fused
def start_of(first: np.float32, second: np.float32, share: np.float32, top: np.float32) -> np.float32:
    """exp(logit - top) of the first pixel of a four. Wherever it is computed again it is the same number."""
    return exp((first - top) + (second - first) * share)


@fused
def ratio_of(first: np.float32, second: np.float32, step: np.float32) -> np.float32:
    return exp((second - first) * step)


@reordered
def load(row: np.ndarray, out: np.ndarray) -> None:
    """Writes a grid row [w] as the ends of cells: the first and the last one are flat, for pixels beyond the grid."""
    width = len(row)
    out[0] = row[0]
    for x in range(width):
        out[x + 1] = row[x]
    for c in range(width + 1, len(out)):
        out[c] = row[width - 1]


@reordered
def references(grid: np.ndarray, lay: Geometry, room: Room, y: int) -> bool:
    """Writes `top`; says whether every line of every class in row y's band is finite and not too steep."""
    width, ends, top = grid.shape[2], room.ends, room.top
    for c in range(len(ends)):
        ends[c] = -np.inf
    wild = 0
    for k in range(len(grid)):
        for row in (grid[k, lay.upper[y]], grid[k, lay.lower[y]]):
            for x in range(width):
                ends[x + 1] = max(ends[x + 1], row[x])
                wild += not (abs(row[x]) < np.float32(1e30))
            for x in range(width - 1):
                wild += abs(row[x + 1] - row[x]) > lay.steep
    ends[0] = ends[1]
    for c in range(width + 1, len(ends)):
        ends[c] = ends[width]
    for c in range(len(top)):
        top[c] = max(ends[c], ends[c + 1])
    return wild == 0


@reordered
def mix(above: np.ndarray, below: np.ndarray, share: np.float32, step: np.float32, values: np.ndarray,
        ratios: np.ndarray) -> None:  # fmt: skip
    """Values of a row of pixels at the cells' ends and the ratio of neighbouring pixels' exponentials, [C]."""
    for c in range(len(values)):
        values[c] = between(above[c], below[c], share)
    for c in range(len(ratios)):
        ratios[c] = ratio_of(values[c], values[c + 1], step)


@reordered
def add_exponentials(values: np.ndarray, ratios: np.ndarray, top: np.ndarray, first: np.ndarray, factor: np.float32,
                     sums: np.ndarray) -> None:  # fmt: skip
    """Adds factor * exp(logit - top) of each pixel to `sums`."""
    lanes = len(top)
    fours = len(first) // lanes
    for block in range(lanes // 16):
        for q in range(fours):
            at, c0, f0 = (block * fours + q) * 64, block * 16, q * lanes + block * 16
            for j in range(16):
                r = ratios[c0 + j]
                e0 = factor * start_of(values[c0 + j], values[c0 + j + 1], first[f0 + j], top[c0 + j])
                e1 = e0 * r
                e2 = e1 * r
                e3 = e2 * r
                s0, s1, s2, s3 = sums[at + j], sums[at + 16 + j], sums[at + 32 + j], sums[at + 48 + j]
                sums[at + j] = s0 + e0
                sums[at + 16 + j] = s1 + e1
                sums[at + 32 + j] = s2 + e2
                sums[at + 48 + j] = s3 + e3


@reordered
def add_masses(values: np.ndarray, ratios: np.ndarray, top: np.ndarray, first: np.ndarray, shares: np.ndarray,
               masses: np.ndarray) -> None:  # fmt: skip
    """Adds each cell's sum of share * exp(logit - top) over its pixels to `masses` [C]."""
    lanes = len(top)
    fours = len(first) // lanes
    for block in range(lanes // 16):
        for q in range(fours):
            at, c0, f0 = (block * fours + q) * 64, block * 16, q * lanes + block * 16
            for j in range(16):
                r = ratios[c0 + j]
                e = start_of(values[c0 + j], values[c0 + j + 1], first[f0 + j], top[c0 + j])
                inner = shares[at + 32 + j] + r * shares[at + 48 + j]
                masses[c0 + j] += e * (shares[at + j] + r * (shares[at + 16 + j] + r * inner))


@reordered
def add_slopes(values: np.ndarray, ratios: np.ndarray, top: np.ndarray, first: np.ndarray, step: np.float32,
               share: np.float32, own: np.float32, shares: np.ndarray, common: np.ndarray,
               slopes: np.ndarray) -> None:  # fmt: skip
    """Adds the gradient that pixels' coefficients * exp(logit - top) have, to the cells' lines.

    A pixel's coefficient is own * shares + common. `slopes` [blocks, 4, 16]: by value and by difference of the ends, on
    the upper grid row; the same on the lower one.
    """
    lanes = len(top)
    fours = len(first) // lanes
    for block in range(lanes // 16):
        for q in range(fours):
            at, c0, f0 = (block * fours + q) * 64, block * 16, q * lanes + block * 16
            to = block * 64
            for j in range(16):
                r, w = ratios[c0 + j], first[f0 + j]
                e0 = start_of(values[c0 + j], values[c0 + j + 1], w, top[c0 + j])
                e1 = e0 * r
                e2 = e1 * r
                e0 *= own * shares[at + j] + common[at + j]
                e1 *= own * shares[at + 16 + j] + common[at + 16 + j]
                e3 = e2 * r * (own * shares[at + 48 + j] + common[at + 48 + j])
                e2 *= own * shares[at + 32 + j] + common[at + 32 + j]
                by_value = e0 + e1 + e2 + e3
                by_line = w * by_value + step * (e1 + np.float32(2) * e2 + np.float32(3) * e3)
                s0, s1, s2, s3 = slopes[to + j], slopes[to + 16 + j], slopes[to + 32 + j], slopes[to + 48 + j]
                slopes[to + j] = s0 + (by_value - share * by_value)
                slopes[to + 16 + j] = s1 + (by_line - share * by_line)
                slopes[to + 32 + j] = s2 + share * by_value
                slopes[to + 48 + j] = s3 + share * by_line


@reordered
def spread(slopes: np.ndarray, half: int, ends: np.ndarray, lines: np.ndarray, row: np.ndarray) -> None:
    """Adds the gradient by cells, of the upper grid row (half 0) or the lower one (32), to that row [w]."""
    width, lanes = len(row), len(lines)
    for block in range(lanes // 16):
        for j in range(16):
            lines[block * 16 + j] = slopes[block * 64 + half + 16 + j]
            ends[block * 16 + j] = slopes[block * 64 + half + j] - slopes[block * 64 + half + 16 + j]
    for x in range(width):
        row[x] += ends[x + 1] + lines[x] if x + 1 < lanes else lines[x]
    row[0] += ends[0]  # cells 0 and w are flat: both their ends are the same column
    row[width - 1] += lines[width] if width < lanes else np.float32(0)


@compiled
def _load(maps: np.ndarray, lay: Geometry, room: Room, y: int) -> None:
    load(maps[lay.upper[y]], room.above)
    load(maps[lay.lower[y]], room.below)


@compiled
def forward(grid: np.ndarray, lay: Geometry, room: Room, y: int, until: int, labels: np.ndarray, log_p: np.ndarray,
            sums: np.ndarray, lse: np.ndarray, mass: np.ndarray, own: np.ndarray) -> bool:  # fmt: skip
    """Rows y..until of one image; False, and nothing written, where digits could be lost."""
    room.sums[:] = 0
    for k in range(len(grid)):
        _load(grid[k], lay, room, y)
        for r in range(y, until):
            mix(room.above, room.below, lay.share[r], lay.step, room.values, room.ratios)
            add_exponentials(room.values, room.ratios, room.top, lay.first, ONE, room.sums[r - y])
    for r in range(y, until):
        for x in range(labels.shape[1]):
            if labels[r, x] >= 0 and not room.sums[r - y, lay.place[x]] > LOST:
                return False
    if len(mass):
        room.shares[:] = 0
    for r in range(y, until):
        _read_pixels(grid, labels[r], lay, room, r, r - y, log_p[r], sums[r], row_of(lse, r), own)
    if len(mass):
        for k in range(len(grid)):
            _load(grid[k], lay, room, y)
            room.masses[:] = 0
            for r in range(y, until):
                mix(room.above, room.below, lay.share[r], lay.step, room.values, room.ratios)
                add_masses(room.values, room.ratios, room.top, lay.first, room.shares[r - y], room.masses)
            mass[k] += room.masses.sum()
    return True


@compiled
def _read_pixels(grid: np.ndarray, labels: np.ndarray, lay: Geometry, room: Room, y: int, nth: int, log_p: np.ndarray,
                 sums: np.ndarray, lse: np.ndarray, own: np.ndarray) -> None:  # fmt: skip
    """From the sums of a row of pixels to what is asked for of each; `shares` are made ready for `predicted`."""
    u, d, share, last = lay.upper[y], lay.lower[y], lay.share[y], grid.shape[2] - 1
    for x in range(len(labels)):
        k, c, at = labels[x], lay.lane[x], lay.place[x]
        if k < 0:
            log_p[x] = sums[x] = 0
            if len(lse):
                lse[x] = 0
            continue
        first, second, total = max(c - 1, 0), min(c, last), room.sums[nth, at]
        a = between(grid[k, u, first], grid[k, d, first], share)
        b = between(grid[k, u, second], grid[k, d, second], share)
        e, ratio = start_of(a, b, lay.origin[x], room.top[c]), ratio_of(a, b, lay.step)
        for _ in range(lay.nth[x]):
            e *= ratio
        p, log_total = e / total, np.log(total)
        log_p[x] = min(np.log(p), ZERO) if p > SURE else between(a, b, lay.weight[x]) - room.top[c] - log_total
        sums[x] = total
        if len(lse):
            lse[x] = room.top[c] + log_total
        if len(own):
            own[k] += p
            room.shares[nth, at] = ONE / total


@compiled
def backward(grid: np.ndarray, lay: Geometry, room: Room, y: int, until: int, labels: np.ndarray, log_p: np.ndarray,
             sums: np.ndarray, slopes: tuple[np.ndarray, np.ndarray], factors: tuple[np.ndarray, np.ndarray],
             out: np.ndarray) -> None:  # fmt: skip
    """Adds the gradient of rows y..until of one image to `out` [K, h, w]."""
    by_predicted, _ = factors
    room.sums[:] = 0
    if len(by_predicted):  # the pixels' sums of p_k times its factor
        for k in range(len(grid)):
            _load(grid[k], lay, room, y)
            for r in range(y, until):
                mix(room.above, room.below, lay.share[r], lay.step, room.values, room.ratios)
                add_exponentials(room.values, room.ratios, room.top, lay.first, by_predicted[k], room.sums[r - y])
    room.shares[:], room.common[:] = 0, 0
    some = False
    for r in range(y, until):
        by_maps = row_of(slopes[0], r), row_of(slopes[1], r)
        some |= _weigh_pixels(labels[r], lay, room, r, r - y, log_p[r], sums[r], by_maps, factors, out)
    if not (some or len(by_predicted)):
        return
    for k in range(len(grid)):
        _load(grid[k], lay, room, y)
        room.slopes[:] = 0
        own = by_predicted[k] if len(by_predicted) else ZERO
        for r in range(y, until):
            mix(room.above, room.below, lay.share[r], lay.step, room.values, room.ratios)
            add_slopes(room.values, room.ratios, room.top, lay.first, lay.step, lay.share[r], own, room.shares[r - y],
                       room.common[r - y], room.slopes)  # fmt: skip
        spread(room.slopes, 0, room.ends, room.masses, out[k, lay.upper[y]])
        spread(room.slopes, 32, room.ends, room.masses, out[k, lay.lower[y]])


@compiled
def _weigh_pixels(labels: np.ndarray, lay: Geometry, room: Room, y: int, nth: int, log_p: np.ndarray,
                  sums: np.ndarray, slopes: tuple[np.ndarray, np.ndarray], factors: tuple[np.ndarray, np.ndarray],
                  out: np.ndarray) -> bool:  # fmt: skip
    """Writes the coefficients of a row of pixels, and adds the gradient at their own labels; whether any is not 0."""
    (by_log_p, by_lse), by_true, some = slopes, factors[1], False
    for x in range(len(labels)):
        k, at = labels[x], lay.place[x]
        if k < 0:
            continue
        own = by_log_p[x] if len(by_log_p) else ZERO
        own += by_true[k] * exp(log_p[x]) if len(by_true) else ZERO
        inverse = ONE / sums[x]
        room.shares[nth, at] = inverse
        room.common[nth, at] = ((by_lse[x] if len(by_lse) else ZERO) - own - room.sums[nth, at] * inverse) * inverse
        some |= room.common[nth, at] != 0
        if own != 0:
            above, below = out[k, lay.upper[y]], out[k, lay.lower[y]]
            add_point(above, below, lay.share[y], lay.left[x], lay.right[x], lay.weight[x], own)
    return some
