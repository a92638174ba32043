"""DeepLab v1 to v3+: atrous convolution (Chen, Papandreou, Schroff, Adam et al. 2018, 1802.02611, and before).

Stages of a classification net are dilated instead of strided, so that its last map stays fine, and what follows looks
at it with several rates at once. `version` says which of the four papers:

| version | paper            | encoder                         | what follows                                       |
|---------|------------------|---------------------------------|----------------------------------------------------|
| v1      | 2014, 1412.7062  | VGG-16, stride 8                | LargeFOV: a 3x3 of rate 12, two 1x1                |
| v2      | 2016, 1606.00915 | ResNet-101, stride 8            | ASPP: 3x3 of rates 6, 12, 18, 24 to the classes,   |
|         |                  |                                 | added; the maximum over three scales of the image  |
| v3      | 2017, 1706.05587 | ResNet, multi-grid 1 2 4,       | ASPP: 1x1, 3x3 of three rates and the image's      |
|         |                  | stride 16 or 8                  | mean, joined by a 1x1                              |
| v3plus  | 2018, 1802.02611 | any, stride 16 or 8             | the same of separable convolutions, enlarged and   |
|         |                  |                                 | refined beside the encoder's map of stride 4       |

The plain variant is v3plus on a ResNet-50; the paper's other encoder is `v3plus-xception65`. Ports differ from the
papers, and have variants of their own, so that their files load:

- `v3-torchvision`: a further 3x3 behind the ASPP, an auxiliary head, rates 12, 24, 36, no multi-grid; its MobileNetV3
  at stride 16 has the same rates.
- `v3-smp`, `v3plus-smp`: such a 3x3 too; no norm inside separable convolutions, one instead of two 3x3 behind the
  join, rates 12, 24, 36 even at stride 16, dilation from a stage's first block on, aligned corners.
- `v3-mmseg`, `v3plus-mmseg`: 512 wide, a 3x3 joins the branches, a stem of three convolutions, an auxiliary head, no
  multi-grid, dropout of whole maps before the last convolution.
- `v3-VainF`, `v3plus-VainF`: no separable convolutions, one 3x3 behind the join, no multi-grid. Its files do not tell
  their output stride: 16 is taken, as it trains by default; for others give output_stride=8.
- `v2-kazuto1011`: v2 without aligned corners.
- `v1-wangleihitcs`: v1 whose poolings round down.

v1 and v2 enlarge with aligned corners and round the sizes of poolings up, as the authors' Caffe does, which was made
for images of 8 n + 1 pixels. v1's head has a 3x3 mean that its paper does not mention. In v2's training every scale
has a loss of its own beside that of the maximum. Both papers sharpen the answer by a fully connected conditional random
field (Krähenbühl, Koltun 2011, 1210.5644). It is not here: no maintained library with wheels computes it. pydensecrf2
and SimpleCRF have to be compiled, and crfseg, which need not be, joins a pixel only to those in a small window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from pixelwise.core.outputs import Dense, Frame
from pixelwise.errors import ConfigError
from pixelwise.models._deeplab_keys import KEYS as KEYS
from pixelwise.models._deeplab_v1 import FC, LargeFOV, large_fov_vgg
from pixelwise.models._deeplab_v2 import SummedASPP, scaled
from pixelwise.models._deeplab_v3 import CONVOLUTIONS, AtrousHead, DecoderHead, dilate
from pixelwise.nn.encoder import Encoder, make_encoder
from pixelwise.nn.encoder import stride_in_1x1 as move_stride
from pixelwise.nn.heads import FCNHead, dense
from pixelwise.nn.options import check_choice, check_dropout, check_flags, check_weight, check_whole, check_wholes

PAPER = {
    "title": "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
    "year": 2018,
    "arxiv": "1802.02611",
}
PORTS: dict[str, dict[str, Any]] = {
    "torchvision": {"output_stride": 8, "rates": (12, 24, 36), "smooth": 1, "multi_grid": (), "dropout": 0.5},
    "smp": {"encoder": "resnet34", "rates": (12, 24, 36), "smooth": 1, "multi_grid": (1, 1, 1), "dropout": 0.5,
            "align_corners": True},
    "mmseg": {"encoder": "resnet50c", "output_stride": 8, "width": 512, "join": 3, "multi_grid": (), "aux": 0.4,
              "late_dropout": True},
}  # fmt: skip
MOBILENET = {"encoder": "mobilenet_v3_large", "output_stride": 16, "aux_stride": 8}
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "v1": {"version": "v1"},
    "v1-wangleihitcs": {"version": "v1", "ceil": False},
    "v2": {"version": "v2"},
    "v2-kazuto1011": {"version": "v2", "align_corners": False},
    "v3": {"version": "v3"},
    "v3-r101": {"version": "v3", "encoder": "resnet101"},
    "v3-torchvision": {"version": "v3", "aux": 0.5, **PORTS["torchvision"]},
    "v3-torchvision-mobilenet": {"version": "v3", "aux": 0.5, **PORTS["torchvision"], **MOBILENET},
    "v3-smp": {"version": "v3", "output_stride": 8, **PORTS["smp"]},
    "v3-mmseg": {"version": "v3", **PORTS["mmseg"]},
    "v3-VainF": {"version": "v3", "smooth": 1, "multi_grid": ()},
    "v3plus": {},
    "v3plus-r101": {"encoder": "resnet101"},
    "v3plus-xception65": {"encoder": "xception65"},
    "v3plus-smp": {**PORTS["smp"], "convolution": "bare", "refine": 1},
    "v3plus-mmseg": PORTS["mmseg"],
    "v3plus-VainF": {"convolution": "plain", "refine": 1},
    "small": {"encoder": "resnet18", "width": 64, "skip": 24},
}
THIN = {"encoder": "test_resnet", "width": 16, "skip": 8}  # for the tests of what every net promises

# the options that a version has, with its paper's numbers
V3: dict[str, Any] = {"encoder": "resnet50", "output_stride": 16, "rates": None, "width": 256, "multi_grid": (1, 2, 4),
                      "convolution": "plain", "join": 1, "smooth": 0, "aux": 0.0, "aux_stride": 16, "dropout": 0.1,
                      "late_dropout": False, "align_corners": False}  # fmt: skip
VERSIONS: dict[str, dict[str, Any]] = {
    "v1": {"rates": (12,), "width": 64, "ceil": True, "dropout": 0.5, "align_corners": True},
    "v2": {"encoder": "resnet101", "output_stride": 8, "rates": (6, 12, 18, 24), "multi_grid": (1, 1, 1),
           "stride_in_1x1": True, "ceil": True, "scales": (0.5, 0.75, 1.0), "aux": 1.0, "align_corners": True},
    "v3": V3,
    "v3plus": {**V3, "multi_grid": (), "convolution": "separable", "skip": 48, "refine": 2},
}  # fmt: skip


class DeepLab(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, h, w], an eighth or sixteenth of the image's size, in v3plus
    a quarter; any H, W from `min_size` up.

    encoder   images -> maps, the finest first       head   the maps -> logits
    aux       (head, weight) on the last map but one, in training; v2: (None, weight) of the losses of each scale
    scales    of the image whose logits' maximum is taken
    """

    min_size = 8

    def __init__(self, encoder: nn.Module, head: nn.Module, *, aux: tuple[nn.Module | None, float] = (None, 0.0),
                 scales: Sequence[float] = (1.0,), align_corners: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.head = encoder, head
        self.aux, self.aux_weight = aux
        self.scales, self.align_corners = tuple(scales), align_corners

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        aux: list[tuple[str, float, Tensor]] = []
        if len(self.scales) > 1:
            logits, parts = scaled(lambda x: self.head(self.encoder(x)), images, self.scales, self.align_corners)
            if self.training and self.aux_weight:
                aux = [(f"scale{round(100 * scale)}", self.aux_weight, part) for scale, part in parts.items()]
        else:
            maps = self.encoder(images)
            logits = self.head(maps)
            if self.training and self.aux is not None:
                aux = [("aux", self.aux_weight, self.aux(maps[-2]))]
        return dense(images, frames, logits, aux=aux, align_corners=self.align_corners)


def build(*, classes: int, channels: int = 3, version: str = "v3plus", pretrained: bool = False,
          encoder: str | None = None, output_stride: int | None = None, rates: Sequence[int] | None = None,
          width: int | None = None, multi_grid: Sequence[int] | None = None, convolution: str | None = None,
          join: int | None = None, smooth: int | None = None, skip: int | None = None, refine: int | None = None,
          scales: Sequence[float] | None = None, stride_in_1x1: bool | None = None, ceil: bool | None = None,
          aux: float | None = None, aux_stride: int | None = None, dropout: float | None = None,
          late_dropout: bool | None = None, align_corners: bool | None = None) -> DeepLab:  # fmt: skip
    """DeepLab with numbers; None is what the version's paper has (`VERSIONS`).

    channels       of the input                      version      v1, v2, v3 or v3plus
    pretrained     the encoder begins with timm's weights
    encoder        see `pixelwise list encoders`; not v1
    output_stride  16 or 8 of the encoder's last map; not v1
    rates          of the dilated convolutions; v3, v3plus: 6, 12, 18, and twice that at stride 8
    width          of the ASPP; v1: of VGG's first stage, of which fc6 and fc7 have 16
    multi_grid     by what each block of a ResNet's last stage is dilated further, all its stages being dilated from the
                   first block on; []: as timm does it, where a stage's first block keeps the dilation of the one before
    convolution    v3, v3plus: plain, separable, or bare: separable without a norm between the two parts
    join           v3, v3plus: side of the kernel that joins the ASPP's branches, 1 or 3
    smooth         v3, v3plus: 3x3 convolutions behind the ASPP
    skip, refine   v3plus: channels of the finer map, and 3x3 convolutions behind the join with it
    scales         v2: of the image, 1 among them, whose largest logit is taken
    stride_in_1x1  v2: the bottlenecks' stride is in their first convolution, as in Caffe's ResNets; timm's weights were
                   trained without
    ceil           v1, v2: the sizes of poolings round up
    aux            weight of the auxiliary head's loss (no such head at 0); v2: of the loss of each scale
    aux_stride     v3, v3plus: 8 or 16, of the map that the auxiliary head is on, as the undilated encoder has it
    dropout        behind the ASPP, v1: behind fc6 and fc7; `late_dropout`: before the last convolution, of whole maps
    align_corners  how maps and logits are enlarged
    Raises ConfigError for numbers that cannot be, and for an option that the version does not have.
    """
    check_choice("DeepLab", VERSIONS, version=version)
    given = {"encoder": encoder, "output_stride": output_stride, "rates": rates, "width": width,
             "multi_grid": multi_grid, "convolution": convolution, "join": join, "smooth": smooth, "skip": skip,
             "refine": refine, "scales": scales, "stride_in_1x1": stride_in_1x1, "ceil": ceil, "aux": aux,
             "aux_stride": aux_stride, "dropout": dropout, "late_dropout": late_dropout,
             "align_corners": align_corners}  # fmt: skip
    options = dict(VERSIONS[version])
    for name, value in given.items():
        if value is not None and name not in options:
            raise ConfigError(f"DeepLab {version} has no {name}; its options are {', '.join(options)}.")
        if value is not None:
            options[name] = value
    check_whole("DeepLab", channels=channels)
    check_flags("DeepLab", pretrained=pretrained)
    _check(options)
    makers: dict[str, Callable[..., DeepLab]] = {"v1": _v1, "v2": _v2, "v3": _v3, "v3plus": _v3}
    return makers[version](classes, channels, pretrained, **options)


def _check(options: dict[str, Any]) -> None:
    """Raises ConfigError for values that cannot be."""

    def some(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names if name in options}

    check_choice("DeepLab", (8, 16), **some("output_stride", "aux_stride"))
    check_choice("DeepLab", CONVOLUTIONS, **some("convolution"))
    check_choice("DeepLab", (1, 3), **some("join"))
    check_whole("DeepLab", **some("width", "skip", "refine"))
    check_whole("DeepLab", least=0, **some("smooth"))
    check_dropout("DeepLab", **some("dropout"))
    check_weight("DeepLab", **some("aux"))
    check_flags("DeepLab", **some("align_corners", "stride_in_1x1", "ceil", "late_dropout"))
    if options["rates"] is not None:
        check_wholes("DeepLab", "rates", options["rates"])
    if options.get("multi_grid"):
        check_wholes("DeepLab", "multi_grid", options["multi_grid"])
    scales = options.get("scales", (1,))
    numbers = isinstance(scales, Sequence) and all(isinstance(s, int | float) and 0 < s <= 4 for s in scales)
    if not numbers or 1 not in scales or len(set(scales)) != len(scales):
        raise ConfigError(f"DeepLab: scales is {scales!r}; it must be different numbers up to 4, 1 among them.")


def _v1(classes: int, channels: int, pretrained: bool, *, rates: Sequence[int], width: int, ceil: bool, dropout: float,
        align_corners: bool) -> DeepLab:  # fmt: skip
    (rate,) = check_wholes("DeepLab v1", "rates", rates, count=1)
    vgg = large_fov_vgg(channels, width, ceil)
    head = LargeFOV(vgg.channels[-1], classes, width=FC * width, rate=rate, dropout=dropout)
    if pretrained:
        head.decimate(*vgg.load_imagenet())
    return DeepLab(vgg, head, align_corners=align_corners)


def _v2(classes: int, channels: int, pretrained: bool, *, encoder: str, output_stride: int, rates: Sequence[int],
        multi_grid: Sequence[int], stride_in_1x1: bool, ceil: bool, scales: Sequence[float], aux: float,
        align_corners: bool) -> DeepLab:  # fmt: skip
    net = _encoder(encoder, channels, pretrained, output_stride, (32,), multi_grid)
    if stride_in_1x1:
        move_stride(net.body)
    pool = getattr(net.body, "maxpool", None)
    if isinstance(pool, nn.MaxPool2d):
        pool.ceil_mode = ceil
    head = SummedASPP(net.channels[-1], classes, rates)
    return DeepLab(net, head, aux=(None, aux), scales=scales, align_corners=align_corners)


def _v3(classes: int, channels: int, pretrained: bool, *, encoder: str, output_stride: int,
        rates: Sequence[int] | None, multi_grid: Sequence[int], aux: float, aux_stride: int, dropout: float,
        late_dropout: bool, align_corners: bool, skip: int = 0, refine: int = 0, **sizes: Any) -> DeepLab:  # fmt: skip
    levels = ((4,) if skip else ()) + ((aux_stride,) if aux else ()) + (32,)
    net = _encoder(encoder, channels, pretrained, output_stride, levels, multi_grid)
    sizes |= {"rates": rates or [rate * 16 // output_stride for rate in (6, 12, 18)],
              "dropout": dropout, "late": late_dropout}  # fmt: skip
    deep = net.channels[-1]
    if skip:
        sizes |= {"fine": net.channels[0], "skip": skip, "refine": refine, "align_corners": align_corners}
    head = DecoderHead(deep, classes, **sizes) if skip else AtrousHead(deep, classes, **sizes)
    extra = FCNHead(net.channels[-2], classes, maps=late_dropout) if aux else None
    return DeepLab(net, head, aux=(extra, aux), align_corners=align_corners)


def _encoder(name: str, channels: int, pretrained: bool, output_stride: int, levels: Sequence[int],
             multi_grid: Sequence[int]) -> Encoder:  # fmt: skip
    net = make_encoder(name, channels=channels, pretrained=pretrained, output_stride=output_stride, levels=levels)
    if multi_grid:
        dilate(net.body, multi_grid)
    return net
