"""A model is one safetensors file: the weights, and in its header as JSON everything needed to use them (`ModelCard`).

No pickle is written or read. The header's metadata has two keys: "pixelwise", the version of this format, and "card".
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.jsonfile import plain
from pixelwise.core.registry import create_model
from pixelwise.core.safeheader import read_header
from pixelwise.core.sample import Preprocessing
from pixelwise.errors import ConfigError, ModelFileError, nearest

FORMAT = 1  # raised when a file of the new kind would be misread by the old code
LISTED = 4  # names in an error message


def current_versions() -> dict[str, str]:
    """What made the file: versions of Pixelwise, torch and Python."""
    try:
        own = version("pixelwise")
    except PackageNotFoundError:  # run from a source tree that is not installed
        own = "not installed"
    return {"pixelwise": own, "torch": str(torch.__version__), "python": platform.python_version()}


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What stands in a model file besides the weights.

    architecture   name for `create_model`, with its variant
    outputs        the number of classes `create_model` was given: the task's channels
    options        the net's other options
    classes        those of the data; the task derives its own from them
    task           "semantic", "instance" or "panoptic"
    preprocessing  stored pixels -> the net's input
    thresholds     the task's options as chosen on validation, e.g. {"score": 0.4}
    training       what the training was: crop, epochs, scores, ...; plain JSON values
    versions       of the programs that wrote it
    """

    architecture: str
    outputs: int
    classes: Classes
    task: str
    preprocessing: Preprocessing
    options: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=current_versions)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for `from_dict`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "classes": self.classes.to_dict(), "preprocessing": self.preprocessing.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelCard:
        """Raises ModelFileError for a field that is missing, unknown or of the wrong type."""
        known = {f.name: f for f in fields(cls)}
        for key in data:
            if key not in known:
                raise ModelFileError(f"the header has an unknown field '{key}'; {nearest(key, known)}")
        for name, spec in known.items():
            if name not in data and spec.default is MISSING and spec.default_factory is MISSING:
                raise ModelFileError(f"the header lacks the field '{name}'")
            wanted = KINDS.get(name, dict)
            if name in data and (not isinstance(data[name], wanted) or isinstance(data[name], bool)):
                got = type(data[name]).__name__
                raise ModelFileError(f"the header's field '{name}' must be {wanted.__name__}, got {got} {data[name]!r}")
        try:
            classes = Classes.from_dict(data["classes"])
            preprocessing = Preprocessing.from_dict(data["preprocessing"])
        except (ConfigError, TypeError, ValueError) as error:  # also ModelFileError: a ValueError
            raise ModelFileError(f"the header does not fit together: {error}") from error
        return cls(**{**data, "classes": classes, "preprocessing": preprocessing})


KINDS: dict[str, type] = {"architecture": str, "outputs": int, "task": str}  # all other fields are tables


# -- writing --------------------------------------------------------------------------------------------------------


