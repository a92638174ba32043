"""Pictures beside each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.core.classes import Classes
from pixelwise.core.panels import side_by_side, three_answers
from pixelwise.core.segments import Segments
from pixelwise.errors import DataError
from pixelwise.tasks import make_task


@pytest.mark.parametrize(("height", "width", "columns"), [(200, 400, 2), (300, 200, 4), (300, 300, 2), (100, 900, 1)])
def test_the_page_is_wider_than_high(height: int, width: int, columns: int) -> None:
    pictures = [(f"picture {k}", np.full((height, width, 3), 10 + k, np.uint8)) for k in range(4)]
    page = side_by_side(pictures)
    assert page.shape[1] // width == columns
    for k in range(4):
        assert (page == 10 + k).all(2).sum() >= height * width
    assert (side_by_side(pictures, columns=4).shape[1] // width) == 4


@pytest.mark.parametrize("sizes", [[], [(20, 30), (20, 31)]])
def test_pictures_that_do_not_fit_are_refused(sizes: list[tuple[int, int]]) -> None:
    with pytest.raises(DataError, match="side by side"):
        side_by_side([("one", np.zeros((*size, 3), np.uint8)) for size in sizes])


@pytest.mark.parametrize("things", [("car",), ()])
def test_three_answers_stand_above_a_legend_of_what_is_there(things: tuple[str, ...]) -> None:
    classes = Classes(names=("road", "car", "sky"), things=things)
    ids = np.zeros((120, 200), np.int8)
    ids[50:90, 20:70], ids[50:90, 70:120] = 1, 2
    whole = Segments(torch.from_numpy(ids), torch.tensor([0, 1, 1]))
    views = [make_task(name, classes).view(whole) for name in ("semantic", "panoptic")]
    objects = make_task("instance", classes).view(whole) if things else Segments.empty((120, 200))
    page = three_answers(np.full((120, 200, 3), 60, np.uint8), views[0], objects, views[1], classes)
    assert page.dtype == np.uint8
    assert page.shape[1] > 2 * 200
    legend = page[-60:]
    assert (legend == classes.colours[0]).all(2).any()
    assert (legend == classes.colours[1]).all(2).any()
    assert not (legend == classes.colours[2]).all(2).any()
