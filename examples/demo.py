"""The whole path in three minutes: draw streets, check, train one panoptic net, score all three tasks, predict, look.

Run by `make demo`; each command is printed before it runs, so that it can be repeated by hand on your own images.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise import load
from pixelwise.core.panels import three_answers
from pixelwise.data.streets import write_streets


def pixelwise(*words: object) -> None:
    """Runs the command line as a user would; stops the demo where it fails."""
    print("\n$ pixelwise " + " ".join(map(str, words)), flush=True)
    subprocess.run([sys.executable, "-m", "pixelwise", *map(str, words)], check=True)


def draw_answers(model: Path, image: Path, out: Path) -> None:
    """One picture: the image and what the net answers to each of the three tasks."""
    semantic, instance, panoptic = (load(model, task=task) for task in ("semantic", "instance", "panoptic"))
    answers = [predictor(image) for predictor in (semantic, instance, panoptic)]
    Image.fromarray(three_answers(np.asarray(Image.open(image)), *answers, semantic.task.classes)).save(out)


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
    pixelwise("train", streets, "--model", "panoptic_deeplab-small", "--out", out / "run",
              "--minutes", options.minutes, "--lr", 0.003, "--loss", "ce+dice", "--class-weights", "enet",
              "--transforms.rare-focus", 0.2)  # fmt: skip
    model = out / "run" / "model.safetensors"
    for task in ("panoptic", "instance", "semantic"):
        pixelwise("evaluate", model, streets, "--split", "test", "--task", task, "--out", out / "scores" / task)
    images = streets / "leftImg8bit" / "test"
    pixelwise("predict", model, images, "--out", out / "answers", "--save", "classes", "instances", "panoptic",
              "objects")  # fmt: skip
    draw_answers(model, sorted(images.rglob("*.png"))[0], out / "three-tasks.png")
    print(f"\nDone in {time.monotonic() - begin:.0f} s. Look at")
    for path, what in (
        ("three-tasks.png", "an unseen scene: classes, instances, and both"),
        ("run/report.html", "how the training went"),
        ("scores/panoptic/report.html", "scores on unseen scenes; also scores/instance and scores/semantic"),
        ("answers", "predictions: maps, a table of objects, overlays"),
        ("run/model.safetensors", "the model, one file"),
    ):
        print(f"  {out / path}  {what}")


if __name__ == "__main__":
    main()
