"""Panoptic FPN (Kirillov, Girshick, He, Dollar 2019, 1901.02446): Mask R-CNN and a semantic branch on one pyramid.

The branch brings every level to a quarter of the image's size by stages of 3x3 convolution, group norm, ReLU and
twofold bilinear enlargement, adds them up and labels the pixels: each kind of stuff, and one label for all things.
Objects are painted by their score, stuff takes what they leave (Kirillov et al. 2018, 1801.00868).

`detectron2_r50` is detectron2's net, whose files load. `small` is for training from nothing on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pixelwise.core.keys import Dialect, Rule
from pixelwise.core.outputs import Merge
from pixelwise.errors import ConfigError
from pixelwise.models import _detectron2, mask_rcnn
from pixelwise.models.fpn import SemanticBranch
from pixelwise.models.mask_rcnn import MaskRCNN

PAPER = {"title": "Panoptic Feature Pyramid Networks", "year": 2019, "arxiv": "1901.02446"}
TASKS = ("panoptic",)
LOSS = "0.5*ce"  # of the semantic branch; half as much as the losses of the objects, the paper's choice on COCO

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "small": {**mask_rcnn.VARIANTS["small"], "branch": 64, "stuff_area": 64},  # 4096 is a large part of small images
    "detectron2_r50": _detectron2.LAYOUT,
}
THIN = {**mask_rcnn.THIN, "branch": 8}  # for the tests of what every net promises
DRAWS = mask_rcnn.DRAWS
NOT_EXPORTED = mask_rcnn.NOT_EXPORTED


class PanopticFPN(MaskRCNN):
    """net(images [B, C, H, W], frames, truths) -> Regions with `semantic`; any H, W. Parts as in `MaskRCNN`."""


def build(*, classes: int, things: Sequence[int] | None = None, branch: int = 128, stuff_area: int = 4096,
          confidence: float = 0.5, free: float = 0.5, channels: int = 3, encoder: str = "resnet50",
          pretrained: bool = False, frozen_norm: bool = False, norm_eps: float | None = None,
          encoder_norm: str = "batch", stride_in_1x1: bool = False, norm: str = "none", width: int = 256,
          rpn_convs: int = 1, box_convs: int = 0, box_width: int = 1024, mask_convs: int = 4, aligned: bool = True,
          sampling: int = 2, anchor: int = 32, ratios: Sequence[float] = (0.5, 1.0, 2.0), before_nms: int = 1000,
          after_nms: int = 1000, drawn_anchors: int = 256, drawn_boxes: int = 512, score: float = 0.05,
          overlap: float = 0.5, keep: int = 100) -> PanopticFPN:  # fmt: skip
    """Panoptic FPN with numbers; those not said here are Mask R-CNN's.

    things       labels that are objects; None: all but the last
    branch       channels of the semantic branch
    confidence   least score of an object in the panoptic map (the task's own threshold goes before)
    free         least share of an object that must be free when it is painted
    stuff_area   stuff segments with fewer pixels become unknown
    Raises ConfigError for what cannot be.
    """
    for name, number, least in (("branch", branch, 1), ("stuff_area", stuff_area, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ConfigError(f"Panoptic FPN: {name} is {number!r}; it must be a whole number from {least} up.")
    for name, share in (("confidence", confidence), ("free", free)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ConfigError(f"Panoptic FPN: {name} is {share!r}; it must be a number in 0..1.")
    net = mask_rcnn.build(
        classes=classes, things=things, channels=channels, encoder=encoder, pretrained=pretrained,
        frozen_norm=frozen_norm, norm_eps=norm_eps, encoder_norm=encoder_norm, stride_in_1x1=stride_in_1x1, norm=norm,
        width=width, rpn_convs=rpn_convs, box_convs=box_convs, box_width=box_width, mask_convs=mask_convs,
        aligned=aligned, sampling=sampling, anchor=anchor, ratios=ratios, before_nms=before_nms, after_nms=after_nms,
        drawn_anchors=drawn_anchors, drawn_boxes=drawn_boxes, score=score, overlap=overlap, keep=keep,
    )  # fmt: skip
    if len(net.things) == classes:
        raise ConfigError(
            f"Panoptic FPN: all {classes} classes are things, so there is no stuff for its semantic branch: take "
            "mask_rcnn for them."
        )
    levels = len(net.backbone.names) - 1  # all but the coarsest, which has no map of its own
    semantic = SemanticBranch(outputs=classes - len(net.things) + 1, width=width, branch=branch, levels=levels)
    merge = Merge("paint", overlap=free, score=confidence, stuff_area=stuff_area)
    return PanopticFPN(backbone=net.backbone, rpn=net.rpn, roi_heads=net.roi_heads, channels=classes,
                       things=net.things, aligned=aligned, semantic=semantic, merge=merge)  # fmt: skip


def _options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Labels are the things, then the stuff; detectron2's branch has one output more, for all things."""
    things = len(tensors["roi_heads.mask_head.predictor.bias"])
    stuff = len(tensors["sem_seg_head.predictor.bias"]) - 1
    return {"classes": things + stuff, "things": list(range(things)),
            "branch": tensors["sem_seg_head.predictor.weight"].shape[1], **_detectron2.layout(tensors)}  # fmt: skip


def _things_last(name: str, tensor: Tensor) -> Tensor:
    """The branch's output for all things is detectron2's first and our last."""
    return tensor.roll(-1, 0) if name.startswith("semantic.predictor.") else tensor


BRANCH: tuple[Rule, ...] = (
    *(
        rule
        for level in range(4)
        for stage in range(max(1, level))  # detectron2 counts the enlargements too
        for rule in (
            (rf"sem_seg_head\.p{level + 2}\.{2 * stage}\.weight", f"semantic.stages.{level}.{stage}.0.weight"),
            (rf"sem_seg_head\.p{level + 2}\.{2 * stage}\.norm\.(.*)", rf"semantic.stages.{level}.{stage}.1.\1"),
        )
    ),
    (r"sem_seg_head\.predictor\.(.*)", r"semantic.predictor.\1"),
)
KEYS = {
    "detectron2": Dialect(
        signs=(*_detectron2.SIGNS, r"^sem_seg_head\.p5\.4\.norm\.", r"^sem_seg_head\.predictor\."),
        rules=(*_detectron2.MASK_RCNN, *BRANCH),
        options=_options,
        preprocessing=_detectron2.PREPROCESSING,
        task="panoptic",
        labels={133: "coco-panoptic"},
        change=_things_last,
    ),
}
