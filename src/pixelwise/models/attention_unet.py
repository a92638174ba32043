"""Attention U-Net (Oktay, Schlemper, Le Folgoc, Lee, Heinrich et al. 2018, 1804.03999): gates let through of each skip
what the coarser map asks for.

An additive gate weighs every pixel i of a skip x by a number from the gating signal g, one level coarser:

    q_i = psi^T relu(W_x^T x_i + W_g^T g_i + b_g) + b_psi        alpha_i = sigmoid(q_i)        x_i alpha_i

W_x brings x to the grid of g by a 2x2 convolution of stride 2, and alpha is enlarged bilinearly again. The finest skip
has no gate. Deep supervision in the authors' code is fusion: every scale of the expanding path has its 1x1 head, and
the answer is a 1x1 convolution of all of them, enlarged; only that has a loss.

The plain variant is the authors' net (ozan-oktay/Attention-Gated-Networks, `unet_CT_single_att_dsv`) in two dimensions
instead of three: widths 16 to 256, bilinear enlarging without a convolution, the coarsest gating signal and every
gated skip through 1x1 convolutions of their own. Gates begin open, as the paper asks, by b_psi = 3, the number of the
authors' later gates. `LeeJunHyun` is the well-known port LeeJunHyun/Image_Segmentation: widths 64 to 1024, g enlarged
by a convolution to the grid of x, norms in the gates, a gate on the finest skip too, one head. `resnet34` has the
paper's gates and heads on the U-Net over an encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.outputs import Dense, Frame
from pixelwise.kernels.mirror import lacking, mirror
from pixelwise.models._attention_unet_keys import KEYS as KEYS
from pixelwise.models.unet import DoubleConv, initialise
from pixelwise.nn.conv import conv_norm
from pixelwise.nn.encoder import Encoder, make_encoder
from pixelwise.nn.heads import dense
from pixelwise.nn.options import check_choice, check_encoder_name, check_flags, check_unused, check_whole, check_wholes
from pixelwise.nn.unet_decoder import WIDTHS, SkipBlock, Skips, check_cells, check_widths
from pixelwise.nn.upsample import enlarge

PAPER = {"title": "Attention U-Net: Learning Where to Look for the Pancreas", "year": 2018, "arxiv": "1804.03999"}

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "LeeJunHyun": {"width": 64, "form": "LeeJunHyun", "deep": False},
    "resnet34": {"encoder": "resnet34"},
}
THIN = {"width": 4}  # for the tests of what every net promises
HALVINGS = 4
OPEN = 3.0  # b_psi at first: 95 % of a skip passes


class AttentionGate(nn.Module):
    """x [B, C, H, W], g [B, G, h, w] -> x weighed by a map of its pixels, [B, C, H, W].

    inner  channels of the sum of the two      step  side and stride of W_x
    norms  batch norms behind W_x, W_g and psi, as LeeJunHyun has them
    """

    def __init__(self, channels: int, gating: int, inner: int, *, step: int = 2, norms: bool = False) -> None:
        super().__init__()

        def linear(c: int, d: int, kernel: int, bias: bool) -> nn.Module:
            conv = nn.Conv2d(c, d, kernel, stride=kernel, bias=bias)
            return nn.Sequential(conv, nn.BatchNorm2d(d)) if norms else conv

        self.theta = linear(channels, inner, step, norms)  # W_x, whose bias would be one with that of W_g
        self.phi = linear(gating, inner, 1, True)  # W_g
        self.psi = linear(inner, 1, 1, True)
        initialise_gate(self)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return x * enlarge(self.alpha(x, g), x.shape[2:])

    def alpha(self, x: Tensor, g: Tensor) -> Tensor:
        """[B, 1, H / step, W / step] in 0..1."""
        seen = self.theta(x)
        return self.psi(F.relu(seen + enlarge(self.phi(g), seen.shape[2:]))).sigmoid()


def initialise_gate(module: nn.Module) -> None:
    """For `apply`: opens a gate without norms."""
    if isinstance(module, AttentionGate):
        module.apply(initialise)
        if isinstance(module.psi, nn.Conv2d) and module.psi.bias is not None:
            nn.init.constant_(module.psi.bias, OPEN)


class GatedSkip(nn.Module):
    """The authors' gate on a skip, then twice 1x1 convolution and norm, at last ReLU: -> [B, C, H, W]."""

    def __init__(self, channels: int, gating: int) -> None:
        super().__init__()
        self.gate = AttentionGate(channels, gating, channels)
        convs = [nn.Conv2d(channels, channels, 1) for _ in range(2)]
        norms = [nn.BatchNorm2d(channels) for _ in range(2)]
        self.after = nn.Sequential(convs[0], norms[0], convs[1], norms[1], nn.ReLU(inplace=True))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return self.after(self.gate(x, g))


