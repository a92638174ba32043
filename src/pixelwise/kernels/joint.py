"""How often number i of one map meets number j of another, in one pass over both maps as they are stored.

The Numba form counts into several tables that are added up at the end: neighbouring pixels are mostly equal, and a
processor waits for a count that it has just written before it can raise it again. Where the table of all pairs would be
large next to the maps, runs of equal pairs go into a hash table of those that occur instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.kernels.compiled import compiled, form_for, in_parts

DENSE = 1 << 17  # a table of more cells holds only the pairs that occur
CHUNK = 4096
PART = 1 << 31  # pixels that 32-bit counts surely hold
TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32)


@dataclass(frozen=True, eq=False)
class Codes:
    """A map [...] of integers low .. low + count - 1."""

    values: Tensor
    low: int
    count: int


def joint(a: Codes, b: Codes) -> np.ndarray:
    """[a.count, b.count] int64: at how many places a holds i + a.low while b holds j + b.low.

    The maps have one shape, any integer dtype up to 64 bit and any layout; they may lie on different devices. Raises
    DataError for a number that is not of its map's.
    """
    if form_for(a.values, b.values) == "numba":
        return _joint_numba(a, b)
    index = _index(a, b)
    table = torch.bincount(index, minlength=a.count * b.count)
    return table.reshape(a.count, b.count).cpu().numpy()


def pairs(a: Codes, b: Codes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """i, j and their count, each [P] int64, for the pairs of `joint` that occur, in rising order."""
    if a.count * b.count <= DENSE:
        table = joint(a, b)
        i, j = np.nonzero(table)
        return i, j, table[i, j]
    if form_for(a.values, b.values) == "numba":
        keys, counts = _pairs_numba(a, b)
    else:
        found, times = torch.unique(_index(a, b), return_counts=True)
        keys, counts = found.cpu().numpy(), times.cpu().numpy()
    i, j = np.divmod(keys, b.count)
    return i, j, counts


def _index(a: Codes, b: Codes) -> Tensor:
    """[P] int64 the number of each place's pair."""
    left, right = a.values.reshape(-1).long() - a.low, b.values.to(a.values.device).reshape(-1).long() - b.low
    if bool(((left < 0) | (left >= a.count) | (right < 0) | (right >= b.count)).any()):
        raise _strange(a, b)
    return left.mul_(b.count).add_(right)


def _strange(a: Codes, b: Codes) -> DataError:
    said = []
    for side in (a, b):
        low, high = int(side.values.min()), int(side.values.max())
        if low < side.low or high >= side.low + side.count:
            said.append(f"a map holds {low}..{high}, expected {side.low}..{side.low + side.count - 1}")
    return DataError(f"{'; '.join(said)}: its pixels name segments or classes that do not exist.")


def _plain(codes: Codes) -> tuple[np.ndarray, np.int32]:
    """[P] of at most 32 bits, and its least number."""
    values, low = codes.values.detach().reshape(-1), codes.low
    if values.dtype == torch.bool:
        values = values.view(torch.uint8)
    if values.dtype not in TYPES:
        values = values.long() - low
        outside = (values < 0) | (values >= codes.count)
        values, low = values.masked_fill_(outside, -1).int(), 0
    return values.numpy(), np.int32(low)


