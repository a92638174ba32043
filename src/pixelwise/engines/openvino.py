"""OpenVINO's runtime on CPUs: operators fused, weights reordered once, bf16 throughout where the processor has it."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import numpy as np
import torch
from torch import nn

from pixelwise.engines._program import Program, quiet
from pixelwise.engines._runtime import Run, Runtime
from pixelwise.engines._signals import own_signal_stack
from pixelwise.errors import ConfigError, MissingExtraError

NOTE = "converts the net once, in seconds; then images of any size, without further preparation"
HINTS = {"fp32": "f32", "bf16": "bf16"}


def door() -> Any:
    """The package. Raises MissingExtraError where it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            "The engine openvino needs a package that is not installed: pip install 'pixelwise[openvino]'"
        ) from error
    return openvino


def convert(program: Program) -> Any:
    """The program as an openvino.Model. Raises ConfigError naming the operators that OpenVINO has no rule for."""
    openvino = door()
    with quiet():
        try:
            return openvino.convert_model(program.exported)
        except Exception as error:  # its converter's errors have no base of their own
            text = " ".join(str(error).split())
            rules = text.partition("No conversion rule found for operations: ")[2]
            reason = rules or ", ".join(sorted(set(re.findall(r"aten[.:]+\w+", text)))) or text
            raise ConfigError(f"OpenVINO cannot take this net; what stops it: {reason[:300]}") from error


def compile_model(model: Any, precision: str) -> Any:
    """The model made ready for this CPU, on as many threads as torch has."""
    settings = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY"}  # fmt: skip
    with own_signal_stack():
        return door().Core().compile_model(model, "CPU", settings)


def runner(program: Program, precision: str = "fp32") -> Run:
    """What runs the program in OpenVINO."""
    request = compile_model(convert(program), precision).create_infer_request()

    def run(images: np.ndarray) -> list[np.ndarray]:
        return list(request.infer([images], share_inputs=True).values())  # copies, which outlive the next image

    return run


def has_bf16() -> bool:
    """Whether the runtime computes in bf16 here, which it then does by itself."""
    with own_signal_stack():
        return "BF16" in door().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINO(Runtime):
    """See `engines.Engine` and `engines._runtime.Runtime`."""

    name = "openvino"

    def build(self, program: Program, precision: str) -> Any:
        return runner(program, precision)


def obstacle(net: nn.Module, device: torch.device) -> str:
    if device.type != "cpu":
        return "OpenVINO is used on CPUs"
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed: pip install 'pixelwise[openvino]'"
    return ""


def open(net: nn.Module, *, device: torch.device, precision: str) -> OpenVINO:
    if device.type != "cpu":
        raise ConfigError(f"The engine openvino runs on CPUs, not on {device}: take device=cpu or another engine.")
    if precision not in HINTS:
        raise ConfigError(f"The engine openvino has the precisions fp32 and bf16, not {precision}.")
    door()
    return OpenVINO(net, precision)
