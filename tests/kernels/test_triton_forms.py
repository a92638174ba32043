"""Triton's functions become machine code for an NVIDIA GPU, here without one: its interpreter forgives more."""

from __future__ import annotations

import pytest

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from pixelwise.kernels import upsample_argmax_gpu, upsample_loss_gpu  # noqa: E402

KINDS = {  # all arguments that are no int32
    "*fp32": "maps down across logits shares weights log_p logsum owns common factors out",
    "*i64": "top bottom left right upper lower",
    "*i32": "bands starts counts",
    "*fp64": "predicted",
    "fp32": "first",
    "constexpr": "BLOCK MASSES",
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}
LOSS = (upsample_loss_gpu._read, upsample_loss_gpu._weigh, upsample_loss_gpu._spread)


def assert_compiles(function, labels, **constants):
    types = {name: labels if name == "labels" else KIND_OF.get(name, "i32") for name in function.arg_names}
    made = triton.compile(ASTSource(function, types, constants), target=GPUTarget("cuda", 90, 32),
                          options={"enable_fp_fusion": False})  # fmt: skip
    assert ".entry" in made.asm["ptx"]


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("labels", ["*i8", "*i16", "*i32"])
def test_the_labels(labels):
    assert_compiles(upsample_argmax_gpu._label, labels, BLOCK=upsample_argmax_gpu.BLOCK)


@pytest.mark.parametrize("masses", [False, True])
@pytest.mark.parametrize("function", LOSS, ids=lambda function: function.__name__)
def test_the_losses(function, masses):
    assert_compiles(function, "*i32", BLOCK=upsample_loss_gpu.BLOCK, MASSES=masses)
