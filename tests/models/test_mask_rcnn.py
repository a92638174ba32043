"""Mask R-CNN: torchvision's boxes, scores, labels, masks and losses from the same weights, and steady training."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.models.detection import MaskRCNN as Theirs
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

from pixelwise.checkpoints import from_checkpoint, load_weights
from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Frame
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Preprocessing
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.models.mask_rcnn import KEYS
from pixelwise.tasks import Instance
from pixelwise.views import look

RULE = SizeRule(short=96, long=160, rounding="floor", antialias=False)
FEW = {"before_nms": 60, "after_nms": 60, "score": 0.3, "keep": 12}
FEW_THERE = {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 60, "box_score_thresh": 0.3,
             "box_detections_per_img": 12, "min_size": 96, "max_size": 160}  # fmt: skip
THIN = {"encoder": "resnet10t", "encoder_norm": "group", "norm": "group", "width": 16, "box_width": 32,
        "before_nms": 60, "after_nms": 40, "drawn_boxes": 32, "keep": 20}  # fmt: skip
TASK = Instance(Classes(names=["cat", "dog"], things=["cat", "dog"]))


@torch.no_grad()
def lively(net: nn.Module) -> nn.Module:
    """Random weights that find several objects of several classes: norms fit the features, and over the proposals of an
    image the logits of every class have mean 0 and deviation 2."""
    for norm in net.backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    images = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(3))
    net.backbone.train()((images - 0.45) / 0.225)
    seen: list[torch.Tensor] = []
    score = net.roi_heads.box_predictor.cls_score
    hook = score.register_forward_hook(lambda module, inputs, logits: seen.append(logits))
    net.eval()(list(images))
    hook.remove()
    score.weight.mul_(2 / seen[0].std(0)[:, None])
    score.bias.copy_((score.bias - seen[0].mean(0)) * 2 / seen[0].std(0))
    net.roi_heads.mask_predictor.mask_fcn_logits.weight.mul_(4)
    return net


def small_there(**options: Any) -> nn.Module:
    """torchvision's net on a ResNet-18."""
    torch.manual_seed(0)
    return Theirs(_resnet_fpn_extractor(resnet18(weights=None), 5), num_classes=4, **options)


def small_here(theirs: nn.Module, **options: Any) -> nn.Module:
    net = create_model("mask_rcnn-resnet50_fpn", classes=4, encoder="resnet18", **options)
    assert load_weights(net, theirs.state_dict()).dialect == "torchvision"
    return net.eval()


@torch.no_grad()
def assert_same_detections(theirs: nn.Module, ours: nn.Module, size: tuple[int, int]) -> None:
    """The same detections on an image of this size: boxes within a hundredth of a pixel, masks but for rare pixels."""
    stored = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    want = theirs([stored[0].float() / 255])[0]
    output = look(ours, Preprocessing(size=RULE)(stored), rule=RULE)
    assert len(want["boxes"]) >= 5
    assert len(want["labels"].unique()) >= 2
    torch.testing.assert_close(output.original_boxes(0), want["boxes"], atol=1e-2, rtol=0)
    torch.testing.assert_close(output.scores[0], want["scores"], atol=1e-4, rtol=0)
    assert torch.equal(output.labels[0], want["labels"] - 1)  # the background is not the first here
    found = output.candidates(0)
    masks = torch.zeros(len(found.crops), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1), crop in zip(masks, found.boxes.tolist(), found.crops):
        mask[y0:y1, x0:x1] = torch.from_numpy(crop)
    theirs_cut = want["masks"][:, 0] >= 0.5
    assert theirs_cut.sum() > 100
    # a value of 0.5 to the sixth decimal, or a box edge on a whole pixel, falls either way
    assert (masks != theirs_cut).sum() <= 1e-3 * theirs_cut.sum()


# -- torchvision's nets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("mask_rcnn-resnet50_fpn", {}, 44_454_513),
        ("mask_rcnn-resnet50_fpn", {"frozen_norm": True, "norm_eps": 0.0}, 44_401_393),
        ("mask_rcnn-resnet50_fpn_v2", {}, 46_359_409),
    ],
)
def test_as_many_parameters_as_torchvision_has(name, options, count):
    with torch.device("meta"):
        net = create_model(name, classes=91, **options)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("size", [(96, 160), (75, 101), (160, 130)])
def test_the_same_detections_as_torchvision(size):
    theirs = lively(small_there(**FEW_THERE))
    assert_same_detections(theirs, small_here(theirs, **FEW), size)


