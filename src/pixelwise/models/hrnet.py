"""HRNet (Sun et al. 2019, 1904.04514; Wang et al. 2019, 1908.07919): high resolution is kept, never recovered.

Four branches at strides 4 to 32 run side by side and exchange what they see (`_hrnet_body.py`). All four outputs are
enlarged to stride 4 and joined; a 1x1 convolution mixes them and another one labels (HRNetV2). `w18`, `w32` and `w48`
are the widths of the finest branch, of which 48 is the plain variant's; `w18-small-v1` and `w18-small-v2` the authors'
small nets (the latter is mmsegmentation's hr18s).

`ocr-...` adds object-contextual representations (Yuan, Chen, Wang 2019, 1909.11065): the head's logits are read as soft
object regions, features are gathered over each region, and every pixel takes from the regions what it is like (`OCR`).
The regions learn from the truth too, by the auxiliary loss with the paper's weight of 0.4; as the second half needs
them, they are computed in evaluation as well. The paper compares pixels and regions by an inner product; here, as in
the authors' code, it is divided by the root of its length.

Where code bases differ there is an option: `align_corners` (true in the authors' OCR nets), `bias` of the head's
convolutions before their norms (the authors'), `by_factor` (mmsegmentation enlarges twice between branches where sizes
are no multiples of 32), `dropout` (the authors' OCR nets). Weights begin as He et al. 2015 (1502.01852).

timm's `hrnet_w18` and its sisters as an `encoder` of other nets are not quite this body: made for classification, they
enlarge by the nearest pixel instead of bilinearly, and hand out what the classifier's next blocks make of the branches
(128 to 1024 channels). `pretrained` takes their weights; the tensors are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.core.outputs import Dense, Frame
from pixelwise.errors import ConfigError
from pixelwise.models._hrnet_body import HighResolutionNet
from pixelwise.models._hrnet_keys import KEYS as KEYS
from pixelwise.nn.attention import attend, tokens
from pixelwise.nn.conv import check_pooled, conv_norm
from pixelwise.nn.encoder import make_encoder
from pixelwise.nn.heads import dense
from pixelwise.nn.options import check_dropout, check_flags, check_weight, check_whole, check_wholes
from pixelwise.nn.upsample import enlarge

PAPER = {
    "title": "High-Resolution Representations for Labeling Pixels and Regions",
    "year": 2019,
    "arxiv": "1904.04514",
}

OCR_OPTIONS: dict[str, Any] = {"ocr": 512, "aux": 0.4, "dropout": 0.05}
SMALL_V1 = {"width": 16, "modules": [1, 1, 1], "blocks": 2, "first": [1, 32]}
SMALL_V2 = {"width": 18, "modules": [1, 3, 2], "blocks": 2, "first": [2, 64]}
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "w18": {"width": 18},
    "w32": {"width": 32},
    "w48": {"width": 48},
    "w18-small-v1": SMALL_V1,
    "w18-small-v2": SMALL_V2,
    "ocr-w18": {"width": 18, **OCR_OPTIONS},
    "ocr-w18-small-v2": {**SMALL_V2, **OCR_OPTIONS},
    "ocr-w32": {"width": 32, **OCR_OPTIONS},
    "ocr-w48": {"width": 48, **OCR_OPTIONS},
}
THIN = {"width": 2, "modules": [1, 1, 1], "blocks": 1, "stem": 8, "first": [1, 4], "ocr": 8, "aux": 0.4}
PUBLISHED = {  # (width, modules, blocks, stem, first) -> timm's name of the net with weights
    **{(w, (1, 4, 3), 4, 64, (4, 64)): f"hrnet_w{w}" for w in (18, 30, 32, 40, 44, 48, 64)},
    (16, (1, 1, 1), 2, 64, (1, 32)): "hrnet_w18_small",
    (18, (1, 3, 2), 2, 64, (2, 64)): "hrnet_w18_small_v2",
}


def gather_regions(pixels: Tensor, scores: Tensor) -> Tensor:
    """Features of the soft object regions, f_k = sum_i m_ki x_i, with m_k the softmax of class k's scores over pixels.

    pixels [B, D, h, w], scores [B, K, h, w] -> [B, D, K]
    """
    shares = scores.flatten(2).softmax(2)  # [B, K, h w]
    return pixels.flatten(2) @ shares.transpose(1, 2)


class OCR(nn.Module):
    """Object-contextual representations: joined maps [B, C, h, w] and soft regions [B, K, h, w] -> [B, width, h, w].

    The names follow the paper's figure: phi and psi compare pixels with regions, delta and rho change what is passed
    on before and after, g joins it with the pixel's own features. They work at half the width.
    """

    def __init__(self, channels: int, width: int, bias: bool) -> None:
        super().__init__()
        half = width // 2
        self.pixels = conv_norm(channels, width, 3, bias=bias)
        self.phi = nn.Sequential(conv_norm(width, half), conv_norm(half, half))
        self.psi = nn.Sequential(conv_norm(width, half), conv_norm(half, half))
        self.delta, self.rho = conv_norm(width, half), conv_norm(half, width)
        self.g = conv_norm(2 * width, width)

    def forward(self, maps: Tensor, scores: Tensor) -> Tensor:
        x = self.pixels(maps)  # [B, D, h, w]
        regions = gather_regions(x, scores)[..., None]  # [B, D, K, 1]
        if scores.shape[1] == 1:
            check_pooled(regions, self)
        queries, keys, values = self.phi(x), self.psi(regions), self.delta(regions)
        found = attend(tokens(queries), tokens(keys), tokens(values), queries.shape[1] ** -0.5)  # [B, h w, D]
        return self.g(torch.cat([self.rho(found.mT.view_as(queries)), x], 1))


class HRNet(nn.Module):
    """net(images [B, C, H, W]) -> Dense with logits [B, K, about H / 4, about W / 4]; any H, W from `min_size` up."""

    min_size = 8

    def __init__(self, *, classes: int, ocr: int, aux: float, dropout: float, align_corners: bool, bias: bool,
                 **body: Any) -> None:  # fmt: skip
        super().__init__()
        self.body = HighResolutionNet(align_corners=align_corners, **body)
        self.aux, self.align_corners = aux, align_corners
        joined = sum(self.body.channels)
        self.mix = conv_norm(joined, joined, bias=bias)
        self.scores = nn.Conv2d(joined, classes, 1)  # with OCR they are the soft regions, else the answer
        self.ocr = OCR(joined, ocr, bias) if ocr else None
        self.classifier = nn.Conv2d(ocr, classes, 1) if ocr else nn.Identity()
        self.drop = nn.Dropout2d(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor, frames: tuple[Frame, ...] | None = None, truths: Any = None) -> Dense:
        maps = self.body(images)
        x = torch.cat([enlarge(m, maps[0].shape[2:], self.align_corners) for m in maps], 1)  # [B, 15 width, h, w]
        mixed = self.mix(x)
        if self.ocr is None:
            return dense(images, frames, self.scores(self.drop(mixed)), align_corners=self.align_corners)
        regions = self.scores(mixed)  # [B, K, h, w]
        logits = self.classifier(self.drop(self.ocr(x, regions)))
        aux = [("aux", self.aux, regions)] if self.training and self.aux else []
        return dense(images, frames, logits, aux=aux, align_corners=self.align_corners)


def build(*, classes: int, channels: int = 3, width: int = 48, modules: Sequence[int] = (1, 4, 3), blocks: int = 4,
          stem: int = 64, first: Sequence[int] = (4, 64), ocr: int = 0, aux: float = 0.0, dropout: float = 0.0,
          align_corners: bool = False, bias: bool = False, by_factor: bool = False,
          pretrained: bool = False) -> HRNet:  # fmt: skip
    """HRNet with numbers.

    channels  of the input                      width   of the finest branch; each coarser one is twice as wide
    modules   exchanges in stages 2, 3 and 4    blocks  residual blocks on each branch before an exchange
    stem      channels of the two first convolutions        first   (blocks, width) of stage 1's bottlenecks
    ocr       width of object-contextual representations, even, the paper's is 512; 0: none
    aux       weight of the loss on OCR's soft regions, the paper's is 0.4; 0: none; only with ocr
    dropout   of whole channels before the last convolution             align_corners  how maps are enlarged
    bias      in the head's first convolutions, those before norms      by_factor      see above
    pretrained  the body's weights from timm (ImageNet), for the published widths and depths
    Raises ConfigError for numbers that cannot be, and for weights that are not there.
    """
    check_whole("HRNet", channels=channels, width=width, blocks=blocks, stem=stem)
    modules = check_wholes("HRNet", "modules", modules, count=3)
    first = check_wholes("HRNet", "first", first, count=2)
    check_whole("HRNet", least=0, ocr=ocr)
    check_weight("HRNet", aux=aux)
    check_dropout("HRNet", dropout=dropout)
    check_flags("HRNet", align_corners=align_corners, bias=bias, by_factor=by_factor, pretrained=pretrained)
    if ocr % 2:
        raise ConfigError(f"HRNet: ocr is {ocr}; it must be even, as pixels and regions are compared at half of it.")
    if aux and not ocr:
        raise ConfigError(f"HRNet: aux={aux!r} weighs the loss on OCR's regions, and there is no OCR: give ocr=512 or "
                          "take a variant such as hrnet-ocr-w48.")  # fmt: skip
    net = HRNet(classes=classes, ocr=ocr, aux=aux, dropout=dropout, align_corners=align_corners, bias=bias,
                channels=channels, width=width, modules=modules, blocks=blocks, stem=stem, first=first,
                by_factor=by_factor)  # fmt: skip
    if pretrained:
        _load_published(net.body, channels, (width, modules, blocks, stem, first))
    return net


def _load_published(body: HighResolutionNet, channels: int, sizes: tuple[Any, ...]) -> None:
    if sizes not in PUBLISHED:
        widths = ", ".join(str(known[0]) for known in PUBLISHED)
        raise ConfigError(f"HRNet: pretrained=true is for the widths {widths} with their own modules, blocks, stem and "
                          f"first; got {sizes}.")  # fmt: skip
    tensors = make_encoder(PUBLISHED[sizes], channels=channels, pretrained=True).body.state_dict()
    own = body.state_dict()
    body.load_state_dict({name: tensor for name, tensor in tensors.items() if name in own})
