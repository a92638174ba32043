"""The loader: the same batches whatever the workers, exact resume, shares of several processes, errors as they are."""

from __future__ import annotations

import os
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.sample import Batch, Sample, image_tensor
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.data.cache import Memory
from pixelwise.data.loader import Loader, make_loader
from pixelwise.data.transforms import Chain, Flip, RandomCrop, training_transforms
from pixelwise.errors import ConfigError, DataError, ImageError, MemoryLimitError
from pixelwise.tasks import make_task

CLASSES = Classes(names=("sky", "road", "car"), things=("car",))
SETTINGS: Any = SimpleNamespace(
    scale=(0.5, 1.5), scales=(), flip=0.5, vertical_flip=0.0, rotation=5.0, elastic=1.0, brightness=0.3, contrast=0.3,
    saturation=0.3, hue=0.02, blur=0.2, noise=0.02, max_class_share=0.75, rare_focus=0.3, min_visible=0.2,
    uniform_scale=False, copy_paste=0.5, paste_scale=(0.1, 2.0), paste_blend=0.0,
)  # fmt: skip
TRANSFORM = training_transforms(SETTINGS, crop=(24, 32), class_counts=[5, 3, 1])
ALONE = training_transforms(SimpleNamespace(**{**vars(SETTINGS), "copy_paste": 0.0}), crop=(24, 32))  # picks no other


class Pictures:
    """Record r is image r, of a size that depends on it; `broken` raises."""

    def __init__(self, dtype: type = np.uint8, broken: int = -1, rare: tuple[int, ...] = ()) -> None:
        self.dtype, self.broken, self.rare, self.reads = dtype, broken, rare, Counter[int]()

    def read(self, record: int) -> Sample:
        self.reads[record] += 1
        if record == self.broken:
            raise ImageError(f"images/{record}.png", "the file is cut short")
        rng = np.random.default_rng(record)
        height, width = 40 + record % 3, 50 + record % 5
        image = rng.integers(0, np.iinfo(self.dtype).max, (height, width, 3), self.dtype)
        labels = rng.integers(0, 2, (height, width))
        if record in self.rare:
            labels[:5] = 2
        return Sample(image_tensor(image), Segments.from_class_map(labels, num_classes=3), f"im{record}")


def loader(count: int = 13, dataset: Pictures | None = None, **options: Any) -> Loader:
    options = {"transform": TRANSFORM, "batch_size": 4, "seed": 7, "shuffle": True, **options}
    return make_loader(dataset or Pictures(), range(count), make_task("semantic", CLASSES), **options)


def epochs(load: Loader, count: int = 2) -> list[Batch]:
    batches = []
    for epoch in range(count):
        load.set_epoch(epoch)
        batches += list(load)
    return batches


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs):
        assert a.names == b.names
        assert a.images.dtype == b.images.dtype
        assert torch.equal(a.images.int(), b.images.int())
        assert a.ids is not None
        assert b.ids is not None
        assert torch.equal(a.ids, b.ids)
        for s, t in zip(a.tables, b.tables):
            assert {k: None if v is None else v.tolist() for k, v in s.items()} == {
                k: None if v is None else v.tolist() for k, v in t.items()
            }


def names(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.names]


# -- the same for any workers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_batches_do_not_depend_on_workers_or_cache(dtype: type) -> None:
    alone = epochs(loader(dataset=Pictures(dtype)))
    assert len(alone) == 6
    assert alone[0].images.shape == (4, 3, 24, 32)
    assert alone[0].images.is_contiguous(memory_format=torch.channels_last)
    for workers in (1, 2):
        for cache in (None, Memory()):
            assert_equal(alone, epochs(loader(dataset=Pictures(dtype), workers=workers, cache=cache)))


def test_seed_and_epoch_matter() -> None:
    first, second = epochs(loader(), 1), epochs(loader(seed=8), 1)
    assert names(first) != names(second)
    both = epochs(loader(), 2)
    assert names(both[:3]) != names(both[3:])
    at_once = loader()
    at_once.set_epoch(1)
    assert_equal(both[3:], list(at_once))