@pytest.mark.slow
def test_the_published_net_is_built_from_its_file(tmp_path):
    """Norms frozen, epsilon 0, names as they were when the file was published."""
    torch.manual_seed(0)
    theirs = lively(Theirs(_resnet_fpn_extractor(resnet50(weights=None), 5), num_classes=91, **FEW_THERE))
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    frozen = _resnet_fpn_extractor(resnet50(weights=None, norm_layer=FrozenBatchNorm2d), 5)
    theirs = Theirs(frozen, num_classes=91, **FEW_THERE).eval()
    theirs.load_state_dict(state)
    overwrite_eps(theirs, 0.0)
    old = {}
    for name, tensor in state.items():
        name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name).replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        old[re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", name)] = tensor
    torch.save(old, tmp_path / "file.pth")
    ours, card = from_checkpoint(tmp_path / "file.pth", **FEW)
    assert card.classes.names[0] == "person"
    assert card.preprocessing.size == SizeRule(short=800, long=1333, rounding="floor", antialias=False)
    assert_same_detections(theirs, ours, (75, 101))


@pytest.mark.slow
def test_the_second_version_is_built_from_its_file(tmp_path):
    torch.manual_seed(0)
    theirs = lively(maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=91, **FEW_THERE))
    torch.save(theirs.state_dict(), tmp_path / "file.pth")
    ours, card = from_checkpoint(tmp_path / "file.pth", **FEW)
    assert (card.options["norm"], card.options["rpn_convs"], card.options["box_convs"]) == ("batch", 2, 4)
    assert_same_detections(theirs, ours, (96, 140))


def test_background_moves_from_first_to_last():
    change = KEYS["torchvision"].change
    rows = torch.arange(12.0)
    assert change("roi_heads.box_predictor.cls_score.bias", rows[:3]).tolist() == [1, 2, 0]
    assert change("roi_heads.box_predictor.bbox_pred.bias", rows).tolist() == [*range(4, 12), *range(4)]
    assert change("roi_heads.mask_predictor.mask_fcn_logits.bias", rows[:3]).tolist() == [1, 2, 0]
    assert change("roi_heads.box_head.fc6.bias", rows[:3]).tolist() == [0, 1, 2]


def two_images() -> tuple[Segments, Segments]:
    masks = torch.zeros(2, 3, 96, 160, dtype=torch.bool)
    masks[0, 0, 10:50, 20:60], masks[0, 1, 60:90, 100:150], masks[0, 2, 5:25, 110:120] = True, True, True
    masks[1, 0, 30:96, 10:70], masks[1, 1, 0:30, 100:160], masks[1, 2, 60:80, 100:140] = True, True, True
    masks[1, 0, 40:60, 30:50] = False
    return Segments.from_masks(masks[0], [0, 1, 2]), Segments.from_masks(masks[1], [2, 0, 1])


def test_the_same_losses_as_torchvision_on_the_same_draws():
    theirs = small_there(min_size=96, max_size=160, rpn_pre_nms_top_n_train=80, rpn_post_nms_top_n_train=80,
                         box_batch_size_per_image=32, image_mean=[0.0] * 3, image_std=[1.0] * 3)  # fmt: skip
    theirs.transform._skip_resize = True  # it would draw a random number
    ours = small_here(theirs, before_nms=40, after_nms=40, drawn_boxes=32)
    truths, images = two_images(), torch.randn(2, 3, 96, 160)
    targets = [{"boxes": t.pixel_boxes, "labels": t.labels + 1, "masks": t.masks.byte()} for t in truths]
    torch.manual_seed(1)
    want = theirs.train()(list(images), targets)
    torch.manual_seed(1)
    found = criterion(ours.train()(images, truths=truths), truths, TASK, Recipe())
    names = {"objectness": "loss_objectness", "anchor": "loss_rpn_box_reg", "class": "loss_classifier",
             "box": "loss_box_reg", "mask": "loss_mask"}  # fmt: skip
    assert set(found) == set(names)
    for name, theirs_name in names.items():
        torch.testing.assert_close(found[name], want[theirs_name], rtol=1e-3, atol=1e-5)


# -- frames -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_batch_answers_as_its_images_do():
    net = lively(small_there())
    net = small_here(net, **FEW)
    images = torch.randn(2, 3, 70, 90)
    together = net(images)
    for i in range(2):
        alone = net(images[i : i + 1])
        torch.testing.assert_close(together.boxes[i], alone.boxes[0], atol=1e-2, rtol=0)
        torch.testing.assert_close(together.masks[i], alone.masks[0], atol=1e-3, rtol=0)


@torch.no_grad()
def test_what_lies_around_an_image_does_not_matter_and_holds_no_box():
    net = small_here(lively(small_there()), **FEW)
    images = torch.randn(1, 3, 96, 128)
    frame = Frame(original=(140, 180), padded=(96, 128), window=(0, 0, 70, 90))
    found = net(images, (frame,))
    images[:, :, 70:], images[..., 90:] = 7.0, -7.0
    again = net(images, (frame,))
    assert torch.equal(found.boxes[0], again.boxes[0])
    assert len(found.boxes[0]) > 3
    boxes = found.original_boxes(0)
    assert boxes.min() >= 0
    assert (boxes.amax(0) <= torch.tensor([180.0, 140, 180, 140]) + 1e-3).all()
    assert boxes[:, 2].max() > 100


