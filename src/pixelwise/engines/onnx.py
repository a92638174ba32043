"""ONNX Runtime on CPUs, in float32."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from pixelwise.engines._program import Program, quiet
from pixelwise.engines._runtime import Run, Runtime
from pixelwise.errors import ConfigError, MissingExtraError

NOTE = "converts the net once, in seconds; then images of any size, without further preparation"
OPSET = 20  # the least in which torch's operators for grids and norms are whole; readable since ONNX Runtime 1.17


def door() -> Any:
    """The runtime. Raises MissingExtraError where it, or what writes its files, is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"The engine onnx needs a package that is not installed ({error.name}): pip install 'pixelwise[onnx]'"
        ) from error
    return onnxruntime


def convert(program: Program, inputs: list[str] | None = None, outputs: list[str] | None = None) -> Any:
    """The program as an onnx.ModelProto, with names of its inputs and outputs where they are given. Raises ConfigError
    naming the operator that has no translation."""
    door()
    with quiet():
        try:
            converted = torch.onnx.export(program.exported, dynamo=True, opset_version=OPSET, verbose=False,
                                          input_names=inputs, output_names=outputs)  # fmt: skip
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise ConfigError(f"ONNX cannot hold this net; what stops it: {_stopper(str(error))}") from error
    assert converted is not None
    return converted.model_proto


def _stopper(message: str) -> str:
    """The operators that torch's exporter names in its message, or the message's beginning."""
    named = re.findall(r"target=torch\.ops\.([\w.]+)|op='([\w.:]+)'", message)
    return ", ".join(sorted({a or b for a, b in named})) or " ".join(message.split())[:300]


def session(data: bytes | str) -> Any:
    """An onnxruntime.InferenceSession of a model's bytes or file, on as many threads as torch has. Raises RuntimeError
    where the runtime does not take it."""
    runtime = door()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with _runtime_errors():
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def answer(made: Any, images: np.ndarray) -> list[np.ndarray]:
    """What a session gives for its one input. Raises RuntimeError with what the runtime says."""
    with _runtime_errors():
        found: list[np.ndarray] = made.run(None, {made.get_inputs()[0].name: images})
    return found


@contextmanager
def _runtime_errors() -> Iterator[None]:
    """The runtime's errors, which have no base of their own, as RuntimeError, which everybody else raises."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise RuntimeError(f"ONNX Runtime: {error}") from error


def runner(program: Program) -> Run:
    """What runs the program in ONNX Runtime."""
    return partial(answer, session(convert(program).SerializeToString()))


class ONNX(Runtime):
    """See `engines.Engine` and `engines._runtime.Runtime`."""

    name = "onnx"

    def build(self, program: Program, precision: str) -> Any:
        return runner(program)


def obstacle(net: nn.Module, device: torch.device) -> str:
    if device.type != "cpu":
        return "ONNX Runtime is used on CPUs"
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")):
        return "ONNX Runtime is not installed: pip install 'pixelwise[onnx]'"
    return ""


def open(net: nn.Module, *, device: torch.device, precision: str) -> ONNX:
    if device.type != "cpu":
        raise ConfigError(f"The engine onnx runs on CPUs here, not on {device}: take device=cpu or another engine.")
    if precision != "fp32":
        raise ConfigError(f"The engine onnx has the precision fp32, not {precision}.")
    door()
    return ONNX(net, precision)
