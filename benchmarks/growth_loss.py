"""How the loss grows with the number of classes: cross-entropy plus Dice, grid 1x64x64 to 256x256, 2 to 1,000 classes.

    python benchmarks/growth_loss.py

Each size and side runs in a process of its own, by one thread: seconds of the processor, the best of three, and what
the operating system's high-water mark of memory rises by. The usual side is F.interpolate, F.cross_entropy and smp's
DiceLoss.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

CLASSES = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
SIDES = ("pixelwise", "usual")
GRID, FACTOR, ROUNDS = 64, 4, 3


def one(side: str, classes: int) -> dict[str, float]:
    """Seconds and megabytes of a forward and backward pass in this process."""
    import torch
    from speed_losses import cross_entropy, enlarged, on_grid, smp_dice, work
    from speed_side import memory_of

    torch.set_num_threads(1)
    void = 255 if classes < 255 else -1
    if side == "pixelwise":
        loss = on_grid("ce+dice", void)
    else:
        first, second = cross_entropy(void), smp_dice(void)
        loss = enlarged(lambda logits, truth: first(logits, truth) + second(logits, truth), FACTOR)
    step = work(loss, classes, GRID, FACTOR, images=1)
    memory = memory_of(step) / 2**20
    taken = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        step()
        taken.append(time.process_time() - begin)
    return {"seconds": min(taken), "memory_mb": memory}


def measure() -> list[dict[str, float | str]]:
    """A row per side and number of classes: side, classes, seconds, memory_mb."""
    rows: list[dict[str, float | str]] = []
    for classes in CLASSES:
        for side in SIDES:
            told = [sys.executable, __file__, side, str(classes)]
            said = subprocess.run(told, check=True, capture_output=True, text=True).stdout
            rows.append({"side": side, "classes": classes, **json.loads(said.splitlines()[-1])})
    return rows


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    if len(sys.argv) == 3:
        print(json.dumps(one(sys.argv[1], int(sys.argv[2]))))
        return
    for row in measure():
        print(f"{row['side']:>10} {row['classes']:>5} classes {row['seconds']:8.4f} s {row['memory_mb']:8.1f} MB")


if __name__ == "__main__":
    main()
