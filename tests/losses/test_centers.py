"""Targets against a plain loop over objects, the loss by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from pixelwise.core.centers import Centers, Goal, Grouping
from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Frame
from pixelwise.core.segments import BOX, MASK, SCRIBBLE, UNKNOWN, Segments
from pixelwise.losses.centers import bumps, targets
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import parse
from pixelwise.tasks import Instance, Panoptic

CLASSES = Classes(names=["ground", "cat", "dog"], things=["cat", "dog"])


def truth(seed: int = 0, size: tuple[int, int] = (40, 56)) -> Segments:
    """Ground, 12 overlapping rectangles of things (the later hides the earlier), a crowd and unknown pixels."""
    draw, ids = np.random.RandomState(seed), np.zeros(size, np.int16)
    labels, crowd = [0], [False]
    for row in range(1, 14):
        y, x = draw.randint(0, size[0] - 3), draw.randint(0, size[1] - 3)
        ids[y : y + draw.randint(3, 15), x : x + draw.randint(3, 15)] = row
        labels.append(1 + row % 2)
        crowd.append(row == 13)
    ids[: draw.randint(1, 6)] = UNKNOWN
    return Segments(torch.from_numpy(ids), torch.tensor(labels), crowd=torch.tensor(crowd))


def by_hand(segments: Segments, sigma: int) -> dict[str, np.ndarray]:
    """As the paper describes it, object by object: float64 means, truncated centres, 6 sigma + 3 pixels of bump."""
    rows = segments.row_map().numpy()
    size = rows.shape
    heat, offsets = np.zeros(size), np.zeros((2, *size))
    counts, things = np.ones(size, bool), np.zeros(size, bool)
    counts[rows == UNKNOWN] = False
    for row in range(len(segments)):
        mask = rows == row
        if segments.crowd[row]:
            counts[mask] = False
        elif segments.labels[row] > 0 and mask.any():
            ys, xs = np.nonzero(mask)
            things |= mask
            offsets[0][mask], offsets[1][mask] = ys.mean() - ys, xs.mean() - xs
            for y, x in np.ndindex(size):
                dy, dx = y - int(ys.mean()), x - int(xs.mean())
                if max(abs(dy), abs(dx)) <= 3 * sigma + 1:
                    heat[y, x] = max(heat[y, x], np.exp(-(dy * dy + dx * dx) / (2 * sigma**2)))
    return {"heat": heat, "offsets": offsets, "counts": counts, "things": things}


@pytest.mark.parametrize("seed", range(4))
def test_targets_are_those_of_a_plain_loop(seed):
    sigma = (8, 2, 4, 1)[seed]
    found = targets([truth(seed)], [1, 2], Goal(sigma=float(sigma)))
    for name, expected in by_hand(truth(seed), sigma).items():
        value = getattr(found, name)[0].numpy()
        np.testing.assert_allclose(value, expected, atol=2e-5, rtol=0, err_msg=name)


def test_objects_keep_to_themselves_in_a_batch():
    both = targets([truth(0), truth(1)], [1, 2], Goal())
    for i in range(2):
        alone = targets([truth(i)], [1, 2], Goal())
        assert all(torch.equal(getattr(both, n)[i], getattr(alone, n)[0]) for n in ("heat", "offsets", "counts"))


def test_only_whole_masks_have_centres():
    ids = torch.full((20, 30), -1, dtype=torch.int8)
    ids[2:8, 2:8], ids[12:14, 3:9], ids[5:15, 20:28] = 0, 1, 3
    segments = Segments(ids, torch.tensor([1, 1, 1, 2]), kind=torch.tensor([MASK, SCRIBBLE, BOX, MASK]))
    found = targets([segments], [1, 2], Goal(sigma=2.0))
    assert (found.heat[0] == 1).nonzero().tolist() == [[4, 4], [9, 23]]
    assert torch.equal(found.things[0], (ids == 0) | (ids == 3))
    assert torch.equal(found.counts[0], ids != 1)
    assert found.offsets[0][:, ids == 1].abs().max() == 0


def test_pixels_of_lower_layers_show():
    ids = torch.full((2, 10, 10), -1, dtype=torch.int8)
    ids[0, :, :4], ids[1, :, :8] = 0, 1
    found = targets([Segments(ids, torch.tensor([1, 2]))], [1, 2], Goal())
    assert found.offsets[0, 1, 0].tolist() == [1.5, 0.5, -0.5, -1.5, 1.5, 0.5, -0.5, -1.5, 0, 0]


def test_spread_narrows_the_bumps_of_small_things_only():
    ids = torch.full((60, 120), -1, dtype=torch.int8)
    ids[10:14, 10:14], ids[5:55, 60:110] = 0, 1
    wide = targets([Segments(ids, torch.tensor([1, 1]))], [1], Goal(sigma=4.0))
    narrow = targets([Segments(ids, torch.tensor([1, 1]))], [1], Goal(sigma=4.0, spread=0.4))
    assert torch.equal(wide.heat[0, :, 60:], narrow.heat[0, :, 60:])
    x = narrow.heat[0, 11, 11:17]  # the small one's deviation is 0.4 x 4
    np.testing.assert_allclose(x, np.exp(-(np.arange(6) ** 2) / (2 * 1.6**2)) * (np.arange(6) <= 6), atol=1e-6)


def test_small_things_are_marked():
    found = targets([truth()], [1, 2], Goal(small_area=40))
    rows = truth().row_map()
    areas = torch.bincount(rows[rows >= 0].long(), minlength=14)
    expected = torch.tensor([bool(r > 0 and r != 13 and areas[r] < 40) for r in rows.flatten().tolist()])
    assert torch.equal(found.small[0].flatten(), expected)


def test_bumps_at_the_border_and_outside_each_others_reach():
    heat = bumps(torch.tensor([[0, 9], [0, 19]]), torch.tensor([1.0, 2.0]), (10, 20))
    assert heat[0, 0] == heat[9, 19] == 1
    assert heat[0, 4] > 0
    assert heat[0, 5] == heat[5, 0] == 0
    assert heat[9, 19 - 7] > 0
    assert heat[9, 19 - 8] == 0
    assert bumps(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), (3, 4)).shape == (3, 4)


def test_two_thousand_objects_are_fast():
    ids = torch.arange(2048, dtype=torch.int16).view(32, 64).repeat_interleave(16, 0).repeat_interleave(16, 1)
    start = time.process_time()
    found = targets([Segments(ids, torch.ones(2048, dtype=torch.int64))], [1], Goal())
    assert time.process_time() - start < 3  # a loop over objects needs a minute
    assert (found.heat == 1).sum() == 2048


# -- the loss ---------------------------------------------------------------------------------------------------------


def output(
    size: tuple[int, int] = (40, 56), things: tuple[int, ...] = (1, 2), seed: int = 0, **more: object
) -> Centers:
    draw = torch.Generator().manual_seed(seed)
    shapes = (2, 3), (2, 1), (2, 2)
    maps = [torch.randn(*shape, *size, generator=draw, requires_grad=True) for shape in shapes]
    more.setdefault("goal", Goal(small_weight=1.0))
    return Centers(*maps, Grouping(things), **more)


def test_the_loss_by_hand():
    task, found = Panoptic(CLASSES), output()
    truths = [task.view(truth(seed)) for seed in (0, 1)]
    losses = criterion(found, truths, task, Recipe(parse("ce")))
    goals = [by_hand(t, 8) for t in truths]
    heat, counts, offsets, things = (torch.from_numpy(np.stack([g[n] for g in goals]))
                                     for n in ("heat", "counts", "offsets", "things"))  # fmt: skip
    expected = 200 * (found.heat[:, 0] - heat)[counts].square().mean()
    torch.testing.assert_close(losses["heat"].double(), expected, rtol=1e-5, atol=1e-6)
    expected = 0.01 * (found.offsets - offsets).abs().permute(0, 2, 3, 1)[things].mean()
    torch.testing.assert_close(losses["offsets"].double(), expected, rtol=1e-5, atol=1e-6)
    labels = torch.stack([t.class_map() for t in truths]).long()
    expected = torch.nn.functional.cross_entropy(found.logits, labels, ignore_index=255)
    torch.testing.assert_close(losses["ce"], expected)


def test_what_does_not_count_has_no_gradient():
    task, found = Panoptic(CLASSES), output()
    truths = [task.view(truth(seed)) for seed in (0, 1)]
    sum(criterion(found, truths, task, Recipe(parse("ce"))).values()).backward()
    for i, segments in enumerate(truths):
        rows = segments.row_map()
        crowd = torch.isin(rows, torch.nonzero(segments.crowd)[:, 0])
        assert found.heat.grad[i, 0][(rows == UNKNOWN) | crowd].abs().max() == 0
        assert found.logits.grad[i][:, rows == UNKNOWN].abs().max() == 0
        assert found.offsets.grad[i][:, (rows <= 0) | crowd].abs().max() == 0


def test_ground_counts_as_no_centre_in_the_task_instance():
    task = Instance(CLASSES)
    found = output(things=(0, 1))
    truths = [task.view(truth(seed)) for seed in (0, 1)]
    losses = criterion(found, truths, task, Recipe(parse("ce")))
    losses["heat"].backward()
    assert (found.heat.grad[0, 0][truths[0].row_map() == -1] != 0).all()


def test_coarse_maps_are_enlarged_by_the_nets_rule():
    task = Panoptic(CLASSES)
    truths = [task.view(truth(seed)) for seed in (0, 1)]
    values = []
    for align in (False, True):
        coarse = output((10, 14), frames=(Frame.whole(40, 56),) * 2, align_corners=align)
        heat, offsets = (torch.nn.functional.interpolate(m, (40, 56), mode="bilinear", align_corners=align)
                         for m in (coarse.heat, coarse.offsets))  # fmt: skip
        fine = Centers(coarse.full(), heat, offsets, coarse.grouping, goal=coarse.goal)
        one, other = (criterion(o, truths, task, Recipe(parse("ce"))) for o in (coarse, fine))
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name])
        values.append(float(one["heat"].detach()))
    assert values[0] != values[1]


def test_small_things_count_threefold_in_the_losses_of_classes():
    task = Panoptic(CLASSES)
    truths = [task.view(truth(seed)) for seed in (0, 1)]
    found = output(goal=Goal(small_area=60, small_weight=3.0))
    losses = criterion(found, truths, task, Recipe(parse("ce+dice")))
    labels = torch.stack([t.class_map() for t in truths]).long()
    each = torch.nn.functional.cross_entropy(found.logits, labels, ignore_index=255, reduction="none")
    small = targets(truths, [1, 2], found.goal).small
    assert 0 < small.sum() < small.numel() / 2
    torch.testing.assert_close(losses["ce"], (each * (1 + 2 * small))[labels != 255].mean())
    plain = criterion(output(), truths, task, Recipe(parse("ce+dice")))
    torch.testing.assert_close(losses["dice"], plain["dice"])
