"""What an exported file takes and gives, and the net with its preprocessing inside.

The contract, JSON: `input` (name, layout, dtype, channels, order, range, least size, size rule), `outputs` (names),
`answer` ("labels" where the file gives a label map), `labels` (the name of each), `palette` (their colours, 0..255),
`nothing` (the label of pixels of no class, or null), `pasted` (of detectors: a mask lies in its box "at centres" of
pixels or by "whole pixels"), `card` (the model's card: task, thresholds, classes, training).
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.jsonfile import plain
from pixelwise.core.modelfile import ModelCard
from pixelwise.core.outputs import Dense
from pixelwise.core.types import Task
from pixelwise.engines import least_size
from pixelwise.engines._program import HERE, example, flat
from pixelwise.errors import ConfigError

BYTE = 256  # labels that fit 8 bits


class Deployed(nn.Module):
    """images [N, H, W, C] as stored -> what the file gives: for nets that label pixels `labels` [N, H, W] at the size
    of the images, uint8 (int32 above 256 labels), and with `probabilities` `probs` [N, K, H, W] in 0..1; for others
    the tensors of their output, on the net's grid; of detectors boxes in pixels of the image, scores, labels, masks.
    Raises ConfigError for preprocessing that other runtimes cannot do, and for probabilities of a net without.
    """

    def __init__(self, net: nn.Module, card: ModelCard, *, probabilities: bool = False) -> None:
        super().__init__()
        self.preprocessing, self.probabilities = card.preprocessing, probabilities
        if card.preprocessing.percentiles is not None:
            raise ConfigError(
                "A model that stretches each image between percentiles cannot be exported: counting values (bincount) "
                "is no operator of the other runtimes. Train with fixed mean and std, or predict with Pixelwise."
            )
        self.inner = flat(net)
        self.free = getattr(self.inner, "free", (0, 2, 3))
        with torch.no_grad():
            small = example(net, card.preprocessing.channels)[: 2 if 0 in self.free else 1]
            tensors = self.inner(small)
            output = self.inner.rebuild(tensors if 0 in self.free else [tensors], HERE * len(small))
        self.dense = output if isinstance(output, Dense) else None
        self.names = self._names(output)
        if self.dense is not None:
            self.inner = net
        elif probabilities:
            kind = type(output).__name__
            raise ConfigError(f"--probabilities is for nets that label pixels; this one answers {kind}.")

    def _names(self, output: Any) -> list[str]:
        if self.dense is not None:
            return ["labels", "probs"] if self.probabilities else ["labels"]
        own = getattr(self.inner, "names", None)
        return list(own) if own else _tensor_names(output)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        size = images.shape[1:3]
        seen = self.preprocessing(images.permute(0, 3, 1, 2))
        if self.dense is None:
            return tuple(self.inner(seen))
        logits = self.inner(seen, HERE).logits  # [N, K, h, w]
        corners = self.dense.align_corners
        full = F.interpolate(logits.float(), size, mode="bilinear", align_corners=corners)  # [N, K, H, W]
        labels = full.argmax(1)
        alone = self.dense.activation == "sigmoid"
        if alone:
            labels = torch.where(full.amax(1) > 0, labels, full.shape[1])
        labels = labels.to(torch.uint8 if full.shape[1] + alone <= BYTE else torch.int32)
        if not self.probabilities:
            return (labels,)
        return labels, full.sigmoid() if alone else full.softmax(1)


def _tensor_names(output: Any, prefix: str = "") -> list[str]:
    """The output's tensors in the order in which it is taken apart."""
    names: list[str] = []
    for field in fields(output):
        value = getattr(output, field.name)
        if isinstance(value, Tensor):
            names.append(prefix + field.name)
        elif is_dataclass(value) and hasattr(value, "frames"):
            names += _tensor_names(value, f"{prefix}{field.name}_")
    return names


def contract(deployed: Deployed, net: nn.Module, card: ModelCard, task: Task) -> dict[str, Any]:
    """The contract of a file, as plain JSON values."""
    rule, classes = card.preprocessing, task.classes
    nothing = len(classes) if classes.nothing else None
    taken = {"name": "images", "layout": "NHWC", "dtype": dtype_of(card), "channels": rule.channels,
             "order": "RGB" if rule.channels == 3 else rule.order, "range": rule.range, "least": least_size(net),
             "batch": "any" if 0 in deployed.free else 1,
             "resize_first": None if rule.size is None else rule.size.to_dict()}  # fmt: skip
    aligned = getattr(net, "aligned", None)
    pasted = None if aligned is None else "at centres" if aligned else "whole pixels"
    said = {"input": taken, "outputs": deployed.names, "answer": "labels" if deployed.dense is not None else "raw",
            "labels": list(classes.names), "palette": [list(colour) for colour in classes.colours], "nothing": nothing,
            "pasted": pasted, "card": card.to_dict()}  # fmt: skip
    found: dict[str, Any] = plain(said)
    return found


def dtype_of(card: ModelCard) -> str:
    """Of the file's input: floats where the caller resizes first, else as images are stored."""
    if card.preprocessing.size is not None:
        return "float32"
    return "uint8" if card.preprocessing.range <= 255 else "uint16"