def test_the_same_image_looks_different_in_each_epoch() -> None:
    load = loader(count=1, batch_size=1)
    a, b = epochs(load, 2)
    assert not torch.equal(a.images, b.images)


def test_global_random_state_is_left_alone() -> None:
    """Else a resumed run, which starts its iterator once more, would go on with other dropout masks."""
    torch.manual_seed(0)
    np.random.seed(0)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[2]
    for workers in (0, 2):
        epochs(loader(workers=workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[2] == before_numpy


# -- position ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_resume_goes_on_exactly(workers: int, done: int) -> None:
    whole = epochs(loader(workers=workers))
    first, states = loader(workers=workers), []
    for epoch in range(2):
        first.set_epoch(epoch)
        for _ in first:
            states.append(first.state())
    again = loader(workers=workers)
    again.restore(states[done - 1])
    rest = []
    for epoch in range(states[done - 1]["epoch"], 2):
        again.set_epoch(epoch)
        rest += list(again)
    assert_equal(whole[done:], rest)


def test_position_after_an_epoch_is_the_start_of_the_next() -> None:
    load = loader()
    load.set_epoch(4)
    list(load)
    assert {k: load.state()[k] for k in ("epoch", "step")} == {"epoch": 5, "step": 0}
    load.set_epoch(2, start=1)
    assert len(list(load)) == 2


def test_a_loop_left_early_starts_again() -> None:
    for shuffle in (True, False):
        load = loader(shuffle=shuffle)
        first = next(iter(load))
        assert load.state()["step"] == 1
        assert_equal([first], list(load)[:1])


def test_position_of_another_order_is_refused() -> None:
    state = loader().state()
    with pytest.raises(ConfigError, match="batch_size 4, this run has 3"):
        loader(batch_size=3).restore(state)
    with pytest.raises(ConfigError, match="length 13, this run has 12"):
        loader(count=12).restore(state)


# -- order, shares, balance -------------------------------------------------------------------------------------------


def test_a_shuffled_epoch_repeats_nothing() -> None:
    load = loader()
    for epoch in range(3):
        load.set_epoch(epoch)
        found = names(list(load))
        assert len(found) == len(set(found)) == 12
    everything = names(epochs(loader(drop_last=False), 1))
    assert len(everything) == 16
    assert len(set(everything)) == 13


def test_small_data_fills_its_batch() -> None:
    load = loader(count=3, batch_size=8)
    batches = epochs(load, 1)
    assert len(load) == len(batches) == 1
    assert sorted(Counter(names(batches)).values()) == [2, 3, 3]
    twice = [i for i, name in enumerate(batches[0].names) if name == "im0"]
    assert not torch.equal(batches[0].images[twice[0]], batches[0].images[twice[1]])  # each with its own draws


def test_processes_train_on_what_one_would_see() -> None:
    together = epochs(loader(batch_size=6, drop_last=False), 1)
    shares = [epochs(loader(batch_size=3, rank=rank, world=2, drop_last=False), 1) for rank in range(2)]
    assert len(shares[0]) == len(shares[1]) == 3
    for whole, a, b in zip(together, *shares):
        assert whole.names == a.names + b.names
        assert torch.equal(whole.images, torch.cat([a.images, b.images]))


@pytest.mark.parametrize("world", [1, 2, 3, 20])
def test_processes_evaluate_each_image_once(world: int) -> None:
    loads = [loader(shuffle=False, transform=None, rank=rank, world=world) for rank in range(world)]
    found = [names(list(load)) for load in loads]
    assert [len(load) for load in loads] == [-(-len(f) // 4) for f in found]
    assert found[0] == [f"im{i}" for i in range(0, 13, world)]
    assert sorted(name for share in found for name in share) == sorted(f"im{i}" for i in range(13))


def test_images_of_several_sizes_are_padded() -> None:
    batch = next(iter(loader(shuffle=False, transform=None)))
    assert batch.images.shape == (4, 3, 42, 53)
    assert batch.ids is not None
    assert batch.frames[0].window == (0, 0, 40, 50)
    assert (batch.ids[0, :, 40:] == UNKNOWN).all()
    assert (batch.ids[0, :, :, 50:] == UNKNOWN).all()


def test_balanced_shows_rare_classes_more_often() -> None:
    dataset = Pictures(rare=(3, 11))
    table = np.array([[True, True, r in dataset.rare] for r in range(20)])
    for options in ({}, {"class_table": table}, {"cache": Memory()}):
        load = loader(20, dataset, balanced=True, batch_size=5, transform=None, shuffle=True, **options)
        count = Counter(names(epochs(load, 30)))
        assert sum(count.values()) == 600
        # sqrt(1 / 0.1) = 3.16 against 1: 3.16 / (2 * 3.16 + 18) of all draws each
        assert count["im3"] / 600 == pytest.approx(0.130, abs=0.01)
        assert count["im11"] / 600 == pytest.approx(0.130, abs=0.01)
        assert min(count.values()) > 10
    with pytest.raises(ConfigError, match="2 rows for 20 records"):
        loader(20, dataset, balanced=True, class_table=table[:2])


# -- cache ------------------------------------------------------------------------------------------------------------


def test_cache_reads_once_and_within_its_limit() -> None:
    dataset = Pictures()
    epochs(loader(dataset=dataset, cache=Memory(), transform=ALONE), 3)
    assert set(dataset.reads.values()) == {1}
    small = Pictures()
    limit = 5 * 43 * 54 * 4  # image and one byte of ids a pixel
    cache = Memory(limit)
    epochs(loader(dataset=small, cache=cache, transform=ALONE), 3)
    assert 5 <= len(cache.kept) <= 6
    assert sum(n == 1 for n in small.reads.values()) >= 4
    plain = Pictures()
    epochs(loader(dataset=plain, transform=ALONE), 3)
    assert sum(plain.reads.values()) == 36


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [None, Memory()])
def test_an_unreadable_image_stays_an_image_error(workers: int, cache: bool) -> None:
    load = loader(dataset=Pictures(broken=5), workers=workers, cache=cache, shuffle=False)
    with pytest.raises(ImageError) as caught:
        list(load)
    assert str(caught.value) == "images/5.png: the file is cut short"
    assert caught.value.path.name == "5.png"


def refuses(sample: Sample, rng: np.random.Generator, pick: Any) -> Sample:
    raise KeyError("what")


def dies(sample: Sample, rng: np.random.Generator, pick: Any) -> Sample:
    os._exit(7)


@pytest.mark.parametrize("workers", [0, 1])
def test_own_transform_that_fails_is_named(workers: int) -> None:
    with pytest.raises(DataError, match="transform refuses failed on 'im0'"):
        list(loader(transform=Chain((Flip(), refuses)), workers=workers, shuffle=False))


def test_a_worker_that_dies_says_what_helps() -> None:
    with pytest.raises(MemoryLimitError, match="workers"):
        list(loader(transform=Chain((dies,)), workers=1))


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"batch_size": 0}, {"workers": -1}, {"seed": -1}, {"world": 0}, {"rank": 2, "world": 2}]
)
def test_numbers_that_cannot_be(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        loader(**options)


# -- what a batch holds -----------------------------------------------------------------------------------------------


def test_task_view_is_the_last_step() -> None:
    batch = next(iter(loader(workers=1)))
    assert [table["labels"].tolist() for table in batch.tables if table["labels"] is not None] == [[0, 1, 2]] * 4
    dataset = Pictures(rare=tuple(range(13)))
    task = make_task("instance", CLASSES)
    load = make_loader(dataset, range(13), task, transform=Chain((RandomCrop((42, 54)),)), shuffle=True, seed=1)
    for truth in next(iter(load)).truths:
        assert truth.labels.tolist() == [0]  # the car alone
        assert int((truth.ids == 0).sum()) > 200
    untouched = make_loader(dataset, range(13), None)
    assert next(iter(untouched)).tables[0]["labels"].tolist() == [0, 1, 2]  # type: ignore[union-attr]


def test_own_transform_may_pick_other_samples() -> None:
    def other(sample: Sample, rng: np.random.Generator, pick: Any) -> Sample:
        return pick(rng)

    found = {name for batch in epochs(loader(transform=Chain((other, RandomCrop((8, 8))))), 8) for name in batch.names}
    assert len(found) > 10
