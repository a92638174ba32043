"""FCN (Long, Shelhamer, Darrell 2015, 1411.4038; Shelhamer, Long, Darrell 2017, 1605.06211): a classification net whose
fully connected layers became convolutions, its scores enlarged by transposed convolutions and helped by finer maps.

On VGG-16 with 100 pixels of padding: fc6 and fc7 are a 7x7 and a 1x1 convolution with dropout. `32s` enlarges their
scores at once; `16s` twice, adds scores of pool4, then 16 times; `8s`, the plain variant, adds those of pool3 too:
134,489,759 parameters at 21 classes. Enlarging begins as bilinear interpolation; the last one stays so, as the paper
says, while the others learn. (In the authors' Caffe files all stay: `upsampling="fixed"`.) They train 32s first, fill
16s from it and 8s from that; `8s-atonce`, theirs too, scales pool4 by 0.01 and pool3 by 0.0001 to train all in one go.

What known ports change; all but nearest neighbours gives the paper's answer once trained:

    8s-wkentaro, 16s-, 32s-   torchfcn: dropout takes whole maps; all enlarging stays bilinear, as in Caffe. A file of
        its FCN8sAtOnce has the keys of its FCN8s: read it by `from_checkpoint(path, at_once=True)`.
    8s-meetps                 pytorch-semseg: dropout takes whole maps, all enlarging learns
    16s-meetps, 32s-meetps    its other two (and its 8s without learned_billinear): scores are enlarged to the nearest
        pixel, over the padding too, so that they land beside their place: another net, not the paper's

The dilated form came later, with DeepLab's encoders: the last stages of a ResNet (or any encoder that can) keep a
stride of 8, a small head labels, an auxiliary one on the stage before has a weight in training.

    resnet50, resnet101                torchvision's: head of one 3x3 convolution, auxiliary weight 0.5: 35,322,218
                                       parameters at 21 classes, 32,957,013 without the auxiliary head
    resnet50-mmseg, resnet101-mmseg    mmsegmentation's r50-d8: a stem of three convolutions; the head has two 3x3 and
                                       sees its input again; dropout of whole maps; 49,497,734 at 19 classes
    resnet50-mmseg-d6, resnet101-      its d6 nets: a stride of 16, 3x3 convolutions of the heads 6 times dilated. Their
                                       files look the same: `from_checkpoint(path, stride=16, head_dilation=6)`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.keys import Dialect, prefixed
from pixelwise.core.outputs import Dense, Frame
from pixelwise.core.sample import Preprocessing
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError
from pixelwise.nn.conv import conv_norm
from pixelwise.nn.encoder import STRIDES, make_encoder
from pixelwise.nn.encoder_keys import (
    MMSEG,
    MMSEG_AUX,
    MMSEG_BACKBONE,
    RESNET,
    mmseg_dilated_encoder,
    resnet_name,
)
from pixelwise.nn.heads import FCNHead, dense
from pixelwise.nn.options import check_choice, check_dropout, check_flags, check_weight, check_whole
from pixelwise.nn.upsample import bilinear_up
from pixelwise.nn.vgg import VGG, initialise

PAPER = {"title": "Fully Convolutional Networks for Semantic Segmentation", "year": 2015, "arxiv": "1411.4038"}

_WKENTARO: dict[str, Any] = {"drop_maps": True, "upsampling": "fixed"}
_MEETPS: dict[str, Any] = {"drop_maps": True, "upsampling": "nearest"}
_MMSEG: dict[str, Any] = {"stride": 8, "aux": 0.4, "drop_maps": True, "head": "concat"}
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "8s": {},
    "16s": {"stride": 16},
    "32s": {"stride": 32},
    "8s-atonce": {"at_once": True},
    "8s-wkentaro": _WKENTARO,
    "16s-wkentaro": {**_WKENTARO, "stride": 16},
    "32s-wkentaro": {**_WKENTARO, "stride": 32},
    "8s-meetps": {"drop_maps": True, "upsampling": "learned"},
    "16s-meetps": {**_MEETPS, "stride": 16},
    "32s-meetps": {**_MEETPS, "stride": 32},
    "resnet50": {"encoder": "resnet50", "aux": 0.5},
    "resnet101": {"encoder": "resnet101", "aux": 0.5},
    "resnet50-mmseg": {**_MMSEG, "encoder": "resnet50c"},
    "resnet101-mmseg": {**_MMSEG, "encoder": "resnet101c"},
    "resnet50-mmseg-d6": {**_MMSEG, "encoder": "resnet50c", "stride": 16, "head_dilation": 6},
    "resnet101-mmseg-d6": {**_MMSEG, "encoder": "resnet101c", "stride": 16, "head_dilation": 6},
}
THIN = {"width": 2, "fc": 8}  # for the tests of what every net promises
THIN_AUX = {"encoder": "test_resnet", "width": 8}  # and of the form that can have an auxiliary head
VGG16 = "vgg16"
UPSAMPLINGS = ("paper", "fixed", "learned", "nearest")
# strides: by how much each enlarging enlarges, and how many rows and columns are then cut off, of pool4's scores, of
# pool3's, of the result. They follow from the padding of 100 and from the kernels, as Caffe's crop layers find them.
FACTORS = {32: (32,), 16: (2, 16), 8: (2, 2, 8)}
OFFSETS = {32: (19,), 16: (5, 27), 8: (5, 9, 31)}
SCALES = (0.01, 0.0001)  # of pool4 and pool3 where all is trained at once


class FCN(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from 1 up."""

    min_size = 1

    def __init__(self, *, classes: int, channels: int, pretrained: bool, stride: int, width: int, fc: int,
                 upsampling: str, at_once: bool, dropout: float, drop_maps: bool) -> None:  # fmt: skip
        super().__init__()
        self.vgg = VGG(channels, width=width, padding=100, ceil=True)
        drop = nn.Dropout2d if drop_maps else nn.Dropout
        fc6, fc7 = nn.Conv2d(self.vgg.channels[-1], fc, 7), nn.Conv2d(fc, fc, 1)
        self.fc6 = nn.Sequential(fc6, nn.ReLU(inplace=True), drop(dropout))
        self.fc7 = nn.Sequential(fc7, nn.ReLU(inplace=True), drop(dropout))
        self.apply(initialise)
        if pretrained:
            for own, given in zip((fc6, fc7), self.vgg.load_imagenet()):
                own.load_state_dict(given.state_dict())
        skips = self.vgg.channels[3:1:-1][: len(FACTORS[stride]) - 1]  # channels of pool4, pool3
        self.score = nn.Conv2d(fc, classes, 1)
        self.skips = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in skips)
        for layer in (self.score, *self.skips):  # nothing is known yet, and skips begin by adding nothing
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        last = len(skips)
        self.ups = nn.ModuleList() if upsampling == "nearest" else nn.ModuleList(
            bilinear_up(classes, factor, learned=upsampling == "learned" or (upsampling == "paper" and i < last))
            for i, factor in enumerate(FACTORS[stride])
        )  # fmt: skip
        self.offsets, self.scales = OFFSETS[stride], SCALES if at_once else (1.0, 1.0)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        *_, pool3, pool4, pool5 = self.vgg(images)
        scores = self.score(self.fc7(self.fc6(pool5)))  # [B, K, h, w]
        for i, (score, finer) in enumerate(zip(self.skips, (pool4, pool3))):
            larger, finer = self._enlarge(scores, i, finer)
            scores = larger + score(finer * self.scales[i] if self.scales[i] != 1 else finer)
        logits, _ = self._enlarge(scores, len(self.skips), images)
        return dense(images, frames, logits)

    def _enlarge(self, scores: Tensor, step: int, finer: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and a finer map on one grid; the larger of the two is cut. At the last step that is the scores."""
        if not self.ups:
            return F.interpolate(scores, finer.shape[-2:]), finer
        larger, at = self.ups[step](scores), self.offsets[step]
        if step == len(self.ups) - 1:
            return larger[:, :, at : at + finer.shape[2], at : at + finer.shape[3]].contiguous(), finer
        return larger, finer[:, :, at : at + larger.shape[2], at : at + larger.shape[3]]


class ConcatHead(nn.Module):
    """mmsegmentation's: two 3x3 convolutions, a third that sees input and result, dropout, 1x1 to the classes.

    dilation  of the first two; the rest as in FCNHead
    """

    def __init__(self, channels: int, classes: int, width: int | None, dropout: float, *, maps: bool,
                 dilation: int) -> None:  # fmt: skip
        super().__init__()
        width = width or max(1, channels // 4)
        self.convs = nn.Sequential(*(conv_norm(c, width, 3, dilation=dilation) for c in (channels, width)))
        self.join = conv_norm(channels + width, width, 3)
        self.drop = nn.Dropout2d(dropout) if maps else nn.Dropout(dropout)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, K, h, w]."""
        return self.classify(self.drop(self.join(torch.cat([x, self.convs(x)], 1))))


class DilatedFCN(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H / stride, W / stride]; any H, W from `min_size` up."""

    min_size = 8

    def __init__(self, *, classes: int, channels: int, encoder: str, pretrained: bool, stride: int, aux: float,
                 head: str, width: int | None, dropout: float, drop_maps: bool,
                 head_dilation: int, align_corners: bool) -> None:  # fmt: skip
        super().__init__()
        levels = (16, 32) if aux else (32,)
        self.encoder = make_encoder(encoder, channels=channels, pretrained=pretrained, output_stride=stride,
                                    levels=levels)  # fmt: skip
        middle, last = self.encoder.channels[0], self.encoder.channels[-1]
        kind = ConcatHead if head == "concat" else FCNHead
        words: dict[str, Any] = {"maps": drop_maps, "dilation": head_dilation}
        self.head = kind(last, classes, width, dropout, **words)
        self.aux = FCNHead(middle, classes, dropout=dropout, **words) if aux else None
        self.aux_weight, self.align_corners = aux, align_corners

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        maps = self.encoder(images)
        aux = [("aux", self.aux_weight, self.aux(maps[0]))] if self.training and self.aux is not None else []
        return dense(images, frames, self.head(maps[-1]), aux=aux, align_corners=self.align_corners)


def build(*, classes: int, channels: int = 3, encoder: str = VGG16, pretrained: bool = False, stride: int = 8,
          width: int | None = None, dropout: float | None = None, drop_maps: bool = False, fc: int = 4096,
          upsampling: str = "paper", at_once: bool = False, aux: float = 0.0,
          head: str = "plain", head_dilation: int = 1, align_corners: bool = False) -> FCN | DilatedFCN:  # fmt: skip
    """FCN with numbers.

    channels    of the input               encoder  "vgg16", or one of `pixelwise list encoders` that can be dilated
    pretrained  the encoder begins with timm's weights, on VGG-16 fc6 and fc7 too
    stride      of the finest map with scores: 32, 16 or 8
    width       of VGG-16's first stage (None: 64); of the dilated form's head (None: a quarter of the last map's)
    dropout     behind fc6 and fc7 (None: 0.5); in the dilated form's heads (None: 0.1)
    drop_maps   dropout takes whole maps, not single values
    On VGG-16 only:
    fc          channels of fc6 and fc7
    upsampling  paper: all enlarging begins bilinear and learns, but for the last; fixed: none learns; learned: all do;
                nearest: no transposed convolutions, see above
    at_once     pool4 and pool3 are scaled by 0.01 and 0.0001 before their scores
    In the dilated form only:
    aux         weight of the auxiliary head's loss; 0: no such head
    head        plain: one 3x3 convolution before the last; concat: mmsegmentation's
    head_dilation  of the heads' first 3x3 convolutions
    align_corners  how logits are enlarged; true for mmsegmentation's files that were trained at 769x769
    Raises ConfigError for what cannot be, and for options of the other form.
    """
    check_whole("FCN", channels=channels, fc=fc, head_dilation=head_dilation)
    if width is not None:
        check_whole("FCN", width=width)
    check_choice("FCN", STRIDES, stride=stride)
    check_choice("FCN", UPSAMPLINGS, upsampling=upsampling)
    check_choice("FCN", ("plain", "concat"), head=head)
    check_flags("FCN", pretrained=pretrained, drop_maps=drop_maps, at_once=at_once,
                align_corners=align_corners)  # fmt: skip
    check_weight("FCN", aux=aux)
    if dropout is not None:
        check_dropout("FCN", dropout=dropout)
    shared: dict[str, Any] = {"classes": classes, "channels": channels, "pretrained": pretrained, "stride": stride,
                              "drop_maps": drop_maps}  # fmt: skip
    if encoder != VGG16:
        _refuse("the dilated form", fc=fc != 4096, upsampling=upsampling != "paper", at_once=at_once)
        return DilatedFCN(**shared, encoder=encoder, aux=aux, head=head, width=width, head_dilation=head_dilation,
                          dropout=0.1 if dropout is None else dropout, align_corners=align_corners)  # fmt: skip
    _refuse("vgg16", aux=aux != 0, head=head != "plain", head_dilation=head_dilation != 1, align_corners=align_corners)
    if at_once and stride == 32:
        raise ConfigError("FCN: at_once scales what pool4 and pool3 add, and with stride=32 they add nothing.")
    if pretrained and fc != 4096:
        raise ConfigError(f"FCN: there are ImageNet weights for fc=4096, not {fc}: leave fc or pretrained=true out.")
    return FCN(**shared, width=64 if width is None else width, fc=fc, upsampling=upsampling, at_once=at_once,
               dropout=0.5 if dropout is None else dropout)  # fmt: skip


def _refuse(form: str, **given: bool) -> None:
    for name, is_given in given.items():
        if is_given:
            raise ConfigError(f"FCN: {name} would do nothing on {form}: leave it out.")


# -- files of others --------------------------------------------------------------------------------------------------


def _vgg_options(tensors: Mapping[str, Tensor], first: str, fc7: str, score: str) -> dict[str, Any]:
    stride = 8 if "score_pool3.weight" in tensors else 16 if "score_pool4.weight" in tensors else 32
    width, channels = tensors[first].shape[:2]
    return {"classes": len(tensors[score]), "channels": channels, "width": width, "fc": len(tensors[fc7]),
            "stride": stride, "drop_maps": True}  # fmt: skip


def _wkentaro_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {**_vgg_options(tensors, "conv1_1.weight", "fc7.weight", "score_fr.weight"), "upsampling": "fixed"}


def _meetps_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    upsampling = "learned" if "upscore2.weight" in tensors else "nearest"
    names = "conv_block1.0.weight", "classifier.3.weight", "classifier.6.weight"
    return {**_vgg_options(tensors, *names), "upsampling": upsampling}


def _torchvision_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"encoder": resnet_name(tensors, "backbone."), "classes": len(tensors["classifier.4.weight"]),
            "channels": tensors["backbone.conv1.weight"].shape[1], "width": len(tensors["classifier.0.weight"]),
            "aux": 0.5 if "aux_classifier.4.weight" in tensors else 0.0}  # fmt: skip


def _mmseg_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {**_MMSEG, **mmseg_dilated_encoder(tensors), "classes": len(tensors["decode_head.conv_seg.weight"]),
            "width": len(tensors["decode_head.conv_cat.conv.weight"])}  # fmt: skip


# means of ImageNet in the order of Caffe, and no deviation
CAFFE = Preprocessing(order="BGR", range=1.0, mean=(104.00698793, 116.66876762, 122.67891434), std=(1.0, 1.0, 1.0))
KEYS = {
    "wkentaro": Dialect(
        signs=(r"^conv5_3\.weight$", r"^fc7\.weight$", r"^score_fr\.weight$", r"^upscore(2|32)?\.weight$"),
        rules=(
            (r"conv(\d)_(\d)\.(.*)", r"vgg.stage\1.conv\2.\3"),
            (r"(fc[67])\.(.*)", r"\1.0.\2"),
            (r"score_fr\.(.*)", r"score.\1"),
            (r"score_pool4\.(.*)", r"skips.0.\1"),
            (r"score_pool3\.(.*)", r"skips.1.\1"),
            (r"upscore(?:2)?\.(.*)", r"ups.0.\1"),
            (r"upscore(?:_pool4|16)\.(.*)", r"ups.1.\1"),
            (r"upscore8\.(.*)", r"ups.2.\1"),
        ),
        options=_wkentaro_options,
        preprocessing=CAFFE,
        labels={21: "voc"},
    ),
    "meetps": Dialect(
        signs=(r"^conv_block5\.4\.weight$", r"^classifier\.6\.weight$"),
        rules=(
            (r"conv_block(\d)\.0\.(.*)", r"vgg.stage\1.conv1.\2"),
            (r"conv_block(\d)\.2\.(.*)", r"vgg.stage\1.conv2.\2"),
            (r"conv_block(\d)\.4\.(.*)", r"vgg.stage\1.conv3.\2"),
            (r"classifier\.0\.(.*)", r"fc6.0.\1"),
            (r"classifier\.3\.(.*)", r"fc7.0.\1"),
            (r"classifier\.6\.(.*)", r"score.\1"),
            (r"score_pool4\.(.*)", r"skips.0.\1"),
            (r"score_pool3\.(.*)", r"skips.1.\1"),
            (r"upscore2\.(.*)", r"ups.0.\1"),
            (r"upscore4\.(.*)", r"ups.1.\1"),
            (r"upscore8\.(.*)", r"ups.2.\1"),
        ),
        options=_meetps_options,
        labels={21: "voc"},
    ),
    "torchvision": Dialect(
        signs=(r"^backbone\.layer4\.", r"^classifier\.0\.weight$", r"^classifier\.4\.weight$"),
        rules=(
            *prefixed("backbone.", "encoder.body.", RESNET),
            (r"classifier\.(.*)", r"head.\1"),
            (r"aux_classifier\.(.*)", r"aux.\1"),
        ),
        options=_torchvision_options,
        preprocessing=Preprocessing(size=SizeRule(short=520, rounding="floor")),
        labels={21: "voc"},
    ),
    "mmseg": Dialect(
        signs=(r"^backbone\.layer4\.", r"^decode_head\.convs\.1\.conv\.", r"^decode_head\.conv_cat\.conv\."),
        rules=(
            *MMSEG_BACKBONE,
            (r"decode_head\.convs\.(\d)\.conv\.(.*)", r"head.convs.\1.0.\2"),
            (r"decode_head\.convs\.(\d)\.bn\.(.*)", r"head.convs.\1.1.\2"),
            (r"decode_head\.conv_cat\.conv\.(.*)", r"head.join.0.\1"),
            (r"decode_head\.conv_cat\.bn\.(.*)", r"head.join.1.\1"),
            (r"decode_head\.conv_seg\.(.*)", r"head.classify.\1"),
            *MMSEG_AUX,
        ),
        options=_mmseg_options,
        **MMSEG,
    ),
}
