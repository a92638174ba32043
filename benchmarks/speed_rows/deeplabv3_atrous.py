"""DeepLabV3 ResNet-50 whole, output stride 8, at 512 x 512: our net in bfloat16 beside torchvision's own in float32.

Both hold the same weights, drawn at random. Labels of nets that were not trained say little about agreement; what is
compared are logits. Without auxiliary head, 21 classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from speed_side import Row, Work

SIZE, CLASSES = (512, 512), 21


def image(size: tuple[int, int] = SIZE) -> Any:
    import torch

    torch.manual_seed(1)
    return torch.nn.functional.interpolate(torch.randn(1, 3, 16, 16), size=size, mode="bicubic")


def torchvisions() -> Any:
    import torch
    from torchvision.models.segmentation import deeplabv3_resnet50

    torch.manual_seed(0)
    return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False).eval()


def ours(precision: str) -> Work:
    import torch

    from pixelwise.checkpoints import load_weights
    from pixelwise.core.registry import create_model
    from pixelwise.engines import open_engine

    net = create_model("deeplab-v3-torchvision", classes=CLASSES, aux=0.0, pretrained=False)
    load_weights(net, torchvisions().state_dict())
    engine, maps = open_engine("eager", net, device="cpu", precision=precision), image()

    def run() -> Any:
        with torch.inference_mode():
            return engine(maps.contiguous(memory_format=torch.channels_last)).logits

    run()
    return run


def theirs() -> Work:
    import torch

    net, maps = torchvisions(), image()
    head = torch.nn.Sequential(net.backbone, _main(), net.classifier)  # on the net's grid: neither side enlarges

    def run() -> Any:
        with torch.inference_mode():
            return head(maps)

    run()
    return run


def _main() -> Any:
    import torch

    class Main(torch.nn.Module):
        def forward(self, maps: Any) -> Any:
            return maps["out"]

    return Main()


def digest(logits: Any) -> Any:
    return logits.float()[0, :, ::2, ::2].numpy().tolist()


def compare(answers: Mapping[str, Any]) -> str:
    plain = np.asarray(answers["torchvision float32"])
    far = float(np.abs(np.asarray(answers["pixelwise"]) - plain).max() / np.abs(plain).max())
    same = float((np.asarray(answers["pixelwise"]).argmax(0) == plain.argmax(0)).mean())
    return f"logits {far:.1e} of the largest apart at most, {100 * same:.1f} % of labels equal (weights at random)"


ROW = Row(
    what="DeepLabV3 ResNet-50 at 512x512, eager, bf16",
    sides={
        "pixelwise": lambda: ours("bf16"),
        "torchvision float32": theirs,
        "pixelwise in float32": lambda: ours("fp32"),
    },
    digest=digest,
    compare=compare,
    target={"torchvision float32": 4},
)
