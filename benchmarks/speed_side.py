"""One side of a row of `speed.py`, run in a process of its own; and what a row is made of."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[], Any]


def as_lists(answer: Any) -> Any:
    """A number, or an array or tensor as nested lists."""
    return np.asarray(answer).tolist()


@dataclass(frozen=True)
class Row:
    """One line of the table.

    what     the operation and its sizes
    sides    {name: maker}; "pixelwise" is ours. A maker imports, draws the same input as the others, runs the code once
             on something tiny (what is compiled then does not count as memory), and returns the work: a function of no
             argument whose answer is an array, tensor, number or tuple of them.
    compare  the sides' answers, each as `digest` gave it -> a few words
    target   {other side: how many times as fast ours is to be}
    digest   an answer -> something small that JSON can hold; by default the whole answer as lists of numbers
    environment  {side: variables of its process}
    """

    what: str
    sides: Mapping[str, Callable[[], Work]]
    compare: Callable[[Mapping[str, Any]], str]
    target: Mapping[str, float] = field(default_factory=dict)
    digest: Callable[[Any], Any] = as_lists
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def _status(key: str) -> int:
    """Bytes that /proc/self/status says."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}: memory is measured on Linux only.")


def memory_of(work: Work) -> int:
    """Bytes by which the high-water mark of resident memory rises above what is resident before the work."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the mark back
    before = _status("VmRSS")
    answer = work()
    after = _status("VmHWM")
    del answer
    return max(0, after - before)


def main() -> None:
    name, side, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be read as an answer
    import torch

    torch.set_num_threads(threads)
    row: Row = importlib.import_module(f"speed_rows.{name}").ROW
    work = row.sides[side]()
    for line in sys.stdin:
        word = line.strip()
        if word == "memory":
            said: dict[str, Any] = {"memory": memory_of(work)}
        elif word == "answer":
            said = {"answer": row.digest(work())}
        else:
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            said = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        out.write(json.dumps(said) + "\n")
        out.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
