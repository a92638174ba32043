"""Mask R-CNN's losses: torchvision's on the same draws, the textbook's for masks, nothing from what is unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import STRIP, Dense, Frame
from pixelwise.core.regions import ANCHOR_WEIGHTS, BACKGROUND, BOX_WEIGHTS, UNSAMPLED, Regions, Sampled
from pixelwise.core.segments import BOX, MASK, NOTHING, UNKNOWN, Segments
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import parse
from pixelwise.losses.regions import box_losses, mask_loss, mask_targets, proposal_losses
from pixelwise.tasks import Instance, Panoptic

SIZE = (48, 64)
CELLS = 8
THINGS = (0, 1)
TASK = Instance(Classes(names=["cat", "dog"], things=["cat", "dog"]))


def truth(*, unknown: bool = False, crowd: bool = False, kind: int | None = None) -> Segments:
    """Two objects that touch; the second may be a crowd or of another kind; the right part may be unknown."""
    ids = torch.full((1, *SIZE), NOTHING, dtype=torch.int8)
    if unknown:
        ids[:, :, 40:] = UNKNOWN
    ids[0, 5:25, 8:30], ids[0, 20:40, 28:50] = 0, 1
    kinds = None if kind is None else torch.tensor([MASK, kind])
    given = None if kind is None else torch.tensor([[8.0, 5, 30, 25], [28.0, 20, 50, 40]])
    return Segments(ids, [0, 1], crowd=[False, crowd], kind=kinds, given_boxes=given)


def draws(rows: list[int], *, images: int = 1, seed: int = 0) -> Sampled:
    """Random answers; each image has 40 anchors, of which 30 are drawn, and boxes on these rows."""
    g = torch.Generator().manual_seed(seed)

    def boxes(count: int) -> torch.Tensor:
        corners = torch.rand(count, 2, generator=g) * torch.tensor([40.0, 30.0])
        return torch.cat([corners, corners + 4 + torch.rand(count, 2, generator=g) * 14], 1)

    anchors = torch.full((images, 40), BACKGROUND)
    anchors[:, :5], anchors[:, 5:9], anchors[:, 30:] = 0, 1, UNSAMPLED
    count, on = images * len(rows), images * sum(row >= 0 for row in rows)
    values = [torch.randn(*shape, generator=g).requires_grad_() for shape in
              ((images, 40), (images, 40, 4), (count, 3), (count, 2, 4), (on, 2, CELLS, CELLS))]  # fmt: skip
    return Sampled(boxes(40), anchors, values[0], values[1], tuple(boxes(len(rows)) for _ in range(images)),
                   (torch.tensor(rows, dtype=torch.int64),) * images, *values[2:])  # fmt: skip


def output(sampled: Sampled | None, **options) -> Regions:
    return Regions((), (), (), (), (Frame.whole(*SIZE),), THINGS, 3, sampled=sampled, **options)


ROWS = [0, 0, 1, BACKGROUND, 1, BACKGROUND, BACKGROUND]


def test_box_losses_are_torchvisions():
    sampled, seen = draws(ROWS, images=2), truth()
    labels = [torch.tensor([0 if row < 0 else row + 1 for row in ROWS])] * 2  # there background is the first
    coder = BoxCoder(BOX_WEIGHTS)
    targets = [coder.encode_single(seen.pixel_boxes[torch.tensor(ROWS).clamp(0)], b) for b in sampled.boxes]
    deltas = F.pad(sampled.box_deltas.flatten(1), (4, 0))
    want = fastrcnn_loss(sampled.class_logits.roll(1, 1), deltas, labels, targets)
    found = box_losses(sampled, [seen, seen], THINGS)
    torch.testing.assert_close(found["class"], want[0])
    torch.testing.assert_close(found["box"], want[1])


def test_proposal_losses_are_torchvisions_formulas():
    sampled, seen = draws(ROWS, images=2), truth()
    drawn, rows = sampled.anchor_rows != UNSAMPLED, sampled.anchor_rows
    want = F.binary_cross_entropy_with_logits(sampled.objectness[drawn], (rows >= 0)[drawn].float())
    targets = BoxCoder(ANCHOR_WEIGHTS).encode_single(seen.pixel_boxes[rows[rows >= 0]],
                                                     sampled.anchors.repeat(2, 1)[(rows >= 0).flatten()])  # fmt: skip
    offset = F.smooth_l1_loss(sampled.anchor_deltas[rows >= 0], targets, beta=1 / 9, reduction="sum") / 60
    found = proposal_losses(sampled, [seen, seen])
    torch.testing.assert_close(found["objectness"], want)
    torch.testing.assert_close(found["anchor"], offset)


def test_the_mask_loss_is_torchvisions():
    sampled, seen = draws(ROWS, images=2), truth()
    on = torch.tensor(ROWS) >= 0
    rows, boxes = torch.tensor(ROWS)[on], [b[on] for b in sampled.boxes]
    first = F.pad(sampled.mask_logits, (0, 0, 0, 0, 1, 0))
    want = maskrcnn_loss(first, boxes, [seen.masks] * 2, [torch.tensor([1, 2])] * 2, [rows] * 2)
    torch.testing.assert_close(mask_loss(sampled, [seen, seen], THINGS), want)


def test_the_mask_loss_is_the_textbooks():
    """The mean over the cells of -(y log p + (1 - y) log (1 - p)), p from the true class's mask alone."""
    sampled, seen = draws([1]), truth()
    sampled = replace(sampled, boxes=(torch.tensor([[28.0, 20.0, 44.0, 36.0]]),))  # cells of 2 x 2 pixels
    y = seen.masks[1, 20:36, 28:44].double().reshape(8, 2, 8, 2).mean((1, 3))
    p = sampled.mask_logits[0, 1].double().sigmoid()
    want = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    found = mask_loss(sampled, [seen], THINGS)
    assert found.item() == pytest.approx(want.item(), rel=1e-5)
    found.backward()
    assert sampled.mask_logits.grad[0, 0].abs().max() == 0  # the other class learns nothing
    assert sampled.mask_logits.grad[0, 1].abs().min() > 0


