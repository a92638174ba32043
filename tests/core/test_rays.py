"""Reading star-convex polygons: scores, windows, frames, classes, against truth that was turned into rays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Frame
from pixelwise.core.rays import Rays
from pixelwise.kernels.stars import object_probabilities, star_distances
from pixelwise.tasks import make_task

DISCS = ((12, 14, 8), (14, 31, 7), (38, 20, 10), (44, 58, 6), (2, 60, 9))


def disc_map(size: tuple[int, int] = (56, 72), scale: float = 1.0) -> torch.Tensor:
    """[H, W] rows of five discs, two of which touch and one is cut by the border; -1 is nothing."""
    y, x = np.mgrid[: size[0], : size[1]]
    ids = np.full(size, -1)
    for row, (cy, cx, r) in enumerate(DISCS):
        ids[((y + 0.5) / scale - cy) ** 2 + ((x + 0.5) / scale - cx) ** 2 <= r * r] = row
    return torch.from_numpy(ids)


def perfect(ids: torch.Tensor, grid: int, labels: list[int] | None = None, **options: object) -> Rays:
    """What a net that knows the truth would say."""
    depths = object_probabilities(ids[None, ::grid, ::grid])
    logits = torch.logit(0.98 * depths + 0.01)[:, None]
    classes = None
    if labels is not None:
        table = torch.tensor([*labels, max(labels) + 1])
        classes = 9 * torch.nn.functional.one_hot(table[ids[None, ::grid, ::grid]]).permute(0, 3, 1, 2).float()
    return Rays(logits, star_distances(ids[None], 32, grid), classes, grid=grid, **options)


def ious(found: np.ndarray, ids: np.ndarray) -> list[float]:
    """For each disc the best IoU with a found mask [N, H, W]."""
    truth = [ids == row for row in range(len(DISCS))]
    return [max(float((m & t).sum() / (m | t).sum()) for m in found) for t in truth]


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_rays_of_the_truth_are_read_as_the_truth(grid):
    ids = disc_map()
    output = perfect(ids, grid, frames=(Frame.whole(56, 72),))
    answer = make_task("instance", Classes(names=["cell"], things=["cell"])).decode(output, 0)
    assert len(answer) == len(DISCS)
    assert len(answer.ids) == 1  # none shares a pixel
    assert min(ious(answer.masks.numpy(), ids.numpy())) > 0.88
    assert (answer.scores[:-1] >= answer.scores[1:]).all()


def test_answer_lies_in_the_original_image():
    """Twice the size, in a window of a larger input."""
    ids = torch.full((70, 90), -1)
    ids[6:62, 10:82] = disc_map()
    frame = Frame((112, 144), (70, 90), (6, 10, 56, 72))
    found = perfect(ids, 1, frames=(frame,)).candidates(0)
    masks = np.zeros((len(found.crops), 112, 144), bool)
    for mask, (x0, y0, x1, y1), crop in zip(masks, found.boxes, found.crops):
        mask[y0:y1, x0:x1] = crop
    assert found.size == (112, 144)
    assert min(ious(masks, disc_map((112, 144), 2.0).numpy())) > 0.93


def test_cells_outside_the_window_or_at_its_border_propose_nothing():
    ids = disc_map()
    ids[40:] = -1
    ids[44:50, 10:40] = 7
    shown = perfect(ids, 1, frames=(Frame((40, 72), (56, 72), (0, 0, 40, 72)),))
    boxes = shown.candidates(0).boxes
    assert len(boxes) == 5  # not the sixth, below the window
    assert boxes[:, 3].max() <= 40
    y, x = (perfect(ids, 2, frames=(Frame.whole(56, 72),), border=b)._polygons(0)[0].min(0) for b in (0, 3))
    assert (y >= 0).all()
    assert (x >= 6).all()


def test_thresholds():
    ids = disc_map()
    assert len(perfect(ids, 2, threshold=0.995).candidates(0).crops) == 0
    many = perfect(ids, 2, nms=1.0).candidates(0)
    assert len(many.crops) > 100
    assert (many.scores[:, 0] > 0.1).all()
    taken = np.zeros(many.size, int)
    for (x0, y0, x1, y1), crop in zip(many.boxes, many.crops):
        taken[y0:y1, x0:x1] += crop
    assert taken.max() == 1


def test_score_of_the_task_is_the_authors_threshold():
    """To drop unsure cells before the suppression or unsure objects after it is the same."""
    rng = torch.Generator().manual_seed(0)
    ids = disc_map()
    noisy = perfect(ids, 1)
    logits = noisy.objects + torch.randn(noisy.objects.shape, generator=rng)
    task = make_task("instance", Classes(names=["cell"], things=["cell"]), score=0.6)
    late = task.decode(Rays(logits, noisy.rays, threshold=0.1), 0)
    early = task.decode(Rays(logits, noisy.rays, threshold=0.6), 0)
    assert torch.equal(late.ids, early.ids)
    assert torch.equal(late.scores, early.scores)


def test_classes_are_those_of_the_centres():
    ids = disc_map()
    found = perfect(ids, 2, [0, 2, 1, 0, 1]).candidates(0)
    assert found.scores.shape == (5, 4)  # three things and nothing
    assert ((found.scores > 0).sum(1) == 1).all()
    for (x0, y0, x1, y1), crop, scores in zip(found.boxes, found.crops, found.scores):
        row = int(ids[y0:y1, x0:x1][torch.from_numpy(crop)].mode().values)
        assert scores.argmax() == [0, 2, 1, 0, 1][row]


def test_probabilities_are_painted_scores():
    output = perfect(disc_map(), 1, [0, 1, 1, 0, 1])
    probs, found = output.probs(0), output.candidates(0)
    assert probs.shape == (3, 56, 72)
    torch.testing.assert_close(probs.sum(0), torch.ones(56, 72))
    for (x0, y0, x1, y1), crop, scores in zip(found.boxes, found.crops, found.scores):
        k = int(scores.argmax())
        assert (probs[k, y0:y1, x0:x1].numpy()[crop] == scores[k]).all()
    labels = output.class_map(0)
    assert torch.equal(labels == 2, probs[:2].amax(0) < 0.5)
    assert torch.equal(output.probs(0, (5, 7, 30, 40)), probs[:, 5:35, 7:47])
    assert torch.equal(output.class_map(0, (5, 7, 30, 40)), labels[5:35, 7:47])


def test_no_object_at_all_and_distances_below_zero():
    empty = Rays(torch.full((1, 1, 8, 8), -9.0), torch.zeros(1, 32, 8, 8), grid=2)
    assert len(empty.candidates(0).crops) == 0
    assert (empty.class_map(0) == 1).all()
    assert empty.candidates(0).size == (16, 16)
    negative = Rays(torch.full((1, 1, 8, 8), 2.0), torch.full((1, 32, 8, 8), -3.0))
    assert all(crop.sum() <= 1 for crop in negative.candidates(0).crops)


def test_pytree_sees_the_tensors():
    output = perfect(disc_map(), 2, [0, 1, 1, 0, 1])
    leaves, spec = pytree.tree_flatten(output)
    assert len(leaves) == 3
    again = pytree.tree_unflatten([leaf + 1 for leaf in leaves], spec)
    assert torch.equal(again.rays, output.rays + 1)
    assert again.frames == output.frames
    without = pytree.tree_leaves(perfect(disc_map(), 2))
    assert sum(isinstance(leaf, torch.Tensor) for leaf in without) == 2
