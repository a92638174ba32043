"""The whole path in three minutes: draw streets, check, train, evaluate on unseen scenes, predict a folder, look.

Run by `make demo`; each command is printed before it runs, so that it can be repeated by hand on your own images.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from pixelwise.data.streets import write_streets


def pixelwise(*words: object) -> None:
    """Runs the command line as a user would; stops the demo where it fails."""
    print("\n$ pixelwise " + " ".join(map(str, words)), flush=True)
    subprocess.run([sys.executable, "-m", "pixelwise", *map(str, words)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for data, model, answers and report")
    parser.add_argument("--minutes", type=float, default=1.8, help="time budget of the training")
    parser.add_argument("--scenes", type=int, default=64, help="scenes to train on")
    options = parser.parse_args()
    out: Path = options.out
    begin = time.monotonic()
    if out.exists():
        shutil.rmtree(out)
    streets = out / "streets"
    print(f"drawing {options.scenes + 24} street scenes into {streets}")
    write_streets(streets, train=options.scenes, val=12, test=12, size=(128, 256), seed=0)
    pixelwise("check", streets, "--quick")
    pixelwise("train", streets, "--model", "unet-folded", "--task", "semantic", "--out", out / "run",
              "--minutes", options.minutes, "--lr", 0.003, "--class-weights", "enet",
              "--transforms.rare-focus", 0.2)  # fmt: skip
    model = out / "run" / "model.safetensors"
    pixelwise("evaluate", model, streets, "--split", "test")
    pixelwise("predict", model, streets / "leftImg8bit" / "test", "--out", out / "answers")
    print(f"\nDone in {time.monotonic() - begin:.0f} s. Look at")
    for path, what in (
        ("run/report.html", "how the training went"),
        ("run/evaluation-test/report.html", "scores on unseen scenes"),
        ("answers", "predictions and overlays"),
        ("run/model.safetensors", "the model, one file"),
    ):
        print(f"  {out / path}  {what}")


if __name__ == "__main__":
    main()
