"""Objects found in several views come back once each, where they lie, for every kind of output that finds objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pixelwise.core.centers import Centers, Goal, Grouping
from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Dense, Merge, Queries
from pixelwise.core.rays import Rays
from pixelwise.core.regions import Regions
from pixelwise.core.segments import Segments
from pixelwise.kernels.stars import object_probabilities, star_distances
from pixelwise.losses.centers import targets
from pixelwise.tasks import Instance, Panoptic, Semantic
from pixelwise.views import Joined, Renumbered, View, join, look, parse, sights

SIZE = (53, 78)
LABELS = (0, 1, 0)  # of the three ellipses: two cats and a dog
CLASSES = Classes(names=["cat", "dog"], things=["cat", "dog"])
WAYS = ("flip", "vflip", "turn", "dihedral", "scale", "flip+scale", "turn+scale")


def truth() -> torch.Tensor:
    """[3, H, W] bool: three ellipses of unlike sizes, none of them in the middle."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    shapes = ((15, 14, 10, 7), (37, 22, 8, 12), (24, 58, 13, 9))  # y, x, and half the height and width
    return torch.from_numpy(np.stack([((y - a) / h) ** 2 + ((x - b) / w) ** 2 <= 1 for a, b, h, w in shapes]))


class Sighted(nn.Module):
    """Answers what its image shows: channel q is the mask of object q. Each kind of output is a subclass."""

    min_size = 8

    def forward(self, images, frames=None, truths=None):
        return self.answer(images[0], frames)

    def rows(self, image):
        """[H, W] the object at each pixel, -1 where none is."""
        best = image.max(0)
        return best.indices.masked_fill(best.values <= 0.5, -1)


class SeesQueries(Sighted):
    def answer(self, image, frames):
        classes = F.one_hot(torch.tensor([*LABELS, 2, 3]), 4)[None] * 12.0  # nothing is a class; the last is no segment
        rest, junk = 0.5 - image.sum(0, keepdim=True), torch.full_like(image[:1], -0.1)
        return Queries(torch.cat([image - 0.5, rest, junk])[None] * 20, classes, frames)


class SeesRegions(Sighted):
    aligned = True

    def answer(self, image, frames):
        boxes, masks = [], []
        for mask in image:
            ys, xs = (mask > 0.5).nonzero(as_tuple=True)
            y0, x0, y1, x1 = int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1
            boxes.append([x0, y0, x1, y1])
            masks.append(F.interpolate(mask[None, None, y0:y1, x0:x1], (28, 28), mode="bilinear")[0, 0])
        labels, scores = torch.tensor(LABELS), torch.tensor([0.97, 0.95, 0.9])
        return Regions((torch.tensor(boxes).float(),), (scores,), (labels,), (torch.stack(masks),), frames, (0, 1), 3,
                       aligned=self.aligned)  # fmt: skip


class SeesRays(Sighted):
    def answer(self, image, frames):
        ids = self.rows(image)[None]
        logits = torch.logit(0.98 * object_probabilities(ids) + 0.01)[:, None]
        classes = 9.0 * F.one_hot(torch.tensor([*LABELS, 2])[ids]).permute(0, 3, 1, 2)
        return Rays(logits, star_distances(ids, 32), classes, frames)


class SeesCenters(Sighted):
    def answer(self, image, frames):
        rows = self.rows(image)
        seen = Segments(rows[None], torch.tensor(LABELS))
        goal = targets([seen], [0, 1], Goal(sigma=3.0))
        logits = 9.0 * F.one_hot(torch.tensor([*LABELS, 2])[rows]).permute(2, 0, 1)[None]
        return Centers(logits, goal.heat[:, None], goal.offsets, Grouping((0, 1), nms=5), frames)


class SeesDense(Sighted):
    def answer(self, image, frames):
        return Dense(torch.cat([image[:1], image[1:2], image[2:], 1 - image.sum(0, keepdim=True)])[None] * 20, frames)