@pytest.mark.parametrize("aligned", [False, True])
def test_mask_targets_are_shares_of_cells(aligned):
    seen = truth()
    target, known = mask_targets(seen, torch.tensor([0]), torch.tensor([[8.0, 5.0, 24.0, 21.0]]), CELLS, aligned)
    assert known is None
    # aligned the samples lie on pixel centres; else half a pixel below and to the right of them, inside all the same
    assert torch.equal(target, torch.ones(1, CELLS, CELLS))


def test_unknown_pixels_and_crowds_teach_no_mask():
    boxes = torch.tensor([[30.0, 16.0, 62.0, 48.0]])
    for seen in (truth(unknown=True), truth(crowd=True)):
        _, known = mask_targets(seen, torch.tensor([0]), boxes, CELLS, aligned=True)
        assert known is not None
        assert 0 < (known == 0).sum() < CELLS * CELLS
        sampled = replace(draws([0]), boxes=(boxes,))
        mask_loss(sampled, [seen], THINGS, aligned=True).backward()
        grad = sampled.mask_logits.grad[0, 0]
        assert (grad[known[0] == 0] == 0).all()
        assert (grad[known[0] > 0] != 0).all()


def test_where_nothing_is_known_the_loss_is_zero_with_a_gradient():
    seen = Segments(torch.full((1, *SIZE), UNKNOWN, dtype=torch.int8), [0, 1])
    sampled = replace(draws([0, 1]), boxes=(torch.tensor([[5.0, 5, 20, 20], [30.0, 5, 40, 20]]),))
    loss = mask_loss(sampled, [seen], THINGS)
    loss.backward()
    assert loss.item() == 0
    assert sampled.mask_logits.grad.abs().max() == 0


