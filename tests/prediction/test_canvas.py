"""Canvases: what is put is read, also by the next process; a full disk shows at once and leaves nothing."""

import errno
import os

import numpy as np
import pytest

from pixelwise.errors import OutputError
from pixelwise.prediction.canvas import MemoryCanvas, ScratchCanvas

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("most", [None, 5, 300, 70_000])
def test_what_is_put_is_read(tmp_path, most):
    size = (23, 31)
    rows = RNG.integers(-2, most or 1 << 30, size).astype(np.int32)
    for canvas in (MemoryCanvas(size), ScratchCanvas(tmp_path / "rows", size, most)):
        for top in range(0, 23, 10):
            for left in range(0, 31, 7):
                canvas.put(top, left, rows[top : top + 10, left : left + 7])
        canvas.put(22, 0, rows[22:])
        assert np.array_equal(canvas.band(0, 23), rows)
        assert np.array_equal(canvas.band(4, 9), rows[4:9])
    bytes_each = {None: 4, 5: 1, 300: 2, 70_000: 4}[most]
    assert (tmp_path / "rows").stat().st_size == 23 * 31 * bytes_each
    canvas.close()
    again = ScratchCanvas(tmp_path / "rows", size, most)
    assert not again.fresh
    assert np.array_equal(again.band(0, 23), rows)
    again.remove()
    assert not list(tmp_path.iterdir())


def test_a_scratch_file_of_another_size_begins_anew(tmp_path):
    (tmp_path / "rows").write_bytes(b"1234")
    canvas = ScratchCanvas(tmp_path / "rows", (2, 3), 9)
    assert canvas.fresh
    canvas.remove()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be claimed here")
def test_a_full_disk_is_said_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="the disk is full"):
        ScratchCanvas(tmp_path / "rows", (2, 3))
    assert not list(tmp_path.iterdir())
