"""An atrous 3x3 convolution as nine products with a shifted map, of which those parts are left out that see padding.

With a rate that is large against the map most taps fall outside of it: at rate 24 on 64 x 64 pixels 44 of 100 products
are with zeros. On channels-last maps oneDNN's AVX-512 convolution leaves them out too and is as fast in bfloat16 and
faster in float32 (`benchmarks/speed.py --only atrous` runs both ways), so there the plain one stays. The nine products
are for bfloat16 on processors with AMX, where each runs as one product of matrices in tiles. The two ways add up in
other orders: they are equal but for rounding.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

CHANNELS = 256  # fewer make small products, whose start costs more than the padding
INSIDE = 0.75  # share of the taps that fall on the map, at most


def atrous_conv(x: Tensor, weight: Tensor, bias: Tensor | None, rate: int) -> Tensor:
    """[B, C, H, W] -> [B, D, H, W]: convolution with weight [D, C, 3, 3], dilated by `rate` and padded by as much.

    For inference: no gradients. Under autocast it computes in autocast's type, as `conv2d` does.
    """
    if _pays(x, weight, rate):
        return shifted_products(x, weight, bias, rate)
    return F.conv2d(x, weight, bias, padding=rate, dilation=rate)


def _pays(x: Tensor, weight: Tensor, rate: int) -> bool:
    if x.device.type != "cpu" or _kind(x) != torch.bfloat16 or min(weight.shape[:2]) < CHANNELS:
        return False
    return _share_inside(x.shape[2], rate) * _share_inside(x.shape[3], rate) <= INSIDE and has_amx()


def _share_inside(length: int, rate: int) -> float:
    """Of three taps along an axis, how many fall on the map on average."""
    return (1 + 2 * max(0, length - rate) / length) / 3


def _kind(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


@cache
def has_amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16 in tiles."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux, where torch does not use AMX
        return False


def shifted_products(x: Tensor, weight: Tensor, bias: Tensor | None, rate: int) -> Tensor:
    """`atrous_conv` as nine products. The answer is channels-last; products are added up in x's type or autocast's."""
    kind = _kind(x)
    rows = x.to(kind).permute(0, 2, 3, 1).contiguous()  # [B, H, W, C], no copy of what is channels-last
    taps = weight.to(kind).permute(2, 3, 1, 0)  # [3, 3, C, D]
    out = torch.matmul(rows, taps[1, 1])
    if bias is not None:
        out += bias.to(kind)
    for i in range(3):
        for j in range(3):
            (y, to_y), (x_, to_x) = _overlap(x.shape[2], (i - 1) * rate), _overlap(x.shape[3], (j - 1) * rate)
            if (i, j) != (1, 1) and y.start < y.stop and x_.start < x_.stop:
                out[:, to_y, to_x] += torch.matmul(rows[:, y, x_], taps[i, j])
    return out.permute(0, 3, 1, 2)


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    """Where a tap that lies `shift` further falls on the map, and for which pixels."""
    start, stop = max(0, shift), length + min(0, shift)
    return slice(start, stop), slice(start - shift, stop - shift)
