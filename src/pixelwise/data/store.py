"""The raw samples of a list of records, the decoded ones kept in memory as far as they fit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from pixelwise.core.sample import Sample

CACHE_BYTES = 2 << 30


class Source(Protocol):
    """What is needed of a data set: `read` is called from several threads and processes."""

    def read(self, record: Any) -> Sample: ...


class Store:
    """A sequence of samples, read when asked for; `fill` keeps them, in order, up to `limit` bytes.

    Filling comes before the workers start: where processes are forked (Linux) they then share one copy, elsewhere each
    has its own.
    """

    def __init__(self, source: Source, records: Sequence[Any], limit: int = 0) -> None:
        self.source, self.records, self.limit = source, tuple(records), limit
        self.kept: dict[int, Sample] = {}
        self._filled = limit <= 0

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        kept = self.kept.get(index)
        return self.source.read(self.records[index]) if kept is None else kept

    def fill(self, threads: int = 4) -> None:
        """Reads records until all are kept or the limit is met; once only. Raises what reading raises."""
        if self._filled:
            return
        used, chunk = 0, 4 * threads
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(self), chunk):
                indices = range(start, min(start + chunk, len(self)))
                for index, sample in zip(indices, pool.map(self.__getitem__, indices)):
                    used += sample_bytes(sample)
                    if used <= self.limit:
                        self.kept[index] = sample
                if used > self.limit:
                    break
        self._filled = True


def sample_bytes(sample: Sample) -> int:
    """Bytes of image and ids."""
    return int(sample.image.nbytes) + (0 if sample.truth is None else int(sample.truth.ids.nbytes))
