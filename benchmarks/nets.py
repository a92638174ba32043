"""Time and memory of nets beside the same nets of torchvision, segmentation_models.pytorch and mmsegmentation.

    python benchmarks/nets.py [--only smp] [--size 512] [--repeats 7] [--cpu-time] [--out benchmarks/results/nets.md]
    PYTHONPATH=FOLDER_OF_MMSEG python benchmarks/nets.py       mmsegmentation's nets too, where it can be imported

Each reference is built by its own package with random weights, saved, and read by `pixelwise.from_checkpoint`: so both
are one net with the same answer, which is checked. Time: one image on the CPU in evaluation mode, to logits at full
size, the two in turn; the ratio is the median over the rounds of ours / theirs, aimed at 1.05 at most. Memory: what the
tensors of a training step (two images, cross-entropy, the auxiliary head's too) take at most beside weights and
gradients, counted as `pixelwise.training.memory.Peak` does, on the meta device: exact for tensors, blind for what a
kernel takes for itself.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.checkpoints import from_checkpoint
from pixelwise.core.machine import describe
from pixelwise.core.outputs import heads
from pixelwise.training.memory import step_bytes

AUX = 0.4  # weight of auxiliary heads, on both sides
CLASSES = 21
SMP = ("Unet", "UnetPlusPlus", "FPN", "UPerNet", "Linknet", "PAN", "MAnet", "PSPNet", "DeepLabV3", "DeepLabV3Plus")
MMSEG = ("fcn_r50-d8", "pspnet_r50-d8", "deeplabv3_r50-d8", "deeplabv3plus_r50-d8", "danet_r50-d8", "nonlocal_r50-d8",
         "fpn_r50", "upernet_r50", "fcn_hr18", "ocrnet_hr18")  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """Another package's net.

    make     -> the net
    logits   (net, images [B, 3, H, W]) -> [B, K, H, W] at full size, in training behind them those of auxiliary heads
    """

    name: str
    make: Callable[[], nn.Module]
    logits: Callable[[nn.Module, Tensor], list[Tensor]]


def torchvision_nets() -> list[Reference]:
    from torchvision.models import segmentation

    def make(name: str) -> nn.Module:
        net: nn.Module = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES,
                                                     aux_loss=True)  # fmt: skip
        return net

    def logits(net: nn.Module, images: Tensor) -> list[Tensor]:
        if net.training:
            return list(net(images).values())
        helper, net.aux_classifier = net.aux_classifier, None  # which it runs in evaluation too: no part of the answer
        try:
            return [net(images)["out"]]
        finally:
            net.aux_classifier = helper

    names = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101")
    return [Reference(f"torchvision {name}", lambda name=name: make(name), logits) for name in names]


def smp_nets() -> list[Reference]:
    import segmentation_models_pytorch as smp

    def make(name: str) -> nn.Module:
        net: nn.Module = getattr(smp, name)("resnet34", encoder_weights=None, classes=CLASSES)
        return net

    return [Reference(f"smp {name} resnet34", lambda name=name: make(name), lambda net, x: [net(x)]) for name in SMP]


def mmseg_nets() -> list[Reference]:
    """[] where mmsegmentation, which pip alone cannot install beside a new PyTorch, is not on the path."""
    try:
        mmseg = importlib.import_module("mmseg")
    except ImportError:
        return []
    for name in ("mmcv.ops", "mmcv.ops.point_sample"):  # compiled operators, which mmcv-lite lacks; none is used here
        sys.modules.setdefault(name, _Operators(name))
    registry = importlib.import_module("mmseg.registry")
    importlib.import_module("mmseg.models")
    read = importlib.import_module("mmengine.config").Config.fromfile
    folder = Path(mmseg.__file__).parent / ".mim" / "configs" / "_base_" / "models"

    def make(name: str) -> nn.Module:
        told = read(folder / f"{name}.py").model
        told.pretrained = None
        told.pop("data_preprocessor", None)
        for part in ("backbone", "decode_head", "auxiliary_head"):
            found = told.get(part, [])
            for some in found if isinstance(found, list) else [found]:
                some.norm_cfg = {"type": "BN"}
                if "num_classes" in some:
                    some.num_classes = CLASSES
        net: nn.Module = registry.MODELS.build(told)
        return net

    def logits(net: Any, images: Tensor) -> list[Tensor]:
        size = images.shape[-2:]
        told = [{"ori_shape": size, "img_shape": size, "pad_shape": size}] * len(images)
        if not net.training:
            found = [net.encode_decode(images, told)]
        else:
            maps = net.extract_feat(images)
            previous = None
            decoders = list(net.decode_head) if isinstance(net.decode_head, nn.ModuleList) else [net.decode_head]
            found = []
            for head in decoders:  # a cascade gives each the one before
                previous = head(maps) if previous is None else head(maps, previous)
                found.insert(0, previous)
            found += [net.auxiliary_head(maps)] if net.with_auxiliary_head else []
        return [_enlarge(x, size, net.align_corners) for x in found]

    return [Reference(f"mmseg {name}", lambda name=name: make(name), logits) for name in MMSEG]


class _Operators(ModuleType):
    """Has every name."""

    __path__: list[str] = []  # noqa: RUF012  # of a package

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _enlarge(logits: Tensor, size: Any, align_corners: bool) -> Tensor:
    same = logits.shape[-2:] == size
    return logits if same else F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)


def ours_logits(net: nn.Module, images: Tensor) -> list[Tensor]:
    return [output.full() for _, _, output in heads(net(images))]


def converted(reference: Reference) -> tuple[nn.Module, nn.Module, str]:
    """Theirs, ours with its weights, both in evaluation, and what ours is."""
    torch.manual_seed(0)
    theirs = reference.make().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "theirs.pth"
        torch.save(theirs.state_dict(), path)
        net, card = from_checkpoint(path)
    return theirs, net.eval(), card.architecture


def step_memory(net: nn.Module, logits: Callable[[nn.Module, Tensor], list[Tensor]], size: int) -> int:
    images = torch.zeros(2, 3, size, size, device="meta")
    truth = torch.zeros(2, size, size, dtype=torch.int64, device="meta")

    def loss(trial: nn.Module) -> Tensor:
        main, *helpers = (F.cross_entropy(found, truth) for found in logits(trial, images))
        return main + AUX * sum(helpers)

    return step_bytes(copy.deepcopy(net).to("meta"), loss, torch.device("meta"))


@torch.no_grad()
def compare(reference: Reference, size: int, repeats: int, clock: Callable[[], float]) -> dict[str, Any]:
    theirs, ours, name = converted(reference)
    images = torch.randn(1, 3, size, size)
    runs: list[Callable[[], Tensor]] = [
        lambda: reference.logits(theirs, images)[0],
        lambda: ours_logits(ours, images)[0],
    ]
    a, b = (run() for run in runs)
    spread = float(a.max() - a.min())
    if a.shape != b.shape or float((a - b).abs().max()) > 1e-4 * spread:
        sys.exit(f"{reference.name}: the two nets do not answer the same.")
    times = np.array([[seconds(run, clock) for run in runs] for _ in range(repeats)])
    with torch.enable_grad():
        memory = [step_memory(theirs, reference.logits, size), step_memory(ours, ours_logits, size)]
    return {"reference": reference.name, "model": name, "theirs": np.median(times[:, 0]),
            "ours": np.median(times[:, 1]), "ratio": np.median(times[:, 1] / times[:, 0]),
            "memory": memory, "memory_ratio": memory[1] / memory[0]}  # fmt: skip


def seconds(run: Callable[[], Tensor], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def page(rows: list[dict[str, Any]], asked: argparse.Namespace) -> str:
    kind = "CPU seconds" if asked.cpu_time else "seconds"
    lines = [f"""# Nets beside their references

