"""The Hungarian set loss against every permutation and torch's own losses; one `Queries` through the whole house."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Dense, Frame, Queries
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.matched import match, target
from pixelwise.tasks import TASKS, make_task

CLASSES = Classes(names=["sky", "car", "person"], things=["car", "person"])
PANOPTIC = make_task("panoptic", CLASSES)


def random_truth(seed: int, size=(12, 16), rows: int = 3, unknown: bool = False) -> Segments:
    """Blocks of a coarse random map: flat segments, perhaps with unknown pixels."""
    rng = np.random.default_rng(seed)
    low = rng.integers(-2 if unknown else 0, rows, (size[0] // 4, size[1] // 4))
    low[0, :rows] = np.arange(rows)
    ids = np.kron(low, np.ones((4, 4), int)).astype(np.int8)
    return Segments(ids, rng.permutation(3)[:rows])


def random_queries(seed: int, grid=(12, 16), q: int = 5, batch: int = 1) -> Queries:
    g = torch.Generator().manual_seed(seed)
    masks = torch.randn(batch, q, *grid, generator=g) * 2
    return Queries(masks.requires_grad_(), torch.randn(batch, q, 4, generator=g).requires_grad_())


def plain_losses(logits, mask):
    """Binary cross-entropy and Dice of one pair, [H, W] each."""
    p = logits.sigmoid()
    dice = 1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, mask), dice


def cheapest(output: Queries, truth: Segments) -> tuple[tuple[int, ...], float]:
    """The query of each row, by trying all, and the sum of costs."""
    masks, probs = truth.masks.float(), output.classes[0].detach().softmax(-1)
    q, n = output.masks.shape[1], len(truth)
    cost = torch.zeros(q, n)
    for a, b in itertools.product(range(q), range(n)):
        entropy, dice = plain_losses(output.masks[0, a].detach(), masks[b])
        cost[a, b] = -2 * probs[a, truth.labels[b]] + 5 * entropy + 5 * dice
    sums = {p: float(sum(cost[a, b] for b, a in enumerate(p))) for p in itertools.permutations(range(q), n)}
    best = min(sums, key=sums.__getitem__)
    return best, sums[best]


@pytest.mark.parametrize("seed", range(6))
def test_the_cheapest_of_all_permutations_is_taken_and_its_loss_is_torchs(seed):
    output, truth = random_queries(seed), random_truth(seed)
    best, _ = cheapest(output, truth)
    made = target(truth, (12, 16))
    query, row = match(output.masks[0].flatten(1), output.classes[0], made)
    assert {int(r): int(a) for a, r in zip(query, row)} == dict(enumerate(best))

    pairs = [plain_losses(output.masks[0, a], truth.masks[b].float()) for b, a in enumerate(best)]
    labels = torch.full((5,), 3)
    for b, a in enumerate(best):
        labels[a] = truth.labels[b]
    expected = {
        "class": 2 * F.cross_entropy(output.classes[0], labels, torch.tensor([1, 1, 1, 0.1])),
        "mask": 5 * sum(e for e, _ in pairs) / 3,
        "dice": 5 * sum(d for _, d in pairs) / 3,
    }
    found = criterion(output, [truth], PANOPTIC, Recipe())
    assert set(found) == set(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    tensors = (output.masks, output.classes)
    ours = torch.autograd.grad(sum(found.values()), tensors)
    theirs = torch.autograd.grad(sum(expected.values()), tensors)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_images_of_a_batch_are_matched_apart_and_share_one_count():
    output = random_queries(3, batch=2)
    truths = [random_truth(1), random_truth(2, rows=1)]
    singles = [
        criterion(Queries(output.masks[i : i + 1], output.classes[i : i + 1]), [truths[i]], PANOPTIC, Recipe())
        for i in range(2)
    ]
    both = criterion(output, truths, PANOPTIC, Recipe())
    for name in ("mask", "dice"):
        torch.testing.assert_close(both[name], (3 * singles[0][name] + 1 * singles[1][name]) / 4)


def test_on_a_coarse_grid_the_loss_is_that_of_all_pixels_with_one_logit_a_cell():
    truth = Segments(np.random.default_rng(0).integers(-2, 3, (12, 16)).astype(np.int8), [0, 1, 2])
    coarse = random_queries(0, grid=(3, 4))
    fine = Queries(coarse.masks.repeat_interleave(4, 2).repeat_interleave(4, 3), coarse.classes)
    frames = (Frame.whole(12, 16),)
    small = criterion(Queries(coarse.masks, coarse.classes, frames), [truth], PANOPTIC, Recipe())
    large = criterion(fine, [truth], PANOPTIC, Recipe())
    torch.testing.assert_close(small["mask"], large["mask"])
    torch.testing.assert_close(small["class"], large["class"])
    # Dice alone knows the number of cells, by the 1 that it adds above and below
    made = target(truth, (3, 4))
    assert torch.allclose(made.masks * 16, target(truth, (12, 16)).masks.view(3, 3, 4, 4, 4).sum((2, 4)).flatten(1))


def test_unknown_pixels_reach_neither_value_nor_gradient():
    truth = random_truth(4, unknown=True)
    assert bool(truth.unknown.any())
    output = random_queries(4)
    losses = criterion(output, [truth], PANOPTIC, Recipe())
    (grad,) = torch.autograd.grad(sum(losses.values()), output.masks)
    assert not bool(grad[0, :, truth.unknown].any())
    spoilt = output.masks.detach().clone()
    spoilt[0, :, truth.unknown] = math.inf
    again = criterion(Queries(spoilt, output.classes), [truth], PANOPTIC, Recipe())
    for name in losses:
        assert losses[name].item() == again[name].item()


def test_an_image_of_which_nothing_is_known_adds_nothing():
    output = random_queries(5, batch=2)
    blank = Segments.empty((12, 16), fill=UNKNOWN)
    truth = random_truth(5)
    alone = criterion(Queries(output.masks[:1], output.classes[:1]), [truth], PANOPTIC, Recipe())
    both = criterion(output, [truth, blank], PANOPTIC, Recipe())
    for name in alone:
        torch.testing.assert_close(alone[name], both[name])
    nothing = criterion(output, [blank, blank], PANOPTIC, Recipe())
    assert [v.item() for v in nothing.values()] == [0.0, 0.0, 0.0]
    for grad in torch.autograd.grad(sum(nothing.values()), (output.masks, output.classes)):
        assert not bool(grad.any())


def test_an_image_known_to_be_empty_teaches_no_segment():
    output = random_queries(6)
    found = criterion(output, [Segments.empty((12, 16), fill=NOTHING)], PANOPTIC, Recipe())
    expected = 2 * F.cross_entropy(output.classes[0], torch.full((5,), 3))
    torch.testing.assert_close(found["class"], expected)
    assert (found["mask"].item(), found["dice"].item()) == (0.0, 0.0)


def test_crowd_rows_and_rows_without_pixels_are_not_matched():
    ids = np.zeros((12, 16), np.int8)
    ids[:, 8:] = 1
    truth = Segments(ids, [1, 2, 0], crowd=[False, True, False])
    made = target(truth, (12, 16))
    assert made.labels.tolist() == [1]
    assert bool((made.known == 1).all())  # crowd is known not to be the other segment
    assert made.masks.view(12, 16)[:, :8].min() == 1
    assert made.masks.view(12, 16)[:, 8:].max() == 0


def test_overlapping_segments_keep_their_whole_masks():
    masks = np.zeros((2, 12, 16), bool)
    masks[0, :8], masks[1, 4:] = True, True
    made = target(Segments.from_masks(masks, [1, 1]), (12, 16))
    assert np.array_equal(made.masks.view(2, 12, 16).numpy(), masks)


def test_more_segments_than_queries_are_cut_to_the_best():
    output, truth = random_queries(7, q=2), random_truth(7)
    query, row = match(output.masks[0].flatten(1), output.classes[0], target(truth, (12, 16)))
    assert query.tolist() == [0, 1]
    assert len(set(row.tolist())) == 2
    assert all(torch.isfinite(v) for v in criterion(output, [truth], PANOPTIC, Recipe()).values())


def test_each_layer_is_matched_anew():
    truth, main, side = random_truth(8), random_queries(8), random_queries(9)
    output = Queries(main.masks, main.classes, aux=(("layer1", 0.5, side),))
    found = criterion(output, [truth], PANOPTIC, Recipe())
    alone = criterion(side, [truth], PANOPTIC, Recipe())
    assert set(found) == {"class", "mask", "dice", "layer1.class", "layer1.mask", "layer1.dice"}
    for name, loss in alone.items():
        torch.testing.assert_close(found[f"layer1.{name}"], 0.5 * loss)


def test_an_auxiliary_head_of_another_kind_has_its_own_loss():
    dense = Dense(torch.randn(1, 3, 12, 16))
    output = Queries(*(t.detach() for t in (random_queries(1).masks, random_queries(1).classes)),
                     aux=(("side", 0.4, dense),))  # fmt: skip
    truth = random_truth(1)
    found = criterion(output, [truth], PANOPTIC, Recipe())
    torch.testing.assert_close(found["side.ce"], 0.4 * F.cross_entropy(dense.logits, truth.class_map()[None].long()))


def test_class_weights_weigh_the_class_term():
    output, truth = random_queries(2), random_truth(2)
    plain = criterion(output, [truth], PANOPTIC, Recipe())
    weighed = criterion(output, [truth], PANOPTIC, Recipe(class_weights=(1.0, 1.0, 5.0)))
    assert plain["class"] != weighed["class"]
    assert plain["mask"] == weighed["mask"]


def test_the_channel_of_nothing_is_taught_where_the_net_has_it():
    classes = Classes(names=["car"], things=["car"], nothing=True)
    task = make_task("instance", classes)
    truth = Segments(np.array([[0, -1], [-2, -1]], np.int8), [0])
    made = target(truth, (2, 2), nothing=1)
    assert made.labels.tolist() == [0, 1]
    assert made.masks.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1]]
    wide = Queries(torch.randn(1, 3, 2, 2), torch.randn(1, 3, 3))
    assert set(criterion(wide, [truth], task, Recipe())) == {"class", "mask", "dice"}


def test_a_net_for_other_classes_is_refused():
    output = Queries(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 9))
    with pytest.raises(ConfigError, match="create the net with classes=3"):
        criterion(output, [random_truth(0)], PANOPTIC, Recipe())


def test_half_precision_and_autocast_are_computed_in_float32():
    output, truth = random_queries(10), random_truth(10)
    half = Queries(output.masks.detach().bfloat16(), output.classes.detach().bfloat16())
    wide = Queries(half.masks.float(), half.classes.float())
    expected = criterion(wide, [truth], PANOPTIC, Recipe())
    with torch.autocast("cpu", torch.bfloat16):
        found = criterion(half, [truth], PANOPTIC, Recipe())
    for name in expected:
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], expected[name])


def test_a_net_that_diverged_gives_nan_and_no_crash():
    output = Queries(torch.full((1, 3, 12, 16), math.nan), torch.zeros(1, 3, 4))
    assert math.isnan(criterion(output, [random_truth(0)], PANOPTIC, Recipe())["mask"].item())


def test_the_number_of_pairs_is_that_of_all_processes(tmp_path, monkeypatch):
    output, truth = random_queries(11), random_truth(11)
    alone = criterion(output, [truth], PANOPTIC, Recipe())
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda t: t.add_(9))  # another process found 9 pairs beside our 3
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    shared = criterion(output, [truth], PANOPTIC, Recipe())
    torch.testing.assert_close(shared["mask"], alone["mask"] * 3 / 6)
    torch.testing.assert_close(shared["class"], alone["class"])


# -- through the whole house ------------------------------------------------------------------------------------------


def scene() -> Segments:
    """Sky over two cars that touch and a person, and a strip that is unknown."""
    ids = np.zeros((24, 32), np.int8)
    ids[12:20, 2:10], ids[12:20, 10:18], ids[10:22, 22:27] = 1, 2, 3
    ids[22:] = -2
    return Segments(ids, [0, 1, 1, 2])


@pytest.mark.parametrize("name", TASKS)
def test_one_random_output_goes_through_loss_task_and_metric(name):
    torch.manual_seed(0)
    task = make_task(name, CLASSES)
    truth = task.view(scene())
    frames = (Frame.whole(24, 32),) * 2
    masks, classes = torch.randn(2, 10, 6, 8, requires_grad=True), torch.randn(2, 10, len(task.classes) + 1)
    output = Queries(masks * 3, (classes * 5).requires_grad_(), frames)
    loss = sum(criterion(output, [truth, truth], task, Recipe()).values())
    loss.backward()
    assert bool(masks.grad.isfinite().all())
    assert bool(masks.grad.any())
    metric = task.metric()
    for i in range(2):
        found = task.decode(output, i)
        assert found.size == (24, 32)
        metric.update(found, truth)
    assert 0 <= metric.compute()[task.primary] <= 1


@pytest.mark.parametrize("name", TASKS)
def test_a_perfect_prediction_scores_one(name):
    task = make_task(name, CLASSES)
    truth = task.view(scene())
    masks = torch.where(truth.masks, 20.0, -20.0)[None]
    classes = F.one_hot(truth.labels, len(task.classes) + 1).float()[None] * 20
    output = Queries(masks, classes)
    metric = task.metric()
    metric.update(task.decode(output, 0), truth)
    assert metric.compute()[task.primary] == pytest.approx(1.0)
    assert sum(criterion(output, [truth], task, Recipe()).values()).item() < 1e-3


def test_training_on_one_scene_finds_it():
    torch.manual_seed(1)
    task, truth = PANOPTIC, PANOPTIC.view(scene())
    masks = torch.zeros(1, 6, 24, 32).normal_(-2, 0.1).requires_grad_()  # unknown pixels stay as they are: outside
    classes = torch.zeros(1, 6, 4, requires_grad=True)
    optimiser = torch.optim.Adam([masks, classes], 0.3)
    for _ in range(60):
        optimiser.zero_grad()
        sum(criterion(Queries(masks, classes), [truth], task, Recipe()).values()).backward()
        optimiser.step()
    metric = task.metric()
    metric.update(task.decode(Queries(masks, classes), 0), truth)
    assert metric.compute()["pq"] == pytest.approx(1.0)
