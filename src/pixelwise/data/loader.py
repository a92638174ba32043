"""From records to batches: the order and every random draw follow from seed, epoch and place, never from a worker."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pixelwise.core.sample import Batch, Sample, collate
from pixelwise.core.types import Task
from pixelwise.data.cache import Cache, Source
from pixelwise.data.sampling import Order, class_table, repeat_factors
from pixelwise.data.store import Store
from pixelwise.data.transforms import Transform
from pixelwise.errors import ConfigError, MemoryLimitError, PixelwiseError


class Place(NamedTuple):
    """One item of an epoch: `position` counts over all processes."""

    epoch: int
    position: int
    record: int


class Failure(NamedTuple):
    """An error on its way out of a worker: PyTorch would wrap it in text, and its type would be lost."""

    error: PixelwiseError


def make_loader(
    dataset: Source,
    records: Sequence[Any],
    task: Task | None,
    *,
    transform: Transform | None = None,
    batch_size: int = 8,
    seed: int = 0,
    shuffle: bool = False,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    drop_last: bool | None = None,
    balanced: bool = False,
    class_table: np.ndarray | None = None,
    balance_threshold: float = 1.0,
    cache: Cache | None = None,
    pin: bool = True,
    say: Callable[[str], None] | None = None,
) -> Loader:
    """A `Loader` over `records` of `dataset`.

    task         its `view` of the truth is the last transform; None leaves the truth as stored
    transform    see `pixelwise.data.transforms`; without a crop, images are padded to the largest of their batch
    batch_size   per process
    shuffle      for training: a new permutation each epoch and the same number of full batches in every process, see
                 `sampling.Order`. Without it every record comes once, in order: process `rank` of `world` has records
                 rank, rank + world, ...
    drop_last    default: as `shuffle`. Shuffled: the images that fill no batch of all processes wait for another epoch
                 (False: they are filled up from a further permutation). Not shuffled: a short last batch is left out.
    balanced     images with rare classes come more often, see `sampling.repeat_factors` with `balance_threshold`;
                 `class_table` [records, K] bool says which class is in which image and is read in one pass if not given
    cache        keeps decoded samples: `cache.Memory` or `disk.Disk`; batches are the same with any and with none
    pin          page-locked memory, where there is a GPU
    say          hears once why the cache was left; by default it is a warning
    Raises ConfigError for numbers that cannot be and for no records at all.
    """
    if not len(records):
        raise ConfigError("There are no images to load: the list of records is empty.")
    least = {"batch_size": 1, "world": 1, "workers": 0, "seed": 0}
    for (name, low), value in zip(least.items(), (batch_size, world, workers, seed)):
        if value < low:
            raise ConfigError(f"{name} must be at least {low}, got {value}.")
    if not 0 <= rank < world:
        raise ConfigError(f"rank must lie in 0..{world - 1}, got {rank}.")
    store = Store(dataset, records, cache)
    factors = _factors(store, class_table, balance_threshold) if balanced else None
    drop_last = shuffle if drop_last is None else drop_last
    order = Order(len(records), batch_size, seed, shuffle, rank, world, drop_last, factors)
    return Loader(Items(store, task, transform, seed), order, workers=workers, pin=pin, say=say)


def _factors(store: Store, table: np.ndarray | None, threshold: float) -> np.ndarray:
    if table is None:
        store.fill()
        table = class_table(store)
    if len(table) != len(store):
        raise ConfigError(f"class_table has {len(table)} rows for {len(store)} records; it needs one for each.")
    return repeat_factors(table, threshold)


class Items(Dataset[Any]):
    """What a worker does: read, transform, view. A PixelwiseError comes back as a `Failure`."""

    def __init__(self, store: Store, task: Task | None, transform: Transform | None, seed: int) -> None:
        self.store, self.task, self.transform, self.seed = store, task, transform, seed

    def __getitem__(self, place: Place) -> Sample | Failure:
        try:
            return self.item(place)
        except PixelwiseError as error:
            return Failure(error)

    def item(self, place: Place) -> Sample:
        """The sample at a place, ready to be stacked."""
        sample = self.store[place.record]
        if self.transform is not None:
            rng = np.random.default_rng([self.seed, place.epoch, place.position])
            sample = self.transform(sample, rng, self.pick)
        if self.task is not None and sample.truth is not None:
            sample = replace(sample, truth=self.task.view(sample.truth))
        return sample

    def pick(self, rng: np.random.Generator) -> Sample:
        """Another raw sample, any one equally likely."""
        return self.store[int(rng.integers(len(self.store)))]


class Loader:
    """Iterates the batches of one epoch; made by `make_loader`.

    Position: `state()` in the loop's body says where to go on after the batch at hand; `restore` goes there.
    `set_epoch(e)` goes to the start of epoch e, or nowhere if e is the epoch at hand, so that a loop may call it after
    `restore`. A loop that is left early starts again where it began. After a whole shuffled epoch the next one follows.
    """

    def __init__(self, items: Items, order: Order, *, workers: int = 0, pin: bool = True,
                 say: Callable[[str], None] | None = None) -> None:  # fmt: skip
        self.items, self.order, self.say = items, order, say or warnings.warn
        self.step = 0  # so many batches of the epoch have been handed out
        self._next = _Batches(order)
        self.workers, self.pin = workers, pin and torch.cuda.is_available()
        self._loader: DataLoader[Any] | None = None  # from the first iteration to `close`

    def __len__(self) -> int:
        """Batches of a whole epoch in this process."""
        return self.order.steps

    @property
    def batch_size(self) -> int:
        return self.order.batch_size

    @property
    def epoch(self) -> int:
        return self._next.epoch

    def set_epoch(self, epoch: int, start: int | None = None) -> None:
        """Goes to batch `start` of an epoch; without `start` to its first, or nowhere if it is the epoch at hand."""
        if start is not None or epoch != self.epoch:
            self.step = self._next.start = int(start or 0)
        self._next.epoch = int(epoch)

    def state(self) -> dict[str, int]:
        """The position and what its meaning depends on, as plain numbers."""
        return {"epoch": self.epoch, "step": self.step, **self.order.signature()}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes to a position that `state` gave. Raises ConfigError where it belongs to another order."""
        for name, value in self.order.signature().items():
            if state.get(name, value) != value:
                raise ConfigError(
                    f"The saved position belongs to {name} {state[name]}, this run has {value}: the epoch cannot be "
                    "continued in another order. Resume with the settings and the data of the first run."
                )
        self.set_epoch(int(state["epoch"]), int(state["step"]))

    def close(self) -> None:
        """Ends the workers now; the next iteration starts new ones."""
        self._loader = None

    def _open(self) -> DataLoader[Any]:
        return DataLoader(
            self.items,
            batch_sampler=self._next,
            collate_fn=_stack,
            num_workers=self.workers,
            worker_init_fn=_start_worker,
            persistent_workers=self.workers > 0,
            pin_memory=self.pin,
            generator=torch.Generator(),  # else each epoch draws from the global one, and a resumed run would differ
        )

    def _complain(self) -> None:
        complaint = self.items.store.complaint()
        if complaint is not None:
            self.say(complaint)

    def __iter__(self) -> Iterator[Batch]:
        self.items.store.fill()
        self._complain()
        self.step = self._next.start
        if self._loader is None:
            self._loader = self._open()
        try:
            for batch in self._loader:
                if isinstance(batch, Failure):
                    error = batch.error
                    self.close()
                    try:
                        raise error from None
                    finally:  # no circle from the error over this frame back to it: see `_Batches`
                        del batch, error
                self.step += 1
                self._complain()
                yield _with_tables(batch, torch.from_numpy)
        except RuntimeError as ended:
            if "DataLoader worker" not in str(ended):
                raise
            raise MemoryLimitError(
                f"A loading process ended without a word ({str(ended).splitlines()[0]}): mostly memory, or shared "
                "memory (/dev/shm), ran out. Use fewer workers (0 needs no shared memory) or a smaller batch, or give "
                "the container more shared memory."
            ) from ended
        self.step = self._next.start = 0
        self._next.epoch += int(self.order.shuffle)


