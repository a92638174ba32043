"""Numba's plain form of `upsample_loss`: one row of pixels at a time, each exponential by itself.

It serves grids that have the labels' size, or nearly, and the bands that `upsample_loss_cells` leaves to it: whatever
the logits are, it answers what PyTorch does. A neighbour on the grid that has no weight is not looked at.
"""

from __future__ import annotations

import numpy as np

from pixelwise.kernels.compiled import compiled, reordered
from pixelwise.kernels.exponential import exp
from pixelwise.kernels.upsample_geometry import Geometry, Room

ONE, ZERO = np.float32(1), np.float32(0)


@compiled
def row_of(maps: np.ndarray, y: int) -> np.ndarray:
    """A row of maps [H, W], or nothing of those that nobody asked for, [0, W]."""
    return maps[y] if len(maps) else maps[:, 0]


@compiled
def blend(first: np.float32, second: np.float32, share: np.float32) -> np.float32:
    """Between two logits; the second is not looked at where it has no share, be it infinite."""
    return first if share == 0 else first * (ONE - share) + second * share  # minus infinity stays, twice, what it is


@compiled
def point(above: np.ndarray, below: np.ndarray, share: np.float32, left: int, right: int,
          weight: np.float32) -> np.float32:  # fmt: skip
    """A pixel's logit, of the two grid rows and columns it lies between."""
    a = blend(above[left], below[left], share)
    return a if weight == 0 else blend(a, blend(above[right], below[right], share), weight)


@compiled
def fill(above: np.ndarray, below: np.ndarray, lay: Geometry, share: np.float32, out: np.ndarray) -> None:
    """Writes one class's logits of a row of pixels [W]."""
    for x in range(len(out)):
        out[x] = point(above, below, share, lay.left[x], lay.right[x], lay.weight[x])


@compiled
def raise_to(values: np.ndarray, highest: np.ndarray) -> None:
    for x in range(len(highest)):
        highest[x] = values[x] if values[x] > highest[x] else highest[x]


@reordered
def add_exponentials(values: np.ndarray, highest: np.ndarray, factor: np.float32, sums: np.ndarray) -> None:
    for x in range(len(sums)):
        sums[x] += factor * exp(values[x] - highest[x])


@reordered
def add_up(values: np.ndarray, highest: np.ndarray, shares: np.ndarray) -> np.float64:
    """The sum over pixels of share * exp(logit - highest); pixels without a share are not looked at."""
    total = np.float64(0)
    for begin in range(0, len(shares), 4096):  # a few in float32 are exact enough, and fast
        some = ZERO
        for x in range(begin, min(begin + 4096, len(shares))):
            e = exp(values[x] - highest[x]) * shares[x]
            some += e if shares[x] != 0 else ZERO
        total += some
    return total


@reordered
def weigh(values: np.ndarray, highest: np.ndarray, own: np.float32, shares: np.ndarray, common: np.ndarray,
          out: np.ndarray) -> None:  # fmt: skip
    """Writes each pixel's gradient, (own * share + common) * exp(logit - highest), 0 without a share."""
    for x in range(len(out)):
        e = exp(values[x] - highest[x]) * (own * shares[x] + common[x])
        out[x] = e if shares[x] != 0 else np.float32(0)


@compiled
def add_point(above: np.ndarray, below: np.ndarray, share: np.float32, left: int, right: int, weight: np.float32,
              slope: np.float32) -> None:  # fmt: skip
    """Adds a pixel's gradient to the four points it lies between."""
    second = slope * weight
    first = slope - second
    above[left] += first - first * share
    below[left] += first * share
    above[right] += second - second * share
    below[right] += second * share


@compiled
def spread(slopes: np.ndarray, share: np.float32, lay: Geometry, above: np.ndarray, below: np.ndarray) -> None:
    """Adds pixels' gradient [W] to the two grid rows they lie between."""
    for x in range(len(slopes)):
        add_point(above, below, share, lay.left[x], lay.right[x], lay.weight[x], slopes[x])


@compiled
def _values(maps: np.ndarray, lay: Geometry, room: Room, same: bool, y: int) -> np.ndarray:
    """[W] one class's logits of a row of pixels."""
    if same:
        return maps[y]
    fill(maps[lay.upper[y]], maps[lay.lower[y]], lay, lay.share[y], room.row[0])
    return room.row[0]


