"""Encoders in the names of segmentation_models.pytorch: one table of rules, and which encoder it is, for every net's
dialect "smp".

    SMP_ENCODER           rules for a net that keeps its encoder as `encoder`
    smp_encoder(tensors)  {"encoder": name, "channels": of the input}, to be merged into the dialect's options

    there                                                   here
    resnet*, resnext*                                       the same, timm's and torchvision's names
    se_resnet*, se_resnext*, senet154                       legacy_seresnet*, legacy_seresnext*, legacy_senet154
    vgg11 ... vgg19_bn                                      the same
    [timm-]efficientnet-b0 ... b7 [b8], mobilenet_v2        the same names, of `nn/encoder_maps.py`
    tu-NAME                                                 NAME, which has to be told: `encoder=NAME`
Others (densenet*, dpn*, inception*, xception, mit_b*, mobileone_*, timm-sk*, timm-*lite*) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from pixelwise.core.keys import Rule, Untold, prefixed
from pixelwise.errors import ModelFileError
from pixelwise.nn.encoder_keys import RESNET, resnet_name

# number of blocks, channels of the last one -> EfficientNet; number of blocks -> blocks in its seven stages
EFFICIENTNETS = {(16, 320): "b0", (23, 320): "b1", (23, 352): "b2", (26, 384): "b3", (32, 448): "b4", (39, 512): "b5",
                 (45, 576): "b6", (55, 640): "b7", (61, 704): "b8"}  # fmt: skip
STAGES = {16: (1, 2, 2, 3, 3, 4, 1), 23: (2, 3, 3, 4, 4, 5, 2), 26: (2, 3, 3, 5, 5, 6, 2), 32: (2, 4, 4, 6, 6, 8, 2),
          39: (3, 5, 5, 7, 7, 9, 3), 45: (3, 6, 6, 8, 8, 11, 3), 55: (4, 7, 7, 10, 10, 13, 4)}  # fmt: skip
MOBILENET_STAGES = (1, 2, 3, 4, 3, 3, 1)
# convolutions of a VGG, whether batch norms follow them -> its name
VGGS = {(count, norm): f"vgg{count + 3}{'_bn' if norm else ''}" for count in (8, 10, 13, 16) for norm in (False, True)}
# blocks in the four stages, whether bottlenecks, width of the first 3x3 and of its groups, width of the stem
SENETS = {
    ((3, 4, 6, 3), 64, 64): "legacy_seresnet50",
    ((3, 4, 23, 3), 64, 64): "legacy_seresnet101",
    ((3, 8, 36, 3), 64, 64): "legacy_seresnet152",
    ((3, 4, 6, 3), 128, 4): "legacy_seresnext50_32x4d",
    ((3, 4, 23, 3), 128, 4): "legacy_seresnext101_32x4d",
    ((3, 8, 36, 3), 256, 2): "legacy_senet154",
}
FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER_STAGES = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
                "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
STEM = r"^(?:model\.)?(?:layer0\.|features[._])?_?(?:conv_?stem|stem|conv_?0|conv1|patch_embed|0|init_block)[._]"
WHY = ("it is an encoder of timm, and several of them have the same shapes. Give its name behind 'tu-' as the option "
       "encoder, e.g. encoder=convnext_tiny.")  # fmt: skip


def _efficientnet_block(match: re.Match[str], names: Collection[str]) -> str:
    """timm's name of a part of a block: it counts blocks within stages."""
    number, part, rest = int(match["number"]), match["part"], match["rest"]
    before = match.string[: match.start("number")]
    total = sum(name.startswith(before) and name.endswith("._project_conv.weight") for name in names)
    for stage, count in enumerate(STAGES.get(total, ())):
        if number < count:
            parts = {**(LATER_STAGES if stage else FIRST_STAGE), **SQUEEZE}
            return f"blocks.{stage}.{number}.{parts[part]}.{rest}"
        number -= count
    return match.string  # not a number of blocks that is known: left over under its own name


