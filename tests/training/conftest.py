"""Tiny data sets, and trainings of them in this process or another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixelwise.data.streets import write_streets


def _write_shapes(root: Path, *, train: int = 6, val: int = 3, channels: int = 3, bits: int = 8, classes: int = 3,
                 size: tuple[int, int] = (40, 48)) -> Path:  # fmt: skip
    """A folder of noisy images with blocks of `classes` classes; their ids are in the images' brightness."""
    rng = np.random.default_rng(5)
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            labels = rng.integers(0, classes, (size[0] // 8, size[1] // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            grey = labels[:, :, None] * (200 // classes) + rng.integers(0, 40, (*labels.shape, channels))
            pixels = (grey * (257 if bits == 16 else 1)).astype(np.uint16 if bits == 16 else np.uint8)
            for folder in ("images", "masks"):
                (root / split / folder).mkdir(parents=True, exist_ok=True)
            if channels in (1, 3):
                cv2.imwrite(str(root / split / "images" / f"{i}.png"), pixels)
            else:
                cv2.imwritemulti(str(root / split / "images" / f"{i}.tif"), list(np.moveaxis(pixels, 2, 0)))
            cv2.imwrite(str(root / split / "masks" / f"{i}.png"), labels)
    return root


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streets")
    write_streets(root, train=4, val=3, test=1, size=(64, 128))
    return root


@pytest.fixture(scope="session")
def write_shapes() -> Callable[..., Path]:
    """write_shapes(root, train=, val=, channels=, bits=, classes=, size=) -> root"""
    return _write_shapes


DRIVER = """
import os, signal, sys
import pixelwise.training.loop as loop
from pixelwise.cli import main
kill, at, save = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
loop.SAVE_EVERY, loop.LOG_EVERY = save, 1
step, calls = loop.Training._step, []
def count(self, batch):
    calls.append(1)
    if len(calls) == at:
        os.kill(os.getpid(), getattr(signal, kill))
    return step(self, batch)
loop.Training._step = count
main(sys.argv[4:])
"""


def _start(words: list[str], *, kill: str = "SIGINT", at: int = -1, save: float = 1e9, processes: int = 0,
          timeout: float = 300) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """The command line in another process; at the `at`-th step it sends itself the signal `kill`."""
    launch = [sys.executable, "-c", DRIVER]
    if processes:
        driver = Path(os.environ["DRIVER_FILE"])
        launch = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                  str(processes), str(driver)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([*launch, kill, str(at), str(save), *words], capture_output=True, text=True, timeout=timeout,
                          env=environment)  # fmt: skip


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """command([words], kill=, at=, save=, processes=) -> the finished process."""
    (tmp_path / "driver.py").write_text(DRIVER)
    monkeypatch.setenv("DRIVER_FILE", str(tmp_path / "driver.py"))
    return _start
