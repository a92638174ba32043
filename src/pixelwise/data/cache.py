"""Decoded samples kept between epochs: what a cache is, and the one in memory. `data.disk` is the one on disk."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

from pixelwise.core.sample import Sample

MEMORY = 2 << 30  # bytes


class Source(Protocol):
    """What is needed of a data set: `read` is called from several threads and processes."""

    def read(self, record: Any) -> Sample: ...


@runtime_checkable
class Keyed(Source, Protocol):
    """A data set that says when what it reads may have changed: see `DataSet.key`."""

    def key(self, record: Any) -> str | None: ...


class Cache(Protocol):
    """Between a data set and those who want its samples. What it gives is what `source.read` would give."""

    def fill(self, source: Source, records: Sequence[Any]) -> None:
        """Called once before workers start."""
        ...

    def read(self, source: Source, record: Any) -> Sample: ...

    def complaint(self) -> str | None:
        """Why it went on without keeping more, once, and None from then on."""
        ...


class Memory:
    """Keeps samples in memory, in the records' order, as far as they fit into `limit` bytes.

    Filling comes before the workers start: where processes are forked (Linux) they then share one copy, elsewhere each
    has its own.
    """

    def __init__(self, limit: int = MEMORY, threads: int = 4) -> None:
        self.limit, self.threads = limit, threads
        self.kept: dict[Any, Sample] = {}
        self._filled = False

    def fill(self, source: Source, records: Sequence[Any]) -> None:
        """Raises what reading raises."""
        if self._filled:
            return
        used, chunk = 0, 4 * self.threads
        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(records), chunk):
                part = records[start : start + chunk]
                for record, sample in zip(part, pool.map(source.read, part)):
                    used += sample_bytes(sample)
                    if used <= self.limit:
                        self.kept[record] = sample
                if used > self.limit:
                    break
        self._filled = True

    def read(self, source: Source, record: Any) -> Sample:
        kept = self.kept.get(record)
        return source.read(record) if kept is None else kept

    def complaint(self) -> str | None:
        return None


def sample_bytes(sample: Sample) -> int:
    """Bytes of image and ids."""
    return int(sample.image.nbytes) + (0 if sample.truth is None else int(sample.truth.ids.nbytes))
