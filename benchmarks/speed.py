"""The fast paths beside the usual ways, both sides of each ratio from one run.

    python benchmarks/speed.py [--only NAME ...] [--repeats 7] [--threads 1] [--wall] [--out benchmarks/results/speed]

Each file in `speed_rows/` is a row of the table. A side of a row runs in a process of its own; the sides take turns,
round by round, and the median of the rounds counts. By default the processor's time is counted, which other programs on
the machine disturb least; --wall counts the clock's. Memory is what the operating system's high-water mark rises by
while the work is done once, in a fresh process. What the sides answer is compared. Prints the table; --out NAME writes
NAME.json, with machine, versions and load, and NAME.md, after each row; rows that are not run again stay.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def rows(only: list[str] | None) -> list[str]:
    """Names of the rows to run. Exits for a name that is none."""
    names = [path.stem for path in sorted((HERE / "speed_rows").glob("*.py"))]
    for name in only or []:
        if name not in names:
            sys.exit(f"There is no row '{name}'; there are {', '.join(names)}.")
    return only or names


class Child:
    """A side of a row in its own process, which answers each line it is sent by a line of JSON."""

    def __init__(self, row: str, side: str, threads: int, further: Mapping[str, str]) -> None:
        numbers = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self.process = subprocess.Popen([sys.executable, str(HERE / "speed_side.py"), row, side, str(threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **numbers, **further})  # fmt: skip

    def ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"The process ended with {self.process.wait()}: {' '.join(map(str, self.process.args[2:]))}")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(name: str, repeats: int, threads: int, wall: bool) -> dict[str, Any]:
    """One row: seconds of every round and memory of each side, and how the answers agree."""
    row = importlib.import_module(f"speed_rows.{name}").ROW
    found: dict[str, Any] = {"what": row.what, "target": row.target, "sides": {side: {} for side in row.sides}}
    for side, values in found["sides"].items():
        child = Child(name, side, threads, row.environment.get(side, {}))
        values["memory_mb"] = child.ask("memory")["memory"] / 2**20
        child.end()
    children = {side: Child(name, side, threads, row.environment.get(side, {})) for side in row.sides}
    for side, child in children.items():
        found["sides"][side]["answer"] = child.ask("answer")["answer"]
    rounds: dict[str, list[float]] = {side: [] for side in children}
    for _ in range(repeats):
        for side, child in children.items():
            taken = child.ask("go")
            rounds[side].append(taken["wall" if wall else "cpu"])
    for side, child in children.items():
        child.end()
        found["sides"][side] |= {"seconds": statistics.median(rounds[side]), "rounds": rounds[side]}
    ours = found["sides"]["pixelwise"]
    found["ratios"] = {s: v["seconds"] / ours["seconds"] for s, v in found["sides"].items() if s != "pixelwise"}
    found["memory_ratios"] = {
        s: v["memory_mb"] / max(ours["memory_mb"], 1e-3) for s, v in found["sides"].items() if s != "pixelwise"
    }
    found["agreement"] = row.compare({s: v.pop("answer") for s, v in found["sides"].items()})
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The table in Markdown."""
    out = ["| part | the usual way | ms | MB | Pixelwise ms | MB | times faster | target | answers |", "|---" * 9 + "|"]
    for row in found.values():
        ours = row["sides"]["pixelwise"]
        for side, ratio in row["ratios"].items():
            theirs, target = row["sides"][side], row["target"].get(side)
            cells = [row["what"], side, f"{theirs['seconds'] * 1e3:,.1f}", f"{theirs['memory_mb']:,.0f}",
                     f"{ours['seconds'] * 1e3:,.1f}", f"{ours['memory_mb']:,.0f}", f"{ratio:.1f}",
                     "-" if target is None else f"{target:g}", row["agreement"]]  # fmt: skip
            out.append("| " + " | ".join(cells) + " |")
    return out


def about(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from pixelwise.core.machine import describe
    from pixelwise.core.modelfile import current_versions

    torch.set_num_threads(options.threads)  # as the sides have; it is told
    return {"date": date.today().isoformat(), "machine": describe(torch.device("cpu")), "threads": options.threads,
            "versions": current_versions(), "load": os.getloadavg(), "repeats": options.repeats,
            "time": "wall" if options.wall else "cpu"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    machine, found = about(options), {}
    for name in rows(options.only):
        found[name] = measure(name, options.repeats, options.threads, options.wall) | {"about": machine}
        print("\n".join(lines({name: found[name]})[2:]), flush=True)
        if options.out:
            keep(options.out, found)
    print("\n" + said(machine))


def said(machine: dict[str, Any]) -> str:
    return (f"{machine['machine']}; {machine['time']} time, median of "
            f"{machine['repeats']}; load {machine['load'][0]:.1f}; torch {machine['versions']['torch']}; "
            f"{machine['date']}")  # fmt: skip


def keep(out: Path, found: dict[str, Any]) -> None:
    """Writes NAME.json and NAME.md; rows that are not in `found` stay as the file has them."""
    path = out.with_suffix(".json")
    old = json.loads(path.read_text())["rows"] if path.exists() else {}
    all_rows = {name: (old | found)[name] for name in sorted(old | found)}
    out.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": all_rows}, indent=1) + "\n")
    runs = dict.fromkeys(said(row["about"]) for row in all_rows.values())
    text = ["# Speed and memory beside the usual ways", "", *lines(all_rows), "", *(f"- {run}" for run in runs), ""]
    out.with_suffix(".md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
