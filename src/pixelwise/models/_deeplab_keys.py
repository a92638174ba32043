"""DeepLab in the names of other code bases: torchvision, segmentation_models.pytorch, mmsegmentation, VainF's
DeepLabV3Plus-Pytorch, kazuto1011's deeplab-pytorch, wangleihitcs' DeepLab-V1-PyTorch."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from pixelwise.core.keys import Dialect, Rule, Untold, prefixed
from pixelwise.core.sample import Preprocessing
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ModelFileError
from pixelwise.nn.encoder_keys import (
    MMSEG,
    MMSEG_AUX,
    MMSEG_BACKBONE,
    RESNET,
    RESNETS,
    mmseg_dilated_encoder,
    resnet_name,
)
from pixelwise.nn.encoder_maps import NETS
from pixelwise.nn.smp_keys import SMP_ENCODER, smp_encoder


def _aspp(foreign: str) -> tuple[Rule, ...]:
    """torchvision's ASPP, which smp and VainF copied, where `foreign` (an expression) is what its names begin with."""
    return (
        (rf"{foreign}convs\.4\.1\.(.*)", r"head.aspp.convs.4.conv.\1"),
        (rf"{foreign}convs\.4\.2\.(.*)", r"head.aspp.convs.4.norm.\1"),
        (rf"{foreign}(convs\.\d\.[01]|project\.[01])\.(\w+)", r"head.aspp.\1.\2"),
    )


# -- torchvision ------------------------------------------------------------------------------------------------------


MOBILENET = (1, 2, 3, 4, 2, 3)  # blocks of MobileNetV3 (large) in each of timm's stages; torchvision has one row
WIDENED = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))  # a block's parts in their order there


def _mobilenet(match: re.Match[str], names: Collection[str]) -> str:
    number, place, rest = int(match["number"]) - 1, int(match["place"]), match["rest"]
    squeezed = f"backbone.{number + 1}.block.2.fc1.weight" in names
    stage = 0
    while stage < len(MOBILENET) and number >= MOBILENET[stage]:
        number, stage = number - MOBILENET[stage], stage + 1
    ours = f"encoder.body.blocks.{stage}.{number}"
    if rest.startswith("fc"):
        return f"{ours}.se.conv_{'reduce' if rest[2] == '1' else 'expand'}.{rest[4:]}"
    parts = (("conv_dw", "bn1"), ("conv_pw", "bn2")) if stage == 0 else WIDENED  # the first does not widen
    place -= squeezed and place == 3
    if place >= len(parts):
        return match.string  # no such part: left over under its own name
    return f"{ours}.{parts[place][int(rest[0])]}.{rest[2:]}"


def _torchvision_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    told = {"version": "v3", "classes": len(tensors["classifier.4.weight"]), "smooth": 1, "rates": [12, 24, 36],
            "multi_grid": [], "dropout": 0.5, "aux": 0.5 if "aux_classifier.4.weight" in tensors else 0.0}  # fmt: skip
    if "backbone.16.0.weight" in tensors:
        return {**told, "encoder": "mobilenet_v3_large", "output_stride": 16, "aux_stride": 8,
                "channels": tensors["backbone.0.0.weight"].shape[1]}  # fmt: skip
    return {**told, "encoder": resnet_name(tensors, "backbone."), "output_stride": 8,
            "channels": tensors["backbone.conv1.weight"].shape[1]}  # fmt: skip


TORCHVISION = Dialect(
    signs=(r"^backbone\.(layer4|16)\.", r"^classifier\.0\.convs\.4\.1\.", r"^classifier\.4\."),
    rules=(
        *prefixed("backbone.", "encoder.body.", RESNET),
        (r"backbone\.0\.0\.(\w+)", r"encoder.body.conv_stem.\1"),
        (r"backbone\.0\.1\.(\w+)", r"encoder.body.bn1.\1"),
        (r"backbone\.(?P<number>\d+)\.block\.(?P<place>[0-3])\.(?P<rest>(?:[01]|fc[12])\.\w+)", _mobilenet),
        (r"backbone\.16\.0\.(\w+)", r"encoder.body.blocks.6.0.conv.\1"),
        (r"backbone\.16\.1\.(\w+)", r"encoder.body.blocks.6.0.bn1.\1"),
        *_aspp(r"classifier\.0\."),
        (r"classifier\.([12])\.(.*)", lambda match, names: f"head.smooth.0.{int(match[1]) - 1}.{match[2]}"),
        (r"classifier\.4\.(.*)", r"head.classify.\1"),
        (r"aux_classifier\.(.*)", r"aux.\1"),
    ),
    options=_torchvision_options,
    preprocessing=Preprocessing(size=SizeRule(short=520, rounding="floor", antialias=True)),
    labels={21: "voc"},
)

