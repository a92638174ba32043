"""What the benchmarks on real data share: a user's commands, a split to choose by, results as JSON and a table."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pixelwise import load

RESULTS = Path(__file__).parent / "results"


def pixelwise(*words: object) -> None:
    """Runs the command line as a user would, and stops where it fails."""
    print("$ pixelwise " + " ".join(map(str, words)), flush=True)
    subprocess.run([sys.executable, "-m", "pixelwise", *map(str, words)], check=True)


def hold_out(data: Path, out: Path, *, every: int, test: str) -> Path:
    """A folder of links to `data` whose `val` is every so many-th image of its `train`, and whose `test` is `test`.

    So the best weights and thresholds are chosen on images that are not scored.
    """
    if out.exists():
        shutil.rmtree(out)
    (out / "splits").mkdir(parents=True)
    for part in data.iterdir():
        if part.name != "splits":
            (out / part.name).symlink_to(part.resolve())
    names = (data / "splits" / "train.txt").read_text().split("\n")
    names = [name for name in names if name.strip()]
    chosen = names[every // 2 :: every]
    splits = {"train": [n for n in names if n not in chosen], "val": chosen}
    splits["test"] = (data / "splits" / f"{test}.txt").read_text().split("\n")
    for split, listed in splits.items():
        (out / "splits" / f"{split}.txt").write_text("\n".join(n for n in listed if n.strip()) + "\n")
    return out


def train(data: Path, out: Path, minutes: float, words: Sequence[str]) -> float:
    """Trains by the command line; returns the minutes it took."""
    if out.exists():
        shutil.rmtree(out)
    begin = time.monotonic()
    pixelwise("train", data, "--out", out, "--minutes", f"{minutes:g}", *words)
    return (time.monotonic() - begin) / 60


def scores(model: Path, data: Path, out: Path, *words: str) -> dict[str, Any]:
    """Evaluates by the command line; returns what stands in scores.json but paths and single images."""
    pixelwise("evaluate", model, data, "--out", out, *words)
    found = json.loads((out / "scores.json").read_text())
    return {key: value for key, value in found.items() if key not in ("per_image", "model", "data")}


def cost(model: Path, height: int, width: int) -> dict[str, float]:
    """Parameters, GFLOPs (a multiply-add counts as one) and seconds, the median of nine, for an image of this size."""
    predictor = load(model)
    images = torch.zeros(1, predictor.card.preprocessing.channels, height, width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        predictor.net(images)
    pixels, seconds = np.zeros((height, width, images.shape[1]), np.uint8), []
    for _ in range(9):
        begin = time.perf_counter()
        predictor.output(pixels)
        seconds.append(time.perf_counter() - begin)
    return {
        "parameters": sum(p.numel() for p in predictor.net.parameters()),
        "gflops": counter.get_total_flops() / 2e9,
        "seconds_per_image": float(np.median(seconds)),
    }


def _last(out: Path, key: str) -> float:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return max(line[key] for line in lines if key in line)


def steps(out: Path) -> int:
    """How many a run took: under a time budget they tell how busy the machine was."""
    return int(_last(out, "step"))


def elapsed(out: Path) -> float:
    """Minutes that a run took, by its own log."""
    return _last(out, "seconds") / 60


def write(name: str, out: Path, minutes: float, command: str, found: Mapping[str, Any]) -> None:
    """results/NAME.json: the scores, and on what, when and how they were taken."""
    about = json.loads((out / "run.json").read_text())
    result = {"name": name, "date": date.today().isoformat(), "machine": about["machine"],
              "minutes": round(minutes, 1), "steps": steps(out), "command": command, "git": about["git"],
              "versions": about["versions"], "scores": found}  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def table(prefix: str, title: str, columns: Mapping[str, Callable[[Mapping[str, Any]], float | None]]) -> None:
    """results/PREFIX.md: a row for each results/PREFIX-*.json; `columns` read a result, in percent."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{prefix}-*.json"))]
    heads = ["run", "minutes", "steps", *columns, "machine", "date", "command"]
    lines = [f"# {title}", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for result in results:
        values = [read(result["scores"]) for read in columns.values()]
        percents = ["-" if value is None else f"{100 * value:.1f}" for value in values]
        name = result["name"].removeprefix(f"{prefix}-")
        taken = f"{result['steps']:,}" if "steps" in result else "-"
        about = [result["machine"], result["date"], f"`{result['command']}`"]
        cells = [name, f"{result['minutes']}", taken, *percents, *about]
        lines.append("| " + " | ".join(cells) + " |")
    path = RESULTS / f"{prefix}.md"
    path.write_text("\n".join(lines) + "\n")
    print(path)


def benchmark(about: str, prefix: str, *, recipe: Mapping[str, str], model: str, minutes: float, every: int, test: str,
              title: str, columns: Mapping[str, Callable[[Mapping[str, Any]], float | None]]) -> None:  # fmt: skip
    """The command line of a benchmark: trains with a part of the images held out, scores `test` once, writes the table.

    about   the script's docstring, shown by --help
    every   each so many-th training image is held out
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="the data set in the plain layout")
    parser.add_argument("--model", default=model)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--name", help="of the result's file; the model's by default")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the run")
    parser.add_argument("--table", action="store_true", help=f"only write results/{prefix}.md")
    words, extra = split_words(sys.argv[1:])
    options = parser.parse_args(words)
    if not options.table:
        if options.data is None:
            parser.error("DATA is missing: the folder of the data set")
        name = f"{prefix}-{options.name or options.model}"
        data = hold_out(options.data, options.runs / f"{name}-data", every=every, test=test)
        flat = [part for key, value in recipe.items() if key not in extra for part in (key, *value.split())]
        flat = ["--model", options.model, *flat, *extra]
        out = options.runs / name
        spent = train(data, out, options.minutes, flat)
        found = scores(out / "model.safetensors", data, out / "test", "--split", "test")
        write(name, out, spent, " ".join(["pixelwise train DATA --minutes", f"{options.minutes:g}", *flat]), found)
    table(prefix, title, columns)


def metric(key: str, row: int | None = None) -> Callable[[Mapping[str, Any]], float | None]:
    """Reads a metric from the scores of a result, or one row of those by class."""

    def read(found: Mapping[str, Any]) -> float | None:
        value = found["metrics"].get(key)
        return value if row is None else value[row]

    return read


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A script's own words, and those behind `--`, which go to `pixelwise train`."""
    if "--" not in words:
        return list(words), []
    at = list(words).index("--")
    return list(words[:at]), list(words[at + 1 :])
