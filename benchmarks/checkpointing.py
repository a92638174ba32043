"""What gradient checkpointing saves and costs: memory and time of a training step with it and without.

    python benchmarks/checkpointing.py [--device cpu] [--times 1] [--repeats 3]
        [--out benchmarks/results/checkpointing.md]

A step is the forward pass, cross-entropy at full size and the backward pass on images of noise. Memory is the most that
its tensors take at once beside weights and gradients, counted tensor by tensor (`pixelwise.training.memory.Peak`) on
the meta device, so exact for tensors and blind for what a kernel takes for itself; on CUDA also what PyTorch's
allocator held at most. The steps with and without are timed in turn; the table has medians. --times has so many times
the images.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.machine import describe
from pixelwise.core.outputs import heads
from pixelwise.core.registry import create_model
from pixelwise.nn.checkpointing import checkpoint_blocks
from pixelwise.training.memory import step_bytes

CLASSES = 12
NETS = (("fc_densenet-103", 224, 1), ("unet", 256, 1), ("pspnet", 192, 2))  # name, side of the images, images


def loss_of(net: nn.Module, images: Tensor, truth: Tensor) -> Tensor:
    losses = [weight * F.cross_entropy(output.full(), truth) for _, weight, output in heads(net(images))]
    return torch.stack(losses).sum()


def seconds(net: nn.Module, images: Tensor, truth: Tensor) -> float:
    start = time.perf_counter()
    loss_of(net, images, truth).backward()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def allocated(net: nn.Module, images: Tensor, truth: Tensor) -> int:
    """Bytes that CUDA's allocator held at most in a step beside what it held before, gradients being there."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss_of(net, images, truth).backward()
    return torch.cuda.max_memory_allocated() - before


def counted(net: nn.Module, images: Tensor, truth: Tensor) -> int:
    """Bytes of a step's tensors at most, without computing it."""
    trial = copy.deepcopy(net).to("meta")
    seen, wanted = images.to("meta"), truth.to("meta")
    return step_bytes(trial, lambda net: loss_of(net, seen, wanted), torch.device("meta"))


def measure(name: str, size: int, batch: int, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Two rows: without, with."""
    torch.manual_seed(0)
    plain = create_model(name, classes=CLASSES).to(device).train()
    saving = copy.deepcopy(plain)
    blocks = checkpoint_blocks(saving)
    images = torch.randn(batch, 3, size, size, device=device)
    truth = torch.randint(CLASSES, (batch, size, size), device=device)
    rows = []
    times = np.array([[seconds(net, images, truth) for net in (plain, saving)] for _ in range(repeats + 1)])[1:]
    for i, net in enumerate((plain, saving)):
        held = allocated(net, images, truth) if device.type == "cuda" else None
        net.zero_grad(set_to_none=True)
        taken = counted(net, images, truth)
        rows.append({"net": name, "images": f"{batch} x {size} x {size}", "blocks": blocks if i else 0, "bytes": taken,
                     "held": held, "seconds": float(np.median(times[:, i]))})  # fmt: skip
    rows[1]["saved"] = 1 - rows[1]["bytes"] / rows[0]["bytes"]
    rows[1]["slower"] = float(np.median(times[:, 1] / times[:, 0])) - 1
    return rows


def page(rows: Sequence[dict[str, Any]], device: torch.device, repeats: int) -> str:
    text = f"""# Gradient checkpointing

`python benchmarks/checkpointing.py --device {device.type}`: a training step's memory (the most that its tensors take at
once beside weights and gradients) and time (medians of {repeats}, in turn). The gradients are the same.

| net | images | blocks computed twice | tensors, MiB | allocated, MiB | s / step | memory | time |
|---|---|---:|---:|---:|---:|---:|---:|
"""
    for row in rows:
        held = "-" if row["held"] is None else f"{row['held'] / 2**20:.0f}"
        shares = [f"{-row['saved']:+.0%}", f"{row['slower']:+.0%}"] if "saved" in row else ["", ""]
        cells = [f"`{row['net']}`", row["images"], str(row["blocks"]), f"{row['bytes'] / 2**20:.0f}", held,
                 f"{row['seconds']:.3f}", *shares]  # fmt: skip
        text += "| " + " | ".join(cells) + " |\n"
    return text + (f"\n{date.today()}, {describe(device)}, Python {platform.python_version()}, "
                   f"torch {torch.__version__}.\n")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the result")
    asked = parser.parse_args()
    device, rows = torch.device(asked.device), []
    for name, size, batch in NETS:
        rows += measure(name, size, asked.times * batch, device, asked.repeats)
        text = page(rows, device, asked.repeats)
        if asked.out is not None:
            asked.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
