"""A file of weights -> {name: tensor}, whatever it is wrapped in. Nothing in the file is run.

    .safetensors             of anyone
    .pth .pt .ckpt .bin      torch.save, opened with weights_only=True
    .pkl                     detectron2's arrays, by a reader that admits arrays only (`checkpoints.pickles`)
What a file is, its first bytes say, not its name.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pixelwise.checkpoints.pickles import read_pickle
from pixelwise.core.modelfile import read_tensors
from pixelwise.core.safeheader import read_header
from pixelwise.errors import ModelFileError

WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "module", "net", "network", "weights")
PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, Lightning
ZIP, OLD_TORCH = b"PK\x03\x04", 0x1950A86A20F9469CFC6C  # how torch.save begins, since 1.6 and before
LISTED = 6  # names in an error message
ALONE = 'Save the weights alone where the file comes from: torch.save(model.state_dict(), "weights.pth").'
MMENGINE = (
    "It is a training's own file of mmengine, with its history. Keep weights and class names where it comes from: "
    "file = torch.load(path, weights_only=False); "
    'torch.save({key: file[key] for key in ("meta", "state_dict")}, "weights.pth").'
)
# numpy's own numbers and arrays, such as a best score or colours beside the weights: the functions that make them,
# under the names that numpy 1 and 2 have for them, and the types they take
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
NUMBERS: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
]


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU, without wrappers and prefixes that all names share.

    Raises ModelFileError for a file that is missing, damaged, holds no weights, or would have to run code.
    """
    return plain_names(unwrap(read_whole(path), str(path)))


def read_whole(path: str | Path) -> Any:
    """All that a file holds, as it was saved: weights in their wrapper, and what stands beside them.

    Raises ModelFileError for a file that is missing, damaged, or would have to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"There is no checkpoint {path}{' (a folder)' if path.is_dir() else ''}. Check the path.")
    with path.open("rb") as file:
        start = file.read(64)
    if start[:4] == ZIP:
        return _read_torch(path)
    if start[:1] == b"\x80":  # a pickle; torch's old format opens with a magic number of its own
        return _read_torch(path) if OLD_TORCH.to_bytes(10, "little") in start else read_pickle(path)
    return _read_safetensors(path)


def is_own(path: str | Path) -> bool:
    """Whether the file is a model file of Pixelwise's own. Raises ModelFileError for a damaged safetensors file."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(4)
    if start == ZIP or start[:1] == b"\x80":
        return False
    return "pixelwise" in read_header(path).get("__metadata__", {})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if is_own(path):
        return read_tensors(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}. Copy it again from its source.") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(NUMBERS):
            warnings.simplefilter("ignore")  # of sparse tensors, which are refused in our words
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            f"{path} holds more than tensors and plain containers, and opening it would run its code: "
            f"{_named(error)}. {MMENGINE if 'mmengine' in str(error) else ALONE}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelFileError(f"{path} is no file that torch.save wrote, or is cut short: {reason}") from error


def _named(error: Exception) -> str:
    """The one useful line of torch's long explanation."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return (told or lines or [type(error).__name__])[0].rstrip(".")


def unwrap(found: Any, where: str) -> dict[str, Tensor]:
    """The mapping of names to tensors inside what a training saved. Raises ModelFileError where there is none."""
    while True:
        if not isinstance(found, Mapping):
            raise ModelFileError(f"{where} holds {type(found).__name__}, not names with tensors: no weights to load.")
        tensors = {
            str(k): _tensor(v, f"{where}: '{k}'") for k, v in found.items() if isinstance(v, Tensor | np.ndarray)
        }
        if any(t.ndim for t in tensors.values()):
            return tensors
        inner = [k for k in WRAPPERS if isinstance(found.get(k), Mapping)]
        if not inner:
            keys = ", ".join(map(str, list(found)[:LISTED])) or "nothing"
            raise ModelFileError(f"{where} holds no weights: expected names with tensors, or these under 'model' or "
                                 f"'state_dict'; found {keys}.")  # fmt: skip
        found = found[inner[0]]


def _tensor(value: Tensor | np.ndarray, name: str) -> Tensor:
    if isinstance(value, Tensor):
        if value.is_sparse or value.is_quantized:
            raise ModelFileError(f"{name} is a sparse or quantised tensor; only dense numbers can be loaded.")
        return value.detach()
    try:
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise ModelFileError(f"{name} is an array of {value.dtype}, which is no type of weights.") from error


def plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers put before every name."""
    while tensors:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
