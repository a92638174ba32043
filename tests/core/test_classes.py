"""Classes: what is filled in, what is refused, what comes back."""

from __future__ import annotations

import json

import pytest

from pixelwise.core.classes import Classes, default_palette
from pixelwise.errors import ConfigError


def test_what_is_not_given_is_filled_in():
    classes = Classes(names=["road", "car"], things=["car"])
    assert classes.ids == (0, 1)
    assert classes.void == (255,)
    assert len(set(classes.colours)) == 2
    assert classes.is_thing.tolist() == [False, True]
    assert (len(classes), classes.channels) == (2, 2)


def test_a_known_background_takes_one_more_channel():
    assert Classes(names=["nucleus"], things=["nucleus"], nothing=True).channels == 2


def test_the_usual_void_gives_way_to_a_class_of_that_id():
    classes = Classes(names=["ground", "object"], ids=[0, 255])
    assert classes.void == ()
    assert Classes(names=[f"class {k}" for k in range(300)]).void == ()


def test_palette_colours_differ():
    palette = default_palette(256)
    assert len(set(palette)) == 256
    assert all(0 <= v <= 255 for colour in palette for v in colour)


def test_equal_classes_are_equal_and_hashable():
    assert {Classes(names=["a"]): 1}[Classes(names=("a",), colours=default_palette(1))] == 1


def test_they_come_back_from_json():
    classes = Classes(
        names=["a", "b"], things=["b"], colours=[(1, 2, 3), (4, 5, 6)], ids=[7, -1], void=[0], nothing=True
    )
    assert Classes.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes


def test_only_keeps_the_order_and_everything_that_belongs():
    classes = Classes(names=["a", "b", "c"], things=["a", "c"], ids=[5, 6, 7])
    part = classes.only(["c", "a"], nothing=True)
    assert part.names == ("a", "c")
    assert part.things == ("a", "c")
    assert part.ids == (5, 7)
    assert part.colours == (classes.colours[0], classes.colours[2])
    assert part.nothing
    assert not classes.only(["b"]).nothing


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": []}, "at least one"),
        ({"names": "car"}, "one string"),
        ({"names": ["a"], "things": "a"}, "one string"),
        ({"names": ["a", "a"]}, "more than once"),
        ({"names": ["person"], "things": ["persn"]}, "did you mean 'person'"),
        ({"names": ["a"], "ids": [1, 2]}, "1 class names but 2 ids"),
        ({"names": ["a", "b"], "colours": [(0, 0, 0)]}, "2 class names but 1 colours"),
        ({"names": ["a"], "colours": [(0, 0, 256)]}, r"0\.\.255"),
        ({"names": ["a"], "colours": [(0, 0)]}, "three numbers"),
        ({"names": ["a", "b"], "ids": [3, 3]}, "must differ"),
        ({"names": ["a"], "ids": [3], "void": [3, 4]}, r"\[3\] are both"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Classes(**fields)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"names": ["a"], "thing": []}, "did you mean 'things'"),
        ({"things": []}, "needs the field 'names'"),
        ({"names": 5}, "cannot be made"),
        ({"names": ["a"], "colours": [5]}, "cannot be made"),
    ],
)
def test_malformed_dictionaries_are_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        Classes.from_dict(data)


def test_only_of_a_name_that_is_no_class_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'road'"):
        Classes(names=["road"]).only(["raod"])
