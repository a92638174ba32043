"""A file written whole or not at all."""

import errno
import os

import pytest

from pixelwise.core.atomic import _flush, atomic, check_writable
from pixelwise.errors import OutputError


def test_writes_and_makes_folders(tmp_path):
    with atomic(tmp_path / "a" / "b" / "x.json") as part:
        assert part.suffix == ".json"
        assert part.parent == tmp_path / "a" / "b"
        part.write_text("{}")
    assert (tmp_path / "a" / "b" / "x.json").read_text() == "{}"
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["x.json"]


def write_half(target):
    with atomic(target) as part:
        part.write_text("half")
        raise KeyError


def test_failure_leaves_the_old_file_and_no_leftover(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(KeyError):
        write_half(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("number", "advice"), [(errno.ENOSPC, "make room"), (errno.EACCES, "another folder")])
def test_system_errors_say_what_to_do(tmp_path, number, advice):
    with pytest.raises(OutputError, match=advice) as caught, atomic(tmp_path / "x.txt"):
        raise OSError(number, "the system says so")
    assert "x.txt" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"), atomic(tmp_path / "file" / "x.txt"):
        pass


def test_a_folder_where_the_file_is_to_go(tmp_path):
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(OutputError, match=r"x\.txt"), atomic(tmp_path / "x.txt") as part:
        part.write_text("")
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_windows_opens_no_folder_and_flushes_what_may_be_written_to(tmp_path, monkeypatch):
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *more: opened.append((path, flags)) or real(path, flags, *more))
    with atomic(tmp_path / "x.txt") as part:
        part.write_text("as on Linux")
    assert [path for path, _ in opened] == [part, tmp_path]
    opened.clear()
    monkeypatch.setattr("pixelwise.core.atomic.os.name", "nt")
    _flush(tmp_path)
    _flush(tmp_path / "x.txt")
    assert opened == [(tmp_path / "x.txt", os.O_RDWR)]


def test_a_folder_is_tried_before_anything_slow(tmp_path):
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/out cannot be written: a part of the path is a file"):
        check_writable(tmp_path / "file" / "out")
