"""`Centers` read at any size; grouping by a plain loop; joined views. Equality with the authors' code is proved in
tests/models/test_panoptic_deeplab.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from pixelwise.core.centers import Centers, Goal, Grouping
from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Dense, Frame, Output
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.losses.centers import targets
from pixelwise.tasks import Instance, Panoptic, Semantic
from pixelwise.views import Joined, View, join, look

CLASSES = Classes(names=["sky", "cat", "grass", "dog"], things=["cat", "dog"])
RULE = Grouping((1, 3), stuff_area=0)


def truth(size: tuple[int, int] = (60, 90), shift: int = 0) -> Segments:
    """Sky over grass, two cats that touch and a dog."""
    ids = np.zeros(size, np.int8)
    ids[size[0] // 2 :] = 1
    ids[12:28, 10 + shift : 26 + shift], ids[12:28, 26 + shift : 44 + shift], ids[35:55, 55:80] = 2, 3, 4
    return Segments(torch.from_numpy(ids), torch.tensor([0, 2, 1, 1, 3]))


def perfect(segments: Segments, rule: Grouping = RULE, sure: float = 9.0, **more: object) -> Centers:
    """The output that answers `segments` exactly."""
    goal = targets([segments], rule.things, Goal(sigma=3.0))
    logits = F.one_hot(segments.class_map(0).long(), 4).permute(2, 0, 1).float()[None] * sure
    return Centers(logits, goal.heat[:, None], goal.offsets, rule, **more)


def same(found: Segments, expected: Segments) -> bool:
    """The same partition with the same classes."""
    one, other = found.row_map().long(), expected.row_map().long()
    pairs = torch.stack([one, other]).flatten(1).unique(dim=1)
    labels = [torch.cat([s.labels, torch.tensor([UNKNOWN, NOTHING])]) for s in (found, expected)]
    one_to_one = len(pairs[0].unique()) == len(pairs[1].unique()) == pairs.shape[1]
    return one_to_one and bool((labels[0][pairs[0]] == labels[1][pairs[1]]).all())


def test_what_the_targets_say_is_what_comes_back():
    output = perfect(truth())
    assert isinstance(output, Output)
    assert same(Panoptic(CLASSES).decode(output, 0), truth())
    assert torch.equal(Semantic(CLASSES).decode(output, 0).class_map(), truth().class_map())
    objects = Instance(CLASSES, whole=True).decode(output, 0)
    assert sorted(objects.labels.tolist()) == [0, 0, 1]
    assert sorted(objects.pixel_counts.tolist()) == [256, 288, 500]


def test_scores_are_mean_probability_times_heat_at_the_centre():
    output = perfect(truth())
    output.heat.mul_(0.8)
    found = output.candidates(0)
    sure = float(output.probs(0).max())
    best = found.scores.max(1)
    things = np.isin(found.scores.argmax(1), [1, 3])
    np.testing.assert_allclose(best[things], 0.8 * sure, rtol=1e-5)
    np.testing.assert_allclose(best[~things], sure, rtol=1e-5)
    assert ((found.scores > 0).sum(1) == 1).all()


def test_the_majority_names_a_group_and_minorities_follow():
    segments = truth()
    output = perfect(segments)
    output.logits[0, 3, 12:28, 10:15] += 20  # 5 of 16 columns of the first cat look like a dog
    output.logits[0, 0, 20:22, 30:33] += 20  # and a bit of the second like sky
    found = Panoptic(CLASSES).decode(output, 0)
    classes = found.class_map()
    assert (classes[12:28, 10:26] == 1).all()
    assert (classes[20:22, 30:33] == 0).all()
    cats = found.labels == 1
    assert sorted(found.pixel_counts[cats].tolist()) == [256, 288 - 6]


def test_things_without_a_centre_are_nothing_and_small_stuff_is_unknown():
    output = perfect(truth(), replace(RULE, stuff_area=2000))
    output.heat.zero_()
    rows = Panoptic(CLASSES).decode(output, 0).row_map()
    expected = truth().class_map()
    assert (rows[(expected == 1) | (expected == 3)] == NOTHING).all()
    areas = [int((expected == k).sum()) for k in (0, 2)]
    assert min(areas) >= 2000
    output = replace(output, grouping=replace(RULE, stuff_area=2200))
    rows = Panoptic(CLASSES).decode(output, 0).row_map()
    for k, area in zip((0, 2), areas):
        assert bool((rows[expected == k] == UNKNOWN).all()) == (area < 2200)


def test_an_image_without_things_and_one_without_stuff():
    segments = truth().keep([0, 1], rest=0)
    assert same(Panoptic(CLASSES).decode(perfect(segments), 0), Segments(segments.ids, segments.labels))
    things = Segments(torch.zeros(30, 30, dtype=torch.int8), torch.tensor([3]))
    assert same(Panoptic(CLASSES).decode(perfect(things), 0), things)
    assert len(perfect(truth(), Grouping(())).candidates(0).crops) == 4  # no things at all: four kinds of stuff


def test_the_channel_nothing_of_the_task_instance():
    task = Instance(CLASSES)
    seen = task.view(truth())
    goal = targets([seen], [0, 1], Goal(sigma=3.0))
    labels = seen.class_map(2, 2).long()
    output = Centers(F.one_hot(labels, 3).permute(2, 0, 1).float()[None] * 9, goal.heat[:, None], goal.offsets,
                     Grouping((0, 1)))  # fmt: skip
    found = task.decode(output, 0)
    assert same(found, seen)
    assert (found.scores > 0.9).all()


# -- other sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", [False, True])
def test_readings_agree_with_torch(align):
    maps = [torch.randn(2, c, 9, 12) for c in (4, 1, 2)]
    output = Centers(*maps, RULE, (Frame.whole(33, 45),) * 2, align_corners=align)
    big = [F.interpolate(m, (33, 45), mode="bilinear", align_corners=align) for m in maps]
    torch.testing.assert_close(output.probs(1), big[0][1].softmax(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.heat_map(1), big[1][1, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.offset_map(1), big[2][1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.offset_map(1, (3, 5, 7, 11)), big[2][1][:, 3:10, 5:16], rtol=1e-4, atol=1e-5)
    assert torch.equal(output.class_map(1), Dense(maps[0], output.frames, align_corners=align).class_map(1))


@pytest.mark.parametrize("zoom", [0.5, 2.0, 3.0])
def test_an_image_that_was_resized_is_answered_at_its_own_size(zoom):
    original = tuple(int(n * zoom) for n in (60, 90))
    output = perfect(truth(), frames=(Frame(original, (60, 90), (0, 0, 60, 90)),))
    found = Panoptic(CLASSES).decode(output, 0)
    assert found.size == original
    expected = truth().row_map()[None, None].float()
    expected = F.interpolate(expected, original, mode="nearest")[0, 0].long()
    assert sorted(found.labels.tolist()) == [0, 1, 1, 2, 3]
    labels = torch.tensor([0, 2, 1, 1, 3])
    assert (found.class_map() == labels[expected]).float().mean() > 0.97
    for cat in (2, 3):  # each cat is one segment but for its border
        inside = found.row_map()[expected == cat].long()
        assert (inside == inside.mode().values).float().mean() > 0.9


def test_padding_is_left_out():
    framed = perfect(truth(), frames=(Frame((50, 80), (60, 90), (0, 0, 50, 80)),))
    found = Panoptic(CLASSES).decode(framed, 0)
    assert found.size == (50, 80)
    assert same(found, Segments(truth().ids[:, :50, :80], truth().labels))


def test_strips_change_nothing(monkeypatch):
    output = perfect(truth(), sure=0.3)
    whole = output.candidates(0)
    monkeypatch.setattr("pixelwise.core.outputs.STRIP", 1000)
    cut = output.candidates(0)
    assert np.array_equal(whole.boxes, cut.boxes)
    assert all(np.array_equal(a, b) for a, b in zip(whole.crops, cut.crops))
    np.testing.assert_allclose(whole.scores, cut.scores, rtol=1e-6)


def test_it_is_a_pytree():
    output = perfect(truth())
    leaves, spec = pytree.tree_flatten(output)
    assert len(leaves) == 3
    again = pytree.tree_unflatten(leaves, spec)
    assert again.grouping == output.grouping
    assert np.array_equal(again.candidates(0).boxes, output.candidates(0).boxes)


# -- views ------------------------------------------------------------------------------------------------------------


class Sighted(torch.nn.Module):
    """Answers exactly what the image's first channel, a map of rows, shows."""

    min_size = 8

    def forward(self, images, frames=None, truths=None):
        ids = images[:, 0].round().to(torch.int8)
        outputs = [perfect(Segments(i, torch.tensor([0, 2, 1, 1, 3]))) for i in ids]
        maps = (torch.cat([getattr(o, n) for o in outputs]) for n in ("logits", "heat", "offsets"))
        return Centers(*maps, RULE, frames)


def test_mirrored_views_agree_on_every_pixel():
    joined = look(Sighted(), truth().ids[None].float(), (View(), View(mirrored=True)))
    assert isinstance(joined, Joined)
    assert same(Panoptic(CLASSES).decode(joined, 0), truth())
    plain = perfect(truth())
    torch.testing.assert_close(joined.offset_map(0), plain.offset_map(0))
    part = (5, 20, 9, 31)
    torch.testing.assert_close(joined.offset_map(0, part), plain.offset_map(0, part))


def test_views_are_averaged():
    one, other = perfect(truth()), perfect(truth(shift=2))
    joined = join([(View(), one), (View(scale=0.5), other)], 2)
    torch.testing.assert_close(joined.heat_map(0), (one.heat_map(0) + other.heat_map(0)) / 2)
    torch.testing.assert_close(joined.probs(0), (one.probs(0) + other.probs(0)) / 2)
    assert len(joined.candidates(0).crops) >= 5
