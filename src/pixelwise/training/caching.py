"""Which cache of decoded images a training has, and how much it would have to hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pixelwise.config import TrainSettings
from pixelwise.data.cache import Cache, Memory
from pixelwise.data.dataset import DataSet
from pixelwise.data.disk import Disk
from pixelwise.data.statistics import Statistics

IN_MEMORY = 1 << 30  # bytes up to which --cache auto keeps images in memory


def pick_cache(settings: TrainSettings, dataset: DataSet, stats: Statistics, images: int, said: list[str]) -> str:
    """As asked, or "memory" or "off" by what the decoded images take: never a folder that nobody asked for."""
    if settings.cache != "auto":
        return settings.cache
    need = decoded_bytes(dataset, stats, images)
    if need < IN_MEMORY:
        return "memory"
    said.append(f"images are decoded anew each time; --cache disk would keep them, {need / 1e9:.0f} GB")
    return "off"


def decoded_bytes(dataset: DataSet, stats: Statistics, images: int) -> float:
    """Bytes of so many images of the data set with their truths, decoded; from the mean size."""
    sizes = np.array([(height, width, count) for (height, width), count in stats.sizes.items()], dtype=float)
    pixels = float(sizes.prod(1).sum() / sizes[:, 2].sum())
    return pixels * images * (dataset.channels * np.dtype(dataset.dtype).itemsize + 1)


def open_cache(kind: str, settings: TrainSettings, need: float, say: Callable[[str], None]) -> Cache | None:
    """The cache of a plan. `say` hears where it lies and whether `need` bytes fit, or why it cannot be written to."""
    if kind == "memory":
        memory = Memory()
        if need > memory.limit:
            say(f"cache     in memory: {_room(memory.limit, need)}")
        return memory
    if kind != "disk":
        return None
    disk = Disk(settings.cache_folder, None if settings.cache_gb is None else int(settings.cache_gb * 1e9))
    disk.prepare()
    complaint = disk.complaint()
    if complaint is not None:
        say(f"          {complaint}")
    elif disk.limit is not None:
        say(f"cache     {disk.folder}: {_room(disk.limit, need)}")
    return disk


def _room(limit: int, need: float) -> str:
    short = "" if need <= limit else f", which is room for about {limit / need:.0%} of the images"
    return f"at most {limit / 1e9:.1f} GB{short}"
