"""Permutations, and the repeat factors of LVIS."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from pixelwise.core.sample import Sample
from pixelwise.core.segments import Segments
from pixelwise.data.sampling import Order, class_table, repeat_factors
from pixelwise.errors import DataError


def test_repeat_factors_are_those_of_the_paper() -> None:
    """r(c) = max(1, sqrt(t / f(c))), r(I) the largest of the image's classes."""
    table = np.zeros((100, 4), bool)
    table[:, 0] = True
    table[:25, 1] = True
    table[:4, 2] = True  # the fourth class is nowhere
    assert repeat_factors(table)[[0, 4, 25]] == pytest.approx([5.0, 2.0, 1.0])
    assert repeat_factors(table, 0.16)[[0, 4, 25]] == pytest.approx([2.0, 1.0, 1.0])
    assert repeat_factors(table, 0.001) == pytest.approx(np.ones(100))
    assert repeat_factors(np.zeros((3, 2), bool)) == pytest.approx(np.ones(3))


def test_images_come_as_often_as_their_factor_says() -> None:
    factors = np.array([1.0] * 15 + [3.0] * 5)
    order = Order(20, 4, seed=1, factors=factors)
    expected = factors / factors.sum() * 20
    total = np.zeros(20)
    for epoch in range(400):
        count = np.bincount(order.stream(epoch), minlength=20)
        assert count.sum() == 20
        assert (np.abs(count - expected) < 1).all()  # rounded up or down, never further
        total += count
    assert np.abs(total / 400 - expected).max() < 0.12


@pytest.mark.parametrize("length", [1, 3, 10, 11, 64])
@pytest.mark.parametrize("batch_size", [1, 4, 12])
@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_every_process_has_the_same_steps(length: int, batch_size: int, world: int, drop_last: bool) -> None:
    orders = [Order(length, batch_size, 5, True, rank, world, drop_last) for rank in range(world)]
    steps = [list(order.batches(2)) for order in orders]
    assert {len(s) for s in steps} == {orders[0].steps}
    assert orders[0].steps >= 1
    assert all(len(batch) == batch_size for s in steps for batch in s)
    items = [item for s in steps for batch in s for item in batch]
    positions = [position for position, _ in items]
    assert sorted(positions) == list(range(len(items)))
    often = Counter(record for _, record in items)
    assert max(often.values()) - min(often.get(r, 0) for r in range(length)) <= 1  # in turn, so nobody is favoured
    if not drop_last:
        assert len(often) == length


def test_start_skips_without_changing_the_rest() -> None:
    order = Order(23, 3, seed=9)
    assert list(order.batches(4, start=5)) == list(order.batches(4))[5:]


def test_class_table_counts_pixels_not_rows() -> None:
    image = torch.zeros(1, 2, 2, dtype=torch.uint8)
    maps = [[[0, 0], [2, 255]], [[255, 255], [255, 255]], [[1, 1], [1, 1]]]
    samples = [Sample(image, Segments.from_class_map(np.array(m), num_classes=4), str(i)) for i, m in enumerate(maps)]
    assert class_table(samples).tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    with pytest.raises(DataError, match="'bare' has none"):
        class_table([Sample(image, None, "bare")])
    with pytest.raises(DataError, match="3 records"):
        Order(3, 1, factors=np.ones(2))
