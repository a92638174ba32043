"""Writes a model for another runtime, and keeps the file only if it answers as the net does."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pixelwise.core.atomic import output_error
from pixelwise.core.modelfile import ModelCard, load_model
from pixelwise.engines import least_size, onnx, openvino
from pixelwise.engines._program import Program, quiet, without_guards
from pixelwise.errors import ConfigError, ExportError, nearest
from pixelwise.export.agreement import Agreement, measure
from pixelwise.export.contract import Deployed, contract, dtype_of
from pixelwise.export.running import KEY, open_exported
from pixelwise.prediction.predictor import task_of

ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
LARGEST = 2**31 - 2**24  # bytes of weights in one ONNX file
LEAST = 0.998  # share of pixels to which a trained net in bf16 must give the same label


@dataclass(frozen=True)
class Exported:
    """path   of the file; OpenVINO's weights lie beside it, ending in .bin
    agreement  with the net in float32, by the arithmetic of the runtime: "fp32", and "bf16" where the file was run so
    """

    path: Path
    agreement: dict[str, Agreement]


def export_model(path: str | Path, to: str, out: str | Path | None = None, *, images: str | Path | None = None,
                 probabilities: bool = False) -> Exported:  # fmt: skip
    """Writes a model file for "onnx", "openvino" or "torch" with its preprocessing inside, whole or not at all.

    out            the file; by default beside the model, with the runtime's ending
    images         folder of images on which the file is held against the net; None: drawn streets
    probabilities  give them beside the labels, for nets that label pixels
    Both run on the images: labels must be equal but for ties (boxes, scores and masks, or raw maps, to a thousandth);
    of a trained net in OpenVINO's bf16, where this machine has it, 99.8 % of the pixels of the images that are named.
    Raises ExportError where they are not, ConfigError naming the operator that stops the net, ModelFileError,
    MissingExtraError, DataError and OutputError.
    """
    if to not in ENDINGS:
        raise ConfigError(f"There is no export to '{to}'; {nearest(to, ENDINGS)}")
    target = Path(path).with_suffix(ENDINGS[to]) if out is None else Path(out)
    if target.suffix != ENDINGS[to]:
        raise ConfigError(f"A file for {to} ends in {ENDINGS[to]}, got {target}.")
    net, card = load_model(path)
    deployed = Deployed(net, card, probabilities=probabilities).eval()
    about = contract(deployed, net, card, task_of(card, path))
    program = _trace(deployed, net, card)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
            part = Path(folder) / target.name
            WRITERS[to](program, about, part)
            found = {}
            for precision in _precisions(to):
                found[precision] = measure(open_exported(part, precision)[0], deployed, net, card, about, images)
                _refuse(found[precision], precision, target, known=bool(card.training) and images is not None)
            for written in sorted(Path(folder).iterdir()):  # .bin before .xml, which names it
                os.replace(written, target.with_name(written.name))
    except OSError as error:
        raise output_error(target, error) from error
    return Exported(target, found)


def _trace(deployed: Deployed, net: Any, card: ModelCard) -> Program:
    """The net with its preprocessing as a program for images of any size."""
    kind, least = getattr(torch, dtype_of(card)), least_size(net)
    blocks = -(-max(1, least - 1) // 64)
    size = (2 if 0 in deployed.free else 1, 64 * blocks + 1, 96 * blocks + 1, card.preprocessing.channels)
    images = (torch.rand(size, generator=torch.Generator().manual_seed(0)) * card.preprocessing.range).to(kind)
    axes = {0: 0, 2: 1, 3: 2}  # of [N, C, H, W] in [N, H, W, C]
    free = {axes[axis]: torch.export.Dim.DYNAMIC for axis in deployed.free}
    with quiet(), torch.no_grad():
        try:
            exported = torch.export.export(deployed, (images,), dynamic_shapes=(free,))
        except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"{card.architecture} cannot be exported: {reason}") from error
    return Program(
        without_guards(exported), deployed.inner.rebuild if deployed.dense is None else _no_output, size[3], least
    )


def _no_output(*_: Any) -> Any:
    raise ConfigError("An exported file gives labels; there is no output to be made of them.")


def _write_onnx(program: Program, about: dict[str, Any], path: Path) -> None:
    if sum(t.numel() * t.element_size() for t in program.exported.state_dict.values()) > LARGEST:
        raise ConfigError("An ONNX file holds at most 2 GB of weights, and this net has more: use --to openvino.")
    model = onnx.convert(program, ["images"], about["outputs"])
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(about)
    path.write_bytes(model.SerializeToString())


def _write_openvino(program: Program, about: dict[str, Any], path: Path) -> None:
    model = openvino.convert(program)
    for port, name in zip((*model.inputs, *model.outputs), ("images", *about["outputs"]), strict=True):
        port.get_tensor().set_names({name})
    model.set_rt_info(json.dumps(about), [KEY])
    openvino.door().save_model(model, path, compress_to_fp16=False)


def _write_torch(program: Program, about: dict[str, Any], path: Path) -> None:
    with quiet():
        torch.export.save(program.exported, path, extra_files={f"{KEY}.json": json.dumps(about)})


WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "torch": _write_torch}


def _precisions(to: str) -> Iterator[str]:
    """In which the file is run: OpenVINO takes bf16 by itself where the processor has it."""
    yield "fp32"
    if to == "openvino" and openvino.has_bf16():
        yield "bf16"


def _refuse(found: Agreement, precision: str, target: Path, *, known: bool) -> None:
    """Raises ExportError where the file does not answer as the net does. known: a trained net, on images given for it;
    nets that guess, or see drawings, waver at every second pixel."""
    if precision == "bf16":
        if known and found.equal < LEAST:
            raise ExportError(f"{target} is not written: in bf16 it gives {found}; {LEAST:.1%} was expected.")
    elif not found.good:
        raise ExportError(f"{target} is not written: it answers otherwise than the net does: {found}.")
