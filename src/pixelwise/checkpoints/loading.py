"""`load_weights` fills a net from a file; `from_checkpoint` builds the net that a file is of."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pixelwise.checkpoints.dialects import Found, dialects, recognise
from pixelwise.checkpoints.metadata import told_classes
from pixelwise.checkpoints.reading import is_own, plain_names, read_checkpoint, read_whole, unwrap
from pixelwise.core.classes import Classes
from pixelwise.core.keys import Untold
from pixelwise.core.modelfile import ModelCard, load_model
from pixelwise.core.registry import create_model, load
from pixelwise.data.labels import label_set
from pixelwise.errors import ConfigError, ModelFileError

COUNTER = "num_batches_tracked"  # of a batch norm; no weight, and older files lack it
OWN = "pixelwise"  # the dialect of files with our own names
LISTED = 4  # names in an error message


@dataclass(frozen=True)
class Report:
    """What loading did. dialect: of the file; loaded: our names; dropped: the file's names left out on purpose."""

    dialect: str
    loaded: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def load_weights(net: nn.Module, source: str | Path | Mapping[str, Any]) -> Report:
    """Fills every tensor of a net from a file or a state dict: ours, or of a dialect in the net's own file.

    The dialect is recognised by its keys. Raises ModelFileError naming what is missing, left over or of another
    shape, and the net is then as it was.

    >>> load_weights(create_model("mask_rcnn", classes=91), "maskrcnn_resnet50_fpn_coco.pth").dialect
    'torchvision'
    """
    where, tensors = _tensors(source)
    own = {name for name in net.state_dict() if not name.endswith(COUNTER)}
    if own <= set(tensors):
        return fill(net, tensors, (), where, OWN, {})
    module = sys.modules[type(net).__module__]
    known = [Found(module.__name__.rpartition(".")[2], n, d) for n, d in getattr(module, "KEYS", {}).items()]
    if not known:
        raise ModelFileError(_unlike(net, own, tensors, where))
    found = recognise(tensors, where, known)
    return _fill_translated(net, tensors, where, found)


def from_checkpoint(path: str | Path, architecture: str | None = None, *, classes: Classes | None = None,
                    **options: Any) -> tuple[nn.Module, ModelCard]:  # fmt: skip
    """The net that a file is of, built from the shapes in it, filled and in evaluation mode, with a card for it.

    architecture  look among its dialects only; None: among all
    classes       names of what it was trained on; None: those that the file brings along (mmsegmentation), else the
                  published set with as many classes, else "class 0", ...
    options       of the net, over those that the shapes tell
    Raises ModelFileError for a file that is of no known net (the nearest are named) or does not fill it, ConfigError
    for options that the net does not have.
    """
    path = Path(path)
    if is_own(path):
        if options or classes is not None:
            raise ConfigError(f"{path} is a model file of Pixelwise's own: its options and classes stand in it.")
        return load_model(path)
    whole = read_whole(path)
    tensors = plain_names(unwrap(whole, str(path)))
    found = recognise(tensors, str(path), dialects(architecture))
    told = {**_options(found, tensors, path), **options}
    _check_told(told, path, found)
    outputs = told.pop("classes")
    if classes is None and found.dialect.task == "semantic":
        classes = told_classes(whole, outputs, _published(found, outputs), str(path))
    classes = classes or _classes(found, outputs, told.get("things"))
    if found.dialect.task == "panoptic" and _takes_things(found.architecture):
        told.setdefault("things", classes.is_thing.nonzero()[0].tolist())
    net = create_model(found.architecture, classes=outputs, **told)
    report = _fill_translated(net, tensors, str(path), found)
    card = ModelCard(
        architecture=found.architecture, outputs=outputs, options=told, task=found.dialect.task,
        classes=classes, preprocessing=found.dialect.expects(outputs, told.get("channels", 3)),
        training={"imported": {"file": path.name, "dialect": found.name, "dropped": list(report.dropped)}},
    )  # fmt: skip
    _check_classes(card, str(path))
    return net.eval(), card