# -- segmentation_models.pytorch --------------------------------------------------------------------------------------


def _smp_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """v3+ has its ASPP in a sequence with a separable convolution; v3 before version 0.5 was one itself."""
    classify = tensors["segmentation_head.0.weight"]
    options = {**smp_encoder(tensors), "classes": len(classify), "width": classify.shape[1], "smooth": 1,
               "dropout": 0.5, "rates": [12, 24, 36], "align_corners": True}  # fmt: skip
    options["multi_grid"] = _even(options["encoder"])
    plus = "decoder.block1.0.weight" in tensors
    separable = any(re.match(r"decoder\..*convs\.1\.0\.0\.weight", name) for name in tensors)
    if separable != plus:
        raise ModelFileError("its ASPP is not what its version has by default: in v3 plain, in v3+ separable.")
    if plus:
        return {**options, "version": "v3plus", "output_stride": 16, "convolution": "bare", "refine": 1,
                "skip": len(tensors["decoder.block1.0.weight"])}  # fmt: skip
    return {**options, "version": "v3", "output_stride": 8}


def _even(encoder: str | Untold) -> list[int]:
    """The multi-grid of smp's dilation: its own encoders are dilated alike from the first block of a stage on, those of
    timm as timm does it, and those of `nn/encoder_maps.py` know it themselves."""
    if isinstance(encoder, Untold) or encoder in NETS:
        return []
    blocks = [key[0][-1] for key, name in RESNETS.items() if name == encoder]
    if not blocks:
        raise ModelFileError(f"its encoder is {encoder}; of those that segmentation_models.pytorch dilates itself, "
                             "ResNets, ResNeXts, EfficientNets and MobileNetV2 are known.")  # fmt: skip
    return [1] * blocks[0]


def _smp_v3(match: re.Match[str], names: Collection[str]) -> str:
    place = {"conv": 0, "1": 0, "bn": 1, "2": 1}[match[1]]
    return f"head.smooth.0.{place}.{match[2]}"


SMP = Dialect(
    signs=(r"^encoder\.", r"^decoder\.(aspp|0)\.(0\.)?convs\.4\.1\.", r"^segmentation_head\.0\."),
    rules=(
        *SMP_ENCODER,
        (r"decoder\.aspp\.0\.convs\.([123])\.0\.([01])\.weight", r"head.aspp.convs.\1.\2.weight"),
        (r"decoder\.aspp\.0\.convs\.([123])\.1\.(.*)", r"head.aspp.convs.\1.2.\2"),
        *_aspp(r"decoder\.(?:aspp\.0|aspp|0)\."),
        (r"decoder\.aspp\.1\.([01])\.weight", r"head.smooth.0.\1.weight"),
        (r"decoder\.aspp\.2\.(.*)", r"head.smooth.0.2.\1"),
        (r"decoder\.block1\.([01])\.(.*)", r"head.skip.\1.\2"),
        (r"decoder\.block2\.0\.([01])\.weight", r"head.refine.0.\1.weight"),
        (r"decoder\.block2\.1\.(.*)", r"head.refine.0.2.\1"),
        (r"decoder\.(conv|bn|1|2)\.(\w+)", _smp_v3),
        (r"segmentation_head\.0\.(.*)", r"head.classify.\1"),
        (r"classification_head\..*", ""),  # labels whole images
    ),
    options=_smp_options,
)

# -- mmsegmentation ---------------------------------------------------------------------------------------------------


def _mmseg_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    classify = tensors["decode_head.conv_seg.weight"]
    options = {**mmseg_dilated_encoder(tensors), "version": "v3", "classes": len(classify), "width": classify.shape[1],
               "output_stride": 8, "join": 3, "multi_grid": [], "late_dropout": True}  # fmt: skip
    if "decode_head.c1_bottleneck.conv.weight" in tensors:
        options |= {"version": "v3plus", "skip": len(tensors["decode_head.c1_bottleneck.conv.weight"])}
    return options


