"""How far a net looks: the pixels around a window that its answer there depends on, found by tracing the net itself.

The receptive field of a convolutional net (Luo, Li, Urtasun, Zemel 2016, 1701.04128, section 2) is bounded, so a
window of an image, seen with so many pixels around it, is answered as in the whole image. The net is run on a long,
narrow image in float64, every operation replaced by a mean over whatever its results depend on: a convolution by the
mean over its window, a maximum by a mean, a product by a sum, an activation by nothing. The gradient of such a net is
nowhere negative and cancels nowhere, so its support is what the answer can depend on, whatever the weights. Channels
are not told apart, which makes the trace cheap and the bound, where some channels look less far than others, a little
wide. Nets that pool, attend or take norms over the whole image give themselves away: their support grows with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

SIDE = 32  # of the short side of the images that are traced
LENGTHS = (512, 1024, 2048, 4096)  # of the long one: as long as it takes
COARSEST = 128  # pixels a step of a net's coarsest map at most


@dataclass(frozen=True)
class Halo:
    """How far around a window a net looks.

    pixels    on every side of a window whose edges are multiples of `stride`: with so many around it, or up to the
              image's border where that is nearer, the window is answered as in the whole image
    stride    edges of what is computed must be multiples of it: pixels a step of the net's coarsest map
    any_size  False: only for images whose sides are multiples of `stride`. Others the net stretches by a fraction of a
              pixel, the whole image by another one than its windows
    """

    pixels: int
    stride: int
    any_size: bool


def halo_of(net: nn.Module, channels: int = 3) -> Halo | None:
    """The halo of a net(images [B, channels, H, W]) -> Output, or None where what it says of a pixel may depend on the
    whole image (pooling, attention or norms over it, corners of maps aligned when they are enlarged), reaches further
    than about 1,000 pixels, is no map (a detector's boxes) or cannot be traced.

    The net is left as it is. Nothing of its weights is used but their shapes.
    """
    training = net.training
    net.eval()
    try:
        return _widest(net, channels)
    finally:
        net.train(training)


def _widest(net: nn.Module, channels: int) -> Halo | None:
    down = _along(net, channels, 0, LENGTHS)
    if down is None:
        return None
    across = _along(net, channels, 1, [n for n in LENGTHS if n > 2 * down.pixels])
    if across is None:
        return None
    stride = math.lcm(down.stride, across.stride)
    return Halo(max(down.pixels, across.pixels), stride, down.any_size and across.any_size)


def _along(net: nn.Module, channels: int, axis: int, lengths: Sequence[int]) -> Halo | None:
    """The halo along one axis of the image, on the first of the lengths that shows all of it."""
    for length in lengths:
        short = _trace(net, channels, axis, length)
        if short is None or short.whole:
            return None
        reach = _reach(short, COARSEST)
        if short.far or reach is None or reach > length // 4:
            continue  # it may see further than this image shows
        longer, odd = (_trace(net, channels, axis, length + more) for more in (2 * COARSEST, COARSEST - 1))
        if longer is None or not short.moves_like(longer):
            return None
        stride = short.stride(longer)
        reach = None if stride is None else _reach(short, stride)
        if stride is None or reach is None or reach != _reach(longer, stride):
            return None  # the further the larger the image
        return Halo(reach, stride, stride == 1 or short.moves_like(odd))
    return None


@dataclass
class _Trace:
    """What was seen of a net on an image that is `length` long along `axis` (0 down, 1 across).

    image    [1, C, H, W], which the maps depend on
    maps     what the net says, each [1, D, h, w]
    sides    of every map on the way, along the axis
    steps    by which maps were enlarged
    whole    whether something ties a pixel to the whole image: corners aligned in that, maps turned round
    far      whether a window of a convolution, from its middle, is an eighth of its map or more. Else what is seen at
             all is seen within a quarter of the image, or lies beyond something that is seen further out: the taps of
             atrous convolutions leave gaps, but none wider than that
    """

    image: Tensor
    axis: int
    maps: list[Tensor] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    whole: bool = False
    far: bool = False

    @property
    def length(self) -> int:
        return int(self.image.shape[2 + self.axis])

    def moves_like(self, other: _Trace | None) -> bool:
        """Whether a step on each map is as many pixels as in the trace of another size."""
        if other is None or self.whole or other.whole:
            return False
        return self.steps + self._grids() == other.steps + other._grids()

    def _grids(self) -> list[float]:
        return [self.length / m.shape[2 + self.axis] for m in self.maps]

    def stride(self, longer: _Trace) -> int | None:
        """The pixels a step of the coarsest map, from how much longer the maps of a longer image are; None where that
        is no whole number."""
        added = longer.length - self.length
        more = {b - a for a, b in zip(self.sides, longer.sides)} - {0}
        if any(added % n for n in more):
            return None
        return math.lcm(*(added // n for n in more), *(math.ceil(step) for step in self._grids()))


def _trace(net: nn.Module, channels: int, axis: int, length: int) -> _Trace | None:
    """Runs the net on an image so long; None where what it says is not maps over the image."""
    side = max(SIDE, int(getattr(net, "min_size", 0)))
    size = (length, side) if axis == 0 else (side, length)
    image = torch.ones(1, channels, *size, dtype=torch.float64, requires_grad=True)
    try:
        with _Reach(_Trace(image, axis)) as mode, torch.enable_grad():
            output = net(image)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None  # an operation that wants values, as detectors have: nothing is claimed of such a net
    maps = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not maps or any(leaf.ndim != 4 for leaf in maps):
        return None
    mode.trace.maps = maps
    return mode.trace


def _reach(trace: _Trace, stride: int) -> int | None:
    """Pixels around a cell of `stride` in the middle that it depends on; None where that is up to a border."""
    at = trace.length // 2 // stride * stride
    total = torch.zeros((), dtype=torch.float64)
    for m in trace.maps:
        step = trace.length / m.shape[2 + trace.axis]
        beside = 0 if step == 1 else 1  # enlarged, a pixel lies between two cells
        first, last = math.floor(at / step) - beside, math.ceil((at + stride) / step) + beside
        total = total + m.narrow(2 + trace.axis, first, last - first).sum()
    (gradient,) = torch.autograd.grad(total, trace.image, retain_graph=True)
    seen = gradient.abs().sum((0, 1, 3 - trace.axis)).nonzero()[:, 0]
    first, last = int(seen[0]), int(seen[-1]) + 1
    if first == 0 or last == trace.length:
        return None
    return max(0, at - first, last - at - stride)


# -- operations as what they depend on --------------------------------------------------------------------------------


def thin(x: Tensor) -> Tensor:
    """[1, C, h, w] -> [1, 1, h, w], the mean over the channels."""
    return x[:, :1] if x.ndim != 4 or x.shape[1] == 1 or x.stride(1) == 0 else x.mean(1, keepdim=True)


def _over(x: Tensor, dims: Any) -> Tensor:
    """The mean over dimensions, everywhere along them."""
    return x.mean(dims, keepdim=True).expand_as(x)


class _Reach(TorchFunctionMode):
    """Inside it functions of torch compute what their results depend on."""

    def __init__(self, trace: _Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("__get__", "__set__"):
            return func(*args, **kwargs)
        if func in OWN:
            return getattr(self, OWN[func])(*args, **kwargs)
        if func in ARITHMETIC and any(_is_map(x) for x in args):
            return _joined([x for x in args if _is_map(x)])
        if func in POINTWISE:
            return args[0]
        args, kwargs = pytree.tree_map(_positive, (args, kwargs))
        result = func(*args, **kwargs)
        return self._noted(result) if _is_map(result) and result.ndim == 4 else result

    def _noted(self, x: Tensor, channels: int = -1) -> Tensor:
        self.trace.sides.append(int(x.shape[2 + self.trace.axis]))
        return x.expand(-1, channels, -1, -1)

    def turned(self, x: Tensor, *rest: Any, **words: Any) -> Tensor:
        """Rolled or flipped: what leaves at one border comes in at another."""
        self.trace.whole = True
        return x

    def conv(self, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
             groups: int = 1) -> Tensor:  # fmt: skip
        step = dilation if isinstance(dilation, int) else dilation[self.trace.axis]
        reach = step * (weight.shape[2 + self.trace.axis] // 2)
        self.trace.far |= 8 * reach >= x.shape[2 + self.trace.axis]
        return self._noted(F.conv2d(thin(x), _mean_kernel(weight), None, stride, padding, dilation), len(weight))

    def conv_up(self, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
                output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:  # fmt: skip
        kernel = _mean_kernel(weight)
        x = F.conv_transpose2d(thin(x), kernel, None, stride, padding, output_padding, 1, dilation)
        return self._noted(x, weight.shape[1] * groups)

    def max_pool(self, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                 ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
        if dilation in (1, (1, 1), [1, 1]):
            pooled = F.avg_pool2d(thin(x), kernel_size, stride or None, padding, ceil_mode)
        else:
            sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
            pooled = F.conv2d(thin(x), x.new_full((1, 1, *sides), 1.0), None, stride or sides, padding, dilation)
        pooled = self._noted(pooled, x.shape[1])
        return (pooled, pooled) if return_indices else pooled  # where the largest stood depends on what it was of

    def unpool(self, x: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               output_size: Any = None) -> Tensor:  # fmt: skip
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        size = [n * k for n, k in zip(x.shape[2:], sides)] if output_size is None else list(output_size)[-2:]
        return F.interpolate(thin(x) + thin(indices), size, mode="nearest").expand(-1, x.shape[1], -1, -1)

    def interpolate(self, x: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                    align_corners: bool | None = None, recompute_scale_factor: Any = None,
                    antialias: bool = False) -> Tensor:  # fmt: skip
        x = _positive(x)
        y = F.interpolate(thin(x), size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
        before, after = (int(m.shape[2 + self.trace.axis]) for m in (x, y))
        self.trace.steps.append(_step(before, after, mode))
        self.trace.whole |= bool(align_corners) and before != after
        return y.expand(-1, x.shape[1], -1, -1)

    def cat(self, tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
        maps = [_positive(t) for t in tensors]
        if dim in (1, -3) and all(m.ndim == 4 for m in maps):
            return _joined([thin(m) for m in maps]).expand(-1, sum(m.shape[1] for m in maps), -1, -1)
        return torch.cat(maps, dim)

    def softmax(self, x: Tensor, dim: int | None = None, *rest: Any, **words: Any) -> Tensor:
        return _over(x, -1 if dim is None else dim)

    def layer_norm(self, x: Tensor, normalized_shape: Any, *rest: Any, **words: Any) -> Tensor:
        return _over(x, tuple(range(-len(normalized_shape), 0)))

    def map_norm(self, x: Tensor, *rest: Any, **words: Any) -> Tensor:
        return x + _over(x, tuple(range(1, x.ndim)))

    def linear(self, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
        return x.mean(-1, keepdim=True).expand(*x.shape[:-1], len(weight))


def _step(before: int, after: int, mode: str) -> float:
    """By how much a map is enlarged; to the nearest pixel, one that comes out cut short is read like a whole one."""
    factor = round(after / before)
    if mode == "nearest" and factor and all(i * before // after == i // factor for i in range(after)):
        return factor
    return after / before


def _mean_kernel(weight: Tensor) -> Tensor:
    """[1, 1, kh, kw] float64 for the weights [D, C, kh, kw] of a convolution."""
    kh, kw = weight.shape[2:]
    return torch.full((1, 1, kh, kw), 1 / (kh * kw), dtype=torch.float64)


def _positive(value: Any) -> Any:
    """A weight as ones, any other number in float64."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return torch.ones(value.shape, dtype=torch.float64) if isinstance(value, nn.Parameter) else value.double()


def _is_map(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _joined(operands: list[Tensor]) -> Tensor:
    """What depends on each of the operands, as large as all of them together."""
    maps = [_positive(x) for x in operands]
    shape = torch.broadcast_shapes(*(m.shape for m in maps))
    thinned = [thin(m) if m.ndim == 4 and len(shape) == 4 else m for m in maps]
    total = thinned[0]
    for m in thinned[1:]:
        total = total + m
    return total.expand(shape)


ARITHMETIC = {
    getattr(home, name + ending)
    for name in ("add", "sub", "mul", "div")
    for home, ending in ((torch, ""), (Tensor, ""), (Tensor, "_"))
} | {
    getattr(Tensor, f"__{prefix}{name}__")
    for name in ("add", "sub", "mul", "truediv")
    for prefix in ("", "r", "i")
} | {torch.maximum, torch.minimum}  # fmt: skip
POINTWISE = {
    getattr(home, name)
    for name in ("relu", "relu_", "relu6", "elu", "elu_", "gelu", "silu", "mish", "sigmoid", "sigmoid_", "tanh",
                 "tanh_", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "leaky_relu_", "softplus", "prelu",
                 "dropout", "dropout2d", "feature_dropout", "clamp", "clamp_", "clamp_min", "clamp_min_", "exp", "log",
                 "sqrt", "rsqrt", "abs", "neg", "__neg__", "batch_norm", "local_response_norm")
    for home in (torch, F, Tensor)
    if hasattr(home, name)
}  # fmt: skip
OWN: dict[Any, str] = {
    F.conv2d: "conv",
    F.conv_transpose2d: "conv_up",
    F.max_pool2d: "max_pool",
    F.max_pool2d_with_indices: "max_pool",
    torch.max_pool2d: "max_pool",
    F.max_unpool2d: "unpool",
    F.interpolate: "interpolate",
    torch.cat: "cat",
    torch.concat: "cat",
    F.softmax: "softmax",
    torch.softmax: "softmax",
    Tensor.softmax: "softmax",
    F.log_softmax: "softmax",
    Tensor.log_softmax: "softmax",
    F.layer_norm: "layer_norm",
    torch.layer_norm: "layer_norm",
    F.group_norm: "map_norm",
    torch.group_norm: "map_norm",
    F.instance_norm: "map_norm",
    torch.instance_norm: "map_norm",
    F.normalize: "map_norm",
    F.linear: "linear",
    torch.roll: "turned",
    Tensor.roll: "turned",
    torch.flip: "turned",
    Tensor.flip: "turned",
}
