"""detectron2's names (Wu et al. 2019) for the parts of Mask R-CNN on a ResNet's pyramid, which its nets share.

What its files expect beside: images in BGR with the means of Caffe's ResNets and no deviation, shorter side 800; the
stride of a bottleneck in its first 1x1; aligned RoIAlign with a point a pixel; background last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pixelwise.core.keys import Dialect, Rule, prefixed
from pixelwise.core.sample import Preprocessing
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ModelFileError

PREPROCESSING = Preprocessing(
    order="BGR",
    mean=(103.53 / 255, 116.28 / 255, 123.675 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    size=SizeRule(short=800, long=1333),
)
NORM = r"(weight|bias|running_mean|running_var)"
BLOCKS = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101"}  # bottlenecks a stage

# the ResNet, in timm's names
RESNET: tuple[Rule, ...] = (
    (r"stem\.conv1\.weight", "conv1.weight"),
    (rf"stem\.conv1\.norm\.{NORM}", r"bn1.\1"),
    *(
        rule
        for stage in range(2, 6)
        for rule in (
            (rf"res{stage}\.(\d+)\.conv(\d)\.weight", rf"layer{stage - 1}.\1.conv\2.weight"),
            (rf"res{stage}\.(\d+)\.conv(\d)\.norm\.{NORM}", rf"layer{stage - 1}.\1.bn\2.\3"),
            (rf"res{stage}\.(\d+)\.shortcut\.weight", rf"layer{stage - 1}.\1.downsample.0.weight"),
            (rf"res{stage}\.(\d+)\.shortcut\.norm\.{NORM}", rf"layer{stage - 1}.\1.downsample.1.\2"),
        )
    ),
)

MASK_RCNN: tuple[Rule, ...] = (
    *prefixed("backbone.bottom_up.", "backbone.encoder.body.", RESNET),
    *((rf"backbone\.fpn_lateral{n}\.(.*)", rf"backbone.fpn.inner_blocks.{n - 2}.0.\1") for n in range(2, 6)),
    *((rf"backbone\.fpn_output{n}\.(.*)", rf"backbone.fpn.layer_blocks.{n - 2}.0.\1") for n in range(2, 6)),
    (r"proposal_generator\.rpn_head\.conv\.(.*)", r"rpn.head.conv.0.0.\1"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(.*)", r"rpn.head.cls_logits.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(.*)", r"rpn.head.bbox_pred.\1"),
    (r"roi_heads\.box_head\.fc1\.(.*)", r"roi_heads.box_head.fc6.\1"),
    (r"roi_heads\.box_head\.fc2\.(.*)", r"roi_heads.box_head.fc7.\1"),
    (r"(roi_heads\.box_predictor\..*)", r"\1"),
    *((rf"roi_heads\.mask_head\.mask_fcn{n}\.(.*)", rf"roi_heads.mask_head.{n - 1}.0.\1") for n in range(1, 5)),
    (r"roi_heads\.mask_head\.deconv\.(.*)", r"roi_heads.mask_predictor.conv5_mask.\1"),
    (r"roi_heads\.mask_head\.predictor\.(.*)", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
    (r"pixel_mean|pixel_std|proposal_generator\.anchor_generator\..*", ""),  # older files keep these constants
)
SIGNS = (
    r"^backbone\.bottom_up\.res5\.0\.conv3\.weight$",
    r"^backbone\.fpn_lateral2\.",
    r"^proposal_generator\.rpn_head\.objectness_logits\.",
    r"^roi_heads\.box_predictor\.cls_score\.",
    r"^roi_heads\.mask_head\.predictor\.",
)
LAYOUT: dict[str, Any] = {"frozen_norm": True, "stride_in_1x1": True, "sampling": 0}


def layout(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options that hold for all its nets on a ResNet. Raises ModelFileError for another ResNet than 50 and 101."""
    stages = tuple(
        len({name.split(".")[3] for name in tensors if name.startswith(f"backbone.bottom_up.res{stage}.")})
        for stage in range(2, 6)
    )
    grouped = tensors["backbone.bottom_up.res2.0.conv2.weight"].shape[1] < 64  # a ResNeXt
    if stages not in BLOCKS or grouped:
        kind = "a ResNeXt" if grouped else "a ResNet"
        raise ModelFileError(f"its backbone is {kind} of {list(stages)} blocks; ResNet-50 and -101 are known.")
    return {"encoder": BLOCKS[stages], **LAYOUT}


def _options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"classes": len(tensors["roi_heads.box_predictor.cls_score.bias"]), **layout(tensors)}


DIALECT = Dialect(
    signs=SIGNS,
    rules=MASK_RCNN,
    options=_options,
    preprocessing=PREPROCESSING,
    task="instance",
    labels={81: "coco", 9: "cityscapes-things"},
)