# -- training ---------------------------------------------------------------------------------------------------------


def thin(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model("mask_rcnn-small", classes=4, **{**THIN, **options})


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_every_weight_learns_and_an_image_without_objects_is_no_harm(norm):
    net = thin(norm=norm, box_convs=1).train()
    images = torch.randn(2, 3, 96, 160)
    for truths in (two_images(), (Segments.empty((96, 160)),) * 2, (Segments.empty((96, 160), fill=UNKNOWN),) * 2):
        losses = criterion(net(images, truths=truths), truths, TASK, Recipe())
        net.zero_grad()
        sum(losses.values()).backward()
        for name, weight in net.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
            assert len(truths[0]) == 0 or weight.grad.abs().max() > 0, name
    assert all(buffer.isfinite().all() for buffer in net.buffers())


def test_boxes_are_drawn_and_the_loss_is_float32_under_autocast():
    net, truths = thin().train(), two_images()
    with torch.autocast("cpu", torch.bfloat16):
        output = net(torch.randn(2, 3, 96, 160), truths=truths)
    sampled = output.sampled
    assert {t.dtype for t in (sampled.anchors, sampled.objectness, sampled.class_logits, sampled.mask_logits)} == {
        torch.float32
    }
    assert all(len(boxes) == 32 for boxes in sampled.boxes)
    assert all((rows >= 0).sum() >= 3 for rows in sampled.rows)  # the truth itself is among the proposals
    losses = criterion(output, truths, TASK, Recipe())
    sum(losses.values()).backward()
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = net.eval()(torch.randn(1, 3, 96, 160))
    assert found.boxes[0].dtype == found.masks[0].dtype == torch.float32


def test_labels_between_stuff_are_told_apart():
    """Panoptic truth: things with labels 1 and 3 of 5; stuff is background."""
    net = thin(things=[1, 3]).train()
    ids = torch.full((1, 96, 160), NOTHING, dtype=torch.int8)
    ids[:, 60:], ids[0, 10:50, 20:60], ids[0, 10:50, 90:140] = 0, 1, 2
    truths = (Segments(ids, [0, 3, 1]),)
    output = net(torch.randn(1, 3, 96, 160), truths=truths)
    assert set(output.sampled.rows[0].tolist()) == {-1, 1, 2}
    losses = criterion(output, truths, TASK, Recipe())
    assert all(loss.isfinite() for loss in losses.values())
    net.eval().roi_heads.score_thresh = 0.0
    with torch.no_grad():
        assert set(net(torch.randn(1, 3, 96, 160)).labels[0].tolist()) <= {1, 3}


@pytest.mark.slow
def test_it_learns_two_images_by_heart():
    net, truths = thin(), two_images()
    images = torch.stack([(t.class_map(9, 9).float() - 4) / 4 for t in truths])[:, None].repeat(1, 3, 1, 1)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(150):
        losses = criterion(net.train()(images, truths=truths), truths, TASK, Recipe())
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
    with torch.no_grad():
        output = net.eval()(images)
    task = Instance(Classes(names=["a", "b", "c"], things=["a", "b", "c"]))
    metric = task.metric()
    for i, truth in enumerate(truths):
        metric.update(task.decode(output, i), truth, index=i)
    assert metric.compute()["ap50"] > 0.8


# -- what is refused --------------------------------------------------------------------------------------------------


def test_training_needs_truths():
    with pytest.raises(ConfigError, match="truths"):
        thin().train()(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoder": "vit_tiny_patch16_224"}, "pyramid"),
        ({"encoder": "resnet51x"}, "resnet"),
        ({"keep": 0}, "keep is 0"),
        ({"keep": 121, "after_nms": 40}, "keep=121"),
        ({"score": 2}, "score is 2"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"encoder_norm": "layer"}, "encoder_norm"),
        ({"frozen_norm": True}, "frozen_norm"),
        ({"things": [2, 1]}, "rising"),
        ({"things": [4]}, "things"),
        ({"things": "ab"}, "things"),
        ({"ratios": [1.0, 0.0]}, "ratios"),
        ({"ratios": "a"}, "ratios"),
        ({"channels": 0}, "channels is 0"),
        ({"aligned": "yes"}, "aligned is 'yes'"),
        ({"norm_eps": 0.0}, "frozen_norm=true only"),
        ({"stride_in_1x1": True}, "bottlenecks"),
        ({"encoder": "convnext_atto"}, "no batch norms"),
        ({"encoder": "convnext_atto", "encoder_norm": "batch", "frozen_norm": True}, "no batch norm"),
    ],
)
def test_wrong_options_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        thin(**options)


def test_one_class_is_background_alone():
    with pytest.raises(ConfigError, match="there must be two"):
        create_model("mask_rcnn-small", classes=1)
