"""The whole `predict` command beside the net alone, on drawn photographs.

    python benchmarks/predict_folder.py [--count 200] [--size 1024 2048] [--model FILE] [--rounds 1] [--threads 0]
                                        [--words ...]

The command reads JPEG files, and writes class maps and overlays; it runs as anyone would run it, start included. The
net alone has the images in memory, decoded, and is asked for its answers (the net and what the task makes of its
output), the start of Python not counted; `forward` is the net without the task's part. Each side is a process of its
own and the sides take turns. Wall time is what counts for work that overlaps; the processor's time is beside it,
for machines that others use too. Without --model a DeepLab of random weights is used.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

ALONE = """
import json, sys, time
from pathlib import Path
from pixelwise.prediction import load
model = load(sys.argv[1], **json.loads(sys.argv[3]))
images = [model.pixels(path) for path in sorted(Path(sys.argv[2]).iterdir())[:8]]
count = int(sys.argv[4])
model.decode(model.forward(images[0]))
found = {"wall": 0.0, "cpu": 0.0, "forward": 0.0}
for number in range(count):
    wall, cpu = time.perf_counter(), time.process_time()
    output = model.forward(images[number % len(images)])
    found["forward"] += time.perf_counter() - wall
    model.decode(output)
    found["wall"] += time.perf_counter() - wall
    found["cpu"] += time.process_time() - cpu
print(json.dumps(found))
"""


def draw(folder: Path, count: int, size: tuple[int, int]) -> None:
    """`count` JPEG files of smooth grounds with ellipses, a little grain on them: eight scenes, repeated."""
    folder.mkdir(parents=True)
    rng, codes = np.random.default_rng(0), []
    for _ in range(min(count, 8)):
        low = rng.integers(0, 256, (8, 16, 3), dtype=np.uint8)
        image = cv2.resize(low, size[::-1], interpolation=cv2.INTER_CUBIC)
        for _ in range(40):
            centre = tuple(int(rng.integers(s)) for s in size[::-1])
            axes = tuple(int(a) for a in rng.integers(8, 120, 2))
            cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, rng.integers(0, 256, 3).tolist(), -1)
        grain = cv2.resize(rng.integers(0, 12, (size[0] // 2, size[1] // 2, 3), dtype=np.uint8), size[::-1])
        codes.append(cv2.imencode(".jpg", cv2.add(image, grain), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    for number in range(count):
        (folder / f"{number:05}.jpg").write_bytes(codes[number % len(codes)])


def random_model(path: Path) -> Path:
    """A DeepLab for 19 classes with random weights."""
    import torch

    from pixelwise.core.classes import Classes
    from pixelwise.core.modelfile import ModelCard, save_model
    from pixelwise.core.registry import create_model
    from pixelwise.core.sample import Preprocessing

    torch.manual_seed(0)
    classes = Classes(names=[f"class {k}" for k in range(19)])
    net = create_model("deeplab-small", classes=19)
    card = ModelCard(architecture="deeplab-small", outputs=19, classes=classes, task="semantic",
                     preprocessing=Preprocessing())  # fmt: skip
    save_model(path, net, card)
    return path


def command(model: Path, images: Path, out: Path, words: list[str], env: dict[str, str]) -> dict[str, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    said = [sys.executable, "-m", "pixelwise", "predict", str(model), str(images), "--out", str(out), *words]
    subprocess.run(said, check=True, env=env, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def alone(model: Path, images: Path, count: int, words: list[str], env: dict[str, str]) -> dict[str, float]:
    options = dict(zip((w.removeprefix("--") for w in words[::2]), words[1::2]))
    said = [sys.executable, "-c", ALONE, str(model), str(images), json.dumps(options), str(count)]
    found: dict[str, float] = json.loads(subprocess.run(said, check=True, env=env, capture_output=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="of the net; 0: as many as there are cores")
    parser.add_argument(
        "--words", nargs=argparse.REMAINDER, default=[], help="further options, such as --precision bf16"
    )
    options = parser.parse_args()
    env = {**os.environ, **({"OMP_NUM_THREADS": str(options.threads)} if options.threads else {})}
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        draw(place / "images", options.count, tuple(options.size))
        model = options.model or random_model(place / "model.safetensors")
        for _ in range(options.rounds):
            net = alone(model, place / "images", options.count, options.words, env)
            whole = command(model, place / "images", place / "out", options.words, env)
            rounds.append((whole, net))
            print(f"command {whole['wall']:.1f} s ({whole['cpu']:.1f} s CPU), net alone {net['wall']:.1f} s "
                  f"({net['cpu']:.1f} s), its forward {net['forward']:.1f} s", flush=True)  # fmt: skip
    for key, what in (("wall", "wall time"), ("cpu", "the processor's time")):
        ratio = statistics.median(whole[key] / net[key] for whole, net in rounds)
        print(f"command / net alone, {what}: {ratio:.2f} (target 1.2)")
    forward = statistics.median(whole["wall"] / net["forward"] for whole, net in rounds)
    print(f"command / forward alone, wall time: {forward:.2f}")
    print(f"{options.count} images of {options.size[0]} x {options.size[1]}; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
