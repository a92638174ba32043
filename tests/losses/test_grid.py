"""Losses on the net's own grid: the value and gradient of enlarging first, without ever building the full-size map."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pixelwise import losses
from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Dense, Frame
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.errors import ConfigError
from pixelwise.kernels.compiled import numba, only
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import LOSSES, parse
from pixelwise.tasks.semantic import Semantic

OPTIONS = {"ce": {"label_smoothing": 0.1, "weight": [1.0, 2.0, 0.5, 4.0, 3.0]},
           "ohem": {"threshold": 0.3, "min_kept": 200}}  # fmt: skip


def draw(classes=5, grid=(9, 11), size=(36, 44)):
    made = torch.Generator().manual_seed(2)
    target = torch.randint(0, classes, (2, *size), generator=made)
    target[:, :3] = 255
    return torch.randn(2, classes, *grid, generator=made) * 3, target


def run(loss, logits, target, **options):
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target, **options)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(36, 44), (20, 31), (5, 4)])
def test_a_loss_on_the_grid_is_that_of_enlarged_logits(name, align, size):
    logits, target = draw(size=size)
    options, loss = OPTIONS.get(name, {}), LOSSES[name]

    def enlarged(x, t):
        return loss(F.interpolate(x, size=size, mode="bilinear", align_corners=align), t, **options)

    value, grad = run(loss, logits, target, align_corners=align, **options)
    with only("torch"):
        exact, slope = run(enlarged, logits.double(), target)
    torch.testing.assert_close(value.double(), exact, rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(grad.double(), slope, rtol=1e-3, atol=2e-5 * slope.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_on_the_grid(dtype):
    logits, target = draw()
    value, grad = run(losses.cross_entropy, logits.to(dtype), target, align_corners=False)
    expected, slope = run(losses.cross_entropy, logits.to(dtype).float(), target, align_corners=False)
    assert value.dtype == torch.float32
    assert grad.dtype == dtype
    assert value == expected
    assert torch.equal(grad, slope.to(dtype))


def test_without_align_corners_sizes_must_match():
    logits, target = draw()
    with pytest.raises(ConfigError, match="align_corners"):
        losses.dice(logits, target)
    with pytest.raises(ConfigError, match="align_corners must be"):
        losses.dice(logits, target, align_corners="no")
    with pytest.raises(ConfigError, match=r"\[B, H, W\]"):
        losses.dice(logits, target[:1], align_corners=False)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation answers."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return found


MIX = ("ce(label_smoothing=0.1)+focal+ohem+topk+dice+gdice+logcoshdice+tversky+focaltversky", "lovasz")


@pytest.mark.skipif(numba is None, reason="the reference builds the full-size map")
@pytest.mark.parametrize("mix", MIX)
def test_the_criterion_builds_no_full_size_map(mix, monkeypatch):
    monkeypatch.setattr("pixelwise.losses.lovasz.SORTED_AT_ONCE", 64 * 64 * 2)
    classes = Classes(names=[str(k) for k in range(40)])
    ids = torch.arange(64 * 64).view(1, 64, 64).div(103, rounding_mode="floor").to(torch.int16)
    ids[:, :9] = UNKNOWN
    truth = Segments(ids, list(range(40)))
    logits = torch.randn(2, 40, 16, 16, requires_grad=True)
    output = Dense(logits, (Frame.whole(64, 64),) * 2)
    weights = tuple(1.0 + k % 3 for k in range(40)) if "ce" in mix else ()
    with Largest() as largest:
        total = sum(criterion(output, [truth] * 2, Semantic(classes), Recipe(parse(mix), weights)).values())
        total.backward()
    assert logits.grad.any()
    assert largest.numel <= max(logits.numel(), 4 * 2 * 64 * 64)  # the grid, or a few maps [B, H, W]
    assert largest.numel < 2 * 40 * 64 * 64 / 3


@pytest.mark.skipif(numba is None, reason="there is only the reference")
def test_a_mix_reads_the_softmax_once(monkeypatch):
    from pixelwise.kernels import upsample_loss_cpu

    mix, calls = parse("ce(label_smoothing=0.1)+dice+ohem+lovasz"), []  # which tries each loss
    forward = upsample_loss_cpu.forward
    monkeypatch.setattr(upsample_loss_cpu, "forward", lambda *a: (calls.append(a), forward(*a))[1])
    logits, target = draw()
    parts = mix(logits, target, align_corners=False)
    assert len(parts) == 4
    assert len(calls) == 1


@pytest.mark.slow
def test_a_compiled_criterion_gives_the_same():
    logits, target = draw()
    mix = parse("ce(label_smoothing=0.1)+dice")

    def total(x):
        return torch.stack(list(mix(x, target, align_corners=False, check=False).values())).sum()

    compiled = torch.compile(total, fullgraph=True)
    leaf, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    compiled(leaf).backward()
    total(other).backward()
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-4, atol=1e-7)
