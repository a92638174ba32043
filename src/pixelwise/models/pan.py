"""PAN (Li, Xiong, An, Wang 2018, 1805.10180), Pyramid Attention Network: attention over a small pyramid, then gates.

Feature pyramid attention (FPA): the encoder's last map, halved three times and convolved by 7x7, 5x5 and 3x3, comes
back step by step as one map of weights, by which a 1x1 convolution of the last map is multiplied; the mean of the
image through another 1x1 is added. Global attention upsampling (GAU), at each finer map: the mean of what comes from
above gates the channels of a 3x3 convolution of the finer map, and what comes from above, enlarged, is added.

The encoder's last stage is dilated to an output stride of 16, as in the paper, which has a ResNet-101 with a stem of
three convolutions (`r101`). What the paper leaves open is as in segmentation_models.pytorch, whose files load: the
weights of the pyramid are a single map, halved by max pooling; 32 channels; enlarging with aligned corners; a 3x3
convolution labels. `smp` is its net, which departs from the paper: gates are sigmoids, not ReLUs, all blocks of the
dilated stage have its dilation, and convolutions have biases before their norms, which do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.keys import Dialect, Untold
from pixelwise.core.outputs import Dense, Frame
from pixelwise.errors import ModelFileError
from pixelwise.nn.conv import check_pooled, conv_norm
from pixelwise.nn.encoder import STRIDES, Encoder, dilate_evenly, make_encoder
from pixelwise.nn.encoder_maps import NETS
from pixelwise.nn.heads import dense
from pixelwise.nn.options import check_choice, check_flags, check_whole
from pixelwise.nn.smp_keys import SMP_ENCODER, smp_encoder
from pixelwise.nn.upsample import enlarge

PAPER = {"title": "Pyramid Attention Network for Semantic Segmentation", "year": 2018, "arxiv": "1805.10180"}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "r101": {"encoder": "resnet101c"},
    "smp": {"gate": "sigmoid", "even_dilation": True, "bias": True},
}
THIN = {"encoder": "test_resnet", "width": 8}  # for the tests of what every net promises
LEVELS = (4, 8, 16, 32)  # strides of the encoder's stages, undilated


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return enlarge(x, like.shape[2:], align_corners=True)


def _halve(x: Tensor) -> Tensor:
    """The largest of 2x2; a side of a single cell stays."""
    return F.max_pool2d(x, (min(2, x.shape[2]), min(2, x.shape[3])))


class PyramidAttention(nn.Module):
    """FPA: [B, C, h, w] -> [B, D, h, w]."""

    def __init__(self, channels: int, width: int, *, bias: bool) -> None:
        super().__init__()
        self.mean, self.middle = conv_norm(channels, width, bias=bias), conv_norm(channels, width, bias=bias)
        self.down1, self.down2 = conv_norm(channels, 1, 7, bias=bias), conv_norm(1, 1, 5, bias=bias)
        self.down3 = nn.Sequential(conv_norm(1, 1, 3, bias=bias), conv_norm(1, 1, 3, bias=bias))
        self.up2, self.up1 = conv_norm(1, 1, 5, bias=bias), conv_norm(1, 1, 7, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        check_pooled(x, self)
        half = self.down1(_halve(x))  # [B, 1, h/2, w/2]
        quarter = self.down2(_halve(half))
        eighth = self.down3(_halve(quarter))
        weights = self.up2(quarter) + _enlarge(eighth, quarter)
        weights = self.up1(half) + _enlarge(weights, half)
        return _enlarge(weights, x) * self.middle(x) + self.mean(x.mean((2, 3), keepdim=True))


class AttentionUpsample(nn.Module):
    """GAU: a finer map [B, C, h, w] and what comes from above [B, D, h', w'] -> [B, D, h, w]."""

    def __init__(self, channels: int, width: int, gate: str, *, bias: bool) -> None:
        super().__init__()
        self.gate = conv_norm(width, width, bias=bias, act=False)
        self.conv = conv_norm(channels, width, 3, bias=bias)
        self.act: nn.Module = nn.Sigmoid() if gate == "sigmoid" else nn.ReLU(inplace=True)

    def forward(self, finer: Tensor, above: Tensor) -> Tensor:
        check_pooled(above, self)
        gate = self.act(self.gate(above.mean((2, 3), keepdim=True)))  # [B, D, 1, 1]
        return _enlarge(above, finer) + self.conv(finer) * gate


class PAN(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H/4, W/4]; any H, W from `min_size` up. Norms stand behind
    means of the image: training takes at least 2 images."""

    min_size = 32

    def __init__(self, encoder: Encoder, *, classes: int, width: int, gate: str, bias: bool) -> None:
        super().__init__()
        self.encoder = encoder
        *finer, deep = encoder.channels
        self.attention = PyramidAttention(deep, width, bias=bias)
        self.up = nn.ModuleList(AttentionUpsample(c, width, gate, bias=bias) for c in finer)
        self.head = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        *finer, deep = self.encoder(images)
        x = self.attention(deep)
        for i in reversed(range(len(finer))):
            x = self.up[i](finer[i], x)
        return dense(images, frames, self.head(x), align_corners=True)  # [B, K, h, w]


