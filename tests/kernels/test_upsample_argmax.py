"""Labels of an enlargement that is never built: each form against `sample_window(...).max(0)`, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelwise.core.outputs import Dense, Frame
from pixelwise.kernels import upsample_argmax as module
from pixelwise.kernels.compiled import numba, only
from pixelwise.kernels.resample import sample_window
from pixelwise.kernels.upsample_argmax import label_type, largest_of, upsample_argmax

FORMS = ["torch", pytest.param("numba", marks=pytest.mark.skipif(numba is None, reason="Numba is not installed"))]


def expected(maps, floor=None, **grid):
    best = sample_window(maps, **grid).max(0)
    return best.indices if floor is None else best.indices.masked_fill(best.values <= floor, len(maps))


def smooth(classes, height, width, noise=0.1):
    coarse = torch.randn(1, classes, max(1, height // 6), max(1, width // 6))
    return 3 * F.interpolate(coarse, (height, width), mode="bicubic")[0] + noise * torch.randn(classes, height, width)


def enlarged(maps, height, width, align_corners=False):
    """Origin, step and size of the whole of the maps at another size."""
    if align_corners:
        step = tuple((a - 1) / max(1, b - 1) for a, b in zip(maps.shape[1:], (height, width)))
        return {"origin": (0.0, 0.0), "step": step, "size": (height, width)}
    step = tuple(a / b for a, b in zip(maps.shape[1:], (height, width)))
    return {"origin": tuple(s / 2 - 0.5 for s in step), "step": step, "size": (height, width)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("classes", "grid", "size"), [
    (1, (3, 5), (9, 20)), (2, (1, 1), (5, 7)), (19, (17, 40), (68, 160)), (19, (13, 31), (41, 77)),
    (7, (33, 65), (33, 65)),
    (150, (9, 70), (36, 280)), (5, (40, 37), (11, 90)), (3, (30, 80), (7, 9)), (1000, (5, 6), (13, 17)),
    (4, (2, 3), (150, 140)),
])  # fmt: skip
def test_each_form_finds_the_labels_of_the_enlargement(form, align_corners, classes, grid, size):
    torch.manual_seed(classes)
    maps = smooth(classes, *grid)
    window = enlarged(maps, *size, align_corners)
    with only(form):
        labels = upsample_argmax(maps, **window)
        floored = upsample_argmax(maps, **window, floor=0.0)
    assert labels.dtype == label_type(classes)
    assert torch.equal(labels.long(), expected(maps, **window))
    assert torch.equal(floored.long(), expected(maps, 0.0, **window))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("lie", ["channels last", "every second", "transposed", "cut out", "turned round"])
def test_any_float_type_in_any_memory_layout(form, kind, lie):
    if kind == torch.float64 and form == "numba":
        pytest.skip("float64 is the reference's")
    maps = smooth(6, 22, 30).to(kind)
    laid = {
        "channels last": lambda: maps.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "every second": lambda: maps.repeat_interleave(2, 2)[:, :, ::2],
        "transposed": lambda: maps.transpose(1, 2).contiguous().transpose(1, 2),
        "cut out": lambda: F.pad(maps, (3, 2, 1, 4))[:, 1:-4, 3:-2],
        "turned round": lambda: maps.flip(0).contiguous().flip(0),
    }[lie]()
    assert torch.equal(laid, maps)
    window = {"origin": (2.3, 0.7), "step": (0.21, 0.33), "size": (60, 71)}
    with only(form):
        assert torch.equal(upsample_argmax(laid, **window).long(), expected(maps, **window))


@pytest.mark.parametrize("form", FORMS)
def test_noise_where_hardly_a_class_can_be_ruled_out(form):
    maps = torch.randn(40, 12, 70)
    window = enlarged(maps, 48, 280)
    with only(form):
        assert torch.equal(upsample_argmax(maps, **window).long(), expected(maps, **window))


@pytest.mark.parametrize("form", FORMS)
def test_the_first_of_equals_wins(form):
    maps = torch.randint(0, 2, (9, 11, 40)).float()
    window = enlarged(maps, 44, 160)
    with only(form):
        assert torch.equal(upsample_argmax(maps, **window).long(), expected(maps, **window))
        assert not upsample_argmax(torch.zeros(5, 4, 4), **enlarged(maps, 16, 16)).any()
        assert (upsample_argmax(torch.zeros(5, 4, 4), **enlarged(maps, 16, 16), floor=0.0) == 5).all()


@pytest.mark.parametrize("form", FORMS)
def test_classes_that_differ_by_rounding_only(form):
    """Every class is nearly the best everywhere: the margin must rule none out that may win."""
    base = 100 * torch.randn(1, 10, 50)
    maps = base * (1 + 6e-8 * torch.randint(-2, 3, (12, 10, 50)))
    window = enlarged(maps, 37, 211)
    with only(form):
        assert torch.equal(upsample_argmax(maps, **window).long(), expected(maps, **window))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf"), 3.3e38])
def test_nan_and_infinities_are_what_they_are_to_torch(form, odd):
    maps = smooth(6, 8, 40)
    maps[2, 3, 5] = maps[4, 3, 6] = maps[1, 6, 30] = odd
    maps[3, 3, 6] = -odd
    window = enlarged(maps, 29, 160)
    with only(form):
        assert torch.equal(upsample_argmax(maps, **window).long(), expected(maps, **window))
        assert torch.equal(upsample_argmax(maps, **window, floor=0.0).long(), expected(maps, 0.0, **window))
        assert torch.equal(largest_of(maps).long(), maps.max(0).indices)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("window", [
    {"origin": (-900.0, 3.0), "step": (0.5, 0.25), "size": (20, 30)},  # far above
    {"origin": (2.0, -30.0), "step": (0.25, 0.25), "size": (9, 400)},  # the border on both sides
    {"origin": (5.0, 700.0), "step": (2.5, 3.0), "size": (4, 5)},
    {"origin": (0.0, 0.0), "step": (1.0, 1.0), "size": (10, 20)},
    {"origin": (0.0, 0.0), "step": (1.0, 0.5), "size": (0, 20)},
    {"origin": (0.0, 0.0), "step": (0.5, 1.0), "size": (3, 0)},
    {"origin": (1.0, 1.0), "step": (0.02, 0.01), "size": (150, 200)},
])  # fmt: skip
def test_windows_anywhere(form, window):
    maps = smooth(5, 10, 20)
    with only(form):
        found = upsample_argmax(maps, **window)
    assert found.shape == window["size"]
    assert torch.equal(found.long(), expected(maps, **window))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("odd", [0.0, float("nan"), float("-inf")])
def test_any_number_of_pixels_in_a_cell_beside_a_repeated_border(form, factor, odd):
    """Cells at the border hold more pixels than the others; 100 columns make blocks that are whole and one that is not.

    The first maps leave one class in whole blocks, the last ones all 130; their labels need 16 bits.
    """
    torch.manual_seed(factor)
    maps = torch.cat([smooth(130, 3, 100, noise=0.01), torch.randn(130, 2, 100)], 1)
    maps[7, :3, :70] += 50
    maps[3, 3, 50] = maps[5, 4, 0] = odd
    window = enlarged(maps, 10, 100 * factor)
    wider = {**window, "origin": (window["origin"][0], -2.0), "size": (10, 103 * factor)}
    with only(form):
        for some in (window, wider):
            assert torch.equal(upsample_argmax(maps, **some).long(), expected(maps, **some))
            assert torch.equal(upsample_argmax(maps, **some, floor=2.5).long(), expected(maps, 2.5, **some))


@pytest.mark.parametrize("form", FORMS)
def test_a_floor_that_no_class_or_one_class_reaches(form):
    maps = smooth(4, 6, 100) - 100
    window = enlarged(maps, 24, 400)
    with only(form):
        assert (upsample_argmax(maps, **window, floor=0.0) == 4).all()
        maps[2, :, 40:] += 200
        labels = upsample_argmax(maps, **window, floor=0.0)
    assert torch.equal(labels.long(), expected(maps, 0.0, **window))
    assert set(labels.unique().tolist()) == {2, 4}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e30])
def test_numbers_near_the_ends_of_float32(form, scale):
    maps = smooth(9, 8, 70) * scale
    window = enlarged(maps, 32, 280)
    with only(form):
        assert torch.equal(upsample_argmax(maps, **window).long(), expected(maps, **window))


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 90), st.floats(-3, 12), st.floats(-3, 100),
       st.floats(0.03, 3), st.floats(0.03, 3), st.integers(1, 40), st.integers(1, 90), st.booleans())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_windows_drawn_at_random(classes, height, width, y, x, down, across, rows, columns, floored):
    maps = torch.randn(classes, height, width, generator=torch.Generator().manual_seed(rows * columns)).round(
        decimals=1
    )
    window = {"origin": (y, x), "step": (down, across), "size": (rows, columns)}
    floor = 0.3 if floored else None
    assert torch.equal(upsample_argmax(maps, **window, floor=floor).long(), expected(maps, floor, **window))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("classes", [1, 2, 19, 200])
def test_the_largest_of_maps_that_need_no_enlarging(form, classes):
    maps = torch.randn(classes, 33, 71).round(decimals=1)
    for laid in (maps, maps.permute(1, 2, 0).contiguous().permute(2, 0, 1), maps.bfloat16()):
        best = laid.max(0)
        with only(form):
            found, floored = largest_of(laid), largest_of(laid, 0.2)
        assert found.dtype == label_type(classes)
        assert torch.equal(found.long(), best.indices)
        assert torch.equal(floored.long(), best.indices.masked_fill(best.values.float() <= 0.2, classes))
    with only(form):
        assert not largest_of(torch.full((3, 4, 5), -torch.inf)).any()
        assert largest_of(maps[:, :0]).shape == (0, 71)


def test_several_threads_and_bands_change_nothing(monkeypatch):
    maps = smooth(8, 90, 40)
    window = enlarged(maps, 400, 150)
    monkeypatch.setattr(module, "BAND", 8 * 40 * 3)
    monkeypatch.setattr(module, "STRIP", 8 * 150 * 7)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for form in ("torch", "numba") if numba else ("torch",):
        with only(form):
            assert torch.equal(upsample_argmax(maps, **window).long(), expected(maps, **window))
            assert torch.equal(largest_of(maps).long(), maps.max(0).indices)


def test_interpolate_differs_where_rounding_decides_only():
    maps = smooth(19, 32, 48)
    found = upsample_argmax(maps, **enlarged(maps, 128, 192)).long()
    theirs = F.interpolate(maps[None], (128, 192), mode="bilinear")[0]
    other = theirs.max(0)
    ours = theirs.gather(0, found[None])[0]
    torch.testing.assert_close(ours, other.values, rtol=1e-5, atol=1e-5)
    assert (found != other.indices).float().mean() < 1e-3


def test_dense_reads_its_labels_through_frames():
    frame = Frame((50, 75), (64, 96), (0, 0, 60, 90))
    for activation, floor in (("softmax", None), ("sigmoid", 0.0)):
        dense = Dense(torch.randn(1, 4, 16, 24), (frame,), activation=activation)
        logits = dense.probs(0) if floor is None else dense.probs(0).logit()
        best = logits.max(0)
        told = best.indices if floor is None else best.indices.masked_fill(best.values <= floor, 4)
        assert (dense.class_map(0).long() != told).float().mean() < 1e-3
        assert dense.class_map(0).dtype == torch.int8
        assert (dense.class_map(0, (5, 6, 20, 30)) != dense.class_map(0)[5:25, 6:36]).float().mean() < 2e-3


TRITON = """
import torch
from pixelwise.kernels.compiled import only
from pixelwise.kernels.resample import sample_window
from pixelwise.kernels.upsample_argmax import upsample_argmax
torch.manual_seed(0)
for classes, kind in ((1, torch.float32), (5, torch.bfloat16), (9, torch.float16)):
    maps = torch.randn(classes, 5, 12).to(kind)
    for laid in (maps, maps.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        for window in ({"origin": (-0.3, -0.4), "step": (0.3, 0.04), "size": (3, 300)},
                       {"origin": (1.0, 0.0), "step": (1.5, 2.0), "size": (2, 5)}):
            best = sample_window(maps, **window).max(0)
            with only("triton"):
                assert torch.equal(upsample_argmax(laid, **window).long(), best.indices)
                floored = upsample_argmax(laid, **window, floor=0.1).long()
            assert torch.equal(floored, best.indices.masked_fill(best.values <= 0.1, classes))
maps[3, 2, 2] = torch.nan
with only("triton"):
    assert torch.equal(upsample_argmax(maps, **window).long(), sample_window(maps, **window).max(0).indices)
print("equal")
"""


def test_tritons_form_in_its_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run([sys.executable, "-c", TRITON], capture_output=True, text=True,
                          env={**os.environ, "TRITON_INTERPRET": "1"})  # fmt: skip
    assert done.stdout.strip() == "equal", done.stderr
