"""How time and memory grow: `predict` with the image's megapixels, the loss with the classes, PQ with the segments.

    python benchmarks/growth.py [--only predict loss pq] [--megapixels 1 4 16 67 100 400] [--out NAME]

Each size runs in a process of its own, see `growth_predict.py`, `growth_loss.py` and `growth_pq.py`. Writes NAME.json,
and NAME.png with seconds and memory of each on logarithmic axes beside a line that grows as the size does. Parts that
are not run again keep what NAME.json has of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import growth_loss
import growth_pq
import growth_predict

Points = dict[str, list[tuple[float, float, float]]]  # {side: (size, seconds, megabytes)}
AXES = {"predict": "megapixels", "loss": "classes", "pq": "segments"}


def predict(megapixels: list[float]) -> Points:
    rows = growth_predict.measure(megapixels)
    return {"pixelwise": [(row["megapixels"], row["cpu"], row["memory_mb"]) for row in rows]}


def loss(megapixels: list[float]) -> Points:
    points: dict[str, Any] = {}
    for row in growth_loss.measure():
        points.setdefault(row["side"], []).append((row["classes"], row["seconds"], row["memory_mb"]))
    return points


def pq(megapixels: list[float]) -> Points:
    rows = growth_pq.measure()
    return {"pixelwise": [(row["segments"], row["seconds"], row["memory"] / 2**20) for row in rows]}


PARTS: dict[str, Callable[[list[float]], Points]] = {"predict": predict, "loss": loss, "pq": pq}


def steepest(points: list[tuple[float, float, float]], column: int) -> float:
    """How many times faster than the size the value grows, from any size to any larger one: at most 1 is linear."""
    pairs = [(a, b) for i, a in enumerate(points) for b in points[i + 1 :]]
    return max((b[column] / max(a[column], 1e-9)) / (b[0] / a[0]) for a, b in pairs)


def draw(found: dict[str, Points], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(found), figsize=(4 * len(found), 6), squeeze=False, layout="constrained")
    for column, (part, sides) in enumerate(found.items()):
        for row, label in ((0, "seconds"), (1, "MB")):
            axis = axes[row][column]
            for side, points in sides.items():
                sizes, values = [p[0] for p in points], [max(p[row + 1], 1e-3) for p in points]
                axis.loglog(sizes, values, marker="o", markersize=3, label=side)
            size, top = zip(*[(p[0], p[row + 1]) for p in sides["pixelwise"]])
            axis.loglog(
                [size[0], size[-1]], [top[-1] * size[0] / size[-1], top[-1]], "--", color="grey", label="linear"
            )
            axis.set(xlabel=AXES[part], ylabel=label, title=part if row == 0 else "")
            axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(PARTS), help="parts to run; none: only draw")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16, 67, 100, 400])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "growth")
    options = parser.parse_args()
    for part in options.only:
        if part not in PARTS:
            parser.error(f"There is no part '{part}'; there are {', '.join(PARTS)}.")
    import torch

    from pixelwise.core.machine import describe

    kept = options.out.with_suffix(".json")
    old = json.loads(kept.read_text()) if kept.exists() else {}
    found, about = old.get("points", {}), old.get("about", {})
    for part in options.only:
        found[part] = PARTS[part](options.megapixels)
        about[part] = {"date": date.today().isoformat(), "machine": describe(torch.device("cpu")),
                       "load": os.getloadavg(), "torch": str(torch.__version__)}  # fmt: skip
        for side, points in found[part].items():
            for size, seconds, memory in points:
                print(f"{part:>8} {side:>10} {size:8.0f} {AXES[part]} {seconds:10.3f} s {memory:9.1f} MB")
            print(f"{part:>8} {side:>10} times the size's own growth at most: {steepest(points, 1):.2f} in seconds")
    kept.write_text(json.dumps({"about": about, "points": found}, indent=1) + "\n")
    draw({part: found[part] for part in PARTS if part in found}, options.out.with_suffix(".png"))
    print(options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
