"""What the labels mean: names, which are things, colours, ids on disk, what is void."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.errors import ConfigError, nearest


def default_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """`count` distinct RGB colours 0..255: hues a golden angle apart, in three rings of brightness."""
    colours = []
    for k in range(count):
        hue, ring = (k * 0.618033988749895 + 0.58) % 1.0, k // 12
        r, g, b = colorsys.hsv_to_rgb(hue, (0.72, 0.5, 0.85)[ring % 3], (0.95, 0.8, 0.6)[ring % 3])
        colours.append((round(r * 255), round(g * 255), round(b * 255)))
    return tuple(colours)


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The label space of a data set, a task and a model.

    names    K class names; a label is an index into them.
    things   names of the countable classes (objects); all others are stuff.
    colours  K RGB triples 0..255; distinct ones are made where none are given.
    ids      K ids on disk, `ids[k]` stands for label k; 0..K-1 where none are given.
    void     ids on disk whose pixels are unknown: they never count, in no loss and no metric. The usual 255 is left out
             where it is the id of a class (masks of 0 and 255).
    nothing  whether a pixel may be known to belong to no class (the ground around nuclei). Nets that label every pixel
             then get one more channel for it, the last.
    Raises ConfigError on duplicate names, unknown things, wrong lengths or colours, an id both of a class and void.
    """

    names: tuple[str, ...]
    things: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    ids: tuple[int, ...] = ()
    void: tuple[int, ...] = (255,)
    nothing: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__
        for field in ("names", "things"):
            if isinstance(getattr(self, field), str):  # a string is a sequence too, of its letters
                raise ConfigError(f"{field} must be a list of names, got the one string {getattr(self, field)!r}.")
        put(self, "names", tuple(str(n) for n in self.names))
        put(self, "things", tuple(str(n) for n in self.things))
        put(self, "ids", tuple(int(i) for i in self.ids) or tuple(range(len(self.names))))
        put(self, "void", tuple(int(i) for i in self.void if int(i) not in self.ids or i != 255))
        colours = tuple(tuple(int(v) for v in c) for c in self.colours) or default_palette(len(self.names))
        put(self, "colours", colours)
        self._check()

    def _check(self) -> None:
        if not self.names:
            raise ConfigError("Classes needs at least one name.")
        twice = {n for n in self.names if self.names.count(n) > 1}
        if twice:
            raise ConfigError(f"Class names must differ; {sorted(twice)} stand more than once in {list(self.names)}.")
        for thing in self.things:
            if thing not in self.names:
                raise ConfigError(f"'{thing}' is listed as a thing but is no class; {nearest(thing, self.names)}")
        for field, values in (("ids", self.ids), ("colours", self.colours)):
            if len(values) != len(self.names):
                raise ConfigError(f"{len(self.names)} class names but {len(values)} {field}.")
        for colour in self.colours:
            if len(colour) != 3 or not all(0 <= v <= 255 for v in colour):
                raise ConfigError(f"A colour is three numbers 0..255, red, green and blue; got {list(colour)}.")
        if len(set(self.ids)) != len(self.ids):
            raise ConfigError(f"The ids on disk must differ; got {list(self.ids)}.")
        both = set(self.ids) & set(self.void)
        if both:
            raise ConfigError(f"The ids {sorted(both)} are both a class and void.")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def channels(self) -> int:
        """How many channels a net that labels every pixel needs: K, and one more where `nothing`."""
        return len(self.names) + self.nothing

    @property
    def is_thing(self) -> np.ndarray:
        """[K] bool."""
        return np.array([n in self.things for n in self.names], dtype=bool)

    def only(self, names: Sequence[str], *, nothing: bool | None = None) -> Classes:
        """These classes alone, in their order here. Raises ConfigError for a name that is no class."""
        for name in names:
            if name not in self.names:
                raise ConfigError(f"'{name}' is no class; {nearest(name, self.names)}")
        rows = [k for k, n in enumerate(self.names) if n in set(names)]
        return Classes(
            names=tuple(self.names[k] for k in rows),
            things=tuple(t for t in self.things if t in set(names)),
            colours=tuple(self.colours[k] for k in rows),
            ids=tuple(self.ids[k] for k in rows),
            void=self.void,
            nothing=self.nothing if nothing is None else nothing,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for `from_dict`."""
        return {
            "names": list(self.names),
            "things": list(self.things),
            "colours": [list(c) for c in self.colours],
            "ids": list(self.ids),
            "void": list(self.void),
            "nothing": self.nothing,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Classes:
        """From the values of `to_dict`. Raises ConfigError for an unknown, missing or malformed field."""
        known = {"names", "things", "colours", "ids", "void", "nothing"}
        for key in data:
            if key not in known:
                raise ConfigError(f"Classes has no field '{key}'; {nearest(key, known)}")
        if "names" not in data:
            raise ConfigError("Classes needs the field 'names'.")
        try:
            fields: dict[str, Any] = {k: tuple(map(tuple, v)) if k == "colours" else v for k, v in data.items()}
            return cls(**fields)
        except TypeError as error:
            raise ConfigError(f"Classes cannot be made of {dict(data)}: {error}.") from error
