"""How the time and the memory of `predict` grow with the image: from 1 to 400 megapixels, and for many classes.

    python benchmarks/growth_predict.py [--megapixels 1 4 16 67 100 400] [--classes 8] [--width 8] [--tall]
                                        [--net NAME] [--threads 1] [--no-exact]
                                        [--out benchmarks/results/growth_predict]

Tiled GeoTIFFs are drawn by windows and predicted in a process of its own each: read by windows, answered by tiles,
written band by band (class map as GeoTIFF, overview). The net has random weights; it is a small U-Net, or --net. Memory
is what the operating system's high-water mark rises by above the loaded program, which has predicted a small image
first. --tall makes the images 2,048 wide, so that only their height grows. `measure` is the function behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CHILD = """
import ctypes, gc, json, os, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
import torch
torch.set_num_threads(int(sys.argv[4]))
from pixelwise.prediction import load, predict_folder
model = load(sys.argv[1], "cpu", exact=sys.argv[5] == "exact")
small = Path(sys.argv[2]).with_name("small.tif")
assert predict_folder(model, small, sys.argv[3] + "-small", tile=256).ok
gc.collect()
ctypes.CDLL("libc.so.6").malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before, wall, cpu = status("VmRSS"), time.perf_counter(), time.process_time()
run = predict_folder(model, sys.argv[2], sys.argv[3])
assert run.ok, run.failed
print(json.dumps({"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu,
                  "memory_mb": (status("VmHWM") - before) / 2**20, "program_mb": before / 2**20}))
"""


def draw(path: Path, size: tuple[int, int]) -> None:
    """A tiled, deflated GeoTIFF (H, W) of smooth colours, a row of tiles at a time."""
    import rasterio

    rng, (height, width) = np.random.default_rng(0), size
    waves = rng.uniform(0.002, 0.05, (3, 4))
    options = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "photometric": "rgb",
               "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1,
               "crs": "EPSG:32632", "transform": rasterio.Affine(0.1, 0, 5e5, 0, -0.1, 5e6)}  # fmt: skip
    with rasterio.open(path, "w", **options) as file:
        for top in range(0, height, 512):
            y, x = np.arange(top, min(top + 512, height))[:, None], np.arange(width)[None]
            rows = [np.sin(a * y + b) + np.cos(c * x + d * np.sin(0.01 * y)) for a, b, c, d in waves]
            part = np.stack([(row * 60 + 128).astype(np.uint8) for row in rows])
            file.write(part, window=rasterio.windows.Window(0, top, width, part.shape[1]))


def random_model(path: Path, classes: int, width: int, name: str | None = None) -> Path:
    """A net of random weights: a U-Net of two levels, or one by name."""
    import torch

    from pixelwise.core.classes import Classes
    from pixelwise.core.modelfile import ModelCard, save_model
    from pixelwise.core.registry import create_model
    from pixelwise.core.sample import Preprocessing

    torch.manual_seed(0)
    options = {"width": width, "depth": 2} if name is None else {}
    net = create_model(name or "unet", classes=classes, **options)
    names = Classes(names=[f"class {k}" for k in range(classes)])
    card = ModelCard(architecture=name or "unet", outputs=classes, options=options, classes=names, task="semantic",
                     preprocessing=Preprocessing())  # fmt: skip
    save_model(path, net, card)
    return path


def measure(megapixels: list[float], *, classes: int = 8, width: int = 8, tall: bool = False, threads: int = 1,
            exact: bool = True, net: str | None = None) -> list[dict[str, Any]]:  # fmt: skip
    """For each size: {"megapixels", "size", "seconds", "cpu", "memory_mb", "program_mb", "map_mb"}."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = random_model(place / "model.safetensors", classes, width, net)
        draw(place / "small.tif", (300, 400))
        for number in megapixels:
            side = round((number * 1e6) ** 0.5)
            size = (round(number * 1e6 / 2048), 2048) if tall else (side, side)
            draw(place / "image.tif", size)
            numbers = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
            words = [
                sys.executable,
                "-c",
                CHILD,
                str(model),
                str(place / "image.tif"),
                str(place / "out"),
                str(threads),
            ]
            done = subprocess.run([*words, "exact" if exact else "chosen"], check=True, capture_output=True, text=True,
                                  env={**os.environ, **numbers})  # fmt: skip
            row = {"megapixels": size[0] * size[1] / 1e6, "size": size, **json.loads(done.stdout.splitlines()[-1]),
                   "map_mb": (place / "out/classes/image.tif").stat().st_size / 2**20}  # fmt: skip
            found.append(row)
            print(f"{row['megapixels']:7.1f} MP {row['seconds']:8.1f} s ({row['cpu']:8.1f} s CPU), "
                  f"{row['memory_mb']:6.0f} MB above the program's {row['program_mb']:.0f}", flush=True)  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16, 67.1, 100, 400])
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--width", type=int, default=8, help="channels of the net's first level")
    parser.add_argument("--net", help="a model of pixelwise list models, instead of the small U-Net")
    parser.add_argument("--tall", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--exact", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(options.megapixels, classes=options.classes, width=options.width, tall=options.tall,
                    threads=options.threads, exact=options.exact, net=options.net)  # fmt: skip
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