def test_a_row_that_is_only_a_box_teaches_its_box_but_no_mask():
    seen = truth(kind=BOX)
    ids = seen.ids.masked_fill(seen.ids == 1, UNKNOWN)
    seen = replace(seen, ids=ids)
    sampled = draws([0, 1])
    mask_loss(sampled, [seen], THINGS).backward()
    assert sampled.mask_logits.grad[0].abs().max() > 0
    assert sampled.mask_logits.grad[1].abs().max() == 0
    box_losses(sampled, [seen], THINGS)["box"].backward()
    assert sampled.box_deltas.grad[1, 1].abs().min() > 0


def test_an_image_without_objects_gives_a_finite_loss():
    nothing = Segments.empty(SIZE)
    sampled = draws([BACKGROUND] * 4)
    sampled = replace(sampled, anchor_rows=torch.full((1, 40), BACKGROUND), mask_logits=sampled.mask_logits[:0])
    losses = criterion(output(sampled), [nothing], TASK, Recipe())
    assert set(losses) == {"objectness", "anchor", "class", "box", "mask"}
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    assert [losses[k].item() for k in ("anchor", "box", "mask")] == [0, 0, 0]
    assert sampled.class_logits.grad.abs().max() > 0
    assert sampled.objectness.grad.abs().max() > 0


def test_where_nothing_was_drawn_the_loss_is_zero():
    sampled = draws([])
    sampled = replace(sampled, anchor_rows=torch.full((1, 40), UNSAMPLED))
    seen = Segments.empty(SIZE, fill=UNKNOWN)
    losses = criterion(output(sampled), [seen], TASK, Recipe(class_weights=(1.0, 2.0, 3.0)))
    assert {loss.item() for loss in losses.values()} == {0.0}


class Largest(TorchDispatchMode):
    """The largest tensor that any operation answers."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return found


def test_two_thousand_objects_do_not_hold_their_masks_at_once():
    side, per_row = 450, 45
    ids = torch.full((side, side), NOTHING, dtype=torch.int16)
    for row in range(2000):
        y, x = 10 * (row // per_row), 10 * (row % per_row)
        ids[y : y + 8, x : x + 8] = row
    seen = Segments(ids, [0] * 2000)
    rows = torch.arange(0, 2000, 9)
    with Largest() as largest:
        target, _ = mask_targets(seen, rows, seen.pixel_boxes[rows], CELLS, aligned=True)
    assert target.mean() > 0.99
    assert largest.numel <= 4 * STRIP < side * side * len(rows) / 2


def test_class_weights_weigh_the_classes():
    sampled, seen = draws(ROWS), truth()
    found = criterion(output(sampled), [seen], TASK, Recipe(class_weights=(1.0, 5.0, 0.5)))["class"]
    labels = torch.tensor([2 if row < 0 else row for row in ROWS])
    torch.testing.assert_close(found, F.cross_entropy(sampled.class_logits, labels, torch.tensor([1.0, 5.0, 0.5])))


def test_the_semantic_branch_learns_stuff_and_things():
    classes = Classes(names=["sky", "cat", "dog"], things=["cat", "dog"])
    ids = torch.full((1, *SIZE), UNKNOWN, dtype=torch.int8)
    ids[:, :10], ids[0, 20:30, :32], ids[0, 20:30, 32:] = 0, 1, 2
    seen = Segments(ids, [0, 1, 2])
    logits = torch.randn(1, 2, *SIZE, requires_grad=True)  # sky, things
    sampled = replace(draws([1, 2, BACKGROUND]), anchor_rows=torch.full((1, 40), BACKGROUND))
    found = Regions((), (), (), (), (Frame.whole(*SIZE),), (1, 2), 3, semantic=Dense(logits), sampled=sampled)
    losses = criterion(found, [seen], Panoptic(classes), Recipe(mix=parse("ce")))
    target = torch.full(SIZE, 255)
    target[:10], target[20:30] = 0, 1
    torch.testing.assert_close(losses["semantic.ce"], F.cross_entropy(logits, target[None], ignore_index=255))


def test_without_truths_there_is_no_loss():
    with pytest.raises(ConfigError, match="truths"):
        criterion(output(None), [truth()], TASK, Recipe())