class Step(nn.Module):
    """The authors' step up: the gated skip and the enlarged map through two convolutions.

    gated  False at full size, where the skip passes as it is
    """

    def __init__(self, channels: int, width: int, *, gated: bool) -> None:
        super().__init__()
        self.skip = GatedSkip(width, channels) if gated else None
        self.conv = DoubleConv(channels + width, width, norm="batch", bias=True, pad=1)

    def forward(self, x: Tensor, skip: Tensor, g: Tensor) -> Tensor:
        if self.skip is not None:
            skip = self.skip(skip, g)
        return self.conv(torch.cat([skip, enlarge(x, skip.shape[2:])], 1))


class PortStep(nn.Module):
    """LeeJunHyun's step up: the map enlarged (nearest) and convolved gates the skip and joins it."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.up = conv_norm(channels, width, 3, bias=True)
        self.gate = AttentionGate(width, width, max(1, width // 2), step=1, norms=True)
        self.conv = DoubleConv(2 * width, width, norm="batch", bias=True, pad=1)

    def forward(self, x: Tensor, skip: Tensor, g: Tensor) -> Tensor:
        x = self.up(F.interpolate(x, skip.shape[2:], mode="nearest"))
        return self.conv(torch.cat([self.gate(skip, x), x], 1))


class FusedHeads(nn.Module):
    """Maps, the finest first -> logits [B, K, H, W] on the finest one's grid, made of those of all."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in channels)
        self.fuse = nn.Conv2d(len(channels) * classes, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        logits = [enlarge(head(x), maps[0].shape[2:]) for head, x in zip(self.heads, maps)]
        return self.fuse(torch.cat(logits, 1))


class Answering(nn.Module):
    """What the net with its own contracting path and that over an encoder have in common."""

    def __init__(self, channels: Sequence[int], classes: int, *, deep: bool) -> None:
        super().__init__()
        self.head = FusedHeads(channels, classes) if deep else nn.Conv2d(channels[0], classes, 1)

    def answer(self, images: Tensor, frames: tuple[Frame, ...] | None, maps: Sequence[Tensor]) -> Dense:
        """images, the expanding path's maps, the finest first -> the output."""
        logits = self.head(maps if isinstance(self.head, FusedHeads) else maps[0])
        return dense(images, frames, logits[:, :, : images.shape[2], : images.shape[3]])


class AttentionUNet(Answering):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from `min_size` up, padded inside."""

    min_size = 8

    def __init__(self, *, classes: int, channels: int, width: int, form: str, deep: bool) -> None:
        widths = [width * 2**i for i in range(HALVINGS + 1)]
        super().__init__(widths[:-1], classes, deep=deep)
        inputs = [channels, *widths]
        self.path = nn.ModuleList(DoubleConv(c, w, norm="batch", bias=True, pad=1) for c, w in zip(inputs, widths))
        rising = list(pairwise(widths[::-1]))  # of the steps up: channels below, width
        if form == "LeeJunHyun":
            self.gating: nn.Module = nn.Identity()
            self.steps = nn.ModuleList(PortStep(c, w) for c, w in rising)
        else:
            self.gating = nn.Sequential(nn.Conv2d(widths[-1], widths[-1], 1), nn.BatchNorm2d(widths[-1]), nn.ReLU())
            self.steps = nn.ModuleList(Step(c, w, gated=w != width) for c, w in rising)
        self.apply(initialise)
        self.apply(initialise_gate)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        stride = 2**HALVINGS
        check_cells(self, images, stride)
        x = mirror(images, (0, lacking(images.shape[2], stride), 0, lacking(images.shape[3], stride)))
        skips = [self.path[0](x)]
        for block in self.path[1:]:
            skips.append(block(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        g, maps = self.gating(x), []
        for step in self.steps:
            x = g = step(x, skips.pop(), g)
            maps.append(x)
        return self.answer(images, frames, maps[::-1])


class EncoderAttentionUNet(Answering):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, H, W]; any H, W from `min_size` up."""

    min_size = 32

    def __init__(self, encoder: Encoder, *, classes: int, widths: Sequence[int], deep: bool) -> None:
        super().__init__(widths[::-1], classes, deep=deep)
        self.encoder, self.skips = encoder, Skips(encoder)
        check_widths(self.skips, widths)
        below = [self.skips.head, *widths[:-1]]
        finest = min(stride for stride, c in zip(self.skips.strides, self.skips.channels) if c)
        self.gates = nn.ModuleDict({
            str(k): GatedSkip(c, below[k])
            for k, (stride, c) in enumerate(zip(self.skips.strides, self.skips.channels)) if c and stride > finest
        })  # fmt: skip
        self.blocks = nn.ModuleList(SkipBlock(b, c, w) for b, c, w in zip(below, self.skips.channels, widths))
        for part in (self.gates, self.blocks):
            part.apply(initialise)
        self.apply(initialise_gate)

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        check_cells(self, images, self.encoder.strides[-1])
        features = self.encoder(images)
        x, maps = features[-1], []
        for k, (size, skips) in enumerate(self.skips.beside(images, features)):
            gated = [self.gates[str(k)](skip, x) for skip in skips] if str(k) in self.gates else skips
            x = self.blocks[k](x, size, *gated)
            maps.append(x)
        return self.answer(images, frames, maps[::-1])


PLAIN: dict[str, Any] = {"width": 16, "form": "authors"}
WITH_ENCODER: dict[str, Any] = {"pretrained": False, "decoder": WIDTHS}


def build(*, classes: int, channels: int = 3, width: int = 16, form: str = "authors", deep: bool = True,
          encoder: str = "", pretrained: bool = False, decoder: Sequence[int] = WIDTHS) -> Answering:  # fmt: skip
    """Attention U-Net with numbers.

    channels  of the input                width  channels at full size, doubled at each of four halvings
    form      authors or LeeJunHyun: gates and steps up, see above
    deep      heads at every scale, fused; False: one at full size
    encoder   "": none; else see `pixelwise list encoders`, and of the above width and form do not count
    pretrained  the encoder begins with timm's weights
    decoder   channels of the blocks over an encoder, the coarsest first
    Raises ConfigError for what cannot be, and for options of the one kind with the other.
    """
    given: dict[str, Any] = {"width": width, "form": form}
    over: dict[str, Any] = {"pretrained": pretrained,
                            "decoder": tuple(decoder) if isinstance(decoder, list) else decoder}  # fmt: skip
    check_whole("Attention U-Net", channels=channels)
    check_flags("Attention U-Net", deep=deep)
    check_encoder_name("Attention U-Net", encoder)
    if encoder:
        check_unused("Attention U-Net", given, PLAIN, f"encoder={encoder}")
        widths = check_wholes("Attention U-Net", "decoder", over["decoder"])
        check_flags("Attention U-Net", pretrained=pretrained)
        body = make_encoder(encoder, channels=channels, pretrained=pretrained)
        return EncoderAttentionUNet(body, classes=classes, widths=widths, deep=deep)
    check_unused("Attention U-Net", over, WITH_ENCODER, "no encoder")
    check_whole("Attention U-Net", width=width)
    check_choice("Attention U-Net", ("authors", "LeeJunHyun"), form=form)
    return AttentionUNet(classes=classes, channels=channels, deep=deep, **given)
