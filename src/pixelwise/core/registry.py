"""The folder is the registry: a file in `models/` is an architecture, one in `data/formats/` a format that is read, one
in `data/writers/` a format that is written, one in `engines/` something that runs nets.

Packages outside join through the entry-point group `pixelwise.<kind>`, whose entries name modules.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from pixelwise.errors import ConfigError, nearest

FOLDERS = {"models": "models", "formats": "data/formats", "writers": "data/writers", "engines": "engines"}


@cache
def modules(kind: str) -> dict[str, str]:
    """{name: module path} of a kind, found by looking; nothing is imported."""
    folder = Path(__file__).parent.parent / FOLDERS[kind]
    dotted = "pixelwise." + FOLDERS[kind].replace("/", ".")
    found = {p.stem: f"{dotted}.{p.stem}" for p in sorted(folder.glob("[!_]*.py"))}
    for entry in entry_points(group=f"pixelwise.{kind}"):
        found.setdefault(entry.name, entry.module)
    return found


def load(kind: str, name: str) -> ModuleType:
    """Imports the module of that name. Raises ConfigError with the nearest name when there is none."""
    known = modules(kind)
    if name not in known:
        raise ConfigError(f"There is no {kind[:-1]} '{name}'; {nearest(name, known)}")
    return importlib.import_module(known[name])


def split_variant(name: str) -> tuple[str, str]:
    """'unet-small' -> ('unet', 'small'); 'unet' -> ('unet', '')."""
    architecture, _, variant = name.partition("-")
    return architecture, variant


def check_options(build: Any, options: dict[str, Any], of: str) -> None:
    """Raises ConfigError when `options` holds a word that the constructor `build` does not take."""
    known = [n for n, p in inspect.signature(build).parameters.items() if p.kind is p.KEYWORD_ONLY and n != "classes"]
    for word in options:
        if word not in known:
            raise ConfigError(f"{of} has no option '{word}'; {nearest(word, known)}")


def create_model(name: str, *, classes: int, **options: Any) -> Any:
    """A net by name: `architecture` or `architecture-variant`, with a number of classes and the net's own options.

    A model file of the folder has `VARIANTS` {variant: options} and `build(*, classes, **options)`; what is given here
    overrides the variant. Raises ConfigError for an unknown name, variant or option, naming the nearest right one.

    >>> create_model("unet", classes=21)(torch.zeros(1, 3, 64, 64)).full().shape
    torch.Size([1, 21, 64, 64])
    """
    architecture, variant = split_variant(name)
    module = load("models", architecture)
    if variant not in module.VARIANTS:
        hint = nearest(variant, filter(None, module.VARIANTS))
        raise ConfigError(f"{architecture} has no variant '{variant}'; {hint}")
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ConfigError(f"classes must be a whole number of at least 1, got {classes!r}.")
    check_options(module.build, options, f"Model '{name}'")
    return module.build(classes=classes, **{**module.VARIANTS[variant], **options})