def build(*, classes: int, channels: int = 3, encoder: str = "resnet34", pretrained: bool = False,
          output_stride: int = 16, even_dilation: bool = False, width: int = 32, gate: str = "relu",
          bias: bool = False) -> PAN:  # fmt: skip
    """PAN with numbers.

    channels  of the input                 encoder  see `pixelwise list encoders`
    pretrained  the encoder begins with timm's weights
    output_stride  8, 16 or 32 of the last map: below 32 later stages are dilated
    even_dilation  all blocks of a stage have the same dilation (`nn.encoder.dilate_evenly`), for ResNets
    width     of the decoder               gate     "relu", as in the paper, or "sigmoid"
    bias      in convolutions before a norm, where it does nothing
    Raises ConfigError for what cannot be.
    """
    check_whole("PAN", channels=channels, width=width)
    check_flags("PAN", pretrained=pretrained, even_dilation=even_dilation, bias=bias)
    check_choice("PAN", STRIDES, output_stride=output_stride)
    check_choice("PAN", ("relu", "sigmoid"), gate=gate)
    body = make_encoder(encoder, channels=channels, pretrained=pretrained, output_stride=output_stride, levels=LEVELS,
                        cover=True)  # fmt: skip
    if even_dilation:
        dilate_evenly(body.body)
    return PAN(body, classes=classes, width=width, gate=gate, bias=bias)


# -- files of others --------------------------------------------------------------------------------------------------


def _smp_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    told, head = smp_encoder(tensors), tensors["segmentation_head.0.weight"]
    # the encoder knows itself how smp dilates it, or it is timm's, whose dilation smp leaves as it is
    itself = isinstance(told["encoder"], Untold) or told["encoder"] in NETS
    if not itself and not told["encoder"].startswith(("resnet", "resnext", "wide_resnet")):
        raise ModelFileError("it dilates its encoder in a way that is only known of ResNets, EfficientNets and "
                             "MobileNetV2.")  # fmt: skip
    return {**VARIANTS["smp"], "even_dilation": not itself, **told, "classes": head.shape[0], "width": head.shape[1]}


def _convs(there: str, here: str) -> tuple[tuple[str, str], ...]:
    """Rules for one convolution and its norm; group 1 of `there` may be of use in `here`."""
    return ((rf"{there}\.conv\.([a-z_]+)", rf"{here}.0.\g<{1 + there.count('(')}>"),
            (rf"{there}\.bn\.([a-z_]+)", rf"{here}.1.\g<{1 + there.count('(')}>"))  # fmt: skip


KEYS = {
    # the output stride stands in no file: its default, 16
    "smp": Dialect(
        signs=(r"^encoder\.", r"^decoder\.fpa\.branch1\.", r"^decoder\.gau3\.", r"^segmentation_head\.0\."),
        rules=(
            *SMP_ENCODER,
            *_convs(r"decoder\.fpa\.branch1\.1", "attention.mean"),
            *_convs(r"decoder\.fpa\.mid\.0", "attention.middle"),
            *_convs(r"decoder\.fpa\.down([12])\.1", r"attention.down\1"),
            *_convs(r"decoder\.fpa\.down3\.1", "attention.down3.0"),
            *_convs(r"decoder\.fpa\.down3\.2", "attention.down3.1"),
            *_convs(r"decoder\.fpa\.conv([12])", r"attention.up\1"),
            *(
                rule
                for i in range(3)
                for rule in (
                    *_convs(rf"decoder\.gau{i + 1}\.conv1\.1", f"up.{i}.gate"),
                    *_convs(rf"decoder\.gau{i + 1}\.conv2", f"up.{i}.conv"),
                )
            ),
            (r"segmentation_head\.0\.(.*)", r"head.\1"),
            (r"classification_head\..*", ""),
        ),
        options=_smp_options,
    ),
}
