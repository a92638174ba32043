"""`SizeRule`: to which size an image is brought before a net sees it, as nets trained on resized images expect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pixelwise.errors import ModelFileError, nearest

ROUNDINGS = ("floor", "nearest")


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """The shorter side becomes `short` pixels, or as many fewer as keep the longer side within `long` (None: any).

    rounding   "floor" (torchvision) or "nearest" (detectron2, which rounds halves up)
    antialias  whether shrinking filters (detectron2, through Pillow) or samples (torchvision's detectors)

    >>> SizeRule(short=800, long=1333)(480, 640)
    (800, 1067)
    """

    short: int
    long: int | None = None
    rounding: Literal["floor", "nearest"] = "nearest"
    antialias: bool = True

    def __post_init__(self) -> None:
        sides = (self.short, self.short if self.long is None else self.long)
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sides) or sides[0] > sides[1]:
            raise ModelFileError(f"size rule: short {self.short!r}, long {self.long!r}; give 1 <= short <= long.")
        if self.rounding not in ROUNDINGS or not isinstance(self.antialias, bool):
            found = f"rounding {self.rounding!r} and antialias {self.antialias!r}"
            raise ModelFileError(f"size rule: {found}; rounding is floor or nearest, antialias true or false.")

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image -> those of the net's input. The order of the operations is each side's own:
        in the last bit they decide whether a size comes out one pixel shorter."""
        least, most = min(height, width), max(height, width)
        if self.rounding == "floor":
            if self.long is None:
                rest = max(1, int(self.short * most / least))
                return (self.short, rest) if height <= width else (rest, self.short)
            scale = min(self.short / least, self.long / most)
            return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
        scale = self.short / least
        sides = [float(self.short) if n == least else scale * n for n in (height, width)]
        if self.long is not None and max(sides) > self.long:
            shrink = self.long / max(sides)
            sides = [n * shrink for n in sides]
        return max(1, int(sides[0] + 0.5)), max(1, int(sides[1] + 0.5))

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SizeRule:
        """Raises ModelFileError for an unknown, missing or malformed field."""
        known = ("short", "long", "rounding", "antialias")
        for key in data:
            if key not in known:
                raise ModelFileError(f"the size rule has no field '{key}'; {nearest(key, known)}")
        if "short" not in data:
            raise ModelFileError(f"the size rule needs the field short, got {dict(data)}.")
        return cls(**data)
