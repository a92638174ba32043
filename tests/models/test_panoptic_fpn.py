"""Panoptic FPN: the semantic branch, the merge, learning. detectron2's own answers stand in test_detectron2.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pixelwise.core.classes import Classes
from pixelwise.core.registry import create_model
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import parse
from pixelwise.models.panoptic_fpn import LOSS, THIN, SemanticBranch
from pixelwise.tasks import make_task

CLASSES = Classes(names=["sky", "disc", "box", "road"], things=["disc", "box"])
TASK = make_task("panoptic", CLASSES)
RECIPE = Recipe(parse(LOSS))
THINGS = [1, 2]


def thin(**options):
    torch.manual_seed(0)
    return create_model("panoptic_fpn", classes=4, things=THINGS, **{**THIN, **options})


def scene(shift=0):
    """An image [3, 64, 96] in four colours and its truth: sky above a road, a disc, two boxes that touch."""
    ids = torch.zeros(64, 96, dtype=torch.int64)
    ids[40:] = 1
    y, x = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    ids[(y - 24) ** 2 + (x - 20 - shift) ** 2 < 14**2] = 2
    ids[34:58, 50 : 50 + 20] = 3
    ids[10:30, 60 : 60 + 24] = 4
    ids[:2] = UNKNOWN
    truth = Segments(ids, [0, 3, 1, 2, 2])
    colours = torch.tensor([[0.0, 0.2, 1.0], [-0.5, -0.5, -0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.2, 0.8, -0.4]])
    image = colours[ids.clamp_min(0)].permute(2, 0, 1)
    return image + 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(shift)), truth


# -- the branch -------------------------------------------------------------------------------------------------------


def test_the_branch_adds_up_enlarged_levels_at_a_quarter_of_the_size():
    torch.manual_seed(0)
    branch = SemanticBranch(outputs=3, width=6, branch=8, levels=3).eval()
    maps = [torch.randn(2, 6, 16 >> k, 24 >> k) for k in range(3)]
    total = torch.zeros(2, 8, 16, 24)
    for level, x in enumerate(maps):
        for stage in branch.stages[level]:
            x = F.relu(F.group_norm(F.conv2d(x, stage[0].weight, padding=1), 8, stage[1].weight, stage[1].bias))
            if level:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        total += x
    expected = F.conv2d(total, branch.predictor.weight, branch.predictor.bias)
    found = branch({"0": maps[0], "1": maps[1], "2": maps[2], "pool": torch.randn(2, 6, 2, 3)})
    assert torch.allclose(found, expected, atol=1e-5)
    assert [len(stages) for stages in branch.stages] == [1, 1, 2]


def test_group_norm_has_the_papers_groups():
    norms = [m for m in SemanticBranch(outputs=3, width=6, branch=128, levels=2).modules() if hasattr(m, "num_groups")]
    assert [m.num_groups for m in norms] == [32, 32]


@torch.no_grad()
def test_the_branch_tells_stuff_and_one_label_for_all_things():
    net = thin().eval()
    output = net(torch.randn(1, 3, 50, 70))
    assert output.semantic.logits.shape[:2] == (1, 3)  # sky, road, things
    assert output.semantic.probs(0).shape == (3, 50, 70)
    probs = output.probs(0)
    assert probs.shape == (4, 50, 70)
    assert torch.allclose(probs.sum(0), torch.ones(50, 70), atol=1e-5)


@torch.no_grad()
def test_stuff_shows_where_no_object_is():
    net = thin(score=1.0).eval()  # nothing is found
    for k, label in ((0, 0), (1, 3)):
        net.semantic.predictor.bias[:] = -9.0
        net.semantic.predictor.bias[k] = 9.0
        output = net(torch.randn(1, 3, 64, 64))
        assert output.class_map(0).unique().tolist() == [label]
        assert TASK.decode(output, 0).labels.tolist() == [label]
    net.semantic.predictor.bias[:] = torch.tensor([-9.0, -9.0, 9.0])  # things, but none was found
    assert (TASK.decode(net(torch.randn(1, 3, 64, 64)), 0).ids == UNKNOWN).all()


def test_numbers_of_the_merge_are_options():
    merge = thin(confidence=0.7, free=0.4, stuff_area=9).merge
    assert (merge.rule, merge.score, merge.overlap, merge.stuff_area) == ("paint", 0.7, 0.4, 9)
    default = thin().merge
    assert (default.score, default.overlap, default.stuff_area) == (0.5, 0.5, 4096)  # the paper's


@pytest.mark.parametrize("options", [{"branch": 0}, {"branch": True}, {"stuff_area": -1}, {"confidence": 1.5},
                                     {"free": "half"}, {"stuff_area": 1.5}])  # fmt: skip
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        thin(**options)


def test_things_alone_are_refused():
    with pytest.raises(ConfigError, match=r"no stuff.*take mask_rcnn"):
        create_model("panoptic_fpn", classes=4, things=[0, 1, 2, 3], **THIN)


# -- learning ---------------------------------------------------------------------------------------------------------


def test_the_loss_has_six_terms_and_reaches_every_weight():
    net = thin().train()
    pictures, truths = zip(*(scene(s) for s in (0, 5)))
    views = tuple(TASK.view(t) for t in truths)
    losses = criterion(net(torch.stack(pictures), truths=views), views, TASK, RECIPE)
    assert set(losses) == {"objectness", "anchor", "class", "box", "mask", "semantic.ce"}
    sum(losses.values()).backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    assert net.semantic.predictor.weight.grad.abs().sum() > 0


def test_the_branch_learns_stuff_things_and_not_the_unknown():
    net = thin().train()
    picture, truth = scene()
    view = TASK.view(truth)
    output = net(picture[None], truths=(view,))
    found = criterion(output, (view,), TASK, RECIPE)["semantic.ce"]
    target = torch.tensor([0, 1, 2, 2, 2])[truth.ids.clamp_min(0)]  # sky 0, road 1, things 2
    target[truth.ids == UNKNOWN] = 255
    expected = F.cross_entropy(output.semantic.full()[:, :, :64, :96], target, ignore_index=255)
    assert found.item() == pytest.approx(0.5 * expected.item(), rel=1e-4)


@pytest.mark.parametrize("truth", [
    Segments(torch.zeros(64, 96, dtype=torch.int8), [0]),
    Segments.empty((64, 96), fill=UNKNOWN),
], ids=["no object", "all unknown"])  # fmt: skip
def test_images_without_objects_give_a_finite_loss(truth):
    net = thin().train()
    view = TASK.view(truth)
    losses = criterion(net(scene()[0][None], truths=(view,)), (view,), TASK, RECIPE)
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    assert all(p.grad is not None for p in net.parameters())
