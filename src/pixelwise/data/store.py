"""The raw samples of a list of records, read when asked for and perhaps kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from pixelwise.core.sample import Sample
from pixelwise.data.cache import Cache, Source


@runtime_checkable
class Opening(Source, Protocol):
    """A data set that gives samples of which not everything need be read: see `DataSet.open`."""

    def open(self, record: Any) -> Sample: ...


class Store:
    """A sequence of samples; `fill` lets a cache do what it does before the workers start."""

    def __init__(self, source: Source, records: Sequence[Any], cache: Cache | None = None) -> None:
        self.source, self.records, self.cache = source, tuple(records), cache

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        if self.cache is not None:
            return self.cache.read(self.source, record)
        return self.source.open(record) if isinstance(self.source, Opening) else self.source.read(record)

    def fill(self) -> None:
        """Raises what reading raises."""
        if self.cache is not None:
            self.cache.fill(self.source, self.records)

    def complaint(self) -> str | None:
        """What the cache has to say, once."""
        return None if self.cache is None else self.cache.complaint()
