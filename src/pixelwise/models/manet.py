"""MA-Net (Fan, Wang, Li, Wang 2020, IEEE Access, doi 10.1109/ACCESS.2020.3025372), Multi-scale Attention Net: a U-Net
with attention over positions at its bottom and over channels at its skips.

Position-wise attention block (PAB): every place of the encoder's last map takes a mean of all places, weighed by how
alike they are: S_ij = softmax_j(a_i . b_j), y_i = x_i + sum_j S_ij c_j. Multi-scale fusion attention block (MFAB): the
map from below, enlarged, is multiplied by weights of its channels, which are squeezed and excited from its own mean and
from that of the skip, added up; then the skip stands beside it and two 3x3 convolutions follow. The last block has no
skip and no attention.

The plain variant takes the softmax over the places j, as attention over positions does since DANet (Fu et al. 2018,
1809.02983). `smp` is segmentation_models.pytorch's net, whose files load: its softmax goes over all pairs (i, j) of an
image at once, and it reads the result, places by channels, as channels by places without turning it. All else is the
same in both, and smp's: the convolutions around the attention, the squeeze to a sixteenth, the widths, the ResNet-34.
The paper was not at hand when this was written: its blocks are described here after smp's code, not after its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.keys import Dialect
from pixelwise.core.outputs import Dense, Frame
from pixelwise.nn.attention import attend, tokens
from pixelwise.nn.conv import conv_norm
from pixelwise.nn.encoder import Encoder, make_encoder
from pixelwise.nn.heads import dense
from pixelwise.nn.options import check_choice, check_flags, check_whole, check_wholes
from pixelwise.nn.pyramid import halving
from pixelwise.nn.smp_keys import SMP_ENCODER, smp_encoder
from pixelwise.nn.unet_decoder import check_cells

PAPER = {
    "title": "MA-Net: A Multi-Scale Attention Network for Liver and Tumor Segmentation",
    "year": 2020,
    "doi": "10.1109/ACCESS.2020.3025372",
}

VARIANTS: dict[str, dict[str, Any]] = {"": {}, "smp": {"attention": "smp"}}
# for the tests of what every net promises
THIN = {"encoder": "test_resnet", "widths": [8, 8, 8, 8, 8], "attention_width": 4, "squeeze": 2}


class PositionAttention(nn.Module):
    """PAB: [B, C, h, w] -> the same.

    width  in which places are compared      form  "places" or "smp", see above
    """

    def __init__(self, channels: int, width: int, form: str) -> None:
        super().__init__()
        self.form = form
        self.query, self.key = nn.Conv2d(channels, width, 1), nn.Conv2d(channels, width, 1)
        self.value, self.out = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (tokens(conv(x)) for conv in (self.query, self.key, self.value))  # [B, P, D or C]
        if self.form == "smp":
            alike = queries @ keys.mT  # [B, P, P]
            mean = (alike.flatten(1).softmax(1).view_as(alike) @ values).reshape(x.shape)
        else:
            mean = attend(queries, keys, values).mT.view(x.shape)
        return self.out(x + mean)


def _excitation(channels: int, squeeze: int) -> nn.Sequential:
    """[B, C, h, w] -> weights [B, C, 1, 1] in 0..1 (Hu et al. 2017, 1709.01507)."""
    few = max(1, channels // squeeze)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, few, 1), nn.ReLU(inplace=True),
                         nn.Conv2d(few, channels, 1), nn.Sigmoid())  # fmt: skip


class FusionAttention(nn.Module):
    """MFAB: the map from below [B, C, h, w] and the skip [B, S, H, W] -> [B, D, H, W]."""

    def __init__(self, channels: int, skip: int, width: int, squeeze: int) -> None:
        super().__init__()
        self.project = nn.Sequential(conv_norm(channels, channels, 3), conv_norm(channels, skip))
        self.below, self.beside = _excitation(skip, squeeze), _excitation(skip, squeeze)
        self.convs = nn.Sequential(conv_norm(2 * skip, width, 3), conv_norm(width, width, 3))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.project(x)
        weights = self.below(x) + self.beside(skip)  # before it is enlarged, which does not change the mean
        x = F.interpolate(x * weights, skip.shape[-2:], mode="nearest")
        return self.convs(torch.cat([x, skip], 1))


class Enlarge(nn.Module):
    """Twice the size, then two convolutions, where there is no skip: [B, C, h, w] -> [B, D, 2h, 2w]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv_norm(channels, width, 3), conv_norm(width, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class MANet(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from `min_size` up."""

    min_size = 32

    def __init__(self, encoder: Encoder, *, classes: int, widths: Sequence[int], attention: str,
                 attention_width: int, squeeze: int) -> None:  # fmt: skip
        super().__init__()
        self.encoder = encoder
        deep, *skips = encoder.channels[::-1]  # the coarsest first
        self.attention = PositionAttention(deep, attention_width, attention)
        self.blocks = nn.ModuleList(
            Enlarge(c, d) if s is None else FusionAttention(c, s, d, squeeze)
            for c, d, s in zip_longest([deep, *widths[:-1]], widths, skips)
        )
        self.head = nn.Conv2d(widths[-1], classes, 3, padding=1)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        check_cells(self, images, self.encoder.strides[-1])
        *skips, x = self.encoder(images)
        x = self.attention(x)
        for block, skip in zip_longest(self.blocks, reversed(skips)):
            x = block(x) if skip is None else block(x, skip)
        logits = self.head(x[..., : images.shape[2], : images.shape[3]])  # [B, K, H, W]
        return dense(images, frames, logits)


def build(*, classes: int, channels: int = 3, encoder: str = "resnet34", pretrained: bool = False,
          widths: Sequence[int] = (256, 128, 64, 32, 16), attention: str = "places",
          attention_width: int = 64, squeeze: int = 16) -> MANet:  # fmt: skip
    """MA-Net with numbers.

    channels  of the input                 encoder  see `pixelwise list encoders`
    pretrained  the encoder begins with timm's weights
    widths    of the decoder's blocks, the coarsest first: as many as the encoder halves the image
    attention  "places" or "smp", see above          attention_width  channels in which it compares places
    squeeze   how many channels of a skip share one of the numbers that its weights are told from
    Raises ConfigError for what cannot be.
    """
    check_whole("MA-Net", channels=channels, attention_width=attention_width, squeeze=squeeze)
    check_flags("MA-Net", pretrained=pretrained)
    check_choice("MA-Net", ("places", "smp"), attention=attention)
    body = halving(make_encoder(encoder, channels=channels, pretrained=pretrained, cover=True), encoder)
    wanted = body.strides[-1].bit_length() - 1
    widths = check_wholes("MA-Net", "widths", widths, count=wanted)
    return MANet(body, classes=classes, widths=widths, attention=attention, attention_width=attention_width,
                 squeeze=squeeze)  # fmt: skip


# -- files of others --------------------------------------------------------------------------------------------------


def _smp_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    blocks = sum(name.endswith(".conv2.0.weight") for name in tensors)
    widths = [len(tensors[f"decoder.blocks.{i}.conv2.0.weight"]) for i in range(blocks)]
    return {**VARIANTS["smp"], **smp_encoder(tensors), "classes": len(tensors["segmentation_head.0.weight"]),
            "widths": widths, "attention_width": len(tensors["decoder.center.top_conv.bias"])}  # fmt: skip


KEYS = {
    "smp": Dialect(
        signs=(
            r"^encoder\.",
            r"^decoder\.center\.top_conv\.",
            r"^decoder\.blocks\.0\.SE_ll\.",
            r"^segmentation_head\.",
        ),
        rules=(
            *SMP_ENCODER,
            (r"decoder\.center\.center_conv\.(.*)", r"attention.query.\1"),
            (r"decoder\.center\.top_conv\.(.*)", r"attention.key.\1"),
            (r"decoder\.center\.bottom_conv\.(.*)", r"attention.value.\1"),
            (r"decoder\.center\.out_conv\.(.*)", r"attention.out.\1"),
            (r"decoder\.blocks\.(\d)\.hl_conv\.(.*)", r"blocks.\1.project.\2"),
            (r"decoder\.blocks\.(\d)\.SE_hl\.(.*)", r"blocks.\1.below.\2"),
            (r"decoder\.blocks\.(\d)\.SE_ll\.(.*)", r"blocks.\1.beside.\2"),
            (r"decoder\.blocks\.(\d)\.conv1\.(.*)", r"blocks.\1.convs.0.\2"),
            (r"decoder\.blocks\.(\d)\.conv2\.(.*)", r"blocks.\1.convs.1.\2"),
            (r"segmentation_head\.0\.(.*)", r"head.\1"),
            (r"classification_head\..*", ""),
        ),
        options=_smp_options,
    ),
}