def _mean_last(name: str, tensor: Tensor) -> Tensor:
    """mmsegmentation joins [mean, 1x1, 3x3 ...], here the mean comes last."""
    return torch.roll(tensor, -(tensor.shape[1] // 5), 1) if name == "head.aspp.project.0.weight" else tensor


def _mmseg_conv(foreign: str, ours: str) -> tuple[Rule, ...]:
    """A convolution with its norm, or a separable one with its two. `ours` without the last dot."""
    return (
        (rf"{foreign}\.conv\.(\w+)", rf"{ours}.0.\g<1>"),
        (rf"{foreign}\.bn\.(\w+)", rf"{ours}.1.\g<1>"),
    )


MMSEG_SEPARABLE = {"depthwise_conv.conv": "0.0", "depthwise_conv.bn": "0.1", "pointwise_conv.conv": "1",
                   "pointwise_conv.bn": "2"}  # fmt: skip
MMSEG_DEEPLAB = Dialect(
    signs=(r"^backbone\.layer4\.", r"^decode_head\.aspp_modules\.3\.", r"^decode_head\.image_pool\.1\."),
    rules=(
        *MMSEG_BACKBONE,
        (r"decode_head\.image_pool\.1\.conv\.(.*)", r"head.aspp.convs.4.conv.\1"),
        (r"decode_head\.image_pool\.1\.bn\.(.*)", r"head.aspp.convs.4.norm.\1"),
        (r"decode_head\.aspp_modules\.(\d)\.conv\.(.*)", r"head.aspp.convs.\1.0.\2"),
        (r"decode_head\.aspp_modules\.(\d)\.bn\.(.*)", r"head.aspp.convs.\1.1.\2"),
        (
            r"decode_head\.(aspp_modules|sep_bottleneck)\.(\d)\.(\w+_conv\.\w+)\.(\w+)",
            lambda match, names: ".".join(
                ("head", {"aspp_modules": "aspp.convs", "sep_bottleneck": "refine"}[match[1]], match[2],
                 MMSEG_SEPARABLE[match[3]], match[4])
            ),
        ),
        *_mmseg_conv(r"decode_head\.bottleneck", "head.aspp.project"),
        *_mmseg_conv(r"decode_head\.c1_bottleneck", "head.skip"),
        (r"decode_head\.conv_seg\.(.*)", r"head.classify.\1"),
        *MMSEG_AUX,
    ),
    options=_mmseg_options,
    change=_mean_last,
    **MMSEG,
)  # fmt: skip

# -- VainF/DeepLabV3Plus-Pytorch --------------------------------------------------------------------------------------


def _vainf_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Its files do not tell the output stride, 16 by default in its training, nor the rates, which follow from it."""
    options = {"encoder": resnet_name(tensors, "backbone."), "channels": tensors["backbone.conv1.weight"].shape[1],
               "output_stride": 16, "multi_grid": []}  # fmt: skip
    if "classifier.project.0.weight" in tensors:
        return {**options, "version": "v3plus", "classes": len(tensors["classifier.classifier.3.weight"]),
                "convolution": "plain", "refine": 1}  # fmt: skip
    return {**options, "version": "v3", "classes": len(tensors["classifier.classifier.4.weight"]), "smooth": 1}


def _skip_last(name: str, tensor: Tensor) -> Tensor:
    """VainF joins [skip, ASPP], here the skip comes last."""
    if name != "head.refine.0.0.weight":
        return tensor
    return torch.roll(tensor, len(tensor), 1)  # the ASPP is as wide as what comes out


def _vainf(match: re.Match[str], names: Collection[str]) -> str:
    """Behind the join in v3+, behind the ASPP in v3, where that is the sequence's first."""
    plus = "classifier.project.0.weight" in names
    place = int(match[1])
    if place == (3 if plus else 4):
        return f"head.classify.{match[2]}"
    return f"head.refine.0.{place}.{match[2]}" if plus else f"head.smooth.0.{place - 1}.{match[2]}"


VAINF = Dialect(
    signs=(r"^backbone\.layer4\.", r"^classifier\.(aspp|classifier\.0)\.convs\.4\.1\.", r"^classifier\.classifier\."),
    rules=(
        *prefixed("backbone.", "encoder.body.", RESNET),
        *_aspp(r"classifier\.(?:aspp|classifier\.0)\."),
        (r"classifier\.project\.([01])\.(.*)", r"head.skip.\1.\2"),
        (r"classifier\.classifier\.(\d)\.(\w+)", _vainf),
    ),
    options=_vainf_options,
    change=_skip_last,
    labels={19: "cityscapes", 21: "voc"},
)

# -- kazuto1011/deeplab-pytorch ---------------------------------------------------------------------------------------

CAFFE_BLOCK = {"reduce.conv": "conv1", "reduce.bn": "bn1", "conv3x3.conv": "conv2", "conv3x3.bn": "bn2",
               "increase.conv": "conv3", "increase.bn": "bn3", "shortcut.conv": "downsample.0",
               "shortcut.bn": "downsample.1"}  # fmt: skip


def _kazuto_block(match: re.Match[str], names: Collection[str]) -> str:
    stage, block, part, tensor = match.groups()
    return f"encoder.body.layer{int(stage) - 1}.{int(block) - 1}.{CAFFE_BLOCK[part]}.{tensor}"


def _kazuto_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A file with a prefix is of several scales, one without of the net inside."""
    prefix = next(name for name in tensors if name.endswith("aspp.c0.weight")).removesuffix("aspp.c0.weight")
    head = tensors[f"{prefix}aspp.c0.weight"]
    ours = {KAZUTO.rename(name): tensor for name, tensor in tensors.items()}
    branches = sum(bool(re.search(r"aspp\.c\d+\.weight", name)) for name in tensors)
    if branches != 4:
        raise ModelFileError(f"its ASPP has {branches} rates; those of 4 are known: 6, 12, 18, 24.")
    named = {name: tensor for name, tensor in ours.items() if name}
    return {"version": "v2", "classes": len(head), "channels": named["encoder.body.conv1.weight"].shape[1],
            "encoder": resnet_name(named, "encoder.body."), "align_corners": False,
            "scales": [0.5, 0.75, 1.0] if prefix else [1.0]}  # fmt: skip


# Caffe's: blue first, 0..255, only the mean taken off
CAFFE = Preprocessing(order="BGR", mean=(104.008 / 255, 116.669 / 255, 122.675 / 255), std=(1 / 255,) * 3)
KAZUTO = Dialect(
    signs=(r"(^|\.)layer1\.conv1\.conv\.", r"(^|\.)layer5\.block1\.conv3x3\.conv\.", r"(^|\.)aspp\.c0\."),
    rules=(
        (r"(?:base\.|scale\.)?layer1\.conv1\.conv\.(\w+)", r"encoder.body.conv1.\1"),
        (r"(?:base\.|scale\.)?layer1\.conv1\.bn\.(\w+)", r"encoder.body.bn1.\1"),
        (r"(?:base\.|scale\.)?layer([2-5])\.block(\d+)\.(\w+\.(?:conv|bn))\.(\w+)", _kazuto_block),
        (r"(?:base\.|scale\.)?aspp\.c(\d)\.(\w+)", r"head.convs.\1.\2"),
    ),
    options=_kazuto_options,
    preprocessing=CAFFE,
    labels={21: "voc"},
)

# -- wangleihitcs/DeepLab-V1-PyTorch ----------------------------------------------------------------------------------

STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # places of the convolutions in its one sequence
FC_PLACES = {"fc6": 32, "fc7": 35, "fc8": 38}


def _wang_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    first = tensors["features.0.weight"]
    return {"version": "v1", "classes": len(tensors["features.38.weight"]), "channels": first.shape[1],
            "width": len(first), "ceil": False}  # fmt: skip


WANG = Dialect(
    signs=tuple(rf"^features\.{place}\.weight$" for place in FC_PLACES.values()),
    rules=(
        *((rf"features\.{place}\.(\w+)", rf"encoder.stage{i}.conv{j}.\1")
          for i, places in enumerate(STAGES, 1) for j, place in enumerate(places, 1)),
        *((rf"features\.{place}\.(\w+)", rf"head.{name}.\1") for name, place in FC_PLACES.items()),
    ),
    options=_wang_options,
    preprocessing=CAFFE,
    labels={21: "voc"},
)  # fmt: skip

KEYS = {"torchvision": TORCHVISION, "smp": SMP, "mmseg": MMSEG_DEEPLAB, "VainF": VAINF, "kazuto1011": KAZUTO,
        "wangleihitcs": WANG}  # fmt: skip