`python benchmarks/nets.py`: one image of {asked.size} x {asked.size} on the CPU in evaluation mode, {kind},
medians of {asked.repeats} rounds in turn; memory of a training step of two such images, counted by tensors. Ratios are
ours / theirs.

| reference | model | theirs, s | ours, s | ratio | theirs, MiB | ours, MiB | ratio |
|---|---|---:|---:|---:|---:|---:|---:|"""]  # fmt: skip
    for r in rows:
        cells = [r["reference"], f"`{r['model']}`", f"{r['theirs']:.3f}", f"{r['ours']:.3f}", f"{r['ratio']:.3f}",
                 *(f"{m / 2**20:.0f}" for m in r["memory"]), f"{r['memory_ratio']:.3f}"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"{date.today()}, {describe(torch.device('cpu'))}, Python {platform.python_version()}, "
              f"torch {torch.__version__}.", ""]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="references whose names contain this")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds: on a machine that others use too")
    parser.add_argument("--out", type=Path, help="file for the result")
    asked = parser.parse_args()
    rows = []
    warnings.simplefilter("ignore")
    for reference in [*torchvision_nets(), *smp_nets(), *mmseg_nets()]:
        if asked.only.lower() not in reference.name.lower():
            continue
        clock = time.process_time if asked.cpu_time else time.perf_counter
        rows.append(compare(reference, asked.size, asked.repeats, clock))
        print(page(rows[-1:], asked).splitlines()[-3], flush=True)
        gc.collect()
        if asked.out is not None:
            asked.out.write_text(page(rows, asked), encoding="utf-8")
    if not rows:
        parser.error(f"no reference is called '{asked.only}'")


if __name__ == "__main__":
    main()
