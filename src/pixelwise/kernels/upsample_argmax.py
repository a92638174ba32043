"""The class with the largest logit at each pixel of a bilinear enlargement, which is itself never built.

Between four neighbouring points of the grid an interpolated value lies between the least and the greatest of the four.
So in a cell only those classes can win whose greatest corner reaches the largest of all classes' least corners: bounds
are found for whole rows of cells at once, and what is left in a block of cells is evaluated as `sample_window` does,
operation by operation. The labels are those of `sample_window(...).max(0)`, the first of equals, to the last pixel;
torch's `interpolate` adds up in another order and so differs from both where two classes are equal but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelwise.kernels.compiled import compiled, form_for, in_parts
from pixelwise.kernels.resample import Taps, sample_taps, taps

STRIP = 1 << 22  # numbers that the reference holds at once
BAND = 3 << 17  # float32 numbers of rows of the grid that the Numba form holds at once, on each thread
BLOCK = 32  # cells that share a list of classes
FOUR = 4 * BLOCK  # pixels evaluated together: as many of each cell as share the loads of its corners
WORTH = 4  # bounds pay where a cell holds so many pixels
SAFE = int(np.float32(1e36).view(np.int32))  # larger values might overflow, infinities and NaN have no bounds
# A value a + (b - a) w, rounded three times, leaves the range of a and b by at most 3 u max(|a|, |b|), u = 2^-24:
# rounding is monotone, so only b - a and the last sum count. Down and across make 6 u, for two classes 12 u; comparing
# with the bound less this margin rounds once or twice more. Denormal numbers have exact sums and need no margin.
MARGIN = 16 * 2.0**-24


def label_type(classes: int) -> torch.dtype:
    """The smallest signed integer type that holds the labels 0..classes, of which the last is "nothing"."""
    return torch.int8 if classes <= 127 else torch.int16 if classes <= 32767 else torch.int32


def upsample_argmax(maps: Tensor, *, origin: tuple[float, float], step: tuple[float, float], size: tuple[int, int],
                    floor: float | None = None) -> Tensor:  # fmt: skip
    """[K, h, w] float of any layout -> [H, W] the first k whose `sample_window(maps, ...)` is largest.

    origin, step, size  as in `sample_window`; K at least 1
    floor               where no value exceeds it the label is K; None: the largest always counts
    The labels are int8, int16 or int32 (`label_type`). NaN counts as larger than any number, as in `torch.max`.
    """
    if 0 in size:
        return torch.empty(size, dtype=label_type(len(maps)), device=maps.device)
    rows = taps(size[0], origin[0], step[0], maps.shape[1], maps.device)
    columns = taps(size[1], origin[1], step[1], maps.shape[2], maps.device)
    form = {"torch": upsample_argmax_torch, "numba": _with_numba, "triton": _with_triton}[form_for(maps)]
    return form(maps.detach(), rows, columns, floor)


def upsample_argmax_torch(maps: Tensor, rows: Taps, columns: Taps, floor: float | None) -> Tensor:
    """The reference: the enlargement in strips of rows."""
    width, strips = len(columns[0]), []
    count = max(1, STRIP // (len(maps) * max(width, maps.shape[2])))
    for y in range(0, len(rows[0]), count):
        top, bottom, weight = (tap[y : y + count] for tap in rows)
        best = sample_taps(maps, (top, bottom, weight), columns).max(0)
        strips.append(_told(best.indices, best.values, len(maps), floor))
    return torch.cat(strips)


def _told(indices: Tensor, values: Tensor, classes: int, floor: float | None) -> Tensor:
    labels = indices.to(label_type(classes))
    return labels if floor is None else labels.masked_fill(values.float() <= floor, classes)


def largest_of(maps: Tensor, floor: float | None = None) -> Tensor:
    """[K, H, W] float -> [H, W] the first k with the largest value, nothing enlarged; `floor` and type as above."""
    if form_for(maps) != "numba" or not maps.numel():
        best = maps.max(0)
        return _told(best.indices, best.values, len(maps), floor)
    classes, height, width = maps.shape
    labels = torch.empty((height, width), dtype=label_type(classes))
    out, (first, nothing) = labels.numpy(), _start(classes, floor)
    deep = max(1, BAND // (classes * width))

    def work(start: int, stop: int) -> None:
        for y in range(start, stop, deep):
            end = min(stop, y + deep)
            band = maps.detach()[:, y:end].to(torch.float32).contiguous().view(classes, -1)
            _largest_numba(band.numpy(), out[y:end].reshape(-1), first, nothing)

    in_parts(work, height, least=16)
    return labels


def _start(classes: int, floor: float | None) -> tuple[np.float32, np.int32]:
    """What a pixel is before any class has been looked at: the value to exceed, and the label."""
    return np.float32(-np.inf if floor is None else floor), np.int32(0 if floor is None else classes)


@compiled
def _largest_numba(band: np.ndarray, out: np.ndarray, first: np.float32, nothing: np.int32) -> None:
    """[K, P] float32 -> [P]."""
    best, label = np.empty(512, np.float32), np.empty(512, np.int32)
    for start in range(0, len(out), 512):
        count = min(512, len(out) - start)
        best[:], label[:] = first, nothing
        for k in range(len(band)):
            values = band[k, start : start + count]
            for p in range(count):
                take = (not (values[p] <= best[p])) and best[p] == best[p]
                best[p] = values[p] if take else best[p]
                label[p] = k if take else label[p]
        for p in range(count):
            out[start + p] = label[p]


@dataclass(frozen=True)
class _Columns:
    """How pixels of a row share cells of the grid: by fours in G groups; C cells fill whole blocks.

    pick     the columns that a band takes from the grid: a slice of neighbours, or an index of all left, then all right
    width    numbers in a row of a band; `shift` from a cell's left corner to its right one
    weights  [C / BLOCK, G, FOUR] float32 of the right corner
    groups   [C / BLOCK] that hold a pixel: one more where the border is repeated, as a rule
    single   whether no cell holds a second pixel
    where    [W] place of each pixel's label in a state [G, 2 FOUR]; edges [C / BLOCK + 1] first pixel of each block
    """

    pick: slice | Tensor
    width: int
    shift: int
    weights: np.ndarray
    groups: np.ndarray
    single: bool
    where: np.ndarray
    edges: np.ndarray


def _plan(columns: Taps) -> _Columns:
    left, right, weight = columns
    first, width = int(left[0]), len(left)
    cells = int(left[-1]) - first + 1
    most = int(torch.bincount(left - first).max())
    if cells * most <= 2 * width:  # else, where the map is reduced or little of it is in sight, a cell for each pixel
        blocks = -(-cells // BLOCK)
        cell, row, shift = (left - first).numpy(), blocks * BLOCK + 1, 1
        pick: slice | Tensor = slice(first, int(right[-1]) + 1)
    else:
        blocks = -(-width // BLOCK)
        spare = left[-1:].expand(blocks * BLOCK - width)
        cell, pick = np.arange(width), torch.cat([left, spare, right, spare])
        row, shift = 2 * blocks * BLOCK, blocks * BLOCK
    starts = np.searchsorted(cell, np.arange(blocks * BLOCK + 1))
    slot = np.arange(width) - starts[cell]
    group, place = slot // 4, slot % 4 * BLOCK + cell % BLOCK
    groups = np.zeros(blocks, np.int64)
    np.maximum.at(groups, cell // BLOCK, group + 1)
    weights = np.zeros((blocks, groups.max(), FOUR), np.float32)
    weights[cell // BLOCK, group, place] = weight.numpy()
    where = (group * 2 * FOUR + FOUR + place).astype(np.uint32)
    return _Columns(pick, row, shift, weights, groups, not slot.any(), where, starts[::BLOCK].copy())


def _band(maps: Tensor, rows: slice, columns: _Columns) -> np.ndarray:
    """[rows, K, width] float32 of the grid."""
    part = (
        maps[:, rows, columns.pick] if isinstance(columns.pick, slice) else maps[:, rows].index_select(2, columns.pick)
    )
    band = torch.empty((part.shape[1], len(maps), columns.width))
    held = part.shape[2]
    band[:, :, :held] = part.transpose(0, 1)
    band[:, :, held:] = band[:, :, held - 1 : held]
    return band.numpy()


def _with_numba(maps: Tensor, rows: Taps, columns: Taps, floor: float | None) -> Tensor:
    classes, height, width = len(maps), len(rows[0]), len(columns[0])
    top, bottom, weight = (tap.numpy() for tap in rows)
    plan = _plan(columns)
    labels = torch.empty((height, width), dtype=label_type(classes))
    out, (first, nothing) = labels.numpy(), _start(classes, floor)
    deep = max(2, BAND // (classes * plan.width))
    cells = int((columns[1][-1] - columns[0][0] + 1) * (bottom[-1] - top[0] + 1))
    dense = width * height >= WORTH * cells

    def work(start: int, stop: int) -> None:
        while start < stop:
            base = top[start]
            end = min(stop, int(np.searchsorted(top, base + deep - 1)))
            band = _band(maps, slice(int(base), int(bottom[end - 1]) + 1), plan)
            _rows_numba(band, top[start:end] - base, bottom[start:end] - base, weight[start:end], plan.shift,
                        plan.weights, plan.groups, plan.single, plan.where, plan.edges, out[start:end],
                        first, nothing, dense)  # fmt: skip
            start = end

    in_parts(work, height, least=64)
    return labels


@compiled
def _rows_numba(band: np.ndarray, top: np.ndarray, bottom: np.ndarray, weight: np.ndarray, shift: int,
                weights: np.ndarray, groups: np.ndarray, single: bool, where: np.ndarray, edges: np.ndarray,
                out: np.ndarray, first: np.float32, nothing: np.int32, dense: bool) -> None:  # fmt: skip
    """Labels of some rows of pixels, from a band [rows of the grid, K, width]; top and bottom count from its first."""
    classes, blocks = band.shape[1], len(weights)
    lists, counts = np.empty((blocks, classes + 1), np.int32), np.empty(blocks, np.int32)
    bound = np.empty(blocks * BLOCK, np.float32)
    state = np.empty((weights.shape[1], 2 * FOUR), np.float32)
    big = np.empty(1, np.int32)
    big[0] = _largest_bits(band.reshape(-1).view(np.int32))
    finite, margin = big[0] < SAFE, big.view(np.float32)[0] * np.float32(MARGIN)
    for t in range(blocks):
        counts[t] = classes
        for k in range(classes):
            lists[t, k] = k
    y = 0
    while y < len(out):
        end = y + 1
        while end < len(out) and top[end] == top[y]:
            end += 1
        above, below = band[top[y]], band[bottom[y]]
        if dense and finite:
            bound[:] = first
            _bound_cells(bound, above, below, shift)
            for c in range(len(bound)):
                bound[c] -= margin
            _list_classes(lists, counts, bound, above, below, shift)
        for t in range(blocks):
            for row in range(y, end):
                target = out[row, edges[t] : edges[t + 1]]
                if counts[t] == 1 and nothing == 0:
                    target[:] = lists[t, 0]
                    continue
                state[:, :FOUR], state[:, FOUR:] = first, nothing
                for g in range(groups[t]):
                    _evaluate(state[g], above, below, t * BLOCK, shift, weight[row], weights[t, g],
                              lists[t, : counts[t]], finite, single)  # fmt: skip
                if groups[t] == 1 and len(target) == FOUR:  # four pixels in each cell
                    _interleave(target, state[0, FOUR:])
                else:
                    _put(target, state.reshape(-1), where[edges[t] : edges[t + 1]])
        y = end


@compiled
def _largest_bits(bits: np.ndarray) -> np.int32:
    """The largest |value| as int32 bits: NaN is above infinity, infinity above all numbers."""
    big = np.int32(0)
    for i in range(len(bits)):
        value = bits[i] & np.int32(0x7FFFFFFF)
        big = value if value > big else big
    return big


@compiled
def _bound_cells(bound: np.ndarray, above: np.ndarray, below: np.ndarray, shift: int) -> None:
    """Raises the bound [C] of each cell to the largest of all classes' least corners; above, below [K, width]."""
    for k in range(len(above)):
        a, b, c, d = above[k], below[k], above[k, shift:], below[k, shift:]  # slices, or LLVM gathers
        for i in range(len(bound)):
            left = a[i] if a[i] < b[i] else b[i]
            right = c[i] if c[i] < d[i] else d[i]
            least = left if left < right else right
            bound[i] = least if least > bound[i] else bound[i]


