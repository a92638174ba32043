"""Ten views take no more memory than two: counted by the storages of all tensors that live at once."""

from __future__ import annotations

import weakref
from itertools import chain

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pixelwise.core.centers import Centers, Grouping
from pixelwise.core.outputs import Dense, Queries
from pixelwise.training.memory import Peak
from pixelwise.views import View, join, look, sights

SIZE = (48, 64)
TEN = (*(View(mirrored, turns=turns) for turns in range(4) for mirrored in (False, True)), View(scale=0.9),
       View(mirrored=True, scale=0.9))  # fmt: skip
K = 12


class Plain(nn.Module):
    """K classes on a grid of every `stride`-th pixel; `kind` makes the output."""

    def __init__(self, kind, stride: int) -> None:
        super().__init__()
        self.kind, self.stride, self.given = kind, stride, []

    def forward(self, images, frames=None, truths=None):
        small = F.avg_pool2d(images, self.stride) if self.stride > 1 else images
        output = self.kind(small, frames)
        self.given.append(weakref.ref(output))
        return output

    @property
    def alive(self) -> int:
        return sum(output() is not None for output in self.given)


def dense(images, frames):
    return Dense(images.repeat(1, K // 3, 1, 1), frames)


def centers(images, frames):
    return Centers(images.repeat(1, K // 3, 1, 1), images[:, :1].sigmoid(), images[:, :2], Grouping((0,)), frames)


def queries(images, frames):
    return Queries(images.repeat(1, 5, 1, 1), torch.zeros(len(images), 15, K + 1), frames)


def peak_of(kind, stride, views) -> tuple[int, int]:
    """Bytes at most while looking and reading the class map, and how many outputs are alive after that."""
    net, images = Plain(kind, stride), torch.randn(1, 3, *SIZE)
    look(Plain(kind, stride), images, views[:1])  # what is made once is there
    with torch.no_grad(), Peak() as peak:
        joined = look(net, images, views)
        labels = joined.class_map(0)
    assert labels.shape == SIZE
    return peak.most, net.alive


@pytest.fixture(autouse=True)
def short_strips(monkeypatch):
    """Readings hold few numbers, as they do beside a large image."""
    monkeypatch.setattr("pixelwise.core.outputs.STRIP", 4 * K * SIZE[1])


@pytest.mark.parametrize("kind", [dense, centers, queries])
def test_ten_views_at_full_size_take_what_two_of_them_take(kind):
    two = max(peak_of(kind, 1, TEN[k : k + 2])[0] for k in range(0, 10, 2))
    ten, alive = peak_of(kind, 1, TEN)
    assert alive == 0
    assert ten <= 1.001 * two


def test_a_coarse_nets_outputs_are_kept_while_they_take_less_than_one_full_map():
    """K maps of a 16th of the pixels: ten of them are less than one at the answer's size, twenty are more."""
    full = 4 * K * SIZE[0] * SIZE[1]
    two, alive = max(peak_of(dense, 4, TEN[k : k + 2]) for k in range(0, 10, 2))
    ten, alive_of_ten = peak_of(dense, 4, TEN)
    many, alive_of_many = peak_of(dense, 4, TEN * 2)
    more, _ = peak_of(dense, 4, TEN * 3)
    assert (alive, alive_of_ten, alive_of_many) == (2, 10, 0)
    assert ten - two <= 0.7 * full
    assert many - two <= 1.25 * full
    assert more <= 1.01 * many  # however many


def test_no_output_outlives_the_next():
    seen = []

    class Watching(Plain):
        def forward(self, images, frames=None, truths=None):
            seen.append(self.alive)
            return super().forward(images, frames)

    look(Watching(dense, 1), torch.randn(1, 3, *SIZE), TEN)
    assert seen == [0] * 10


def test_outputs_that_turn_out_larger_are_reduced_after_all():
    """A small net begins, so that all seem to fit; those of another net do not."""
    images = torch.randn(1, 3, *SIZE)
    small, large = Plain(dense, 8), Plain(dense, 1)
    seen = chain(sights(small, images, TEN[:2]), sights(large, images, TEN[:3]))
    joined = join(seen, 5)
    assert joined.reduced
    assert small.alive == large.alive == 0
    every = [*sights(small, images, TEN[:2]), *sights(large, images, TEN[:3])]
    torch.testing.assert_close(joined.probs(0), sum(view.put(output.probs(0)) for view, output in every) / 5)
