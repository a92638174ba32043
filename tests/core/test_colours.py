"""Colours that tell objects apart, whatever the class's own colour is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.colours import HUES, instance_colours
from pixelwise.core.segments import Segments

CLASSES = Classes(names=("road", "car"), things=("car",), colours=((200, 30, 30), (40, 120, 220)))


def grid(count: int = 10) -> torch.Tensor:
    ids = torch.arange(count * count, dtype=torch.int16).reshape(count, count)
    return ids.repeat_interleave(8, 0).repeat_interleave(8, 1)


def test_every_pair_of_touching_objects_differs_on_a_dense_grid() -> None:
    ids = torch.arange(100, dtype=torch.int16).reshape(10, 10).repeat_interleave(8, 0).repeat_interleave(8, 1)
    segments = Segments(ids, torch.ones(100, dtype=torch.int64))
    colours = instance_colours(segments, CLASSES).astype(int).reshape(10, 10, 3)
    assert (np.abs(np.diff(colours, axis=0)).sum(2) > 20).all()
    assert (np.abs(np.diff(colours, axis=1)).sum(2) > 20).all()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 142)])
def test_neighbours_differ_whatever_the_colour_of_their_class(colour: tuple[int, int, int]) -> None:
    classes = Classes(names=("road", "car"), things=("car",), colours=((90, 30, 90), colour))
    colours = instance_colours(Segments(grid(), torch.ones(100, dtype=torch.int64)), classes).astype(int)
    assert (colours == colour).all(1).any()  # one of the shades is the class's own colour
    colours = colours.reshape(10, 10, 3)
    assert (np.abs(np.diff(colours, axis=0)).sum(2) > 20).all()
    assert (np.abs(np.diff(colours, axis=1)).sum(2) > 20).all()


def test_objects_of_the_only_class_have_hues_that_are_all_used() -> None:
    cells = Classes(names=("cell",), things=("cell",), nothing=True)
    colours = instance_colours(Segments(grid(), torch.zeros(100, dtype=torch.int64)), cells)
    assert {tuple(c) for c in colours.tolist()} == {tuple(c) for c in HUES.tolist()}
    square = colours.astype(int).reshape(10, 10, 3)
    for axis in (0, 1):
        assert (np.abs(np.diff(square, axis=axis)).sum(2) > 60).all()
    alone = instance_colours(Segments(grid(1), torch.zeros(1, dtype=torch.int64)), cells)
    assert tuple(alone[0]) == cells.colours[0]


def test_classes_and_single_objects_keep_their_colours() -> None:
    rows = Segments(torch.tensor([[0, 1]], dtype=torch.int8), torch.tensor([0, 1]))
    assert instance_colours(rows, CLASSES).tolist() == [list(c) for c in CLASSES.colours]
    stuff = Segments(torch.tensor([[0, 1]], dtype=torch.int8), torch.tensor([0, 0]))  # pieces of stuff are no objects
    assert instance_colours(stuff, CLASSES).tolist() == [list(CLASSES.colours[0])] * 2
