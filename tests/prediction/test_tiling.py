"""Tiles share an image out and trust what their neighbours trust too; the choice keeps to its budget."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import ConfigError
from pixelwise.nn.receptive import Halo
from pixelwise.prediction.tiling import Tiling, choose_tiling


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    stride = draw(st.sampled_from([1, 2, 8]))
    overlap = draw(st.integers(0, 6))
    margin = draw(st.integers(0, overlap // 2))
    return Tiling(stride * draw(st.integers(overlap + 1, 14)), stride * overlap, stride * margin, stride)


@settings(max_examples=150)
@given(tilings(), st.integers(1, 120), st.integers(1, 120))
def test_cores_share_the_image_out(tiling, height, width):
    rows = list(tiling.rows((height, width)))
    assert (len(rows), len(rows[0])) == tiling.counts((height, width))
    for axis, length in ((0, height), (1, width)):
        tiles = [row[0] for row in rows] if axis == 0 else rows[0]
        spans = [[(w[axis], w[axis] + w[axis + 2]) for w in (t.window, t.trusted, t.core)] for t in tiles]
        assert spans[0][2][0] == 0
        assert spans[-1][2][1] == length
        for (start, stop), (inner, outer), (first, last) in spans:
            assert start % tiling.stride == first % tiling.stride == 0
            assert 0 <= start <= inner <= first < last <= outer <= stop <= length
            assert stop - start <= tiling.side
            assert start == 0 or inner - start == tiling.margin
            assert stop == length or (stop - outer == tiling.margin and stop - start == tiling.side)
        for before, after in pairwise(spans):
            assert before[2][1] == after[2][0]
            assert before[0][1] - after[0][0] >= tiling.overlap
            assert before[1][1] - after[1][0] >= tiling.overlap - 2 * tiling.margin
    assert [(t.row, t.column) for row in rows for t in row] == [
        (i, j) for i in range(len(rows)) for j in range(len(rows[0]))
    ]


@pytest.mark.parametrize("numbers", [(0, 0), (8, 8), (16, 4, 3), (16, -4), (10, 4, 2, 4), (16, 8, 2, 0)])
def test_windows_that_cannot_be_are_refused(numbers):
    with pytest.raises(ConfigError):
        Tiling(*numbers)


HALO = Halo(94, 16, any_size=True)


def test_a_halo_that_fits_is_exact():
    tiling = choose_tiling((5000, 7001), HALO, joins=False, channels=19, per_pixel=1700, memory=1 << 30)
    assert tiling.exact
    assert tiling.margin >= 94
    assert tiling.overlap == 2 * tiling.margin
    assert tiling.side**2 * 1700 <= 1.1 * 2**30
    joined = choose_tiling((5000, 7001), HALO, joins=True, channels=19, per_pixel=1700, memory=1 << 30)
    assert joined.overlap == tiling.overlap + 64

    far = choose_tiling((4096, 4096), Halo(495, 32, any_size=False), joins=False, channels=19, per_pixel=563,
                        memory=1 << 29)  # fmt: skip
    assert (far.side, far.exact) == (2048, True)


@pytest.mark.parametrize(
    ("side", "expected"), [(3000, (3008, True)), (500, (512, True)), (250, (384, True)), (150, (150, False))]
)
def test_a_side_that_is_asked_for_is_taken_or_at_most_doubled(side, expected):
    tiling = choose_tiling((5000, 7001), HALO, joins=False, channels=19, per_pixel=1700, memory=1 << 30, side=side)
    assert (tiling.side, tiling.exact) == expected
    assert tiling.blended != tiling.exact


def test_what_has_no_halo_or_no_room_for_it_is_blended():
    far, stretched = Halo(900, 32, any_size=True), Halo(94, 16, any_size=False)
    common = {"joins": False, "channels": 150, "per_pixel": 3000.0, "memory": 1 << 30}
    for halo, size in ((None, (4000, 4000)), (far, (4000, 4000)), (stretched, (4000, 4001))):
        tiling = choose_tiling(size, halo, **common)
        assert tiling.blended
        assert not tiling.exact
        assert 4 * 150 * tiling.side**2 <= 2**28
        assert tiling.side // 8 <= tiling.overlap <= tiling.side // 2
    assert choose_tiling((4000, 4000), stretched, **common).exact
    assert choose_tiling((4000, 4001), stretched, **common | {"joins": True}).overlap > 0
    wide = choose_tiling((4000, 20000), None, **common)
    assert 2 * 150 * 20000 * wide.overlap <= 2**29


@pytest.mark.parametrize("height", [720, 725, 1300, 2048, 10000])
@pytest.mark.parametrize("side", [None, 640])
def test_blended_windows_share_the_height_out_evenly(height, side):
    """What the last window has in common with the one before is held for the whole width."""
    common = {"joins": False, "channels": 151, "per_pixel": 440.0, "memory": 3 << 28, "side": side}
    tiling = choose_tiling((height, 10000), None, **common)
    windows = [tiles[0].window for tiles in tiling.rows((height, 10000))]
    assert windows[-1][0] + windows[-1][2] == height
    held = [a[0] + a[2] - b[0] for a, b in pairwise(windows)]
    assert min(held) >= tiling.overlap
    assert max(held) <= tiling.overlap + len(windows)
    assert 2 * 151 * 10000 * max(held) + 440 * tiling.side**2 < 3 << 28
    whole = choose_tiling((height, 10000), None, **common, fits=False)
    assert whole.side == (side or whole.side) >= tiling.side


def test_a_net_that_takes_one_size_is_shown_windows_of_it():
    tiling = choose_tiling((4000, 4000), None, joins=True, channels=80, per_pixel=4096, memory=1 << 30, side=800,
                           fits=False)  # fmt: skip
    assert (tiling.side, tiling.overlap, tiling.margin) == (800, 200, 50)