NETS = {"queries": SeesQueries, "regions": SeesRegions, "rays": SeesRays, "centers": SeesCenters}


def assert_every_object_once(answer: Segments, least: float) -> None:
    """Every object once, of its class, at its place."""
    masks = answer.masks.numpy()
    assert sorted(answer.labels.tolist()) == sorted(LABELS)
    for wanted, label in zip(truth().numpy(), LABELS):
        ious = [(m & wanted).sum() / (m | wanted).sum() for m in masks]
        assert max(ious) > least
        assert int(answer.labels[int(np.argmax(ious))]) == label


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", NETS)
def test_every_object_once_at_its_place(kind, way):
    image, task = truth()[None].float(), Instance(CLASSES)
    net = NETS[kind]()
    plain = task.decode(look(net, image), 0)
    assert_every_object_once(plain, 0.8)
    joined = look(net, image, parse(way))
    answer = task.decode(joined, 0)
    assert_every_object_once(answer, 0.8)
    assert len(answer.ids) == 1  # none shares a pixel
    assert (answer.scores > 0.8).all()
    assert joined.frames[0].original == SIZE
    labels = Semantic(CLASSES).decode(joined, 0).class_map(2)
    wanted = torch.where(truth().any(0), torch.tensor(LABELS)[truth().int().argmax(0)], 2)
    assert (labels == wanted).float().mean() > 0.93


@pytest.mark.parametrize("kind", NETS)
def test_it_is_the_same_whether_outputs_are_kept_or_reduced(kind, monkeypatch):
    image, views = truth()[None].float(), parse("dihedral")
    answers = []
    for bytes_ in (0, 1 << 40):
        monkeypatch.setattr("pixelwise.views.joined.held", lambda output, n=bytes_: n)
        joined = look(NETS[kind](), image, views)
        assert joined.reduced == (bytes_ > 0)
        answers.append((joined.probs(0), joined.probs(0, (5, 7, 11, 30)), joined.candidates(0)))
    (probs, part, found), (other_probs, other_part, other) = answers
    torch.testing.assert_close(probs, other_probs)
    torch.testing.assert_close(part, other_part)
    torch.testing.assert_close(part, probs[:, 5:16, 7:37])
    np.testing.assert_allclose(found.scores, other.scores, rtol=1e-6)
    assert np.array_equal(found.boxes, other.boxes)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(found.crops, other.crops))


@pytest.mark.parametrize("view", parse("dihedral"), ids=str)
def test_offsets_point_to_the_centre_whatever_the_view(view):
    image, net = truth()[None].float(), SeesCenters()
    plain = look(net, image)
    turned = look(net, image, (view, view))
    inside = truth().any(0)
    torch.testing.assert_close(turned.offset_map(0)[:, inside], plain.offset_map(0)[:, inside], atol=1e-4, rtol=1e-4)
    part = (4, 9, 20, 31)
    torch.testing.assert_close(turned.offset_map(0, part), turned.offset_map(0)[:, 4:24, 9:40])
    seen = look(net, view.turn(image))
    torch.testing.assert_close(turned.heat_map(0), view.put(seen.heat_map(0)))


def test_offsets_of_a_scaled_and_turned_view_are_in_pixels_of_the_image():
    image, net = truth()[None].float(), SeesCenters()
    plain = look(net, image).offset_map(0)
    scaled = look(net, image, (View(mirrored=True, scale=2.0, turns=1),)).offset_map(0)
    inside = torch.from_numpy(np.stack([_eroded(m) for m in truth().numpy()]).any(0))
    assert float((scaled - plain)[:, inside].abs().max()) < 0.8
    assert float(plain[:, inside].abs().max()) > 5


def _eroded(mask: np.ndarray) -> np.ndarray:
    inner = mask.copy()
    for axis in (0, 1):
        for step in (1, -1):
            inner &= np.roll(mask, step, axis)
    return inner


