"""Each form of `read_softmax` against the reference and float64, forward and backward."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelwise.kernels import upsample_loss_cells, upsample_loss_cpu
from pixelwise.kernels.compiled import numba, only
from pixelwise.kernels.upsample_geometry import geometry
from pixelwise.kernels.upsample_loss import enlarge, read_softmax

compiled_form = pytest.mark.skipif(numba is None, reason="Numba is not installed")
SIZES = [  # B, K, (h, w), (H, W), align_corners
    (2, 5, (6, 7), (24, 28), False),
    (2, 5, (6, 7), (24, 28), True),
    (1, 19, (5, 33), (17, 100), False),
    (1, 19, (9, 16), (33, 131), True),
    (2, 3, (1, 1), (5, 9), False),
    (1, 4, (5, 40), (39, 330), False),  # two fours to a cell
    (1, 2, (2, 3), (64, 96), True),
    (2, 3, (9, 8), (4, 3), False),  # shrinking
    (2, 3, (4, 4), (1, 1), True),
    (2, 6, (7, 9), (7, 9), False),
    (1, 7, (6, 50), (9, 70), False),  # no cells: too little is between two columns
    (1, 150, (4, 16), (16, 64), False),
    (1, 1000, (3, 5), (9, 20), False),
]


def draw(images, classes, grid, size, void=0.2, scale=3.0):
    made = torch.Generator().manual_seed(classes + grid[1])
    labels = torch.randint(0, classes, (images, *size), generator=made, dtype=torch.int32)
    labels[torch.rand(labels.shape, generator=made) < void] = -1
    slopes = [torch.randn(images, *(size if n < 2 else (classes,)), generator=made) for n in range(4)]
    return torch.randn(images, classes, *grid, generator=made) * scale, labels, slopes


def run(form, logits, labels, slopes, align_corners, asked=(0, 1, 2, 3)):
    """What was asked for of `Readings`, and the gradient of its product with the slopes."""
    leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with only(form):
        found = read_softmax(leaf, labels, align_corners=align_corners, lse=1 in asked, masses=bool({2, 3} & {*asked}))
    torch.stack([(found[i] * slopes[i].to(leaf.dtype)).sum() for i in asked]).sum().backward()
    return [*(found[i].detach() for i in asked), leaf.grad]


def assert_as_exact(found, exact, worst):
    """Each within what the reference itself is off in float32, give or take; values near 3."""
    for ours, right, theirs in zip(found, exact, worst, strict=True):
        off = (theirs.double() - right).abs().max().item()
        torch.testing.assert_close(ours.double(), right, rtol=3e-6, atol=5e-6 + 4 * off)


@compiled_form
@pytest.mark.parametrize(("images", "classes", "grid", "size", "align"), SIZES)
def test_the_compiled_form_is_as_exact_as_the_reference(images, classes, grid, size, align):
    logits, labels, slopes = draw(images, classes, grid, size)
    exact = run("torch", logits.double(), labels, slopes, align)
    assert_as_exact(run("numba", logits, labels, slopes, align), exact, run("torch", logits, labels, slopes, align))


@compiled_form
@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (3,), (0, 2, 3), (0, 1)])
@pytest.mark.parametrize("size", [(6, 7), (24, 28)])
def test_whatever_is_asked_for_is_the_same(asked, size):
    logits, labels, slopes = draw(2, 5, (6, 7), size)
    exact = run("torch", logits.double(), labels, slopes, False, asked)
    assert_as_exact(
        run("numba", logits, labels, slopes, False, asked), exact, run("torch", logits, labels, slopes, False, asked)
    )


@compiled_form
@pytest.mark.parametrize("scale", [30.0, 300.0, 1e6])
def test_steep_logits_lose_nothing(scale):
    """Where a geometric sequence would overflow or lose digits, rows are computed pixel by pixel."""
    logits, labels, slopes = draw(1, 6, (5, 20), (20, 80), scale=scale)
    exact = run("torch", logits.double(), labels, slopes, False)
    assert_as_exact(run("numba", logits, labels, slopes, False), exact, run("torch", logits, labels, slopes, False))


@compiled_form
def test_a_pixel_far_below_its_cells_corners_loses_nothing():
    """Two classes change places across a cell, 120 apart in 32 steps: at its middle both are 60 below the corners."""
    logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0], [-61.0, -61.0]]).view(1, 3, 1, 2)
    labels, slopes = torch.full((1, 1, 64), 2, dtype=torch.int32), [torch.ones(1, 1, 64)] * 2
    assert len(geometry((1, 2), (1, 64), False).first)
    exact = run("torch", logits.double(), labels, slopes, False, (0, 1))
    assert_as_exact(
        run("numba", logits, labels, slopes, False, (0, 1)), exact, run("torch", logits, labels, slopes, False, (0, 1))
    )


@compiled_form
def test_sure_pixels_keep_their_small_losses():
    """log p of 1e-4 to four digits: it must come from the quotient and not from a difference of logits."""
    logits = torch.randn(1, 4, 8, 16) * 0.1
    logits[:, 1] += 10
    labels = torch.ones(1, 32, 64, dtype=torch.int32)
    with only("numba"):
        found = read_softmax(logits, labels).log_p
    exact = read_softmax(logits.double(), labels).log_p
    torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=0)


@compiled_form
@pytest.mark.parametrize("size", [(6, 7), (24, 28)])
def test_all_void_is_0(size):
    logits, labels, slopes = draw(2, 5, (6, 7), size, void=2.0)
    for part in run("numba", torch.full_like(logits, torch.nan), labels, slopes, False):
        assert not part.any()


@compiled_form
@pytest.mark.parametrize("mess", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("form", ["torch", "numba"])
def test_points_that_only_void_pixels_use_reach_nothing(mess, form):
    logits, labels, slopes = draw(1, 5, (8, 9), (32, 36), void=0.0)
    labels[:, :18] = -1  # grid rows 0 to 3 are used by rows 0 to 17 alone
    clean = run(form, logits, labels, slopes, False)
    logits[:, :, :4] = mess
    found = run(form, logits, labels, slopes, False)
    assert not clean[-1][:, :, :4].any()
    for a, b in zip(found, clean, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@compiled_form
def test_a_class_at_minus_infinity_is_left_out():
    logits, labels, slopes = draw(1, 5, (4, 4), (16, 16))
    labels[labels == 2] = 1
    logits[:, 2] = -torch.inf
    exact = run("torch", logits.double(), labels, slopes, False)
    found = run("numba", logits, labels, slopes, False)
    assert found[0].isfinite().all()
    inside = exact[0].isfinite()  # at the border torch multiplies the neighbour's infinity by its weight of 0
    assert inside[0, 2:-2, 2:-2].all()
    torch.testing.assert_close(found[0][inside].double(), exact[0][inside], rtol=1e-5, atol=1e-4)
    assert found[2][:, 2] == 0


@compiled_form
@pytest.mark.parametrize("size", [(6, 7), (24, 28)])
def test_memory_layout_does_not_matter(size):
    logits, labels, slopes = draw(2, 5, (6, 7), size)
    plain = run("numba", logits, labels, slopes, False)
    turned = logits.transpose(2, 3).contiguous().transpose(2, 3)
    for laid in (logits.to(memory_format=torch.channels_last), turned):
        truth = labels.transpose(1, 2).contiguous().transpose(1, 2)
        for a, b in zip(run("numba", laid, truth, slopes, False), plain, strict=True):
            assert torch.equal(a, b)


@compiled_form
def test_threads_change_no_number(monkeypatch):
    logits, labels, slopes = draw(3, 5, (9, 7), (36, 28))
    alone = run("numba", logits, labels, slopes, False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    for a, b in zip(run("numba", logits, labels, slopes, False), alone, strict=True):
        assert torch.equal(a, b)


@compiled_form
def test_cells_are_really_used(monkeypatch):
    """Else a test of the fast form would be one of the plain one."""
    logits, labels, _ = draw(1, 5, (6, 7), (24, 28))
    *_, sums = upsample_loss_cpu.forward(logits, labels, False, False, False)[:2]
    assert (sums[labels >= 0] > 0).all()
    *_, sums = upsample_loss_cpu.forward(logits * 1000, labels, False, False, False)[:2]
    assert (sums[labels >= 0] < 0).all()


@compiled_form
def test_its_loops_become_vector_instructions():
    import llvmlite.binding as llvm

    wide = "zmm" if llvm.get_host_cpu_features().get("avx512f") else "ymm"
    if not llvm.get_host_cpu_features().get("avx2"):
        pytest.skip("no vectors to look for")
    line = np.zeros(17, np.float32)
    kernel = numba.njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")(
        upsample_loss_cells.add_exponentials.py_func
    )  # not from the cache, which keeps no assembly
    kernel(line, line[:16], line[:16], line[:16], np.float32(1), np.zeros(64, np.float32))
    assert "".join(kernel.inspect_asm().values()).count(wide) > 50


@pytest.mark.parametrize("size", [(2, 3), (5, 7)])
def test_the_reference_passes_gradcheck(size):
    made = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 3, 2, 3, generator=made, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(-1, 3, (1, *size), generator=made, dtype=torch.int32)

    def read(x):
        return tuple(read_softmax(x, labels, lse=True, masses=True))

    assert torch.autograd.gradcheck(read, logits)


@pytest.mark.parametrize(("grid", "size"), [(7, 28), (40, 330), (5, 5), (9, 4), (33, 100), (1, 8), (128, 512)])
@pytest.mark.parametrize("align", [False, True])
def test_the_geometry_is_torchs_interpolation(grid, size, align):
    lay = geometry((grid, grid), (size, size), align)
    values = torch.linspace(-1, 1, grid).cumsum(0)
    found = values[lay.left] * torch.from_numpy(1 - lay.weight) + values[lay.right] * torch.from_numpy(lay.weight)
    expected = enlarge(values.view(1, 1, grid, 1).expand(1, 1, grid, grid), (size, size), align)[0, 0, :, 0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    ends = torch.nn.functional.pad(values.view(1, 1, -1), (1, 1), mode="replicate").flatten()
    lane = torch.from_numpy(lay.lane)
    if len(lay.first):  # pixels of a cell lie on its line at equal steps
        weight = torch.from_numpy(lay.origin) + torch.from_numpy(lay.nth) * float(lay.step)
        on_line = ends[lane] + (ends[lane + 1] - ends[lane]) * weight
        torch.testing.assert_close(on_line, expected, rtol=1e-5, atol=1e-4)


def test_enlarging_is_torchs():
    maps = torch.randn(1, 2, 3, 4)
    assert enlarge(maps, (3, 4), False) is maps
    expected = F.interpolate(maps, size=(7, 9), mode="bilinear", align_corners=True)
    assert torch.equal(enlarge(maps, (7, 9), True), expected)


TRITON = """
import torch
from pixelwise.kernels.compiled import only
from pixelwise.kernels.upsample_loss import read_softmax

