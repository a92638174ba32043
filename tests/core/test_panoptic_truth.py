"""The panoptic builder: each rule by itself, and all of them pixel by pixel against the rules written out plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelwise.core.classes import Classes
from pixelwise.core.panoptic_map import to_maps
from pixelwise.core.panoptic_truth import UNTOLD, Decisions, build
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.errors import ConfigError, DataError

few = settings(max_examples=80, deadline=None, derandomize=True)
CLASSES = Classes(names=("sky", "car", "road", "person"), things=("car", "person"), ids=(10, 26, 7, 24))
SKY, CAR, ROAD, PERSON = range(4)


def ground(rows: object) -> Segments:
    return Segments.from_class_map(np.array(rows), num_classes=4)


def shown(truth: Segments) -> list[list[tuple[int, int, bool]]]:
    """(label, key, crowd) of each pixel, the mark alone where there is no segment."""
    assert truth.keys is not None
    table = list(zip(truth.labels.tolist(), truth.keys.tolist(), truth.crowd.tolist()))
    return [[table[r] if r >= 0 else r for r in line] for line in truth.ids[0].tolist()]


def objects(*masks: object, labels: list[int], crowd: list[bool] | None = None) -> Segments:
    made = Segments.from_masks(np.array(masks, bool), labels, crowd=crowd)
    return Segments(made.ids, made.labels, crowd=made.crowd, keys=np.arange(100, 100 + len(labels)))


def test_classes_first_then_objects():
    truth, decisions = build(ground([[SKY, SKY, CAR, CAR]]), objects([[0, 0, 1, 1]], labels=[CAR]), CLASSES)
    assert shown(truth) == [[(SKY, 10, False)] * 2 + [(CAR, 100, False)] * 2]
    assert decisions == Decisions()
    assert decisions.lines() == []


@pytest.mark.parametrize(("rule", "owner"), [("smaller", 101), ("first", 100), ("last", 102)])
def test_of_several_objects_the_rule_says_which(rule, owner):
    masks = [[1, 1, 1, 0]], [[0, 1, 0, 0]], [[1, 1, 1, 1]]
    truth, decisions = build(ground([[CAR] * 4]), objects(*masks, labels=[CAR] * 3), CLASSES, overlap=rule)
    assert shown(truth)[0][1] == (CAR, owner, False)
    assert decisions.overlaps == 3
    assert (decisions.lost, decisions.unlabelled) == ({"smaller": 0, "first": 1, "last": 2}[rule], 0)


@pytest.mark.parametrize("rule", ["smaller", "first", "last"])
def test_a_crowd_owns_only_what_no_object_owns(rule):
    given_ = objects([[1, 0, 0]], [[1, 1, 1]], labels=[CAR, CAR], crowd=[True, False])
    truth, _ = build(ground([[CAR] * 3]), given_, CLASSES, overlap=rule)
    assert shown(truth) == [[(CAR, 101, False)] * 3]


def test_things_in_no_object_are_a_crowd_or_unknown():
    given_ = ground([[PERSON, CAR, SKY]]), objects([[0, 1, 0]], labels=[CAR])
    truth, decisions = build(*given_, CLASSES)
    assert shown(truth) == [[(PERSON, 24, True), (CAR, 100, False), (SKY, 10, False)]]
    assert (decisions.outside, decisions.unlabelled) == (1, 0)
    truth, decisions = build(*given_, CLASSES, outside="unknown")
    assert shown(truth)[0][0] == UNKNOWN
    assert (decisions.outside, decisions.unlabelled) == (1, 1)
    assert decisions.lines(outside="unknown") == [
        "pixels of a thing class in no object, now unknown: 1",
        "pixels unknown in the end, which count in no score: 1",
    ]


def test_what_the_map_leaves_unknown_is_its_own_or_the_objects():
    given_ = ground([[255, 255, SKY, -1]]), objects([[1, 0, 0, 1]], labels=[CAR])
    truth, decisions = build(*given_, CLASSES)
    assert shown(truth) == [[UNKNOWN, UNKNOWN, (SKY, 10, False), (CAR, 100, False)]]
    assert (decisions.unknown_under, decisions.unlabelled) == (1, 2)
    truth, decisions = build(*given_, CLASSES, over="objects")
    assert shown(truth) == [[(CAR, 100, False), UNKNOWN, (SKY, 10, False), (CAR, 100, False)]]
    assert (decisions.unknown_under, decisions.unlabelled) == (1, 1)


def test_an_object_that_lies_on_unknown_alone_is_lost():
    truth, decisions = build(ground([[255, SKY]]), objects([[1, 0]], labels=[CAR]), CLASSES)
    assert (len(truth), decisions.lost) == (1, 1)


def test_holes_are_left_to_the_map_or_to_the_object():
    ring = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    given_ = ground([[CAR] * 3] * 3), objects(ring, labels=[CAR])
    truth, decisions = build(*given_, CLASSES)
    assert shown(truth)[1][1] == (CAR, 26, True)
    assert (decisions.outside, decisions.holes) == (1, 1)
    truth, decisions = build(*given_, CLASSES, holes="objects")
    assert shown(truth)[1][1] == (CAR, 100, False)
    assert decisions.holes == 1
    window = np.full((3, 3), CAR)
    window[1, 1] = SKY  # what is seen through a hole stays what it is
    truth, decisions = build(ground(window), given_[1], CLASSES, holes="objects")
    assert shown(truth)[1][1] == (SKY, 10, False)
    assert decisions.holes == 0


def test_untold_objects_take_the_class_under_most_of_their_pixels():
    class_map = ground([[CAR, CAR, ROAD, SKY, SKY, -1]])
    truth, decisions = build(class_map, objects([[1, 1, 1, 0, 0, 0]], [[0, 0, 0, 1, 1, 0]], [[0, 0, 0, 0, 0, 1]],
                                                labels=[UNTOLD] * 3), CLASSES)  # fmt: skip
    assert shown(truth) == [[(CAR, 100, False)] * 3 + [(SKY, 10, False)] * 2 + [NOTHING]]
    assert (decisions.other_class, decisions.stuff_objects, decisions.lost) == (1, 1, 1)


def test_objects_of_stuff_are_joined_to_their_class():
    truth, decisions = build(ground([[SKY, SKY, ROAD]]), objects([[0, 1, 1]], labels=[ROAD]), CLASSES)
    assert shown(truth) == [[(SKY, 10, False), (ROAD, 7, False), (ROAD, 7, False)]]
    assert (decisions.stuff_objects, decisions.other_class) == (1, 1)


def test_decisions_add_up_and_are_said():
    both = Decisions(overlaps=2, lost=1) + Decisions(overlaps=1, stuff_objects=2)
    assert both == Decisions(overlaps=3, lost=1, stuff_objects=2)
    assert both.lines("first") == [
        "pixels of several objects, given to the first one: 3",
        "objects that own no pixel in the end, left out: 1",
        "objects of a stuff class, joined to its one segment: 2",
    ]


def test_wrong_input_is_refused():
    with pytest.raises(ConfigError, match="overlap is 'smaller' or 'first' or 'last'"):
        build(ground([[0]]), objects([[1]], labels=[1]), CLASSES, overlap="larger")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"class map is \[1, 1\]"):
        build(ground([[0]]), objects([[1, 0]], labels=[1]), CLASSES)
    with pytest.raises(DataError, match="labels 4 to 4"):
        build(ground([[0]]), objects([[1]], labels=[4]), CLASSES)


def plainly(labels, masks, kinds, overlap, outside, over):
    """The rules pixel by pixel: (label, object or None, crowd), NOTHING or UNKNOWN."""
    areas = masks.sum((1, 2))
    out = {}
    for y, x in np.ndindex(labels.shape):
        mine = [i for i in range(len(masks)) if masks[i, y, x]]
        mine.sort(key=lambda i: {"smaller": (areas[i], i), "first": (i, i), "last": (-i, -i)}[overlap])
        under = labels[y, x]
        if mine and not (under == 255 and over == "map"):
            kind = kinds[mine[0]]
            out[y, x] = (kind, mine[0], False) if CLASSES.is_thing[kind] else (kind, None, False)
        elif under in (255, -1):
            out[y, x] = UNKNOWN if under == 255 else NOTHING
        elif CLASSES.is_thing[under] and outside == "unknown":
            out[y, x] = UNKNOWN
        else:
            out[y, x] = (under, None, bool(CLASSES.is_thing[under]))
    return out


@few
@given(st.data())
def test_every_pixel_is_what_the_rules_say(data):
    size = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 6)))
    n = data.draw(st.integers(0, 4))
    labels = data.draw(hnp.arrays(np.int64, size, elements=st.sampled_from([-1, 0, 1, 2, 3, 255])))
    masks = data.draw(hnp.arrays(bool, (n, *size)))
    kinds = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    overlap = data.draw(st.sampled_from(["smaller", "first", "last"]))
    outside, over = data.draw(st.sampled_from(["crowd", "unknown"])), data.draw(st.sampled_from(["map", "objects"]))
    made = Segments.from_masks(masks, kinds)
    made = Segments(made.ids, made.labels, keys=np.arange(n))
    truth, decisions = build(ground(labels), made, CLASSES, overlap=overlap, outside=outside, over=over)
    expected = plainly(labels, masks, kinds, overlap, outside, over)
    objects_seen = set()
    for (y, x), pixel in expected.items():
        row = int(truth.ids[0, y, x])
        if isinstance(pixel, int):
            assert row == pixel
            continue
        label, thing, crowd = pixel
        assert (int(truth.labels[row]), bool(truth.crowd[row])) == (label, crowd)
        assert int(truth.keys[row]) == (CLASSES.ids[label] if thing is None else thing)
        objects_seen.add(thing)
    assert (truth.pixel_counts > 0).all()
    things = [i for i in range(n) if CLASSES.is_thing[kinds[i]]]
    assert decisions.lost == len(set(things) - objects_seen)
    assert decisions.overlaps == int((masks.sum(0) > 1).sum())
    assert decisions.unlabelled == int((truth.ids == UNKNOWN).sum())


@few
@given(st.data())
def test_maps_of_a_truth_make_that_truth_again(data):
    ids = data.draw(hnp.arrays(np.int8, (4, 6), elements=st.integers(-2, 4)))
    labels = data.draw(st.lists(st.integers(0, 3), min_size=5, max_size=5))
    before = Segments(ids, labels).compact()
    instances, class_map = to_maps(before, CLASSES)
    found = Segments.from_ids(instances, dict.fromkeys(range(1, instances.max() + 1), UNTOLD), nothing=[0])
    after, decisions = build(ground(class_map), found, CLASSES)
    assert after.class_map(255, nothing=254).tolist() == before.class_map(255, nothing=254).tolist()
    singles = [m.numpy().tobytes() for m, thing in zip(before.masks, CLASSES.is_thing[before.labels.numpy()]) if thing]
    again = [m.numpy().tobytes() for m, k in zip(after.masks, after.labels.tolist()) if CLASSES.is_thing[k]]
    assert sorted(singles) == sorted(again)
    assert (decisions.outside, decisions.other_class, decisions.lost) == (0, 0, 0)
