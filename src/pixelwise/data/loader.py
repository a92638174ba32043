"""From records to batches: the order and every random draw follow from seed, epoch and place, never from the workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pixelwise.core.sample import Batch, Sample, collate
from pixelwise.core.types import Task
from pixelwise.data.sampling import Order
from pixelwise.data.transforms import Transform
from pixelwise.errors import ConfigError, MemoryLimitError, PixelwiseError

CACHE_BYTES = 2 << 30


class Source(Protocol):
    """What a loader needs of a data set."""

    def read(self, record: Any) -> Sample: ...


class Place(NamedTuple):
    """One item of an epoch: `position` counts over all processes, `index` is the record."""

    epoch: int
    position: int
    index: int


class Failure(NamedTuple):
    """An error on its way out of a worker: PyTorch would wrap it in text, and the user would no longer see its type."""

    error: PixelwiseError


def make_loader(dataset: Source, records: Sequence[Any], task: Task | None, *, transform: Transform | None = None,
                batch_size: int = 8, seed: int = 0, shuffle: bool = False, workers: int = 0, rank: int = 0, world: int = 1,
                drop_last: bool | None = None, balanced: bool = False, class_table: np.ndarray | None = None,
                balance_threshold: float = 1.0, cache: bool = False, cache_bytes: int = CACHE_BYTES,
                pin: bool = True) -> Loader:  # fmt: skip
    """A `Loader` over `records` of `dataset`.

    batch_size   per process
    shuffle      for training: a new permutation each epoch, the same number of full batches in every process; with
                 drop_last (the default then) the images that do not fill a batch of all processes wait for another epoch,
                 without it they are filled up from the next permutation. A data set smaller than one batch goes on with
                 further permutations, each with its own random draws. Without shuffle: every record once, in order,
                 process `rank` of `world` has records rank, rank + world, ...; the last batch may be short.
    balanced     images with rare classes more often, see `sampling.repeat_factors`; `class_table` [records, K] bool says
                 which class is in which image (`sampling.class_table` reads it; it is read here where it is not given)
    cache        keeps decoded images in memory, up to `cache_bytes`; those beyond are read anew each time
    task         its `view` of the truth is the last transform; None leaves the truth as stored
    pin          page-locked memory, where there is a GPU
    Raises ConfigError for numbers that cannot be and for no records at all.
    """
    if not len(records):
        raise ConfigError("There are no images to load: the list of records is empty.")
    for name, value in (("batch_size", batch_size), ("world", world), ("workers", workers + 1)):
        if value < 1:
            raise ConfigError(f"{name} must be at least {1 if name != 'workers' else 0}, got {value - (name == 'workers')}.")
    if not 0 <= rank < world:
        raise ConfigError(f"rank must lie in 0..{world - 1}, got {rank}.")
    store = Store(dataset, records, cache_bytes if cache else 0)
    factors = None
    if balanced:
        from pixelwise.data.sampling import repeat_factors

        factors = repeat_factors(store.class_table() if class_table is None else class_table, balance_threshold)
    order = Order(len(records), batch_size, seed=seed, shuffle=shuffle, rank=rank, world=world,
                  drop_last=shuffle if drop_last is None else drop_last, factors=factors)  # fmt: skip
    return Loader(Items(store, task, transform, seed), order, workers=workers, pin=pin)


class Store:
    """The raw samples of a list of records, decoded ones kept in memory up to `limit` bytes.

    They are read before the workers start, so that these share one copy where processes are forked.
    """

    def __init__(self, dataset: Source, records: Sequence[Any], limit: int) -> None:
        self.dataset, self.records, self.limit = dataset, tuple(records), limit
        self.kept: dict[int, Sample] = {}
        self._full = limit <= 0

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        kept = self.kept.get(index)
        return self.dataset.read(self.records[index]) if kept is None else kept

    def fill(self, threads: int = 4) -> None:
        """Reads records, in order, until all are kept or the limit is met. Raises what reading raises."""
        if self._full:
            return
        used, chunk = 0, 4 * threads
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(self), chunk):
                indices = range(start, min(start + chunk, len(self)))
                for index, sample in zip(indices, pool.map(self.__getitem__, indices)):
                    used += sample_bytes(sample)
                    if used > self.limit:
                        self._full = True
                        return
                    self.kept[index] = sample
        self._full = True

    def class_table(self) -> np.ndarray:
        from pixelwise.data.sampling import class_table

        self.fill()
        return class_table(self)


def sample_bytes(sample: Sample) -> int:
    """Bytes of image and ids."""
    return sample.image.nbytes + (0 if sample.truth is None else sample.truth.ids.nbytes)


class Items(Dataset):  # type: ignore[type-arg]
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
        sample = self.store[place.index]
        if self.transform is not None:
            rng = np.random.default_rng([self.seed, place.epoch, place.position])
            sample = self.transform(sample, rng, self.pick)
        if self.task is not None and sample.truth is not None:
            sample = replace(sample, truth=self.task.view(sample.truth))
        return sample

    def pick(self, rng: np.random.Generator) -> Sample:
        """Another raw sample, any one equally likely."""
        return self.store[int(rng.integers(len(self.store)))]


def stack(items: list[Sample | Failure]) -> Batch | Failure:
    """A batch, or the first failure among its items."""
    for item in items:
        if isinstance(item, Failure):
            return item
    try:
        return collate(items)  # type: ignore[arg-type]
    except PixelwiseError as error:
        return Failure(error)


class Loader:
    """Iterates the batches of one epoch, from `step` on; made by `make_loader`.

    Position: `state()` inside the loop's body is the place after the batch at hand, so that what it returns goes on with
    the next one. `set_epoch(e)` starts epoch e; where e is the epoch at hand the position stays (so that a loop may call
    it after `restore`). At the end of a shuffled epoch the position moves to the start of the next.
    """

    def __init__(self, items: Items, order: Order, *, workers: int = 0, pin: bool = True) -> None:
        self.items, self.order = items, order
        self.epoch, self.step = 0, 0
        self._loader = DataLoader(
            items, batch_sampler=_Batches(self), collate_fn=stack, num_workers=workers, worker_init_fn=_start_worker,
            persistent_workers=workers > 0, pin_memory=pin and torch.cuda.is_available(),
        )  # fmt: skip

    def __len__(self) -> int:
        """Batches of a whole epoch in this process."""
        return self.order.steps

    @property
    def batch_size(self) -> int:
        return self.order.batch_size

    def set_epoch(self, epoch: int, start: int | None = None) -> None:
        """Goes to batch `start` of an epoch; without `start` to its first, or nowhere if it is the epoch at hand."""
        if start is not None:
            self.step = int(start)
        elif epoch != self.epoch:
            self.step = 0
        self.epoch = int(epoch)

    def state(self) -> dict[str, int]:
        """The position, plain numbers, with what the order depends on."""
        return {"epoch": self.epoch, "step": self.step, **self.order.signature()}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes to a position that `state` gave. Raises ConfigError where it belongs to another order."""
        mine = self.order.signature()
        for name, value in mine.items():
            if state.get(name, value) != value:
                raise ConfigError(
                    f"The saved position belongs to {name} {state[name]}, this run has {value}: with another order the "
                    "epoch cannot be continued. Resume with the settings and data of the first run."
                )
        self.epoch, self.step = int(state["epoch"]), int(state["step"])

    def __iter__(self) -> Iterator[Batch]:
        self.items.store.fill()
        try:
            for batch in self._loader:
                if isinstance(batch, Failure):
                    raise batch.error from None
                self.step += 1
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error) or isinstance(error, PixelwiseError):
                raise
            raise MemoryLimitError(
                f"A loading process ended without a word ({str(error).splitlines()[0]}), which mostly means that memory, "
                "or shared memory (/dev/shm), ran out. Use fewer workers (--workers 0 needs no shared memory), a smaller "
                "batch, or give the container more shared memory."
            ) from error
        self.step = 0
        self.epoch += self.order.shuffle


class _Batches:
    """The places of the loader's present epoch from its present step on, batch by batch."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, start = self.loader.epoch, self.loader.step
        for places in self.loader.order.batches(epoch, start):
            yield [Place(epoch, position, index) for position, index in places]

    def __len__(self) -> int:
        return max(0, len(self.loader) - self.loader.step)


def _start_worker(number: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism, and OpenCV's threads do not survive a fork
