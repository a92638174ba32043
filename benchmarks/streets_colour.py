"""How far colour alone gets on drawn streets: a net of 1x1 convolutions against a small U-Net, same data, same recipe.

    python benchmarks/streets_colour.py [--scenes 48] [--unseen 16] [--steps 500] [--seed 0]

Prints IoU per class of both on unseen scenes, and their mIoU. The streets are made so that the gap is above 20 points.
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.data.streets import Label, draw_scene

LABELS = [label for label in Label if label is not Label.EGO_VEHICLE]
VOID = 255


def scenes(count: int, split: str, seed: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images `[N, 3, H, W]` float32 of mean about 0 and class maps `[N, H, W]` int64, void 255."""
    table = np.full(256, VOID, np.int64)
    table[[int(label) for label in LABELS]] = np.arange(len(LABELS))
    drawn = [draw_scene(seed, index, size, split) for index in range(count)]
    images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2).float() / 64 - 2
    return images, torch.from_numpy(np.stack([table[scene.label_ids] for scene in drawn]))


def pointwise(classes: int) -> nn.Module:
    """A multi-layer perceptron of every pixel's colour."""
    return nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, classes, 1))


def _block(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inside, outside):
        layers += [nn.Conv2d(channels, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers)


class SmallUNet(nn.Module):
    """An encoder and decoder of four scales with skips; its first stage works at half size, to be quick on a CPU."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 6 * width]
        self.stem = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([width, *widths], widths, strict=False))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, kept = self.stem(image), []
        for number, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([functional.interpolate(x, skip.shape[-2:], mode="bilinear"), skip], 1))
        return functional.interpolate(self.head(x), image.shape[-2:], mode="bilinear")


def fit(net: nn.Module, images: Tensor, truth: Tensor, steps: int, batch: int = 4, rate: float = 4e-3) -> None:
    """AdamW with a one-cycle rate, mirrored scenes, cross-entropy weighted by the root of inverse frequency."""
    counts = torch.bincount(truth[truth != VOID], minlength=len(LABELS)).float()
    weight = (counts.sum() / counts.clamp(min=1)).sqrt()
    weight = weight / weight.mean()
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    net.train()
    for _ in range(steps):
        rows = torch.randint(len(images), (batch,))
        x, y = images[rows], truth[rows]
        if torch.rand(()) < 0.5:
            x, y = x.flip(-1), y.flip(-1)
        loss = functional.cross_entropy(net(x), y, weight, ignore_index=VOID)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


@torch.no_grad()
def iou(net: nn.Module, images: Tensor, truth: Tensor) -> Tensor:
    """IoU `[K]` pooled over the scenes, NaN for a class in neither truth nor prediction."""
    classes, table = len(LABELS), torch.zeros(len(LABELS) ** 2, dtype=torch.int64)
    net.eval()
    for x, y in zip(images.split(4), truth.split(4), strict=True):
        known = y != VOID
        table += torch.bincount(y[known] * classes + net(x).argmax(1)[known], minlength=classes**2)
    table = table.view(classes, classes)
    return table.diag() / (table.sum(0) + table.sum(1) - table.diag())


def compare(
    train: int = 48, unseen: int = 16, steps: int = 500, size: tuple[int, int] = (128, 256), seed: int = 0
) -> tuple[Tensor, Tensor]:
    """IoU `[K]` of the 1x1 net and of the small U-Net on `unseen` scenes after the same number of steps."""
    images, truth = scenes(train, "train", seed, size)
    held_out = scenes(unseen, "val", seed, size)
    scores = []
    for build in (pointwise, SmallUNet):
        torch.manual_seed(seed)
        net = build(len(LABELS))
        fit(net, images, truth, steps)
        scores.append(iou(net, *held_out))
    return scores[0], scores[1]


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("scenes", 48), ("unseen", 16), ("steps", 500), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    start = time.perf_counter()
    colour, unet = compare(chosen.scenes, chosen.unseen, chosen.steps, seed=chosen.seed)
    for label, one, other in zip(LABELS, colour.tolist(), unet.tolist(), strict=True):
        print(f"{label.name.lower():15s} {100 * one:6.1f} {100 * other:6.1f}")
    gap = 100 * (unet.nanmean() - colour.nanmean())
    print(f"{'mIoU':15s} {100 * colour.nanmean():6.1f} {100 * unet.nanmean():6.1f}   gap {gap:.1f}")
    print(f"{time.perf_counter() - start:.0f} s, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
