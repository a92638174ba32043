"""Ways to run a net on one image of 512 x 512, for rows of `speed.py` and for `engines.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speed_side import Row, Work

CLASSES, SIZE = 21, 512


def start(name: str, size: int = SIZE) -> tuple[Any, Any]:
    """The net in evaluation, its norms fitted to a drawn street so that its answers are not all alike, and the street
    [1, 3, H, W], normalised."""
    import torch
    from torch import nn

    from pixelwise.core.registry import create_model
    from pixelwise.core.sample import Preprocessing
    from pixelwise.data.streets import draw_scene

    torch.manual_seed(0)
    net = create_model(name, classes=CLASSES)
    image = torch.from_numpy(draw_scene(0, 0, (size, size)).image).permute(2, 0, 1)[None]
    images = Preprocessing()(image).contiguous()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.cat([images, images.flip(-1)])[:, :, :256, :256])
    return net.eval(), images


def side(name: str, way: str) -> Work:
    """way  "plain" (eager float32 in PyTorch's own memory format), "onnx", or "openvino": bf16 where this processor
    multiplies it, else float32"""
    import torch

    from pixelwise.core.machine import here
    from pixelwise.engines import open_engine

    net, images = start(name)
    if way == "plain":
        run: Any = net.to(memory_format=torch.contiguous_format)
    else:
        fast = way == "openvino" and here().bf16_units("cpu")
        run = open_engine(way, net, device="cpu", precision="bf16" if fast else "fp32")

    def look() -> Any:
        with torch.no_grad():
            return run(images).logits

    look()
    return look


def digest(logits: Any) -> list[int]:
    """Labels of the net's grid, every fourth row and column."""
    labels: list[int] = logits[0].argmax(0)[::4, ::4].flatten().tolist()
    return labels


def compare(answers: Mapping[str, Any]) -> str:
    """Share of labels equal to those in float32; the weights are drawn, so labels are nearer to each other than those
    of trained nets."""
    exact = answers["eager float32"]
    said = []
    for name, found in answers.items():
        if found is not exact:
            said.append(f"{name} {sum(a == b for a, b in zip(found, exact, strict=True)) / len(exact):.2%}")
    return "labels equal to float32: " + ", ".join(said)


def row(net: str, said: str, target: float) -> Row:
    """The row of a net, which the table calls `said`, to be `target` times as fast as eager float32."""
    return Row(
        what=f"inference at {SIZE}x{SIZE}, {said}",
        sides={
            "pixelwise": lambda: side(net, "openvino"),
            "eager float32": lambda: side(net, "plain"),
            "ONNX Runtime": lambda: side(net, "onnx"),
        },
        digest=digest,
        compare=compare,
        target={"eager float32": target},
    )