class _Batches:
    """The places of `epoch`, batch by batch, from batch `start` on.

    It knows no loader: in a circle of references PyTorch's workers end by a timeout of 5 seconds each.
    """

    def __init__(self, order: Order) -> None:
        self.order, self.epoch, self.start = order, 0, 0

    def __iter__(self) -> Iterator[list[Place]]:
        epoch = self.epoch
        for places in self.order.batches(epoch, self.start):
            yield [Place(epoch, position, record) for position, record in places]

    def __len__(self) -> int:
        return max(0, self.order.steps - self.start)


def _stack(items: list[Sample | Failure]) -> Batch | Failure:
    """A batch, or the first failure among its items."""
    samples = []
    for item in items:
        if isinstance(item, Failure):
            return item
        samples.append(item)
    try:
        batch = collate(samples)
    except PixelwiseError as error:
        return Failure(error)
    return _with_tables(batch, torch.Tensor.numpy)


def _with_tables(batch: Batch, change: Callable[[Any], Any]) -> Batch:
    """The tables cross from worker to trainer as arrays: each tensor would take a shared-memory file of its own."""
    tables = tuple({k: None if v is None else change(v) for k, v in table.items()} for table in batch.tables)
    return replace(batch, tables=tables)


def _start_worker(number: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism, and OpenCV's threads do not survive a fork
