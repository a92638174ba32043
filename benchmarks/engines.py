"""Which engine is quickest for a net here, and what preparing it costs; a process for each.

    python benchmarks/engines.py [--nets NAME ...] [--rounds 5] [--threads 1] [--out benchmarks/results/engines.md]

Processor seconds of one image of 512 x 512 (median of the rounds), and of preparing: opening the engine and its first
image, less one image. Agreement: labels on the net's grid equal to those of the net in float32; weights are drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from inference import digest, start

NETS = ("unet", "deeplab-v3plus", "fcn-resnet50")
WAYS = ("plain fp32", "eager fp32", "eager bf16", "compiled fp32", "compiled bf16", "onnx fp32", "openvino fp32",
        "openvino bf16")  # fmt: skip


def measure(net_name: str, way: str, rounds: int, threads: int) -> dict:
    """One row, in this process."""
    import torch

    from pixelwise.engines import open_engine

    torch.set_num_threads(threads)
    engine, precision = way.split()
    net, images = start(net_name)
    begin = time.process_time()
    opened = net if engine == "plain" else open_engine(engine, net, device="cpu", precision=precision)
    taken = []
    with torch.no_grad():
        output = opened(images)
        prepared = time.process_time() - begin
        for _ in range(rounds):
            begin = time.process_time()
            output = opened(images)
            taken.append(time.process_time() - begin)
    seconds = statistics.median(taken)
    return {"seconds": seconds, "prepare": max(0.0, prepared - seconds), "labels": digest(output.logits)}


def ask(net: str, way: str, rounds: int, threads: int) -> dict | str:
    """The same in a process of its own; what it says where it fails."""
    numbers = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    words = [sys.executable, __file__, "--one", net, way, "--rounds", str(rounds), "--threads", str(threads)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **numbers})
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:80]
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.rounds, options.threads)))
        return
    lines = [
        "| net | engine | s an image | times plain | s to prepare | labels equal |",
        "|---|---|---:|---:|---:|---:|",
    ]
    print("\n".join(lines))
    for net in options.nets:
        plain: dict | None = None
        for way in options.ways:
            found = ask(net, way, options.rounds, options.threads)
            if isinstance(found, str):
                lines.append(f"| {net} | {way} | - | - | - | {found} |")
            else:
                plain = plain or found
                equal = statistics.mean(a == b for a, b in zip(found["labels"], plain["labels"], strict=True))
                lines.append(f"| {net} | {way} | {found['seconds']:.3f} | {plain['seconds'] / found['seconds']:.1f} | "
                             f"{found['prepare']:.1f} | {equal:.2%} |")  # fmt: skip
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(["# Engines", "", *lines, "", about(options), ""]))


def about(options: argparse.Namespace) -> str:
    import torch

    from pixelwise.core.machine import describe

    torch.set_num_threads(options.threads)
    machine, load = describe(torch.device("cpu")), os.getloadavg()[0]
    return (f"Processor time, {machine}; load {load:.1f}; torch {torch.__version__}. "
            "Plain: the net in PyTorch's own memory format; times: as fast as that.")  # fmt: skip


if __name__ == "__main__":
    main()