def _options(found: Found, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    try:
        return found.dialect.options(tensors)
    except ModelFileError as error:
        raise ModelFileError(f"{path}, read as {found}: {error}") from error
    except (LookupError, ValueError) as error:  # a tensor is not there, or has another name or shape than known
        raise ModelFileError(
            f"{path}, read as {found}: its shapes do not tell the net's options ({type(error).__name__}: {error}). "
            "The file holds a part of the net, or another one."
        ) from error


def _check_told(options: Mapping[str, Any], path: Path, found: Found) -> None:
    """Raises ModelFileError for an option that neither the shapes nor the user told."""
    for name, value in options.items():
        if isinstance(value, Untold):
            raise ModelFileError(f"{path}, read as {found}: its shapes do not tell {name}: {value.why}")


def fill(net: nn.Module, tensors: Mapping[str, Tensor], left: tuple[str, ...], where: str, dialect: str,
         origin: Mapping[str, str], dropped: tuple[str, ...] = ()) -> Report:  # fmt: skip
    """Loads tensors under our names, all of them or none. Raises ModelFileError listing what does not fit."""
    own = net.state_dict()
    counters = tuple(n for n in tensors if n.endswith(COUNTER) and n not in own)  # of norms that are frozen here
    given = {n: t for n, t in tensors.items() if n not in counters}
    left = tuple(n for n in left if not n.endswith(COUNTER))

    def called(name: str) -> str:
        return f"{name} (there {origin[name]})" if origin.get(name, name) != name else name

    def shapes(name: str) -> str:
        return f"{called(name)}: file {list(given[name].shape)}, net {list(own[name].shape)}"

    both = [n for n in own if n in given]
    faults = {
        "missing": [n for n in own if n not in given and not n.endswith(COUNTER)],
        "left over": [*(called(n) for n in given if n not in own), *left],
        "of another shape": [shapes(n) for n in both if own[n].shape != given[n].shape],
        "not of floating-point numbers": [
            called(n) for n in both if own[n].is_floating_point() and not given[n].is_floating_point()
        ],
    }
    told = [f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names]
    if told:
        raise ModelFileError(f"{where}, read as {dialect}, does not fill this net: {'; '.join(told)}. "
                             "Build the net with the file's options, or let from_checkpoint do it.")  # fmt: skip
    net.load_state_dict(given, strict=False)  # strict was checked above, but for the counters
    return Report(dialect, tuple(both), (*dropped, *counters))


def _tensors(source: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Tensor]]:
    if isinstance(source, Mapping):
        return "the state dict", plain_names(unwrap(source, "the state dict"))
    return str(source), read_checkpoint(source)


def _fill_translated(net: nn.Module, tensors: Mapping[str, Tensor], where: str, found: Found) -> Report:
    try:
        new = found.dialect.translate(tensors)
    except (ModelFileError, RuntimeError, IndexError) as error:  # a change that the shapes do not allow
        raise ModelFileError(f"{where}, read as {found}: {error}") from error
    return fill(net, new.tensors, new.left, where, found.name, new.origin, new.dropped)


def _unlike(net: nn.Module, own: set[str], tensors: Mapping[str, Tensor], where: str) -> str:
    kind, lost = type(net).__name__, sorted(own - set(tensors))
    return (f"{where} does not hold the weights of {kind}: {len(lost)} of its {len(own)} tensors are missing "
            f"({_some(lost)}), and {kind} knows no other names for them.")  # fmt: skip


def _takes_things(architecture: str) -> bool:
    return "things" in inspect.signature(load("models", architecture).build).parameters


def _published(found: Found, outputs: int) -> Classes | None:
    return label_set(found.dialect.labels[outputs]) if outputs in found.dialect.labels else None


def _classes(found: Found, outputs: int, things: Any) -> Classes:
    """The published label set with that many channels, or numbered names."""
    published = _published(found, outputs)
    if published is not None:
        return published
    count = outputs - 1 if found.dialect.task == "instance" else outputs
    names = tuple(f"class {k}" for k in range(count))
    rows = range(count) if found.dialect.task == "instance" else things or ()
    return Classes(names=names, things=tuple(names[k] for k in rows), void=())


def _check_classes(card: ModelCard, where: str) -> None:
    """Raises ConfigError when the classes given are not as many as the net tells apart."""
    classes = card.classes
    have = len(classes.things) + 1 if card.task == "instance" else classes.channels
    if have != card.outputs:
        what = "things and background" if card.task == "instance" else "classes"
        raise ConfigError(f"{where} tells {card.outputs} {what} apart, the classes given are {have}: "
                          f"{_some(list(classes.names))}.")  # fmt: skip


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