@compiled
def _find_highest(grid: np.ndarray, lay: Geometry, room: Room, same: bool, y: int) -> np.ndarray:
    """[W] each pixel's largest logit."""
    highest = room.row[1]
    highest[:] = -np.inf
    for k in range(len(grid)):
        raise_to(_values(grid[k], lay, room, same, y), highest)
    return highest


@compiled
def forward(grid: np.ndarray, lay: Geometry, room: Room, same: bool, y: int, labels: np.ndarray, log_p: np.ndarray,
            sums: np.ndarray, lse: np.ndarray, mass: np.ndarray, own: np.ndarray) -> None:  # fmt: skip
    """One row of one image; adds to its `predicted` (`mass`) and `true` (`own`)."""
    highest, total, shares = _find_highest(grid, lay, room, same, y), room.row[2], room.row[3]
    total[:] = 0
    for k in range(len(grid)):
        add_exponentials(_values(grid[k], lay, room, same, y), highest, ONE, total)
    for x in range(len(labels)):
        k = labels[x]
        if k < 0:
            log_p[x] = sums[x] = shares[x] = 0
            continue
        maps, log_total = grid[k], np.log(total[x])
        value = maps[y, x] if same else point(maps[lay.upper[y]], maps[lay.lower[y]], lay.share[y], lay.left[x],
                                              lay.right[x], lay.weight[x])  # fmt: skip
        log_p[x], sums[x], shares[x] = value - highest[x] - log_total, -total[x], ONE / total[x]
        if len(own):
            own[k] += np.exp(log_p[x])
    for x in range(len(lse)):
        lse[x] = highest[x] + np.log(total[x]) if labels[x] >= 0 else ZERO
    for k in range(len(mass)):
        mass[k] += add_up(_values(grid[k], lay, room, same, y), highest, shares)


@compiled
def backward(grid: np.ndarray, lay: Geometry, room: Room, same: bool, y: int, labels: np.ndarray, log_p: np.ndarray,
             sums: np.ndarray, slopes: tuple[np.ndarray, np.ndarray], factors: tuple[np.ndarray, np.ndarray],
             out: np.ndarray) -> None:  # fmt: skip
    """Adds one row's gradient to `out` [K, h, w]; where the grid is the labels' size, writes it."""
    (by_log_p, by_lse), (by_predicted, by_true) = slopes, factors
    highest, found, shares, common = _find_highest(grid, lay, room, same, y), room.row[2], room.row[3], room.row[4]
    found[:] = 0
    for k in range(len(by_predicted)):
        add_exponentials(_values(grid[k], lay, room, same, y), highest, by_predicted[k], found)
    for x in range(len(labels)):
        shares[x] = -ONE / sums[x] if labels[x] >= 0 else ZERO
        by_sum = by_lse[x] if len(by_lse) else ZERO
        common[x] = (by_sum - _own(labels[x], x, log_p, by_log_p, by_true) - found[x] * shares[x]) * shares[x]
    for k in range(len(grid)):
        own = by_predicted[k] if len(by_predicted) else ZERO
        values, wanted = _values(grid[k], lay, room, same, y), out[k, y] if same else room.row[5]
        weigh(values, highest, own, shares, common, wanted)
        if not same:
            spread(wanted, lay.share[y], lay, out[k, lay.upper[y]], out[k, lay.lower[y]])
    for x in range(len(labels)):
        own = _own(labels[x], x, log_p, by_log_p, by_true)
        if same and labels[x] >= 0:
            out[labels[x], y, x] += own
        elif own != 0:
            maps = out[labels[x]]
            add_point(
                maps[lay.upper[y]], maps[lay.lower[y]], lay.share[y], lay.left[x], lay.right[x], lay.weight[x], own
            )


@compiled
def _own(label: int, x: int, log_p: np.ndarray, by_log_p: np.ndarray, by_true: np.ndarray) -> np.float32:
    """The gradient that reaches a pixel at its own label alone."""
    if label < 0:
        return ZERO
    slope = by_log_p[x] if len(by_log_p) else ZERO
    return slope + by_true[label] * np.exp(log_p[x]) if len(by_true) else slope
