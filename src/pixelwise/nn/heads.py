"""What stands at the end of dense nets: the small convolutional head, and the output with its auxiliary ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from pixelwise.core.outputs import Dense, Frame
from pixelwise.nn.conv import conv_norm


class FCNHead(nn.Sequential):
    """3x3 convolution, batch norm, ReLU, dropout, 1x1 convolution to the classes: [B, C, h, w] -> [B, K, h, w].

    width    between the two; None: a quarter of the channels, as torchvision has it
    maps     dropout takes whole maps, as mmsegmentation has it, not single values
    dilation of the 3x3
    """

    def __init__(self, channels: int, classes: int, width: int | None = None, dropout: float = 0.1, *,
                 maps: bool = False, dilation: int = 1) -> None:  # fmt: skip
        width = width or max(1, channels // 4)
        drop = nn.Dropout2d(dropout) if maps else nn.Dropout(dropout)
        super().__init__(*conv_norm(channels, width, 3, dilation=dilation), drop, nn.Conv2d(width, classes, 1))


def dense(images: Tensor, frames: tuple[Frame, ...] | None, logits: Tensor, *,
          aux: Iterable[tuple[str, float, Tensor]] = (), align_corners: bool = False) -> Dense:  # fmt: skip
    """The output of a net that labels pixels.

    images  [B, C, H, W] that it saw      frames  as it was given them, None: the images are whole
    logits  [B, K, h, w] on any grid that covers the images; to full size they come as `align_corners` says. A single
            channel has nobody to compete with: it is the logit of yes or no, as all others train it
    aux     (name, weight, logits) of auxiliary heads, in training
    """
    frames = frames or (Frame.whole(*images.shape[-2:]),) * len(images)
    rule: dict[str, Any] = {"activation": "sigmoid" if logits.shape[1] == 1 else "softmax",
                            "align_corners": align_corners}  # fmt: skip
    outputs = tuple((name, weight, Dense(x, frames, **rule)) for name, weight, x in aux)
    return Dense(logits, frames, aux=outputs, **rule)
