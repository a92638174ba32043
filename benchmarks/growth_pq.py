"""Seconds and memory of panoptic quality as segments grow from 1 to 5,000 on maps of one size.

    python benchmarks/growth_pq.py [--out benchmarks/results/growth_pq.json]

Truth and prediction are 1024 x 2048 cells around points, so many each. The processor's time, the median of five; memory
is what the operating system's high-water mark rises by, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from speed_rows.pq import CLASSES, draw
from speed_side import memory_of

COUNTS = (1, 10, 100, 500, 1000, 2000, 3000, 5000)


def measure() -> list[dict[str, Any]]:
    """One entry per number of segments: segments, seconds, memory (bytes), each from a fresh process."""
    found = []
    for count in COUNTS:
        done = subprocess.run(
            [sys.executable, __file__, "--segments", str(count)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    return found


def _once(count: int) -> dict[str, Any]:
    import numpy as np
    import torch

    from pixelwise.core.segments import Segments
    from pixelwise.metrics import PanopticQuality

    torch.set_num_threads(1)
    sides = [Segments(rows.astype(np.int16), labels) for rows, labels in draw(true=count, called=count)]

    def work() -> float:
        metric = PanopticQuality(CLASSES)
        metric.update(sides[1], sides[0])
        return float(metric.compute()["pq"])

    work()
    memory, taken = memory_of(work), []
    for _ in range(5):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return {"segments": count, "seconds": statistics.median(taken), "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, help="measure this number alone and print it as JSON")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.segments:
        print(json.dumps(_once(asked.segments)))
        return
    found = measure()
    for entry in found:
        print(f"{entry['segments']:6d} segments {1e3 * entry['seconds']:8.1f} ms {entry['memory'] / 2**20:8.1f} MB")
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
