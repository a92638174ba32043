"""Checks of a net's options: what was given and what it can be, said as a ConfigError."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pixelwise.errors import ConfigError


def check_whole(net: str, *, least: int = 1, none: bool = False, **values: Any) -> None:
    """Whole numbers from `least` up, by their names: check_whole("PSPNet", width=512). With `none` None is one too."""
    for name, value in values.items():
        if none and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{net}: {name} is {value!r}; it must be a whole number from {least} up.")


def check_wholes(net: str, name: str, values: Any, *, count: int | None = None) -> tuple[int, ...]:
    """A list of whole numbers from 1 up, `count` of them if that is given."""
    fine = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not fine or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ConfigError(f"{net}: {name} is {values!r}; it must be a list of whole numbers from 1 up.")
    if count is not None and len(values) != count:
        raise ConfigError(f"{net}: {name} is {list(values)}; it must be {count} numbers.")
    return tuple(values)


def check_flags(net: str, **values: Any) -> None:
    """True or false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{net}: {name} is {value!r}; it can be true or false.")


def check_dropout(net: str, **values: Any) -> None:
    """Numbers in [0, 1)."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise ConfigError(f"{net}: {name} is {value!r}; it must be a number in [0, 1).")


def check_weight(net: str, **values: Any) -> None:
    """Weights of auxiliary losses: finite numbers from 0 up."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ConfigError(f"{net}: {name} is {value!r}; it must be a number from 0 up, the weight of that loss.")


def check_choice(net: str, allowed: Iterable[Any], **values: Any) -> None:
    """One of several words or numbers."""
    allowed = tuple(allowed)
    for name, value in values.items():
        if isinstance(value, bool) or value not in allowed:
            raise ConfigError(f"{net}: {name} is {value!r}; it can be {', '.join(map(str, allowed))}.")


def check_encoder_name(net: str, encoder: Any) -> None:
    """A name, "" for none. Whether there is such an encoder, `make_encoder` says."""
    if not isinstance(encoder, str):
        raise ConfigError(f"{net}: encoder is {encoder!r}; it must be a name, see `pixelwise list encoders`.")


def check_unused(net: str, given: Mapping[str, Any], defaults: Mapping[str, Any], beside: str) -> None:
    """Options that do nothing beside another choice must stay at their defaults."""
    changed = [name for name, value in given.items() if value != defaults[name]]
    if changed:
        raise ConfigError(f"{net}: {', '.join(changed)} would do nothing with {beside}; leave it out.")