def _joint_numba(a: Codes, b: Codes) -> np.ndarray:
    pitch = (-(-b.count // 16) | 1) * 16  # an odd number of cache lines: rows must not fall on the same ones
    copies = 4 if a.count * b.count <= DENSE else 1
    (left, low_a), (right, low_b) = _plain(a), _plain(b)
    total, lock = np.zeros(a.count * pitch, np.int64), Lock()

    def work(start: int, stop: int) -> None:
        for begin in range(start, stop, PART):
            end = min(stop, begin + PART)
            tables = np.zeros((copies, len(total)), np.uint32)
            if not _count(left[begin:end], right[begin:end], low_a, low_b, a.count, b.count, pitch, tables):
                raise _strange(a, b)
            with lock:
                _add_up(total, tables)

    in_parts(work, len(left), least=1 << 18)
    return total.reshape(a.count, pitch)[:, : b.count]


@compiled
def _count(a: np.ndarray, b: np.ndarray, low_a: np.int32, low_b: np.int32, count_a: int, count_b: int,
           pitch: int, tables: np.ndarray) -> bool:  # fmt: skip
    """Counts into tables [1 or 4, count_a * pitch]; False where a number is none of its map's."""
    index = np.empty(CHUNK, np.uint32)
    limit_a, limit_b, across = np.uint32(count_a), np.uint32(count_b), np.uint32(pitch)
    for start in range(0, len(a), CHUNK):
        left, right = a[start : start + CHUNK], b[start : start + CHUNK]
        strange = np.uint32(0)
        for p in range(len(left)):
            i, j = np.uint32(left[p] - low_a), np.uint32(right[p] - low_b)  # what is too low becomes large
            strange |= np.uint32(i >= limit_a) | np.uint32(j >= limit_b)
            index[p] = i * across + j
        if strange:
            return False
        if len(tables) == 4:
            _raise_four(tables, index[: len(left)])
        else:
            for p in range(len(left)):
                tables[0, index[p]] += np.uint32(1)
    return True


@compiled
def _raise_four(tables: np.ndarray, index: np.ndarray) -> None:
    t0, t1, t2, t3 = tables[0], tables[1], tables[2], tables[3]
    one, whole = np.uint32(1), len(index) // 4 * 4
    for p in range(0, whole, 4):
        t0[index[p]] += one
        t1[index[p + 1]] += one
        t2[index[p + 2]] += one
        t3[index[p + 3]] += one
    for p in range(whole, len(index)):
        t0[index[p]] += one


@compiled
def _add_up(total: np.ndarray, tables: np.ndarray) -> None:
    for t in range(len(tables)):
        table = tables[t]
        for i in range(len(total)):
            total[i] += table[i]


def _pairs_numba(a: Codes, b: Codes) -> tuple[np.ndarray, np.ndarray]:
    """Keys i * b.count + j in rising order, and their counts."""
    (left, low_a), (right, low_b) = _plain(a), _plain(b)
    found: list[tuple[np.ndarray, np.ndarray]] = []

    def work(start: int, stop: int) -> None:
        keys, counts = _hash(left[start:stop], right[start:stop], low_a, low_b, a.count, b.count)
        if len(keys) and keys[0] < 0:
            raise _strange(a, b)
        found.append((keys, counts))

    in_parts(work, len(left), least=1 << 18)
    if len(found) == 1:
        order = np.argsort(found[0][0])
        return found[0][0][order], found[0][1][order]
    keys, where = np.unique(np.concatenate([keys for keys, _ in found]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, where, np.concatenate([counts for _, counts in found]))
    return keys, counts


@compiled
def _hash(a: np.ndarray, b: np.ndarray, low_a: np.int32, low_b: np.int32, count_a: int,
          count_b: int) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Keys and counts of the pairs that occur, in no order; keys of [-1] where a number is none of its map's."""
    keys, counts, used = np.full(1024, -1, np.int64), np.zeros(1024, np.int64), 0
    p = 0
    while p < len(a):
        x, y = a[p], b[p]
        i, j = np.int64(x) - low_a, np.int64(y) - low_b
        if i < 0 or j < 0 or i >= count_a or j >= count_b:
            return np.full(1, -1, np.int64), np.zeros(1, np.int64)
        end = p + 1
        while end < len(a) and a[end] == x and b[end] == y:
            end += 1
        used += _add(keys, counts, i * count_b + j, end - p)
        if 2 * used > len(keys):
            keys, counts = _grow(keys, counts)
        p = end
    kept = keys >= 0
    return keys[kept], counts[kept]


@compiled
def _add(keys: np.ndarray, counts: np.ndarray, key: int, times: int) -> int:
    """Adds to a key's count; 1 where the key is new. The table is a power of two long and never full."""
    last = len(keys) - 1
    at = ((key * 0x9E3779B1) >> 12) & last
    while keys[at] != key and keys[at] >= 0:
        at = (at + 1) & last
    new = keys[at] < 0
    keys[at] = key
    counts[at] += times
    return 1 if new else 0


@compiled
def _grow(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    more_keys, more_counts = np.full(4 * len(keys), -1, np.int64), np.zeros(4 * len(keys), np.int64)
    for i in range(len(keys)):
        if keys[i] >= 0:
            _add(more_keys, more_counts, keys[i], counts[i])
    return more_keys, more_counts
