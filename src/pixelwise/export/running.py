"""Runs exported files in their own runtimes, and says what they take."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from pixelwise.core.sample import Preprocessing
from pixelwise.core.sizes import SizeRule
from pixelwise.engines import onnx, openvino
from pixelwise.errors import ImageError, ModelFileError
from pixelwise.prediction.images import stored_pixels

KEY = "pixelwise"  # under which the contract stands in a file's metadata
Arrays = dict[str, np.ndarray]
Run = Callable[[np.ndarray], Arrays]


def run_exported(path: str | Path, image: Any) -> Arrays:
    """What an exported file says of one image: {name: array without the batch's axis}, as its contract names them.

    image  a path, PIL image, array [H, W] or [H, W, C] or tensor [C, H, W], any that `Predictor` takes
    Raises ModelFileError for a file that is not one of ours, MissingExtraError where its runtime is not installed,
    ImageError for an image that cannot be read or is smaller than the file takes.
    """
    run, about = open_exported(Path(path))
    pixels, least = stored(image, about), about["input"]["least"]
    height, width = pixels.shape[1:3]
    if min(height, width) < least:
        name = image if isinstance(image, str | Path) else type(image).__name__
        reason = f"is {height} x {width} pixels as the file sees it, which takes at least {least} a side"
        raise ImageError(name, f"{reason}: enlarge it, or predict with Pixelwise, which pads it.")
    found = run(pixels)
    return {name: array[0] for name, array in found.items()} if about["input"]["batch"] == "any" else found


def open_exported(path: Path, precision: str = "fp32") -> tuple[Run, dict[str, Any]]:
    """What runs the file on arrays [N, H, W, C], and its contract. `precision`: "fp32" or "bf16", which only OpenVINO
    has. Raises ModelFileError and MissingExtraError."""
    if path.suffix not in OPENERS:
        raise ModelFileError(f"{path}: an exported file ends in {', '.join(OPENERS)}.")
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such file.")
    try:
        return OPENERS[path.suffix](path, precision)
    except (RuntimeError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, ModelFileError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"{path} cannot be opened as an exported model: {reason}") from error


def stored(image: Any, about: Mapping[str, Any]) -> np.ndarray:
    """Any picture as the file's input: [1, H, W, C], resized where the contract says that the caller does so."""
    rule = Preprocessing.from_dict(about["card"]["preprocessing"])
    pixels = stored_pixels(image, rule)
    if rule.size is not None:
        pixels = _resized(pixels, rule.size)
    array: np.ndarray = pixels.permute(1, 2, 0)[None].contiguous().numpy()
    return array.astype(about["input"]["dtype"])


def _resized(pixels: torch.Tensor, rule: SizeRule) -> torch.Tensor:
    """[C, H, W] as stored -> float32 in the size that the net expects, as `views.look` resizes."""
    size = rule(int(pixels.shape[1]), int(pixels.shape[2]))
    wide = pixels.to(torch.int32).float() if pixels.dtype == torch.uint16 else pixels.float()
    shrinks = size[0] < wide.shape[1] or size[1] < wide.shape[2]
    return F.interpolate(wide[None], size, mode="bilinear", antialias=shrinks and rule.antialias)[0]


def _open_onnx(path: Path, precision: str) -> tuple[Run, dict[str, Any]]:
    session = onnx.session(str(path))
    about = json.loads(session.get_modelmeta().custom_metadata_map[KEY])

    def run(images: np.ndarray) -> Arrays:
        return dict(zip(about["outputs"], onnx.answer(session, images), strict=True))

    return run, about


def _open_openvino(path: Path, precision: str) -> tuple[Run, dict[str, Any]]:
    model = openvino.door().Core().read_model(path)
    about = json.loads(model.get_rt_info([KEY]).astype(str))
    request = openvino.compile_model(model, precision).create_infer_request()

    def run(images: np.ndarray) -> Arrays:
        return dict(zip(about["outputs"], request.infer([images]).values(), strict=True))

    return run, about


def _open_torch(path: Path, precision: str) -> tuple[Run, dict[str, Any]]:
    extra = {f"{KEY}.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    return partial(_run_torch, module, json.loads(extra[f"{KEY}.json"])["outputs"]), json.loads(extra[f"{KEY}.json"])


@torch.no_grad()
def _run_torch(module: Any, names: list[str], images: np.ndarray) -> Arrays:
    return {name: t.numpy() for name, t in zip(names, module(torch.from_numpy(images)), strict=True)}


OPENERS = {".onnx": _open_onnx, ".xml": _open_openvino, ".pt2": _open_torch}
