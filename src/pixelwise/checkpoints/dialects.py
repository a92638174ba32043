"""Which net a file of weights is of, told by its keys: every `KEYS` of every architecture is tried."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pixelwise.core.keys import Dialect
from pixelwise.core.registry import load, modules
from pixelwise.errors import ModelFileError

LISTED = 3  # dialects and names in an error message


@dataclass(frozen=True)
class Found:
    """A dialect with its place: the architecture's name in the registry and its own in the architecture's `KEYS`."""

    architecture: str
    name: str
    dialect: Dialect

    def __str__(self) -> str:
        return f"{self.architecture} ({self.name})"


def dialects(architecture: str | None = None) -> list[Found]:
    """All there are, or those of one architecture. Raises ConfigError for an unknown architecture."""
    names = [architecture] if architecture else list(modules("models"))
    return [Found(n, key, d) for n in names for key, d in getattr(load("models", n), "KEYS", {}).items()]


def recognise(tensors: Mapping[str, Tensor], where: str, known: Iterable[Found]) -> Found:
    """The dialect all of whose signs are there; of several the one that knows the most names.

    Raises ModelFileError when none fits (with the nearest) or two fit equally well.
    """
    known = list(known)
    fits = [(sum(found.dialect.rename(name, tensors) is None for name in tensors), str(found), found)
            for found in known if found.dialect.share(tensors) == 1]  # fmt: skip
    if not fits:
        raise ModelFileError(_nearest(tensors, where, known))
    fits.sort(key=lambda fit: fit[:2])
    if len(fits) > 1 and fits[0][0] == fits[1][0]:
        both = f"{fits[0][1]} and {fits[1][1]}"
        raise ModelFileError(f"{where} may be of {both}: name the architecture (--architecture).")
    return fits[0][2]


def _nearest(tensors: Mapping[str, Tensor], where: str, known: list[Found]) -> str:
    names = list(tensors)
    few = ", ".join(names[:LISTED])
    shares = {str(found): found.dialect.share(names) for found in known}
    ranked = [found for found in sorted(known, key=lambda found: -shares[str(found)]) if shares[str(found)] > 0]
    if not ranked:
        return (f"{where} is of no net that Pixelwise knows: its {len(names)} tensors are {few}, ... `pixelwise list "
                "models` says whose files load.")  # fmt: skip
    lines = []
    for found in ranked[:LISTED]:
        lost = [sign for sign in found.dialect.signs if not any(re.search(sign, name) for name in names)]
        lines.append(f"{found}, of which no key matches {' nor '.join(lost)}")
    return (f"{where} is of no net that Pixelwise knows: its {len(names)} tensors are {few}, ... "
            f"Nearest: {'; '.join(lines)}.")  # fmt: skip
