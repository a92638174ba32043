"""Sizes as torchvision's and detectron2's detectors choose them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.functional import resize

from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ModelFileError


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([(80, 133), (100, 100), (37, 61)]))
def test_floor_is_torchvisions(height, width, sides):
    resize = GeneralizedRCNNTransform(sides[0], sides[1], [0.0], [1.0], size_divisible=1).resize
    theirs = tuple(resize(torch.zeros(1, height, width), None)[0].shape[1:]) if _fits(height, width, sides) else None
    ours = SizeRule(short=sides[0], long=sides[1], rounding="floor", antialias=False)(height, width)
    if theirs is None:  # torch cannot make a side of no pixel; the rule keeps one
        assert min(ours) == 1
    else:
        assert ours == theirs


def _fits(height, width, sides):
    scale = min(sides[0] / min(height, width), sides[1] / max(height, width))
    return min(height, width) * scale >= 1


# (height, width) of images and of what detectron2's ResizeShortestEdge(800, 1333) makes of them
DETECTRON2 = {(480, 640): (800, 1067), (427, 640): (800, 1199), (640, 427): (1199, 800), (333, 500): (800, 1201),
              (300, 1000): (400, 1333), (1024, 2048): (667, 1333), (799, 801): (800, 802), (1, 5): (267, 1333),
              (375, 625): (800, 1333), (377, 629): (799, 1333)}  # fmt: skip


@pytest.mark.parametrize("size", DETECTRON2)
def test_nearest_is_detectron2s(size):
    assert SizeRule(short=800, long=1333)(*size) == DETECTRON2[size]


@pytest.mark.parametrize("words", [{"short": 0, "long": 5}, {"short": 9, "long": 5}, {"short": 1.5, "long": 5},
                                   {"short": 1, "long": 5, "rounding": "up"},
                                   {"short": 1, "long": 5, "antialias": 1}])  # fmt: skip
def test_a_rule_that_cannot_be_is_refused(words):
    with pytest.raises(ModelFileError, match="size rule"):
        SizeRule(**words)


def test_round_trip_and_strange_fields():
    rule = SizeRule(short=800, long=1333, rounding="floor", antialias=False)
    assert SizeRule.from_dict(rule.to_dict()) == rule
    with pytest.raises(ModelFileError, match="did you mean 'short'"):
        SizeRule.from_dict({"shorts": 3, "long": 4})
    with pytest.raises(ModelFileError, match="needs the field short"):
        SizeRule.from_dict({"long": 3})
    free = SizeRule(short=520, rounding="floor")
    assert free.to_dict() == {"short": 520, "rounding": "floor", "antialias": True}
    assert SizeRule.from_dict(free.to_dict()) == free


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 60))
def test_without_a_longest_side_floor_is_torchvisions_resize(height, width, short):
    theirs = resize(torch.zeros(1, height, width), [short]).shape[1:]
    assert SizeRule(short=short, rounding="floor")(height, width) == tuple(theirs)


def test_without_a_longest_side_nearest_keeps_the_ratio():
    assert SizeRule(short=100)(50, 333) == (100, 666)
