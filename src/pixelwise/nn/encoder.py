"""Encoders: hundreds of classification nets as pyramids of features, through timm (Wightman 2019). Its one door."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.errors import ConfigError, nearest
from pixelwise.kernels.mirror import lacking
from pixelwise.nn.encoder_maps import NETS, StagedNet, StridedNet, pad_by_numbers

STRIDES = (8, 16, 32)  # that an encoder can be asked for
LEAST_LEVELS, LEAST_STRIDE = 3, 16  # below this it is no pyramid
SEE = "Take one of `pixelwise list encoders`."

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation

# mmsegmentation's ResNets of two convolutions a block, which dilates the first only -> timm's name and further options;
# b has the plain stem, c one of three convolutions, as it calls them
BASIC: dict[str, tuple[str, dict[str, Any]]] = {
    f"resnet{depth}{stem}": (f"resnet{depth}", words)
    for depth in (18, 34)
    for stem, words in (("b", {}), ("c", {"stem_type": "deep", "stem_width": 32}))
}
FLAT = "all its blocks compute at one resolution, so there is no pyramid"
FIXED = "it takes images of one size only"
# timm's families, for the list; `make_encoder` looks at the net itself
_FLAT_FAMILIES = """beit cait convit convmixer crossvit deepseek_vit deit eva gemma4_vit mlp_mixer naflexvit qwen3_vit
    sequencer tnt vision_transformer vision_transformer_hybrid vision_transformer_relpos vision_transformer_sam vitamin
    volo xcit"""
_FIXED_FAMILIES = "byoanet coat efficientformer efficientformer_v2 gcvit hiera levit maxxvit nest pit visformer"
FLAT_FAMILIES, FIXED_FAMILIES = frozenset(_FLAT_FAMILIES.split()), frozenset(_FIXED_FAMILIES.split())


class Encoder(nn.Module):
    """Images -> feature maps, the finest first.

    body      timm's net, with timm's names (for ResNets those of torchvision: conv1, bn1, layer1, ...)
    channels  of each map      strides   of each map, in input pixels
    multiple  images are padded below and at the right to a multiple of it, for nets that take no others
    """

    def __init__(self, body: nn.Module, channels: Sequence[int], strides: Sequence[int], picks: Sequence[int],
                 multiple: int) -> None:  # fmt: skip
        super().__init__()
        self.body, self.channels, self.strides, self.picks = body, tuple(channels), tuple(strides), tuple(picks)
        self.multiple = multiple
        self.channels_last = str(getattr(body, "output_fmt", "")).endswith("NHWC")

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> maps [B, channels[i], about H / strides[i], about W / strides[i]]."""
        if self.multiple == 1:
            maps = self.body(images)
            return [maps[i].permute(0, 3, 1, 2) if self.channels_last else maps[i] for i in self.picks]
        height, width = images.shape[-2:]
        below, right = lacking(height, self.multiple), lacking(width, self.multiple)
        maps = self.body(F.pad(images, (0, right, 0, below)))
        wanted = [maps[i].permute(0, 3, 1, 2) if self.channels_last else maps[i] for i in self.picks]
        return [m[..., : (height + s - 1) // s, : (width + s - 1) // s] for m, s in zip(wanted, self.strides)]


def make_encoder(name: str = "resnet50", *, channels: int = 3, pretrained: bool = False, output_stride: int = 32,
                 levels: Sequence[int] | None = None, frozen_norm: bool = False,
                 cover: bool = False) -> Encoder:  # fmt: skip
    """An encoder by timm's name, see `pixelwise list encoders`.

    channels       of the input image; with pretrained weights the first layer is summed or repeated to fit
    pretrained     timm's weights, from the Hugging Face hub or its cache
    output_stride  8, 16 or 32: later stages are dilated instead of strided, where the net can
    levels         the strides wanted, as the undilated net has them, e.g. (4, 8, 16, 32); None: all there are. What
                   lies behind the last one is not built.
    frozen_norm    batch norms keep their statistics and weights (`frozen_batch_norm`)
    cover          pad images for nets that drop the rows and columns beyond the last whole cell, as ConvNeXts do, so
                   that each map has a cell for every pixel
    Raises ConfigError for an unknown name (with the nearest), a net without a pyramid, a stride it cannot have, and
    weights that are not there.
    """
    if output_stride not in STRIDES:
        raise ConfigError(f"output_stride is {output_stride!r}; it can be {', '.join(map(str, STRIDES))}.")
    check_name(name)
    plain, multiple = _nominal(name)
    if cover and multiple == 1 and _drops_rest(name):
        multiple = min(plain[-1], output_stride)
    wanted = tuple(plain) if levels is None else tuple(levels)
    for stride in wanted:
        if stride not in plain:
            raise ConfigError(f"The encoder '{name}' has maps at strides {list(plain)}, none at {stride}.")
    picks = [len(plain) - 1 - plain[::-1].index(stride) for stride in wanted]  # the last of a stride, as dilated nets
    fewer = max(picks) + 1 if max(picks) + 1 < len(plain) else None
    body = _build(name, channels, pretrained, output_stride, levels=fewer)
    found = body.feature_info.reduction(), body.feature_info.channels()
    encoder = Encoder(body, [found[1][i] for i in picks], [found[0][i] for i in picks], picks, multiple)
    if max(encoder.strides) > output_stride != 32:  # 32: nothing is dilated
        raise ConfigError(f"The encoder '{name}' cannot be dilated to an output stride of {output_stride}; "
                          "ResNets, EfficientNets and MobileNets can.")  # fmt: skip
    if frozen_norm:
        frozen_batch_norm(encoder)
    return encoder


def check_name(name: str) -> None:
    """Raises ConfigError for a name that timm does not know, or whose family has no pyramid."""
    import timm

    if name in NETS or name in BASIC:
        return
    if not timm.is_model(name):
        known = [*timm.list_models(), *NETS, *BASIC]
        raise ConfigError(f"There is no encoder '{name}'; {nearest(name, known)} {SEE}")
    reason = FLAT if family(name) in FLAT_FAMILIES else FIXED if family(name) in FIXED_FAMILIES else ""
    if reason:
        raise ConfigError(f"'{name}' cannot be an encoder: {reason}. {SEE}")


@cache
def _families() -> dict[str, str]:
    import timm

    found = {name: module for module in timm.list_modules() for name in timm.list_models(module=module)}
    theirs = {name: net[0] for name, net in NETS.items()} | {name: net[0] for name, net in BASIC.items()}
    return found | {name: found[net] for name, net in theirs.items()}


def family(name: str) -> str:
    """The module of timm that a net is from, or "" for a name that it lists no more."""
    return _families().get(name, "")


def encoders() -> tuple[str, ...]:
    """The names of all encoders."""
    return tuple(sorted(name for name, module in _families().items() if module not in FLAT_FAMILIES | FIXED_FAMILIES))


@cache
def _nominal(name: str) -> tuple[tuple[int, ...], int]:
    """Strides of a net's maps when nothing is dilated, and what its input must be a multiple of; without memory.

    Raises ConfigError for a net that has no pyramid, or takes images of one size only.
    """
    with torch.device("meta"):
        body = _build(name, 3, False, 32).eval()
        strides = tuple(int(s) for s in body.feature_info.reduction())
        if list(strides) != sorted(strides) or len(set(strides)) < LEAST_LEVELS or strides[-1] < LEAST_STRIDE:
            raise ConfigError(f"'{name}' cannot be an encoder: its maps have the strides {list(strides)}, which is no "
                              f"pyramid. {SEE}")  # fmt: skip
        if _takes(body, 97, 65):
            return strides, 1
        if _takes(body, 3 * strides[-1], 5 * strides[-1]):
            return strides, strides[-1]
    raise ConfigError(f"'{name}' cannot be an encoder: {FIXED}. {SEE}")


@cache
def _drops_rest(name: str) -> bool:
    """Whether a map of 97 x 65 pixels has fewer cells than it takes to show them all."""
    with torch.device("meta"):
        body = _build(name, 3, False, 32).eval()
        strides = body.feature_info.reduction()
        last = str(getattr(body, "output_fmt", "")).endswith("NHWC")
        sizes = [tuple(m.shape[1:3] if last else m.shape[2:4]) for m in body(torch.zeros(1, 3, 97, 65))]
    return any(h < -(-97 // s) or w < -(-65 // s) for (h, w), s in zip(sizes, strides))


def _takes(body: nn.Module, height: int, width: int) -> bool:
    """Whether a net on the meta device takes an image of this size."""
    try:
        body(torch.zeros(1, 3, height, width))
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _build(name: str, channels: int, pretrained: bool, output_stride: int, levels: int | None = None) -> Any:
    """timm's net, with the stages behind the first `levels` maps left out."""
    words: dict[str, Any] = {"features_only": True, "pretrained": pretrained, "in_chans": channels}
    if output_stride != 32:
        words["output_stride"] = output_stride
    if levels is not None:
        words["out_indices"] = tuple(range(levels))
    if family(name).startswith("swin_"):  # windows are padded: images of any size
        words["strict_img_size"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of renamed models
            return pad_by_numbers(_create(name, words, levels))
    except (TypeError, AssertionError) as error:  # VGG asserts a stride of 32
        if "output_stride" not in str(error) and not (isinstance(error, AssertionError) and output_stride != 32):
            raise
        raise ConfigError(f"The encoder '{name}' cannot be dilated to an output stride of {output_stride}; "
                          "ResNets, EfficientNets and MobileNets can.") from error  # fmt: skip
    except (RuntimeError, OSError, ValueError) as error:
        if not pretrained:
            raise ConfigError(f"'{name}' cannot be an encoder: {str(error).splitlines()[0]} {SEE}") from error
        raise _no_weights(name, error) from error


def _create(name: str, words: dict[str, Any], levels: int | None) -> Any:
    import timm

    if name in BASIC:
        theirs, more = BASIC[name]
        return _dilate_first(timm.create_model(theirs, **words, **more))
    if name not in NETS:
        return timm.create_model(name, **words)
    theirs, special, size = NETS[name]
    if special == "strided":
        if words["pretrained"]:
            raise ConfigError(f"'{name}' is torchvision's and has other norms than '{theirs}', of which timm has the "
                              "weights: take that one.")  # fmt: skip
        return StridedNet(timm.create_model(theirs, **{k: v for k, v in words.items() if k != "out_indices"}), levels)
    dropped = ("features_only", "out_indices", "output_stride")
    whole = timm.create_model(theirs, **{k: v for k, v in words.items() if k not in dropped})
    return StagedNet(whole, special, size, levels, words.get("output_stride", 32))


def _dilate_first(body: Any) -> Any:
    """Takes the dilation from the second convolution of each block, in place."""
    for name, conv in body.named_modules():
        if name.startswith("layer") and name.endswith(".conv2"):
            conv.dilation, conv.padding = (1, 1), (1, 1)
    return body


def _no_weights(name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"The weights of '{name}' cannot be had: {str(error).splitlines()[0]} Without a network: fetch them "
        "once where there is one and copy the folder that HF_HOME names, or leave pretrained=true out."
    )


def classifier(name: str, *, channels: int = 3) -> Any:
    """timm's whole classification net with its weights, for nets that take more of it than a pyramid.

    channels  of the input; the first layer is summed or repeated to fit
    Raises ConfigError where the weights are not there.
    """
    import timm

    try:
        return timm.create_model(name, pretrained=True, in_chans=channels)
    except (RuntimeError, OSError, ValueError) as error:
        raise _no_weights(name, error) from error


def trained_with(net: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, of colours in 0..1, of the images that timm's weights of a net were trained with.

    They stand in timm's description of the encoder; nets that take its weights into layers of their own (VGG-16, HRNet)
    have ImageNet's.
    """
    for module in net.modules():
        if isinstance(module, Encoder):
            about: Any = module.body.pretrained_cfg
            return tuple(about["mean"]), tuple(about["std"])
    return IMAGENET


def frozen_batch_norm(module: nn.Module, eps: float | None = None) -> nn.Module:
    """Turns every batch norm into a fixed scale and shift, in place; returns the module.

    eps   of the fixed norms; None keeps each one's own. torchvision's published detectors have 0.
    Raises ConfigError for a module without batch norms.
    """
    from timm.layers.norm_act import FrozenBatchNormAct2d, freeze_batch_norm_2d
    from torchvision.ops.misc import FrozenBatchNorm2d

    before = {name: m.eps for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)}
    if not before:
        raise ConfigError("There is no batch norm in this encoder to be frozen: leave frozen_norm out.")
    module = freeze_batch_norm_2d(module)
    for name, norm in module.named_modules():
        if isinstance(norm, FrozenBatchNorm2d | FrozenBatchNormAct2d):
            norm.eps = before[name] if eps is None else eps
    return module


def stride_in_1x1(body: nn.Module) -> nn.Module:
    """Moves the stride of ResNet bottlenecks from the 3x3 to the first 1x1 convolution, as He et al. 2015 (1512.03385)
    and detectron2's R50 files have it; in place. Raises ConfigError for a net without bottlenecks."""
    from timm.models.resnet import Bottleneck

    blocks = [block for block in body.modules() if isinstance(block, Bottleneck)]
    if not blocks:
        raise ConfigError("stride_in_1x1 is for ResNets of bottlenecks, from resnet50 on: leave it out.")
    for block in blocks:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
    return body


def dilate_evenly(body: nn.Module) -> nn.Module:
    """Gives all 3x3 convolutions of a dilated ResNet's stage the stage's own dilation, in place, as the authors of
    PSPNet and segmentation_models.pytorch have it: timm, as torchvision and mmsegmentation, lets the first of a stage
    keep the dilation of the stage before. Raises ConfigError for a net without such stages."""
    stages = [getattr(body, f"layer{i}", None) for i in range(1, 5)]
    found = [stage for stage in stages if isinstance(stage, nn.Sequential)]
    if not found:
        raise ConfigError("even dilation is for ResNets: leave it out.")
    for stage in found:
        convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        for conv in convs:
            conv.dilation, conv.padding = convs[-1].dilation, convs[-1].padding
    return body