torch.manual_seed(0)
for B, K, h, w, H, W, align in ((2, 3, 2, 3, 5, 9, False), (1, 4, 3, 3, 7, 6, True), (1, 2, 3, 4, 3, 4, False),
                                (1, 3, 4, 5, 2, 3, False)):
    logits, labels = torch.randn(B, K, h, w) * 3, torch.randint(-1, K, (B, H, W), dtype=torch.int32)
    slopes = [torch.randn(B, H, W), torch.randn(B, H, W), torch.randn(B, K), torch.randn(B, K)]
    for asked in ((0, 1, 2, 3), (0,)):
        found = []
        for form in ("triton", "torch"):
            leaf = logits.clone().requires_grad_()
            with only(form):
                got = read_softmax(leaf, labels, align_corners=align, lse=1 in asked, masses=2 in asked)
            sum((got[i] * slopes[i]).sum() for i in asked).backward()
            found.append([*(got[i].detach() for i in asked), leaf.grad])
        torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
logits = torch.randn(1, 3, 4, 4)
logits[:, :, 0] = torch.nan
labels = torch.zeros(1, 16, 16, dtype=torch.int32)
labels[:, :6] = -1
with only("triton"):
    leaf = logits.clone().requires_grad_()
    found = read_softmax(leaf, labels, masses=True)
    (found.log_p.sum() + found.predicted.sum() + found.true.sum()).backward()
assert found.log_p.isfinite().all() and found.predicted.isfinite().all()
assert leaf.grad.isfinite().all() and not leaf.grad[:, :, 0].any()
print("equal")
"""


def test_tritons_form_in_its_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run([sys.executable, "-c", TRITON], capture_output=True, text=True,
                          env={**os.environ, "TRITON_INTERPRET": "1"})  # fmt: skip
    assert done.stdout.strip() == "equal", done.stderr