def save_model(path: str | Path, net: nn.Module, card: ModelCard) -> None:
    """Writes weights and card, whole or not at all; an older file at `path` stays until the new one is complete.

    Tensors that the net holds under several names (tied weights) are written once.
    Raises OutputError when it cannot be written, ModelFileError when the net holds what the format cannot.
    """
    tensors, shared = _plain_tensors(net)
    try:
        text = json.dumps({"card": plain(card.to_dict()), "shared": shared}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: the model's card holds a value that JSON cannot: {error}.") from error
    data = serialise(tensors, metadata={"pixelwise": str(FORMAT), "card": text})
    with atomic(path) as part:
        part.write_bytes(data)


def _plain_tensors(net: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State as contiguous CPU tensors by name, and {other name: name} for tensors that are one and the same."""
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    seen: dict[tuple, str] = {}
    for name, value in net.state_dict().items():
        if not isinstance(value, Tensor) or value.is_sparse:
            raise ModelFileError(f"'{name}' is {type(value).__name__}; a model file holds dense tensors only.")
        if value.is_meta:
            raise ModelFileError(f"'{name}' has no values (it is on the meta device): initialise the net first.")
        same = (value.data_ptr(), value.device, tuple(value.shape), value.stride(), value.dtype)
        if value.numel() and same in seen:
            shared[name] = seen[same]
            continue
        seen[same] = name
        tensors[name] = value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    return tensors, shared


# -- reading --------------------------------------------------------------------------------------------------------


def read_card(path: str | Path) -> ModelCard:
    """The card alone, from the header; no weight is read. Raises ModelFileError (see `load_model`)."""
    return _read_meta(Path(path))[0]


def _read_meta(path: Path) -> tuple[ModelCard, dict[str, str]]:
    header = read_header(path)
    meta = header.get("__metadata__", {})
    if "pixelwise" not in meta:
        names = [n for n in header if n != "__metadata__"]
        raise ModelFileError(
            f"{path} is a safetensors file of another package: the mark 'pixelwise' is missing from its header "
            f"({len(names)} tensors: {_some(names)}). Only files that Pixelwise wrote can be opened as a model."
        )
    mark = meta["pixelwise"]
    if not mark.isdecimal() or int(mark) < 1:
        raise ModelFileError(f"{path}: the format version in its header is '{mark}', expected a number: it was edited.")
    if int(mark) > FORMAT:
        raise ModelFileError(
            f"{path} has format version {mark}; this Pixelwise reads versions up to {FORMAT}. "
            "Install a newer one: pip install --upgrade pixelwise"
        )
    try:
        stored = json.loads(meta["card"])
        card, shared = stored["card"], stored.get("shared", {})
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelFileError(
            f"{path}: the model's card in its header cannot be read ({reason}): it was edited or damaged. "
            "Use the original file."
        ) from error
    try:
        return ModelCard.from_dict(card), dict(shared)
    except (ModelFileError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).rstrip(".")
        raise ModelFileError(f"{path}: {reason}. It was edited, or damaged: use the original file.") from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a model file on the CPU, under every name the net uses. Raises ModelFileError."""
    path = Path(path)
    _, shared = _read_meta(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}. Copy it again from its source.") from error
    for other, name in shared.items():
        if name not in tensors:
            raise ModelFileError(f"{path}: '{other}' is said to be the tensor '{name}', which is not in the file.")
        tensors[other] = tensors[name]
    return tensors


def load_model(path: str | Path, device: Any = "cpu") -> tuple[nn.Module, ModelCard]:
    """Builds the net a file describes and fills it; returned in evaluation mode on `device`.

    Raises ModelFileError when the file is missing, a folder, cut, edited, a pickle, of another package, of a newer
    format, or when weights and header do not fit each other (the tensors are named).
    """
    path = Path(path)
    card, tensors = read_card(path), read_tensors(path)
    try:
        net = create_model(card.architecture, classes=card.outputs, **card.options)
    except (ConfigError, TypeError, ValueError, RuntimeError, MemoryError) as error:  # a width of 10^9, say
        raise ModelFileError(f"{path}: its header describes a net that cannot be built: {error}") from error
    own = net.state_dict()
    faults = _faults(own, tensors)
    if faults:
        raise ModelFileError(
            f"{path}: the weights do not fit the net that its header describes ({card.architecture}, "
            f"{card.outputs} classes): {'; '.join(faults)}. The header was edited: use the original file."
        )
    net.load_state_dict(tensors)
    return net.to(device).eval(), card


def _faults(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps `found` from filling `own`, one phrase per kind."""
    missing = [n for n in own if n not in found]
    unexpected = [n for n in found if n not in own]
    both = [n for n in own if n in found]
    other = [_shapes(n, own, found) for n in both if own[n].shape != found[n].shape]
    kind = [f"{n} ({found[n].dtype})" for n in both if own[n].is_floating_point() != found[n].is_floating_point()]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": other, "of another type": kind}
    return [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names]


def _shapes(name: str, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    return f"{name} (file {list(found[name].shape)}, net {list(own[name].shape)})"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def load_weights_into(net: nn.Module, path: str | Path) -> tuple[list[str], list[str]]:
    """Starts a net from a model file with other classes: tensors of the same name and shape are taken over.

    Returns (kept, dropped): the names taken over, and one line for every tensor that was not: those of the net keep
    their new initial values. Raises ModelFileError when no weight fits, so that nobody trains from scratch unawares.
    """
    found, own = read_tensors(path), net.state_dict()
    kept = [n for n in own if n in found and own[n].shape == found[n].shape]
    dropped = [_shapes(n, own, found) for n in own if n in found and n not in kept]
    dropped += [f"{n} (not in the file)" for n in own if n not in found]
    dropped += [f"{n} (not in the net)" for n in found if n not in own]
    if not any(own[n].ndim > 1 for n in kept):
        card = read_card(path)
        raise ModelFileError(
            f"{path}: none of its weights fits this net: the file holds {card.architecture} with {card.options}. "
            f"Choose the same model and options, or leave the weights out. ({'; '.join(_faults(own, found))})"
        )
    net.load_state_dict({n: found[n] for n in kept}, strict=False)
    return kept, dropped