def test_an_object_that_one_of_four_views_misses_has_three_quarters_of_its_score():
    image, net = truth()[None].float(), SeesRegions()
    views = parse("turn")
    seen = list(sights(net, image, views))
    view, output = seen[2]
    seen[2] = view, replace(output, boxes=(output.boxes[0][1:],), scores=(output.scores[0][1:],),
                            labels=(output.labels[0][1:],), masks=(output.masks[0][1:],))  # fmt: skip
    found = join(seen, 4).candidates(0)
    np.testing.assert_allclose(sorted(found.scores.max(1)), [0.75 * 0.97, 0.9, 0.95], rtol=1e-5)


def test_nets_of_unlike_outputs_are_joined_by_what_they_find():
    """One net finds boxes, others polygons, queries, or centres: in any order, kept or reduced."""
    image, views = truth()[None].float(), parse("flip")
    outputs = {kind: list(sights(net(), image, views)) for kind, net in NETS.items()}
    for order in (("centers", "regions"), ("rays", "centers"), ("centers", "centers", "queries"), tuple(NETS)):
        joined = join([look for kind in order for look in outputs[kind]], 2 * len(order))
        assert type(joined) is Joined
        assert joined.count == 2 * len(order)
        assert_every_object_once(Instance(CLASSES).decode(joined, 0), 0.8)
        mean = sum(view.put(o.probs(0)) for kind in order for view, o in outputs[kind]) / (2 * len(order))
        torch.testing.assert_close(joined.probs(0), mean)


def test_stuff_and_things_of_a_panoptic_answer():
    """A partition with stuff, whose rule has a least area of stuff."""
    classes = Classes(names=["cat", "dog", "grass"], things=["cat", "dog"])
    image, net = truth()[None].float(), SeesCenters()
    plain, joined = look(net, image), look(net, image, parse("dihedral"))
    one, other = Panoptic(classes).decode(plain, 0), Panoptic(classes).decode(joined, 0)
    assert sorted(one.labels.tolist()) == sorted(other.labels.tolist())
    assert (one.class_map() == other.class_map()).float().mean() > 0.99


def test_soft_masks_stay_soft_and_carry_their_rule():
    joined = look(SeesQueries(), truth()[None].float(), parse("flip"))
    found = joined.candidates(0)
    assert found.merge == Merge("argmax", overlap=0.8, score=0.8, best=100)
    assert all(crop.dtype == np.float32 for crop in found.crops)
    assert_every_object_once(Panoptic(CLASSES).decode(joined, 0), 0.8)


@pytest.mark.parametrize("kind", [*NETS, "dense"])
def test_another_order_of_labels_is_read_as_the_same(kind):
    """Dogs first in the net's own table; read in ours, all three readings are those of the net that has ours."""
    image, net = truth()[None].float(), {**NETS, "dense": SeesDense}[kind]()
    plain = look(net, image)
    order = (1, 0, 2, 3)[: len(plain.probs(0, (0, 0, 1, 1)))]
    there = Renumbered(plain, order)
    again = Renumbered(there, order)
    assert torch.equal(there.probs(0)[1], plain.probs(0)[0])
    assert torch.equal(again.probs(0), plain.probs(0))
    assert torch.equal(again.class_map(0).long(), plain.class_map(0).long())
    assert torch.equal(there.class_map(0) == 0, plain.class_map(0) == 1)
    assert np.array_equal(again.candidates(0).scores, plain.candidates(0).scores)
    assert np.array_equal(there.candidates(0).scores[:, 0], plain.candidates(0).scores[:, 1])
    joined, expected = join([(View(), plain), (View(), again)], 2), join([(View(), plain), (View(), plain)], 2)
    assert type(joined) is type(expected)
    assert torch.equal(joined.probs(0), expected.probs(0))
    assert np.array_equal(joined.candidates(0).boxes, expected.candidates(0).boxes)
