"""PSPNet (Zhao, Shi, Qi, Wang, Jia 2016, 1612.01105): a dilated ResNet under a pyramid of means over the whole image.

The last map, an eighth of the image's size, is averaged over 1, 2, 3 and 6 cells a side; each grid of means passes a
1x1 convolution to a quarter of the channels, is enlarged and stands beside the map itself; a 3x3 convolution joins
them. An auxiliary head on the third stage has the weight 0.4 in training.

The paper leaves open what its codes settle, each in its way:

    "", r101    mmsegmentation's r50-d8 and r101-d8: a stem of three convolutions 32, 32, 64 wide, the first block of a
                dilated stage dilated as the stage before, enlarging by half pixels; 48,975,494 parameters at 19
                classes. Files of its 769x769 configurations want `align_corners=True`, which no shape tells
    hszhao, hszhao-r101   the authors' own: a stem 64, 64, 128 wide, one dilation in all of a stage, enlarging with
                aligned corners, made for sides of 8 n + 1 pixels
    meetps      pytorch-semseg's, by which the authors' Caffe weights came to PyTorch: as theirs, with a ResNet-101, but
                a cell has h // bins rows, and where bins do not divide the map there are more cells
    smp         segmentation_models.pytorch's: the first two stages of a ResNet-34 under a pyramid without a norm over
                the mean of the image, a 1x1 joins, a 3x3 labels; no auxiliary head. Its files hold the other two stages
                too (21,530,165 parameters at 21 classes), which it never runs; here they are not built.

Dropout takes whole maps, as in the authors' PyTorch code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.core.keys import Dialect, prefixed
from pixelwise.core.outputs import Dense, Frame
from pixelwise.core.sample import Preprocessing
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ModelFileError
from pixelwise.nn.context import PyramidPooling
from pixelwise.nn.conv import conv_norm
from pixelwise.nn.encoder import STRIDES, dilate_evenly, make_encoder
from pixelwise.nn.encoder_keys import (
    MMSEG,
    MMSEG_AUX,
    MMSEG_BACKBONE,
    RESNET,
    RESNET_V1C,
    mmseg_dilated_encoder,
    resnet_name,
)
from pixelwise.nn.heads import FCNHead, dense
from pixelwise.nn.options import check_choice, check_dropout, check_flags, check_weight, check_whole, check_wholes

PAPER = {"title": "Pyramid Scene Parsing Network", "year": 2016, "arxiv": "1612.01105"}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "r101": {"encoder": "resnet101c"},
    "hszhao": {"encoder": "resnet50s", "even_dilation": True, "align_corners": True},
    "hszhao-r101": {"encoder": "resnet101s", "even_dilation": True, "align_corners": True},
    "meetps": {"encoder": "resnet101s", "even_dilation": True, "align_corners": True, "windows": True},
    "smp": {"encoder": "resnet34", "output_stride": 32, "stages": 2, "aux": 0.0, "width": 512, "join": 1, "head": 3,
            "norm_of_one": False, "dropout": 0.2, "align_corners": True},
}  # fmt: skip
THIN = {"encoder": "test_resnet", "width": 16}  # for the tests of what every net promises
CAFFE_MEAN = (103.939 / 255, 116.779 / 255, 123.68 / 255)  # blue, green, red
LEVELS = (4, 8, 16, 32)  # strides of the encoder's stages, undilated


class PSPNet(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H/8, W/8]; any H, W from `min_size` up."""

    min_size = 8

    def __init__(self, *, classes: int, channels: int, encoder: str, pretrained: bool, aux: float, output_stride: int,
                 stages: int, even_dilation: bool, width: int | None, bins: Sequence[int], join: int, head: int,
                 norm_of_one: bool, windows: bool, dropout: float, align_corners: bool) -> None:  # fmt: skip
        super().__init__()
        self.encoder = make_encoder(encoder, channels=channels, pretrained=pretrained, output_stride=output_stride,
                                    levels=LEVELS[max(0, stages - 2) : stages])  # fmt: skip
        if even_dilation:
            dilate_evenly(self.encoder.body)
        *_, middle, deep = self.encoder.channels
        part = max(1, deep // len(bins))
        width = width or max(1, deep // 4)
        self.context = PyramidPooling(deep, part, bins, align_corners=align_corners, norm_of_one=norm_of_one,
                                      windows=windows)  # fmt: skip
        self.join = nn.Sequential(*conv_norm(deep + len(bins) * part, width, join), nn.Dropout2d(dropout))
        self.head = nn.Conv2d(width, classes, head, padding=head // 2)
        self.aux = FCNHead(middle, classes, dropout=dropout, maps=True) if aux else None
        self.aux_weight, self.align_corners = aux, align_corners

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        middle, deep = self.encoder(images)
        logits = self.head(self.join(self.context(deep)))  # [B, K, h, w]
        aux = [("aux", self.aux_weight, self.aux(middle))] if self.training and self.aux is not None else []
        return dense(images, frames, logits, aux=aux, align_corners=self.align_corners)


def build(*, classes: int, channels: int = 3, encoder: str = "resnet50c", pretrained: bool = False, aux: float = 0.4,
          output_stride: int = 8, stages: int = 4, even_dilation: bool = False, width: int | None = None,
          bins: Sequence[int] = (1, 2, 3, 6), join: int = 3, head: int = 1, norm_of_one: bool = True,
          windows: bool = False, dropout: float = 0.1, align_corners: bool = False) -> PSPNet:  # fmt: skip
    """PSPNet with numbers.

    channels  of the input                 encoder  see `pixelwise list encoders`
    pretrained  the encoder begins with timm's weights
    aux       weight of the auxiliary head's loss, the paper's 0.4; 0: no such head
    output_stride  8, 16 or 32 of the last map: below 32 later stages are dilated
    stages    of the encoder that are used: 4, 3 or 2; two reach a stride of 8 without dilation
    even_dilation  all blocks of a stage have the same dilation (`nn.encoder.dilate_evenly`)
    width     behind the join; None: a quarter of the channels of the last map
    bins      cells a side of each grid of means
    join, head  sides of the kernels of the two last convolutions, 1 or 3
    norm_of_one  a norm over the means of a single cell too, which needs 2 images to train on
    windows   cells are windows of h // bins, w // bins: exactly bins a side only where those divide the map
    dropout   before the last convolution and in the auxiliary head, of whole maps
    align_corners  how means and logits are enlarged
    Raises ConfigError for what cannot be.
    """
    check_whole("PSPNet", channels=channels)
    check_whole("PSPNet", none=True, width=width)
    check_choice("PSPNet", STRIDES, output_stride=output_stride)
    check_choice("PSPNet", (2, 3, 4), stages=stages)
    check_choice("PSPNet", (1, 3), join=join, head=head)
    check_dropout("PSPNet", dropout=dropout)
    check_weight("PSPNet", aux=aux)
    check_flags("PSPNet", pretrained=pretrained, even_dilation=even_dilation, norm_of_one=norm_of_one,
                windows=windows, align_corners=align_corners)  # fmt: skip
    bins = check_wholes("PSPNet", "bins", bins)
    return PSPNet(classes=classes, channels=channels, encoder=encoder, pretrained=pretrained, aux=aux,
                  output_stride=output_stride, stages=stages, even_dilation=even_dilation, width=width, bins=bins,
                  join=join, head=head, norm_of_one=norm_of_one, windows=windows, dropout=dropout,
                  align_corners=align_corners)  # fmt: skip


# -- files of others --------------------------------------------------------------------------------------------------


def _mmseg_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    width = len(tensors["decode_head.bottleneck.conv.weight"])
    return {**mmseg_dilated_encoder(tensors), "classes": len(tensors["decode_head.conv_seg.weight"]), "width": width}


def _hszhao_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {**VARIANTS["hszhao"], "encoder": resnet_name(tensors, "", "layer0.0.weight"),
            "classes": len(tensors["cls.4.weight"]), "channels": tensors["layer0.0.weight"].shape[1],
            "aux": 0.4 if "aux.4.weight" in tensors else 0.0}  # fmt: skip


def _meetps_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    stem = tensors["convbnrelu1_1.cbr_unit.0.weight"]
    blocks = len({name.split(".")[2] for name in tensors if name.startswith("res_block4.layers.")})
    if blocks not in BLOCKS:
        raise ModelFileError(f"its ResNet has {blocks} blocks in the third stage; {list(BLOCKS)} are known.")
    return {**VARIANTS["meetps"], "encoder": BLOCKS[blocks], "classes": len(tensors["classification.weight"]),
            "channels": stem.shape[1], "aux": 0.4 if "aux_cls.weight" in tensors else 0.0}  # fmt: skip


def _smp_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    block, pooled = "encoder.layer2.0.", tensors["decoder.psp.blocks.0.pool.1.0.weight"].shape[1]
    found = len(tensors.get(f"{block}conv3.weight", tensors[f"{block}conv2.weight"]))
    if pooled != found:
        raise ModelFileError(f"it pools maps of {pooled} channels, and the encoder's second stage has {found}: only "
                             "encoder_depth=3, the default there, is known.")  # fmt: skip
    return {**VARIANTS["smp"], "encoder": resnet_name(tensors, "encoder."),
            "classes": len(tensors["segmentation_head.0.weight"]), "channels": tensors["encoder.conv1.weight"].shape[1],
            "width": tensors["segmentation_head.0.weight"].shape[1]}  # fmt: skip


def _map_first(name: str, tensor: Tensor) -> Tensor:
    """smp joins [means, map], here it is [map, means], the map having half of the channels."""
    return torch.roll(tensor, tensor.shape[1] // 2, 1) if name == "join.0.weight" else tensor


def _bins_rising(name: str, tensor: Tensor) -> Tensor:
    """pytorch-semseg joins the map and the means over 6, 3, 2, 1 cells a side."""
    if name != "join.0.weight":
        return tensor
    whole, *means = tensor.split([tensor.shape[1] // 2, *[tensor.shape[1] // 8] * 4], 1)
    return torch.cat([whole, *means[::-1]], 1)


BLOCKS = {6: "resnet50s", 23: "resnet101s", 36: "resnet152s"}  # in the third stage
# the longer side becomes 512 pixels; the authors then slide a window of 473 over it (713 on Cityscapes)
AUTHORS: dict[str, Any] = {
    "labels": MMSEG["labels"],
    "sizes": {classes: SizeRule(short=512, long=512, antialias=False) for classes in (21, 150)},
}
HSZHAO_STEM = tuple((pattern.replace("stem", "layer0", 1), new) for pattern, new in RESNET_V1C)
MEETPS_RESNET = (
    (r"convbnrelu1_1\.cbr_unit\.([01]\..*)", r"conv1.\1"),
    (r"convbnrelu1_2\.cbr_unit\.0\.(.*)", r"conv1.3.\1"),
    (r"convbnrelu1_2\.cbr_unit\.1\.(.*)", r"conv1.4.\1"),
    (r"convbnrelu1_3\.cbr_unit\.0\.(.*)", r"conv1.6.\1"),
    (r"convbnrelu1_3\.cbr_unit\.1\.(.*)", r"bn1.\1"),
    *(
        rule
        for i in range(1, 5)
        for rule in (
            (rf"res_block{i + 1}\.layers\.(\d+)\.cbr([12])\.cbr_unit\.0\.(.*)", rf"layer{i}.\1.conv\2.\3"),
            (rf"res_block{i + 1}\.layers\.(\d+)\.cbr([12])\.cbr_unit\.1\.(.*)", rf"layer{i}.\1.bn\2.\3"),
            (rf"res_block{i + 1}\.layers\.(\d+)\.cb3\.cb_unit\.0\.(.*)", rf"layer{i}.\1.conv3.\2"),
            (rf"res_block{i + 1}\.layers\.(\d+)\.cb3\.cb_unit\.1\.(.*)", rf"layer{i}.\1.bn3.\2"),
            (rf"res_block{i + 1}\.layers\.(\d+)\.cb4\.cb_unit\.([01]\..*)", rf"layer{i}.\1.downsample.\2"),
        )
    ),
)
KEYS = {
    "mmseg": Dialect(
        signs=(r"^backbone\.layer4\.", r"^decode_head\.psp_modules\.3\.1\.", r"^decode_head\.bottleneck\.conv"),
        rules=(
            *MMSEG_BACKBONE,
            (r"decode_head\.psp_modules\.(\d)\.1\.conv\.(.*)", r"context.convs.\1.0.\2"),
            (r"decode_head\.psp_modules\.(\d)\.1\.bn\.(.*)", r"context.convs.\1.1.\2"),
            (r"decode_head\.bottleneck\.conv\.(.*)", r"join.0.\1"),
            (r"decode_head\.bottleneck\.bn\.(.*)", r"join.1.\1"),
            (r"decode_head\.conv_seg\.(.*)", r"head.\1"),
            *MMSEG_AUX,
        ),
        options=_mmseg_options,
        **MMSEG,
    ),
    "hszhao": Dialect(
        signs=(r"^layer0\.0\.", r"^layer4\.", r"^ppm\.features\.3\.", r"^cls\.4\."),
        rules=(
            *prefixed("", "encoder.body.", HSZHAO_STEM),
            (r"ppm\.features\.(\d)\.1\.(.*)", r"context.convs.\1.0.\2"),
            (r"ppm\.features\.(\d)\.2\.(.*)", r"context.convs.\1.1.\2"),
            (r"cls\.([01])\.(.*)", r"join.\1.\2"),
            (r"cls\.4\.(.*)", r"head.\1"),
            (r"aux\.(.*)", r"aux.\1"),
        ),
        options=_hszhao_options,
        **AUTHORS,
    ),
    "meetps": Dialect(
        signs=(
            r"^convbnrelu1_1\.",
            r"^res_block5\.layers\.",
            r"^pyramid_pooling\.path_module_list\.3\.",
            r"^cbr_final\.",
        ),
        rules=(
            *prefixed("", "encoder.body.", MEETPS_RESNET),
            *(
                (rf"pyramid_pooling\.path_module_list\.{i}\.cbr_unit\.([01]\..*)", rf"context.convs.{3 - i}.\1")
                for i in range(4)
            ),
            (r"cbr_final\.cbr_unit\.([01]\..*)", r"join.\1"),
            (r"classification\.(.*)", r"head.\1"),
            (r"convbnrelu4_aux\.cbr_unit\.([01]\..*)", r"aux.\1"),
            (r"aux_cls\.(.*)", r"aux.4.\1"),
        ),
        options=_meetps_options,
        # Caffe's, as the published weights expect it; its own trainings have means by data set
        preprocessing=Preprocessing(order="BGR", mean=CAFFE_MEAN, std=(1 / 255,) * 3),
        change=_bins_rising,
        **AUTHORS,
    ),
    "smp": Dialect(
        signs=(r"^encoder\.layer4\.", r"^decoder\.psp\.blocks\.3\.", r"^decoder\.conv\.0", r"^segmentation_head\.0\."),
        rules=(
            (r"encoder\.layer[34]\..*|classification_head\..*", ""),  # the first are never run
            *prefixed("encoder.", "encoder.body.", RESNET),
            (r"decoder\.psp\.blocks\.(\d)\.pool\.1\.(.*)", r"context.convs.\1.\2"),
            (r"decoder\.conv\.(.*)", r"join.\1"),
            (r"segmentation_head\.0\.(.*)", r"head.\1"),
        ),
        options=_smp_options,
        change=_map_first,
    ),
}
