"""Which image comes when: seeded permutations, shares of several processes, and repeat factors for rare classes.

Repeat factor sampling: Gupta, Dollar, Girshick 2019, "LVIS", arXiv 1908.03195, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.data.warp import count_rows
from pixelwise.errors import DataError


@dataclass(frozen=True, eq=False)
class Order:
    """The order of `length` records in each epoch, for process `rank` of `world`.

    Shuffled: step s of all processes together takes the same images as one process with a batch of batch_size x world.
    factors  [length] how often each image is wanted, relative to the others; None: all alike
    """

    length: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    rank: int = 0
    world: int = 1
    drop_last: bool = True
    factors: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.factors is not None and len(self.factors) != self.length:
            raise DataError(f"{self.length} records but repeat factors for {len(self.factors)}.")

    @property
    def steps(self) -> int:
        """Batches per epoch in this process; never 0 when shuffled."""
        if self.shuffle:
            together = self.batch_size * self.world
            return max(1, self.length // together if self.drop_last else -(-self.length // together))
        mine = len(range(self.rank, self.length, self.world))
        return mine // self.batch_size if self.drop_last else -(-mine // self.batch_size)

    def signature(self) -> dict[str, int]:
        """What must be the same for a position to mean the same."""
        return {"seed": self.seed, "length": self.length, "batch_size": self.batch_size, "world": self.world}

    def stream(self, epoch: int) -> np.ndarray:
        """[steps * batch_size * world] records of a shuffled epoch, for all processes; [length] otherwise."""
        if not self.shuffle:
            return np.arange(self.length)
        count = self.steps * self.batch_size * self.world
        passes = [self._permutation(epoch, n) for n in range(-(-count // self.length))]
        return np.concatenate(passes)[:count]

    def batches(self, epoch: int, start: int = 0) -> Iterator[list[tuple[int, int]]]:
        """(position, record) of each item, batch by batch from batch `start` on."""
        stream = self.stream(epoch)
        if self.shuffle:
            together = self.batch_size * self.world
            for step in range(start, self.steps):
                first = step * together + self.rank * self.batch_size
                yield [(p, int(stream[p])) for p in range(first, first + self.batch_size)]
            return
        mine = range(self.rank, self.length, self.world)
        for step in range(start, self.steps):
            yield [(p, p) for p in mine[step * self.batch_size : (step + 1) * self.batch_size]]

    def _permutation(self, epoch: int, number: int) -> np.ndarray:
        """[length] the `number`-th pass of an epoch."""
        rng = np.random.default_rng([self.seed, epoch, number, 1])  # four numbers: never an item's own stream
        if self.factors is None:
            return rng.permutation(self.length)
        # systematic draw: image i comes floor or ceil of its expected number of times
        order = rng.permutation(self.length)  # neighbours in the list should not share a rounding
        edges = np.cumsum(np.asarray(self.factors)[order]) * (self.length / np.sum(self.factors))
        drawn = order[np.searchsorted(edges, np.arange(self.length) + rng.random()).clip(max=self.length - 1)]
        return rng.permutation(drawn)


def class_table(samples: Any) -> np.ndarray:
    """[N, K] bool: which class owns a pixel in which of N samples (a sequence of Sample). One pass over all of them."""
    found = []
    for i in range(len(samples)):
        truth = samples[i].truth
        if truth is None:
            raise DataError(f"Balanced sampling needs truth, and '{samples[i].name}' has none.")
        found.append(np.unique(truth.labels.numpy()[count_rows(truth.ids.numpy(), len(truth)) > 0]))
    table = np.zeros((len(found), max((int(f.max()) + 1 for f in found if len(f)), default=1)), bool)
    for row, labels in zip(table, found):
        row[labels] = True
    return table


def repeat_factors(table: np.ndarray, threshold: float = 1.0) -> np.ndarray:
    """[N] how often each image is wanted: max over its classes c of max(1, sqrt(threshold / f_c)).

    f_c is the share of images with c, from `table` [N, K] bool. LVIS uses threshold 0.001, which does nothing for a
    class in more images than that; 1 lifts every class that is not in all of them. An image without a class has 1.
    """
    share = table.mean(0)
    wanted = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-12)))
    return np.where(table, wanted[None], 1.0).max(1)