def _mobilenet() -> list[Rule]:
    """torchvision's names, which number all blocks in one row."""
    rules: list[Rule] = [
        (r"features\.0\.0\.(.*)", r"conv_stem.\1"),
        (r"features\.0\.1\.(.*)", r"bn1.\1"),
        (r"features\.18\.0\.(.*)", r"conv_head.\1"),
        (r"features\.18\.1\.(.*)", r"bn2.\1"),
    ]
    first = {r"0\.0": "conv_dw", r"0\.1": "bn1", "1": "conv_pw", "2": "bn2"}
    later = {r"0\.0": "conv_pw", r"0\.1": "bn1", r"1\.0": "conv_dw", r"1\.1": "bn2", "2": "conv_pwl", "3": "bn3"}
    number = 1
    for stage, count in enumerate(MOBILENET_STAGES):
        for block in range(count):
            for theirs, ours in (later if stage else first).items():
                rules.append((rf"features\.{number}\.conv\.{theirs}\.([a-z_]+)", rf"blocks.{stage}.{block}.{ours}.\1"))
            number += 1
    return rules


SMP_ENCODER: tuple[Rule, ...] = prefixed(
    "encoder.",
    "encoder.body.",
    (
        *RESNET,
        (r"((?:layer0|conv_stem|blocks)\..*)", r"\1"),
        (r"_conv_stem\.(.*)", r"conv_stem.\1"),
        (r"_bn0\.(.*)", r"bn1.\1"),
        (r"(?:_conv_head|_bn1|conv_head|bn2)\..*", ""),  # carried along, never used
        (r"_blocks\.(?P<number>\d+)\.(?P<part>_[a-z0-9_]+)\.(?P<rest>[a-z_]+)", _efficientnet_block),
        (r"features\.(\d+)\.([a-z_]+)", r"features_\1.\2"),
        *_mobilenet(),
        (r"model\.(.*)", r"\1"),
    ),
)


def smp_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options `encoder` and `channels` of a net from what stands under `encoder.` in its file.

    A timm encoder (tu-...) cannot be told: its `encoder` is `Untold`. Raises ModelFileError for one that is not known.
    """
    inner = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
    first = _first_convolution(inner)
    if first is None:
        raise ModelFileError("it has no encoder of convolutions.")
    return {"encoder": _name(inner), "channels": first.shape[1]}


def _first_convolution(inner: Mapping[str, Tensor]) -> Tensor | None:
    """Weights [D, C, k, k] of what sees the image: the first of the file, or by its name where names are sorted, as
    safetensors has them."""
    convs = {name: t for name, t in inner.items() if t.ndim == 4}
    stems = [name for name in convs if re.search(STEM, name)]
    if stems and list(inner) == sorted(inner):
        return convs[min(stems, key=lambda name: (name.count("."), name))]
    return next(iter(convs.values()), None)


def _name(inner: Mapping[str, Tensor]) -> str | Untold:
    if any(name.startswith("model.") for name in inner):
        return Untold(WHY)
    for prefix, sign, last in (
        ("", "_conv_stem.weight", r"_blocks\.\d+\._project_conv\.weight"),
        ("timm-", "blocks.0.0.se.conv_reduce.weight", r"blocks\.(?:0\.\d+\.conv_pw|\d\.\d+\.conv_pwl)\.weight"),
    ):
        if sign in inner:
            return _efficientnet(prefix, [t for name, t in inner.items() if re.fullmatch(last, name)])
    if "features.0.0.weight" in inner:
        return "mobilenet_v2"
    if "features.0.weight" in inner:
        convs = sum(bool(re.fullmatch(r"features\.\d+\.weight", name)) and t.ndim == 4 for name, t in inner.items())
        return _known("VGG", VGGS, convs, "features.1.running_mean" in inner)
    if "layer0.conv1.weight" in inner:
        counts = tuple(len({n.split(".")[1] for n in inner if n.startswith(f"layer{i}.")}) for i in range(1, 5))
        conv = inner["layer1.0.conv2.weight"]
        return _known("SENet", SENETS, counts, *conv.shape[:2])
    if "conv1.weight" in inner and "layer1.0.conv1.weight" in inner:
        return resnet_name(inner, "")
    raise ModelFileError(f"its encoder begins with {', '.join(list(inner)[:3])}, which is none that is known.")


def _efficientnet(prefix: str, last: list[Tensor]) -> str:
    """By the last convolutions of its blocks."""
    widest = max((len(t) for t in last), default=0)
    names = {key: f"{prefix}efficientnet-{size}" for key, size in EFFICIENTNETS.items()}
    return _known("EfficientNet", names, len(last), widest)


def _known(family: str, table: Mapping[Any, str], *key: Any) -> str:
    if key not in table:
        raise ModelFileError(f"its {family} has {key}, which is none that is known.")
    return table[key]
