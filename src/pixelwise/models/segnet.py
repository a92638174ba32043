"""SegNet (Badrinarayanan, Kendall, Cipolla 2015, 1511.00561): an encoder whose poolings remember where each maximum
stood, and a decoder that puts it back there.

The plain variant is the authors' `segnet_train.prototxt`: the 13 convolutions of VGG-16, each with batch norm and ReLU,
and 13 that mirror them, of which the last has neither: 29,455,125 parameters at 21 classes, 29,449,355 at CamVid's 11.
Poolings round up, as in Caffe, so that an odd last row or column is kept; unpooling returns to the size before.
`pretrained` fills the encoder from timm's vgg16_bn (the authors: from VGG-16 without norms).

`basic` is their `segnet_basic_train.prototxt`: four convolutions of 7x7, 64 wide, down and four up, the latter with a
norm but no ReLU, and a 1x1 to the classes; 1,416,587 parameters at 11 classes. In front of it stands a local response
norm over 5 channels, made for values of 0..255: of images normalised to a deviation of 1 it changes next to nothing.

Both known ports to PyTorch are other nets, of 29,455,167 parameters at 21 classes:

    meetps      pytorch-semseg: batch norm and ReLU stand behind the last convolution too, so that no score is below 0;
                poolings round down
    vinceecws   SegNet_PyTorch: holds that norm but does not use it (it is left out here), answers probabilities (here
                the scores that they are made of), poolings round down, norms have a momentum of 0.5. An image with an
                odd side it answers in part, from shifted places; here it is answered whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pixelwise.core.keys import Dialect, Rule
from pixelwise.core.outputs import Dense, Frame
from pixelwise.core.sample import Preprocessing
from pixelwise.errors import ConfigError
from pixelwise.nn.heads import dense
from pixelwise.nn.options import check_choice, check_flags, check_whole
from pixelwise.nn.upsample import pool, unpool
from pixelwise.nn.vgg import DEPTHS, VGG, initialise, stage

PAPER = {
    "title": "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation",
    "year": 2015,
    "arxiv": "1511.00561",
}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "basic": {"encoder": "basic"},
    "meetps": {"last": "norm_relu", "ceil": False},
    "vinceecws": {"ceil": False, "momentum": 0.5},
}
THIN = {"width": 2}  # for the tests of what every net promises
ENCODERS = ("vgg16_bn", "basic")
BASIC_STAGES, BASIC_KERNEL = 4, 7


class SegNet(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from `min_size` up.

    encoder   with submodules stage1, stage2, ...      decoder  with submodules of the same names
    head      [B, width, H, W] -> [B, K, H, W]         before   what an image passes first
    ceil      whether poolings round up
    """

    def __init__(self, encoder: nn.Module, decoder: nn.ModuleDict, head: nn.Sequential, before: nn.Module,
                 ceil: bool) -> None:  # fmt: skip
        super().__init__()
        self.before, self.encoder, self.decoder, self.head, self.ceil = before, encoder, decoder, head, ceil
        self.min_size = 1 if ceil else 2 ** len(decoder)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        self._check(images)
        x, stored = self.before(images), []
        for i in range(1, 1 + len(self.decoder)):
            x = self.encoder.get_submodule(f"stage{i}")(x)
            size = (x.shape[2], x.shape[3])
            x, indices = pool(x, ceil=self.ceil)
            stored.append((indices, size))
        for block in self.decoder.values():
            x = block(unpool(x, *stored.pop()))
        return dense(images, frames, self.head(x))

    def _check(self, images: Tensor) -> None:
        """Raises ConfigError where the deepest norms would see one value per channel."""
        most = 2 ** (len(self.decoder) - 1)
        if self.training and len(images) == 1 and max(images.shape[2:]) <= most:
            raise ConfigError(f"SegNet cannot train on a single image of at most {most} pixels a side: its deepest "
                              "norms see one value. Use larger crops, or --batch-size 2 or more.")  # fmt: skip


def build(*, classes: int, channels: int = 3, encoder: str = "vgg16_bn", pretrained: bool = False, width: int = 64,
          last: str = "plain", ceil: bool = True, momentum: float = 0.1) -> SegNet:  # fmt: skip
    """SegNet with numbers.

    channels    of the input                    encoder  vgg16_bn, or basic: see above
    pretrained  the encoder begins with timm's vgg16_bn
    width       of the first stage; VGG's others have 2, 4, 8 and 8 times as many, those of basic as many
    last        plain: scores are what the last convolution says; norm_relu: a port's batch norm and ReLU behind it
    ceil        whether poolings round up
    momentum    of the batch norms' statistics
    Raises ConfigError for what cannot be.
    """
    check_whole("SegNet", channels=channels, width=width)
    check_choice("SegNet", ENCODERS, encoder=encoder)
    check_choice("SegNet", ("plain", "norm_relu"), last=last)
    check_flags("SegNet", pretrained=pretrained, ceil=ceil)
    if isinstance(momentum, bool) or not isinstance(momentum, int | float) or not 0 < momentum <= 1:
        raise ConfigError(f"SegNet: momentum is {momentum!r}; it must be a number in (0, 1].")
    if encoder == "basic":
        if pretrained or last != "plain":
            raise ConfigError(f"SegNet: {'pretrained' if pretrained else 'last'} would do nothing on basic: leave it "
                              "out.")  # fmt: skip
        net = _basic(classes, channels, width, ceil, momentum)
    else:
        net = _on_vgg(classes, channels, width, last, ceil, momentum)
    net.apply(initialise)
    if pretrained and isinstance(net.encoder, VGG):
        net.encoder.load_imagenet()
    return net


