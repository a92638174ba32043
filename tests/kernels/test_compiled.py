"""How kernels are chosen and compiled: without Numba, without a folder to write to, on threads, after a fork."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading

import pytest
import torch

from pixelwise.kernels import compiled


def test_the_reference_serves_float64_and_only_says_otherwise():
    assert compiled.form_for(torch.zeros(1), torch.zeros(1, dtype=torch.float64)) == "torch"
    with compiled.only("triton"):
        assert compiled.form_for(torch.zeros(1)) == "triton"
    assert compiled.form_for(torch.zeros(1)) == ("numba" if compiled.numba else "torch")


def test_without_numba_the_reference_runs(monkeypatch):
    monkeypatch.setattr(compiled, "numba", None)
    assert compiled.form_for(torch.zeros(1)) == "torch"
    assert compiled.compiled(len) is len


def test_where_no_cache_can_be_written_a_private_folder_serves(tmp_path):
    pytest.importorskip("numba")
    (tmp_path / "some.py").write_text(
        "from pixelwise.kernels.compiled import compiled\n@compiled\ndef double(n):\n    return 2 * n\n"
    )
    code = """
from pixelwise.kernels.compiled import _private_folder
from some import double
assert double(21) == 42
print(oct(_private_folder().stat().st_mode & 0o777), len(list(_private_folder().rglob("*.nbi"))))
"""
    (tmp_path / "home").write_text("a file, no folder")  # so that nothing can be written below it
    places = {"TMPDIR": tmp_path, "PYTHONPATH": tmp_path, "XDG_CACHE_HOME": tmp_path / "home"}
    told = {**os.environ, **{name: str(place) for name, place in places.items()}}
    told.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=told)
    assert done.stdout.split() == ["0o700", "1"], done.stderr


def test_machine_code_lies_in_a_folder_that_changes_with_any_kernel(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (first, *_), (told,) = compiled._folders(""), compiled._folders(str(tmp_path / "own"))
    assert first.parent == compiled.user_cache() / "kernels"
    assert told == tmp_path / "own" / first.name
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    for name in ("compiled.py", "inner.py"):
        (kernels / name).write_text(name)
    monkeypatch.setattr(compiled, "__file__", str(kernels / "compiled.py"))
    before = compiled._digest.__wrapped__()
    (kernels / "inner.py").write_text("changed")
    assert before != compiled._digest.__wrapped__()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners here")
def test_a_folder_that_others_may_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled.tempfile, "gettempdir", lambda: str(tmp_path))
    compiled._private_folder.cache_clear()
    (tmp_path / f"pixelwise-kernels-{os.getuid()}").mkdir()
    (tmp_path / f"pixelwise-kernels-{os.getuid()}").chmod(0o777)
    assert compiled._private_folder() is None
    compiled._private_folder.cache_clear()


def test_parts_cover_everything_once_on_several_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    seen, names = [], set()

    def work(start, stop):
        seen.extend(range(start, stop))
        names.add(threading.current_thread().name)

    compiled.in_parts(work, 10)
    assert sorted(seen) == list(range(10))
    assert all(name.startswith("kernel") for name in names)
    seen.clear()
    compiled.in_parts(work, 4, least=3)
    assert seen == [0, 1, 2, 3]


def _sum_after_fork(queue):
    total = []
    compiled.in_parts(lambda start, stop: total.append(stop - start), 8)
    queue.put(sum(total))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_threads_are_made_anew_after_a_fork(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    compiled.in_parts(lambda start, stop: None, 8)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_sum_after_fork, args=(queue,))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert queue.get() == 8


def test_an_error_in_a_part_is_raised(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def work(start, stop):
        raise ValueError(start)

    with pytest.raises(ValueError):
        compiled.in_parts(work, 4)
