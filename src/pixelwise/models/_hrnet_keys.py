"""HRNet's weights in the names of mmsegmentation and of the authors (github.com/HRNet/HRNet-Semantic-Segmentation).

The authors' nets (branches pytorch-v1.1 and HRNet-OCR) enlarge with aligned corners where they have OCR or were trained
on ADE20K or COCO-Stuff, else by half pixels; so the shapes tell. For weights of one's own that differ, give
`align_corners`. Evaluating, the authors resize images of PASCAL-Context, ADE20K and COCO-Stuff to a shorter side of 520
and pad them to a multiple of 8; here they are not padded, so their last pixels may differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pixelwise.core.keys import Dialect, Rule, prefixed
from pixelwise.core.sample import Preprocessing
from pixelwise.core.sizes import SizeRule
from pixelwise.nn.encoder_keys import MMSEG

ADE20K, COCO_STUFF = 150, 171  # classes
BODY = (r"((?:conv|bn)[12]\..*|layer1\..*|transition[123]\..*|stage[234]\..*)", r"\1")


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers the pattern's group takes at the beginnings of the names."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _body(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Options of the body, whose names begin with `prefix` (with its last dot)."""
    place = re.escape(prefix)
    stem, channels = tensors[f"{prefix}conv1.weight"].shape[:2]
    return {
        "channels": channels,
        "width": tensors[f"{prefix}stage2.0.branches.0.0.conv1.weight"].shape[0],
        "modules": [_count(tensors, rf"{place}stage{n}\.(\d+)\.") for n in (2, 3, 4)],
        "blocks": _count(tensors, rf"{place}stage2\.0\.branches\.0\.(\d+)\."),
        "stem": stem,
        "first": [_count(tensors, rf"{place}layer1\.(\d+)\."), len(tensors[f"{prefix}layer1.0.conv1.weight"])],
    }


def _mmseg(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    found = {**_body(tensors, "backbone."), "by_factor": True}
    if "decode_head.1.conv_seg.weight" not in tensors:
        return {**found, "classes": len(tensors["decode_head.conv_seg.weight"])}
    classes, ocr = tensors["decode_head.1.conv_seg.weight"].shape[:2]
    return {**found, "classes": classes, "ocr": ocr, "aux": 0.4}


def _authors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    prefix = "model." if "model.conv1.weight" in tensors else ""
    found = {**_body(tensors, prefix), "bias": True}
    if f"{prefix}cls_head.weight" not in tensors:
        classes = len(tensors[f"{prefix}last_layer.3.weight"])
        return {**found, "classes": classes, "align_corners": classes in (ADE20K, COCO_STUFF)}
    classes, ocr = tensors[f"{prefix}cls_head.weight"].shape[:2]
    return {**found, "classes": classes, "ocr": ocr, "aux": 0.4, "dropout": 0.05, "align_corners": True}


def _mmseg_rules() -> tuple[Rule, ...]:
    """A convolution and its norm are `conv` and `bn` there, 0 and 1 here."""
    places = {
        r"decode_head\.(?:0\.)?convs\.0": "mix",
        r"decode_head\.1\.bottleneck": "ocr.pixels",
        r"decode_head\.1\.object_context_block\.query_project\.(\d)": r"ocr.phi.\1",
        r"decode_head\.1\.object_context_block\.key_project\.(\d)": r"ocr.psi.\1",
        r"decode_head\.1\.object_context_block\.value_project": "ocr.delta",
        r"decode_head\.1\.object_context_block\.out_project": "ocr.rho",
        r"decode_head\.1\.object_context_block\.bottleneck": "ocr.g",
    }
    parts = {rf"{there}\.{kind}\.(?P<leaf>.*)": rf"{here}.{i}.\g<leaf>"
             for there, here in places.items() for i, kind in enumerate(("conv", "bn"))}  # fmt: skip
    return (
        *prefixed("backbone.", "body.", [BODY]),
        *parts.items(),
        (r"decode_head\.(?:0\.)?conv_seg\.(.*)", r"scores.\1"),
        (r"decode_head\.1\.conv_seg\.(.*)", r"classifier.\1"),
    )


def _authors_rules() -> tuple[Rule, ...]:
    """Behind `model.` where the whole training module was saved, with the weights of the loss beside it."""
    context = r"ocr_distri_head\.object_context_block\."
    rules: list[Rule] = [
        (BODY[0], rf"body.{BODY[1]}"),
        (r"(?:last_layer|aux_head)\.([01]\..*)", r"mix.\1"),
        (r"(?:last_layer|aux_head)\.3\.(.*)", r"scores.\1"),
        (r"conv3x3_ocr\.([01]\..*)", r"ocr.pixels.\1"),
        (r"cls_head\.(.*)", r"classifier.\1"),
    ]
    for there, here in {"f_pixel": "phi", "f_object": "psi"}.items():  # convolution, (norm, ReLU), both again
        for i in range(2):
            rules += [(rf"{context}{there}\.{2 * i}\.(.*)", rf"ocr.{here}.{i}.0.\1"),
                      (rf"{context}{there}\.{2 * i + 1}\.0\.(.*)", rf"ocr.{here}.{i}.1.\1")]  # fmt: skip
    for there, here in {rf"{context}f_down": "delta", rf"{context}f_up": "rho",
                        r"ocr_distri_head\.conv_bn_dropout": "g"}.items():  # fmt: skip
        rules += [(rf"{there}\.0\.(.*)", rf"ocr.{here}.0.\1"), (rf"{there}\.1\.0\.(.*)", rf"ocr.{here}.1.\1")]
    return ((r"loss\..*", ""), *((rf"(?:model\.)?(?:{pattern})", ours) for pattern, ours in rules))


KEYS = {
    "mmseg": Dialect(
        signs=(r"^backbone\.stage4\.", r"^decode_head\.(0\.)?convs\.0\.conv\.weight$"),
        rules=_mmseg_rules(),
        options=_mmseg,
        **MMSEG,
    ),
    "HRNet": Dialect(
        signs=(r"^(model\.)?stage4\.", r"^(model\.)?(last_layer|ocr_distri_head)\."),
        rules=_authors_rules(),
        options=_authors,
        preprocessing=Preprocessing(),
        sizes={n: SizeRule(short=520, antialias=False) for n in (59, 60, ADE20K, COCO_STUFF)},
        labels={19: "cityscapes", ADE20K: "ade20k"},
    ),
}