def _on_vgg(classes: int, channels: int, width: int, last: str, ceil: bool, momentum: float) -> SegNet:
    vgg = VGG(channels, width=width, norm=True, momentum=momentum)
    outputs = (width, *vgg.channels[:-1])  # of the decoder's stages, the finest first
    depths = (DEPTHS[0] - 1, *DEPTHS[1:])  # the finest stage ends in the head
    decoder = nn.ModuleDict({
        f"stage{i + 1}": stage(vgg.channels[i], outputs[i], depths[i], norm=True, inner=vgg.channels[i],
                               momentum=momentum)
        for i in reversed(range(5))
    })  # fmt: skip
    parts: list[nn.Module] = [nn.Conv2d(width, classes, 3, padding=1)]
    if last == "norm_relu":
        parts += [nn.BatchNorm2d(classes, momentum=momentum), nn.ReLU(inplace=True)]
    return SegNet(vgg, decoder, nn.Sequential(*parts), nn.Identity(), ceil)


def _basic(classes: int, channels: int, width: int, ceil: bool, momentum: float) -> SegNet:
    inputs = (channels, *(width,) * (BASIC_STAGES - 1))
    encoder = nn.ModuleDict({
        f"stage{i}": stage(c, width, 1, norm=True, kernel=BASIC_KERNEL, momentum=momentum)
        for i, c in enumerate(inputs, 1)
    })  # fmt: skip
    decoder = nn.ModuleDict({f"stage{i}": _linear(width, momentum) for i in reversed(range(1, BASIC_STAGES + 1))})
    before = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    return SegNet(encoder, decoder, nn.Sequential(nn.Conv2d(width, classes, 1)), before, ceil)


def _linear(width: int, momentum: float) -> nn.Sequential:
    """A convolution with a norm and no ReLU, with the names of `stage`."""
    conv = nn.Conv2d(width, width, BASIC_KERNEL, padding=BASIC_KERNEL // 2)
    return nn.Sequential(OrderedDict(conv1=conv, norm1=nn.BatchNorm2d(width, momentum=momentum)))


# -- files of others --------------------------------------------------------------------------------------------------


def _meetps_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    first = tensors["down1.conv1.cbr_unit.0.weight"]
    return {**VARIANTS["meetps"], "classes": len(tensors["up1.conv2.cbr_unit.0.weight"]), "width": len(first),
            "channels": first.shape[1]}  # fmt: skip


def _vinceecws_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    first = tensors["ConvEn11.weight"]
    return {**VARIANTS["vinceecws"], "classes": len(tensors["ConvDe11.weight"]), "width": len(first),
            "channels": first.shape[1]}  # fmt: skip


def _vinceecws_decoder() -> tuple[Rule, ...]:
    """Its decoder counts the convolutions of a stage downwards: ConvDe53, ConvDe52, ConvDe51."""
    rules: list[Rule] = []
    for i, depth in enumerate(DEPTHS, 1):
        for j in range(depth if i > 1 else depth - 1):
            rules += [(rf"ConvDe{i}{depth - j}\.(.*)", rf"decoder.stage{i}.conv{j + 1}.\1"),
                      (rf"BNDe{i}{depth - j}\.(.*)", rf"decoder.stage{i}.norm{j + 1}.\1")]  # fmt: skip
    return tuple(rules)


KEYS = {
    # as its loader of CamVid has images: 11 classes and a twelfth for what is void
    "meetps": Dialect(
        signs=(r"^down5\.conv3\.cbr_unit\.1\.", r"^up5\.conv1\.cbr_unit\.0\.", r"^up1\.conv2\.cbr_unit\.1\."),
        rules=(
            (r"down(\d)\.conv(\d)\.cbr_unit\.0\.(.*)", r"encoder.stage\1.conv\2.\3"),
            (r"down(\d)\.conv(\d)\.cbr_unit\.1\.(.*)", r"encoder.stage\1.norm\2.\3"),
            (r"up1\.conv2\.cbr_unit\.(\d)\.(.*)", r"head.\1.\2"),
            (r"up(\d)\.conv(\d)\.cbr_unit\.0\.(.*)", r"decoder.stage\1.conv\2.\3"),
            (r"up(\d)\.conv(\d)\.cbr_unit\.1\.(.*)", r"decoder.stage\1.norm\2.\3"),
        ),
        options=_meetps_options,
        preprocessing=Preprocessing(order="BGR", mean=tuple(m / 255 for m in (104.00699, 116.66877, 122.67892)),
                                    std=(1.0, 1.0, 1.0)),
        labels={12: "camvid-nothing"},
    ),
    "vinceecws": Dialect(
        signs=(r"^ConvEn53\.", r"^BNEn53\.", r"^ConvDe53\.", r"^ConvDe11\."),
        rules=(
            (r"ConvEn(\d)(\d)\.(.*)", r"encoder.stage\1.conv\2.\3"),
            (r"BNEn(\d)(\d)\.(.*)", r"encoder.stage\1.norm\2.\3"),
            *_vinceecws_decoder(),
            (r"ConvDe11\.(.*)", r"head.0.\1"),
            (r"BNDe11\..*", ""),  # never run
        ),
        options=_vinceecws_options,
        preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    ),
}  # fmt: skip
