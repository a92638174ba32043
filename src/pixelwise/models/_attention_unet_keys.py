"""Attention U-Net's weights in the names of others: LeeJunHyun/Image_Segmentation, and the authors' net if it is built
in two dimensions (their own files are of three, and refused by their shapes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pixelwise.core.keys import Dialect, Rule
from pixelwise.core.sample import Preprocessing


def _port_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    first = tensors["Conv1.conv.0.weight"]
    return {"classes": len(tensors["Conv_1x1.weight"]), "channels": first.shape[1], "width": len(first),
            "form": "LeeJunHyun", "deep": False}  # fmt: skip


def _authors_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    first = tensors["conv1.conv1.0.weight"]
    return {"classes": len(tensors["final.weight"]), "channels": first.shape[1], "width": len(first)}


def _twice(theirs: str, ours: str) -> tuple[Rule, ...]:
    """The authors' two convolutions with norms, which here stand in one row."""
    places = {(1, 0): 0, (1, 1): 1, (2, 0): 3, (2, 1): 4}
    return tuple((rf"{theirs}\.conv{k}\.{i}\.(.*)", rf"{ours}.{n}.\1") for (k, i), n in places.items())


PATH = {**{f"conv{i + 1}": f"path.{i}" for i in range(4)}, "center": "path.4",
        **{rf"up_concat{4 - i}\.conv": f"steps.{i}.conv" for i in range(4)}}  # fmt: skip

KEYS = {
    "LeeJunHyun": Dialect(
        signs=(r"^Conv1\.conv\.0\.", r"^Att5\.W_g\.0\.", r"^Att2\.psi\.1\.", r"^Up_conv2\.", r"^Conv_1x1\."),
        rules=(
            *((rf"Conv{i + 1}\.conv\.(.*)", rf"path.{i}.\1") for i in range(5)),
            *((rf"Up{5 - i}\.up\.1\.(.*)", rf"steps.{i}.up.0.\1") for i in range(4)),
            *((rf"Up{5 - i}\.up\.2\.(.*)", rf"steps.{i}.up.1.\1") for i in range(4)),
            *((rf"Att{5 - i}\.W_x\.(.*)", rf"steps.{i}.gate.theta.\1") for i in range(4)),
            *((rf"Att{5 - i}\.W_g\.(.*)", rf"steps.{i}.gate.phi.\1") for i in range(4)),
            *((rf"Att{5 - i}\.psi\.(.*)", rf"steps.{i}.gate.psi.\1") for i in range(4)),
            *((rf"Up_conv{5 - i}\.conv\.(.*)", rf"steps.{i}.conv.\1") for i in range(4)),
            (r"Conv_1x1\.(.*)", r"head.\1"),
        ),
        options=_port_options,
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    ),
    "ozan-oktay": Dialect(
        signs=(r"^conv1\.conv1\.0\.", r"^gating\.conv1\.0\.", r"^attentionblock2\.gate_block_1\.theta\.", r"^dsv1\."),
        rules=(
            *(rule for theirs, ours in PATH.items() for rule in _twice(theirs, ours)),
            (r"gating\.conv1\.(.*)", r"gating.\1"),
            *(
                rule
                for i in range(3)
                for rule in (
                    (rf"attentionblock{4 - i}\.gate_block_1\.W\.(.*)", rf"steps.{i}.skip.after.\1"),
                    (rf"attentionblock{4 - i}\.combine_gates\.0\.(.*)", rf"steps.{i}.skip.after.2.\1"),
                    (rf"attentionblock{4 - i}\.combine_gates\.1\.(.*)", rf"steps.{i}.skip.after.3.\1"),
                    (rf"attentionblock{4 - i}\.gate_block_1\.(.*)", rf"steps.{i}.skip.gate.\1"),
                )
            ),
            *((rf"dsv{i + 1}\.(?:dsv\.0\.)?(.*)", rf"head.heads.{i}.\1") for i in range(4)),
            (r"final\.(.*)", r"head.fuse.\1"),
        ),
        options=_authors_options,
    ),
}
