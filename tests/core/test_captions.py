"""What is written on a picture, and where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageFont

from pixelwise.core.captions import FONTS, MOST, letters, text_size, write_captions
from pixelwise.core.classes import Classes
from pixelwise.core.segments import NOTHING, Segments

STREET = Classes(names=("road", "car", "sky"), things=("car",))
CELLS = Classes(names=("cell",), things=("cell",), nothing=True)


def written(segments: Segments, classes: Classes) -> tuple[list[int], np.ndarray]:
    """The rows that are named, and [H, W] bool where something was written."""
    picture = np.full((*segments.size, 3), 77, np.uint8)
    colours = np.array(classes.colours, np.uint8)[segments.labels.numpy()]
    rows = write_captions(picture, segments, classes, colours)
    return rows, (picture != 77).any(2)


def cars(places: list[tuple[int, int]], high: int = 60, wide: int = 90, size: tuple[int, int] = (400, 600)) -> Segments:
    ids = np.full(size, NOTHING, np.int16)
    for row, (y, x) in enumerate(places):
        ids[y : y + high, x : x + wide] = row
    return Segments(torch.from_numpy(ids), torch.ones(len(places), dtype=torch.int64))


def test_an_object_is_named_just_above_itself() -> None:
    rows, where = written(cars([(200, 300)]), STREET)
    assert rows == [0]
    ys, xs = np.nonzero(where)
    assert ys.max() == 199
    assert abs((xs.min() + xs.max()) / 2 - 344.5) <= 2
    assert 11 <= ys.max() - ys.min() + 1 < 30


def test_at_the_border_the_text_lies_inside_the_picture() -> None:
    for y, x in ((0, 0), (0, 510), (340, 0), (340, 510)):
        rows, where = written(cars([(y, x)]), STREET)
        assert rows == [0]
        assert where.any()
    rows, where = written(cars([(0, 250)]), STREET)  # nothing above it: its name is written inside
    assert np.nonzero(where)[0].min() == 0


def test_the_text_stands_over_the_highest_point_of_a_slanted_object() -> None:
    ids = np.full((400, 600), NOTHING, np.int16)
    for y in range(100, 300):
        ids[y, 500 - y : 520 - y] = 0
    _, where = written(Segments(torch.from_numpy(ids), torch.tensor([1])), STREET)
    xs = np.nonzero(where)[1]
    assert 370 < (xs.min() + xs.max()) / 2 < 420  # and not over the middle of its box, 310


def test_texts_never_overlap_and_the_large_come_first() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        places = [(int(y), int(x)) for y, x in zip(rng.integers(0, 340, 20), rng.integers(0, 510, 20))]
        segments = cars(places)
        alone = sum(written(segments.keep([row]), STREET)[1].sum() for row in written(segments, STREET)[0])
        rows, where = written(segments, STREET)
        assert rows[0] == int(segments.pixel_counts.argmax())
        assert 0 < where.sum() <= alone * 1.001


def test_small_objects_and_crowds_have_no_name() -> None:
    assert written(cars([(200, 300)], high=60, wide=12), STREET)[0] == []
    assert written(cars([(200, 300)], high=10, wide=90), STREET)[0] == []
    whole = cars([(200, 300)])
    assert written(Segments(whole.ids, whole.labels, crowd=torch.tensor([True])), STREET)[0] == []
    assert written(Segments.empty((50, 60)), STREET)[0] == []


@pytest.mark.parametrize(("count", "named"), [(MOST, True), (MOST + 1, False)])
def test_many_objects_of_a_class_have_no_names(count: int, named: bool) -> None:
    segments = cars([(110 * (k // 9) + 40, 130 * (k % 9)) for k in range(count)], size=(800, 1200))
    assert bool(written(segments, STREET)[0]) == named


def test_scores_are_said_for_answers_and_not_for_truth() -> None:
    def width(segments: Segments, classes: Classes = STREET) -> int:
        xs = np.nonzero(written(segments, classes)[1])[1]
        return int(xs.max() - xs.min() + 1) if len(xs) else 0

    truth = cars([(200, 300)])
    answer = Segments(truth.ids, truth.labels, scores=torch.tensor([0.87]))
    assert width(answer) > 1.5 * width(truth)
    # where both have no room: the name, or for an only class the score
    narrow = cars([(200, 300)], wide=30)
    said = Segments(narrow.ids, narrow.labels, scores=torch.tensor([0.87]))
    assert width(said) == width(narrow)
    cell = Segments(narrow.ids, torch.zeros(1, dtype=torch.int64), scores=torch.tensor([0.87]))
    long = Classes(names=("a nucleus of a cell",), things=("a nucleus of a cell",), nothing=True)
    assert width(cell, long) > 0
    assert width(Segments(narrow.ids, cell.labels), long) == 0


def test_stuff_is_named_inside_itself_where_there_is_room() -> None:
    ids = np.full((300, 400), NOTHING, np.int16)
    ids[:100], ids[150:155], ids[200:, 100:220] = 0, 1, 2
    segments = Segments(torch.from_numpy(ids), torch.tensor([2, 0, 1]))
    rows, where = written(segments, STREET)
    assert rows == [2, 0]  # the object first; the thin strip of road has no room
    assert where[:100].any()
    assert not where[100:180].any()


def test_class_maps_are_left_to_their_legend() -> None:
    ids = torch.arange(3, dtype=torch.int8).repeat_interleave(100)[:, None].expand(300, 400)
    assert written(Segments(ids, torch.arange(3)), STREET)[0] == []


def test_names_in_other_letters_take_a_font_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = letters(14)
    assert letters(14, "car") is usual

    class Other:
        """A font that draws every letter in its own way."""

        def getmask(self, text: str) -> bytes:
            return text.encode()

    asked: list[str] = []

    def truetype(name: str, size: int) -> Other:
        asked.append(name)
        if len(asked) < 3:
            raise OSError("cannot open resource")
        return Other()

    monkeypatch.setattr(ImageFont, "truetype", truetype)
    assert isinstance(letters(14, "\u9053\u8def"), Other)
    assert asked == list(FONTS[:3])
    monkeypatch.setattr("pixelwise.core.captions.FONTS", ())
    assert type(letters(14, "\u5929\u7a7a")) is type(usual)  # nothing better is installed


@pytest.mark.parametrize(("width", "height"), [(300, 11), (640, 11), (1000, 16), (4000, 64)])
def test_letters_grow_with_the_picture(width: int, height: int) -> None:
    assert text_size(width // 2, width) == height
