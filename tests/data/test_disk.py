"""The cache on disk: the same samples, whatever happens to the files, the disk, or the processes that build it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pixelwise.core.sample import Sample, image_tensor
from pixelwise.core.segments import BOX, MASK, Segments
from pixelwise.data import disk as disks
from pixelwise.data.cache import Memory
from pixelwise.data.dataset import DataSet, Record, open_data
from pixelwise.data.disk import Disk
from pixelwise.data.entry import BAND, Damaged, Entry
from pixelwise.data.io import write_png
from pixelwise.data.loader import make_loader
from pixelwise.data.transforms import Chain, Flip, RandomCrop, RandomScale
from pixelwise.tasks import make_task

COUNT, SIZE = 6, (70, 90)  # more than two bands of rows, the last one short


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    root = tmp_path / "data"
    for i in range(COUNT):
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        if i % 2:
            cv2.imwrite(str(root / "images" / f"{i}.jpg"), pixels)
        else:
            write_png(root / "images" / f"{i}.png", pixels)
        write_png(root / "masks" / f"{i}.png", rng.integers(0, 3, SIZE).astype(np.uint8))
    (root / "classes.txt").write_text("0 sky\n1 road\n2 car thing\n")
    return open_data(root)


def disk(tmp_path: Path, **options: Any) -> Disk:
    return Disk(tmp_path / "cache", **{"limit": 10**9, "margin": 0, **options})


def records(data: DataSet) -> tuple[Record, ...]:
    return tuple(sorted(data, key=lambda r: r.name))


def assert_same(a: Sample, b: Sample) -> None:
    assert (a.name, a.size, a.complete) == (b.name, b.size, b.complete)
    assert a.image.dtype == b.image.dtype
    assert torch.equal(a.image.int(), b.image.int())
    assert (a.truth is None) == (b.truth is None)
    if a.truth is not None and b.truth is not None:
        assert torch.equal(a.truth.ids, b.truth.ids)
        for name in ("labels", "scores", "crowd", "keys", "kind", "given_areas", "given_boxes"):
            mine, theirs = getattr(a.truth, name), getattr(b.truth, name)
            assert (mine is None) == (theirs is None)
            assert mine is None or torch.equal(mine, theirs)


def items(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.item"))


class Counting:
    """A data set that counts what is read from its files."""

    def __init__(self, data: DataSet) -> None:
        self.data, self.reads = data, 0

    def read(self, record: Record) -> Sample:
        self.reads += 1
        return self.data.read(record)

    def key(self, record: Record) -> str | None:
        return self.data.key(record)


# -- the same samples -------------------------------------------------------------------------------------------------


def test_samples_are_read_once_and_come_back_the_same(data: DataSet, tmp_path: Path) -> None:
    source = Counting(data)
    for cache in (disk(tmp_path), disk(tmp_path)):
        for record in records(data):
            assert_same(cache.read(source, record), data.read(record))
    assert source.reads == COUNT
    assert len(items(tmp_path / "cache")) == COUNT


def test_every_column_of_a_truth_is_kept(tmp_path: Path) -> None:
    ids = np.full((2, 5, 7), -1, np.int16)
    ids[0, :2], ids[1, 1:3], ids[0, 4] = 0, 1, -2
    truth = Segments(ids, [4, 3, 2], scores=[1, 0.5, 1], crowd=[True, False, False], keys=[7, 1 << 40, 9],
                     kind=[MASK, MASK, BOX], given_areas=[1.5, 2, 3], given_boxes=np.ones((3, 4)))  # fmt: skip
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, 5)).astype(np.uint16)
    for sample in (
        Sample(image_tensor(deep), truth, "deep", complete=False),
        Sample(image_tensor(deep[..., :1]), None, "none"),
        Sample(image_tensor(deep), Segments.empty((5, 7)), "empty"),
    ):

        class One:
            def read(self, record: Record, sample: Sample = sample) -> Sample:
                return sample

            def key(self, record: Record) -> str:
                return record.name

        record = Record(sample.name, Path("x"))
        cache = disk(tmp_path)
        cache.read(One(), record)
        assert_same(cache.read(One(), record), sample)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without(data: DataSet, tmp_path: Path, workers: int) -> None:
    def batches(source: Any, cache: Disk | None) -> list[Any]:
        chain = Chain((RandomScale(0.5, 2.0), Flip(), RandomCrop((32, 48), max_class_share=0.5)))
        load = make_loader(source, records(data), make_task("semantic", data.classes), transform=chain, batch_size=2,
                           shuffle=True, seed=3, workers=workers, cache=cache)  # fmt: skip
        return [batch for _ in range(2) for batch in load]

    whole = batches(Counting(data), None)  # reads images whole, where `data` reads the rows of the crop
    for found in (batches(data, None), batches(data, disk(tmp_path)), batches(data, Memory())):
        for a, b in zip(found, whole, strict=True):
            assert a.names == b.names
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.ids, b.ids)
    assert len(items(tmp_path / "cache")) == COUNT


def test_only_the_rows_that_are_asked_for_are_looked_at(data: DataSet, tmp_path: Path) -> None:
    record, cache = records(data)[0], disk(tmp_path)
    cache.read(data, record)
    (path,) = items(tmp_path / "cache")
    damage(path, image_at(path, BAND))  # the first row of the second band
    entry = Entry(path, str(data.key(record)), {})
    whole = data.read(record).rows(0, SIZE[0])
    assert np.array_equal(entry.rows(0, BAND), whole[:BAND])
    assert np.array_equal(entry.rows(2 * BAND, SIZE[0]), whole[2 * BAND :])
    with pytest.raises(Damaged):
        entry.rows(BAND - 1, BAND + 1)


# -- what happens to files --------------------------------------------------------------------------------------------


def image_at(path: Path, row: int) -> int:
    """Where a row of the image begins in an entry."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(12)[8:], "little")
    return -(-(16 + length) // 4096) * 4096 + row * SIZE[1] * 3


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("where", ["magic", "header", "pixels", "truth", "end", "short", "empty", "zeros"])
def test_a_damaged_entry_is_made_anew(data: DataSet, tmp_path: Path, where: str) -> None:
    record = records(data)[0]
    disk(tmp_path).read(data, record)
    (path,) = items(tmp_path / "cache")
    content = path.read_bytes()
    at = {"magic": 0, "header": 40, "pixels": image_at(path, 50), "truth": len(content) - 3000, "end": len(content) - 1}
    if where in at:
        damage(path, at[where])
    else:
        path.write_bytes({"short": content[:-1], "empty": b"", "zeros": bytes(len(content))}[where])
    source = Counting(data)
    assert_same(disk(tmp_path).read(source, record), data.read(record))
    assert source.reads == 1
    assert path.read_bytes() == content
    assert_same(disk(tmp_path).read(source, record), data.read(record))
    assert source.reads == 1


@pytest.mark.parametrize("what", ["image", "semantic"])
def test_a_changed_file_is_read_again(data: DataSet, tmp_path: Path, what: str) -> None:
    record, cache = records(data)[0], disk(tmp_path)
    before = cache.read(data, record)
    shape = (*SIZE, 3) if what == "image" else SIZE
    state = getattr(record, what).stat()
    write_png(getattr(record, what), np.ones(shape, np.uint8))
    os.utime(getattr(record, what), ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    after = cache.read(data, record)
    assert_same(after, data.read(record))
    assert before.truth is not None
    assert after.truth is not None
    changed = after.image if what == "image" else after.truth.ids
    assert bool((changed == 1).all())


def test_the_key_knows_how_files_are_read(data: DataSet, tmp_path: Path) -> None:
    record = records(data)[0]
    (data.root / "classes.txt").write_text("0 sky\n1 car thing\n2 road\n")
    other, grey = open_data(data.root), replace(data, channels=1)
    keys = {data.key(record), other.key(record), grey.key(record), data.key(records(data)[1]), data.key(
        replace(record, semantic=None))}  # fmt: skip
    assert len(keys) == 5
    assert None not in keys
    assert open_data(data.root).key(record) == other.key(record)
    own = replace(data, reader=lambda record: Segments.empty(SIZE))
    assert own.key(record) is None  # nobody can tell what it reads
    cache = disk(tmp_path)
    assert_same(cache.read(own, record), own.read(record))
    assert not (tmp_path / "cache").exists()


# -- the bound --------------------------------------------------------------------------------------------------------


def entry_bytes(data: DataSet, tmp_path: Path) -> int:
    folder = tmp_path / "probe"
    cache = Disk(folder, limit=10**9, margin=0)
    cache.read(data, records(data)[0])
    return items(folder)[0].stat().st_size


def test_the_bound_is_respected_and_what_is_kept_stays(data: DataSet, tmp_path: Path) -> None:
    limit = 4 * entry_bytes(data, tmp_path)
    source, cache = Counting(data), disk(tmp_path, limit=limit)
    for _ in range(3):
        for record in records(data):
            assert_same(cache.read(source, record), data.read(record))
    kept = len(items(tmp_path / "cache"))
    assert 2 <= kept <= 4
    assert source.reads == kept + 3 * (COUNT - kept)
    assert sum(p.stat().st_size for p in (tmp_path / "cache").iterdir()) <= limit


def test_entries_unused_for_longest_make_room(data: DataSet, tmp_path: Path) -> None:
    limit = 4 * entry_bytes(data, tmp_path)
    old = disk(tmp_path, limit=limit)
    for record in records(data)[:3]:
        old.read(data, record)
    for age, path in zip((300, 200, 100), sorted(items(tmp_path / "cache"), key=lambda p: p.stat().st_mtime_ns)):
        os.utime(path, (old.opened - age, old.opened - age))
    first, second, third = sorted(items(tmp_path / "cache"), key=lambda p: p.stat().st_mtime)
    new = disk(tmp_path, limit=limit)
    new.read(data, records(data)[4])
    assert not first.exists()
    assert second.exists()
    assert third.exists()


def test_an_entry_in_use_is_marked_as_used(data: DataSet, tmp_path: Path) -> None:
    cache, record = disk(tmp_path), records(data)[0]
    cache.read(data, record)
    (path,) = items(tmp_path / "cache")
    os.utime(path, (0, 0))
    cache.read(data, record)
    assert path.stat().st_mtime > cache.opened - 60


def test_room_on_the_disk_is_left_free(data: DataSet, tmp_path: Path) -> None:
    cache = disk(tmp_path, margin=1 << 60)
    for record in records(data):
        assert_same(cache.read(data, record), data.read(record))
    assert not items(tmp_path / "cache")
    assert cache.complaint() is None


def test_what_a_killed_process_left_is_swept_up(data: DataSet, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    for name, age in (("old", 2 * disks.LEFT_OVER), ("new", 0.0)):
        path = folder / f".{name}.part"
        path.write_bytes(bytes(100))
        at = path.stat().st_mtime - age
        os.utime(path, (at, at))
    disk(tmp_path).read(data, records(data)[0])
    assert sorted(p.name for p in folder.glob(".*")) == [".new.part"]


# -- disks that refuse ------------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_once_and_reading_goes_on(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any, key: str, sample: Sample) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disks, "write_entry", full)
    cache, said = disk(tmp_path), []
    load = make_loader(data, records(data), None, cache=cache, batch_size=2, say=said.append)
    for _ in range(2):
        for batch in load:
            assert batch.images.shape == (2, 3, *SIZE)
    assert len(said) == 1
    assert "No space left" in said[0]
    assert not list((tmp_path / "cache").iterdir())


class Full(Disk):
    def _write(self, path: Path, key: str, sample: Sample) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_worker_tells_of_a_full_disk(data: DataSet, tmp_path: Path) -> None:
    said: list[str] = []
    cache = Full(tmp_path / "cache", limit=10**9, margin=0)
    load = make_loader(data, records(data), None, cache=cache, batch_size=1, workers=2, say=said.append)
    assert len(list(load)) == COUNT
    assert len(said) == 1


def test_a_folder_that_may_only_be_read_still_serves(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = records(data)[0]
    disk(tmp_path).read(data, first)

    def refuse(*about: Any, **more: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(disks.os, "replace", refuse)
    monkeypatch.setattr(disks.os, "utime", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    source, cache, said = Counting(data), disk(tmp_path), []
    load = make_loader(source, records(data), None, cache=cache, batch_size=1, say=said.append)
    assert len(list(load)) == COUNT
    assert source.reads == COUNT - 1
    assert len(said) == 1
    assert "Permission denied" in said[0]


def test_a_file_in_place_of_the_folder_is_a_complaint(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    load = make_loader(data, records(data), None, cache=disk(tmp_path), batch_size=2)
    with pytest.warns(UserWarning, match="takes nothing more"):
        assert len(list(load)) == 3


# -- several at once --------------------------------------------------------------------------------------------------


def build(data: DataSet, folder: Path, limit: int, seed: int) -> None:
    cache = Disk(folder, limit=limit, margin=0)
    for at in np.random.default_rng(seed).integers(0, COUNT, 5 * COUNT):
        record = records(data)[int(at)]
        assert_same(cache.read(data, record), data.read(record))


@pytest.mark.parametrize("room", [10, 3])
def test_processes_build_it_at_once(data: DataSet, tmp_path: Path, room: int) -> None:
    limit = int((room + 0.9) * entry_bytes(data, tmp_path))
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=build, args=(data, tmp_path / "cache", limit, seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    files = list((tmp_path / "cache").iterdir())
    assert all(path.suffix == ".item" for path in files)
    assert sum(path.stat().st_size for path in files) <= limit
    assert len(files) == COUNT or room < COUNT
    build(data, tmp_path / "cache", limit, 9)


def test_it_pickles(data: DataSet, tmp_path: Path) -> None:
    cache = pickle.loads(pickle.dumps(disk(tmp_path)))
    assert_same(cache.read(data, records(data)[0]), data.read(records(data)[0]))


@pytest.mark.parametrize(("system", "variable"), [("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")])
def test_the_folder_is_the_users_own(system: str, variable: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv(variable, str(tmp_path))
    below = ("pixelwise", "Cache") if system == "win32" else ("pixelwise",)
    assert disks.default_folder() == tmp_path.joinpath(*below, "decoded")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert disks.default_folder() == Path.home() / "Library" / "Caches" / "pixelwise" / "decoded"