@compiled
def _list_classes(lists: np.ndarray, counts: np.ndarray, bound: np.ndarray, above: np.ndarray, below: np.ndarray,
                  shift: int) -> None:  # fmt: skip
    """lists [blocks, K + 1], counts [blocks]: the classes whose greatest corner reaches the bound in a cell of it."""
    counts[:] = 0
    for k in range(len(above)):
        for t in range(len(counts)):
            i0, j0 = t * BLOCK, t * BLOCK + shift
            a, b, least = above[k, i0 : i0 + BLOCK], below[k, i0 : i0 + BLOCK], bound[i0 : i0 + BLOCK]
            c, d = above[k, j0 : j0 + BLOCK], below[k, j0 : j0 + BLOCK]
            reach = np.int32(0)
            for i in range(BLOCK):
                left = a[i] if a[i] > b[i] else b[i]
                right = c[i] if c[i] > d[i] else d[i]
                reach += np.int32((left if left > right else right) >= least[i])
            lists[t, counts[t]] = k  # overwritten by the next one where it does not count
            counts[t] += np.int32(reach > 0)


@compiled
def _evaluate(state: np.ndarray, above: np.ndarray, below: np.ndarray, start: int, shift: int, down: float,
              across: np.ndarray, classes: np.ndarray, finite: bool, single: bool) -> None:  # fmt: skip
    """Takes these classes into the state of four pixels of each cell from `start`; across [FOUR] weights.

    The state [2 FOUR] is the largest values, then their classes: in one array, at fixed distances, so that LLVM need
    not ask before each loop whether they overlap. Below 2^24 a class is a whole float32.
    """
    for k in classes:
        a, b, label = above[k, start:], below[k, start:], np.float32(k)
        c, d = above[k, start + shift :], below[k, start + shift :]
        if finite and single:
            for i in range(BLOCK):
                value = a[i] + (b[i] - a[i]) * down
                u = value + ((c[i] + (d[i] - c[i]) * down) - value) * across[i]
                p = state[i]
                state[i + FOUR] = label if u > p else state[i + FOUR]
                state[i] = u if u > p else p
        elif finite:
            for i in range(BLOCK):  # written out: LLVM makes no vectors of a loop over the four here
                value = a[i] + (b[i] - a[i]) * down
                rise = (c[i] + (d[i] - c[i]) * down) - value
                u, v = value + rise * across[i], value + rise * across[i + BLOCK]
                w, x = value + rise * across[i + 2 * BLOCK], value + rise * across[i + 3 * BLOCK]
                p, q, r, s = state[i], state[i + BLOCK], state[i + 2 * BLOCK], state[i + 3 * BLOCK]
                state[i + FOUR] = label if u > p else state[i + FOUR]
                state[i + FOUR + BLOCK] = label if v > q else state[i + FOUR + BLOCK]
                state[i + FOUR + 2 * BLOCK] = label if w > r else state[i + FOUR + 2 * BLOCK]
                state[i + FOUR + 3 * BLOCK] = label if x > s else state[i + FOUR + 3 * BLOCK]
                state[i] = u if u > p else p
                state[i + BLOCK] = v if v > q else q
                state[i + 2 * BLOCK] = w if w > r else r
                state[i + 3 * BLOCK] = x if x > s else s
        else:  # NaN is larger than any number
            for i in range(BLOCK):
                value = a[i] + (b[i] - a[i]) * down
                rise = (c[i] + (d[i] - c[i]) * down) - value
                for j in range(i, FOUR, BLOCK):
                    v = value + rise * across[j]
                    take = (not (v <= state[j])) and state[j] == state[j]
                    state[j + FOUR] = label if take else state[j + FOUR]
                    state[j] = v if take else state[j]


@compiled
def _interleave(target: np.ndarray, label: np.ndarray) -> None:
    """Writes the labels of four pixels of each cell, [4, BLOCK], in the order of pixels, [BLOCK, 4]."""
    for i in range(BLOCK):
        target[4 * i], target[4 * i + 1] = label[i], label[i + BLOCK]
        target[4 * i + 2], target[4 * i + 3] = label[i + 2 * BLOCK], label[i + 3 * BLOCK]


@compiled
def _put(target: np.ndarray, label: np.ndarray, where: np.ndarray) -> None:
    for x in range(len(target)):
        target[x] = label[where[x]]


def _with_triton(maps: Tensor, rows: Taps, columns: Taps, floor: float | None) -> Tensor:
    from pixelwise.kernels.upsample_argmax_gpu import upsample_argmax_triton

    return upsample_argmax_triton(maps, rows, columns, label_type(len(maps)), *_start(len(maps), floor))
