"""A training step of the U-Net of 31 million parameters: forward, loss, backward, AdamW, on 4 images of 256 x 256.

Ours is what `pixelwise train` runs here: the precision and memory format that it chooses for this processor. The usual
side is the same net as it comes, in float32 and contiguous, with PyTorch's cross-entropy. Both start from one seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speed_side import Row, Work

CLASSES, BATCH, SIZE = 19, 4, 256


def start() -> tuple[Any, Any, Any]:
    """Net, images [B, 3, H, W] uint8 and labels [B, H, W], drawn from one seed."""
    import torch

    from pixelwise.core.registry import create_model

    torch.manual_seed(0)
    net = create_model("unet", classes=CLASSES).train()
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    return net, images, torch.randint(0, CLASSES, (BATCH, SIZE, SIZE))


def ours() -> Work:
    import torch

    from pixelwise.config import OptimSettings
    from pixelwise.core.choice import for_training
    from pixelwise.core.classes import Classes
    from pixelwise.core.machine import here
    from pixelwise.core.sample import Preprocessing, Sample, collate
    from pixelwise.core.segments import Segments
    from pixelwise.objectives import Supervised
    from pixelwise.tasks import make_task
    from pixelwise.training.distributed import World
    from pixelwise.training.optim import make_optimizer

    net, images, labels = start()
    net = net.to(memory_format=torch.channels_last)
    device = torch.device("cpu")
    world = World(device, for_training(here()).precision, shard=False)
    task = make_task("semantic", Classes(names=[f"class {k}" for k in range(CLASSES)]))
    objective, optimizer = Supervised(Preprocessing()), make_optimizer(net, OptimSettings(), 1e-3)
    batch = collate([Sample(x, Segments.from_class_map(y, 255), "") for x, y in zip(images, labels)])

    def step() -> float:
        with world.autocast():
            loss = sum(objective(net, batch, task, 0.0).values())
        world.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def usual() -> Work:
    import torch
    from torch.nn import functional as F

    net, images, labels = start()
    net, optimizer = net.to(memory_format=torch.contiguous_format), torch.optim.AdamW(net.parameters(), lr=1e-3)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def step() -> float:
        loss = F.cross_entropy(net((images / 255 - mean) / std).logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def compare(answers: Mapping[str, Any]) -> str:
    """The losses of the second step: the first one's weights and gradients are in them."""
    mine, theirs = answers["pixelwise"], answers["eager float32, contiguous"]
    return f"second loss {mine:.3f}, {theirs:.3f}"


ROW = Row(
    what=f"training step, U-Net of 31M parameters, {BATCH}x{SIZE}x{SIZE}",
    sides={"pixelwise": ours, "eager float32, contiguous": usual},
    compare=compare,
    target={"eager float32, contiguous": 4},
)
