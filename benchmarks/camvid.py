"""CamVid from scratch: train on the 367 images alone, score the 233 test images at full size, pooled, void left out.

    python benchmarks/camvid.py DATA --minutes 58                      the recipe below; an hour in all
    python benchmarks/camvid.py DATA --minutes 8 --name no-dice -- --loss ce        one ingredient changed
    python benchmarks/camvid.py DATA --minutes 8 --model pspnet -- --options encoder=resnet18       another net
    python benchmarks/camvid.py --table                                results/camvid.md from the results at hand

DATA is CamVid in the plain layout (images/, masks/, splits/, classes.txt; 480 x 360, 11 classes, void 11). Nothing else
is seen: no pretrained weights, and the test split only at the end. The commands are a user's; there is no special code.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import measuring
from measuring import RESULTS

SIZE = (360, 480)  # of the images
RECIPE = {
    "--model": "unet-folded",
    "--loss": "ce+dice",
    "--class-weights": "enet",
    "--crop": "224 320",
    "--batch-size": "8",
    "--lr": "0.002",
    "--transforms.rare-focus": "0.3",
    "--evaluate-every": "25",
    "--seed": "0",
}


def measure(data: Path, out: Path, minutes: float, name: str, model: str | None, mirrored: bool,
            extra: list[str]) -> None:  # fmt: skip
    """Train, evaluate once plainly and once with the mirrored image, write one JSON file."""
    recipe = {**RECIPE, **({"--model": model} if model else {})}
    recipe = {key: value for key, value in recipe.items() if key not in extra}
    words = [part for key, value in recipe.items() for part in (key, *value.split())] + extra
    spent = measuring.train(data, out, minutes, words)
    model_file = out / "model.safetensors"
    ways: dict[str, list[str]] = {"plain": [], **({"mirrored": ["--tta", "flip"]} if mirrored else {})}
    scores = {
        label: measuring.scores(model_file, data, out / f"test-{label}", "--split", "test", *tta)
        for label, tta in ways.items()
    }
    scores["cost"] = measuring.cost(model_file, *SIZE)
    command = " ".join(["pixelwise train DATA --minutes", f"{minutes:g}", *words])
    measuring.write(f"camvid-{name}", out, spent, command, scores)


def _name(row: dict[str, object]) -> str:
    return str(row["name"]).removeprefix("camvid-")


def table() -> None:
    """results/camvid.md from all results at hand."""
    rows = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("camvid-*.json"))]
    lines = ["# CamVid, 367 training images alone, 233 test images at 480 x 360, pooled IoU, void left out", ""]
    lines += [
        "The full U-Net and FC-DenseNet103 on a GPU: not measured. The runs of 8 minutes had about half a core, which",
        "other work shared: their steps say how much of it each got, so they are no ranking of nets.",
        "",
    ]
    heads = ["run", "minutes", "steps", "mIoU", "mirrored", "accuracy", "parameters", "GFLOPs", "s per image"]
    heads += ["machine", "date", "command"]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        plain, mirrored = (row["scores"].get(k, {}).get("metrics") for k in ("plain", "mirrored"))
        values = plain["miou"], mirrored and mirrored["miou"], (mirrored or plain)["pixel_accuracy"]
        percents = [f"{100 * v:.1f}" if v is not None else "-" for v in values]
        cost = row["scores"].get("cost")
        costs = ["-"] * 3
        if cost:
            costs = [f"{cost['parameters']:,}", f"{cost['gflops']:.1f}", f"{cost['seconds_per_image']:.2f}"]
        about = [row["machine"], row["date"], f"`{row['command']}`"]
        taken = f"{row['steps']:,}" if "steps" in row else "-"
        cells = [_name(row), f"{row['minutes']}", taken, *percents, *costs, *about]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "IoU per class, mirrored where that was measured:", ""]
    if rows:
        names = rows[0]["scores"]["plain"]["classes"]
        lines += ["| run | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for row in rows:
            found = row["scores"].get("mirrored", row["scores"]["plain"])["metrics"]["iou"]
            values = [f"{100 * v:.1f}" if v is not None else "-" for v in found]
            lines.append(f"| {_name(row)} | " + " | ".join(values) + " |")
    (RESULTS / "camvid.md").write_text("\n".join(lines) + "\n")
    print(RESULTS / "camvid.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="CamVid's folder")
    parser.add_argument("--minutes", type=float, default=58)
    parser.add_argument("--model", help="architecture, in place of the recipe's")
    parser.add_argument("--name", help="of the result's file; the model's by default")
    parser.add_argument("--out", type=Path, help="run folder; runs/camvid-NAME by default")
    parser.add_argument("--plain", action="store_true", help="leave the mirrored image out, which takes as long again")
    parser.add_argument("--table", action="store_true", help="only write results/camvid.md")
    words, extra = measuring.split_words(sys.argv[1:])
    options = parser.parse_args(words)
    if not options.table:
        if options.data is None:
            parser.error("DATA is missing: the folder of CamVid")
        name = options.name or options.model or "unet"
        out = options.out or Path("runs") / f"camvid-{name}"
        measure(options.data, out, options.minutes, name, options.model, not options.plain, extra)
    table()


if __name__ == "__main__":
    main()
