"""A sample that still lies on disk: what is not asked for is not read, and of the image no more rows than are asked."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from pixelwise.core.sample import Sample, image_tensor
from pixelwise.core.segments import Segments


class Parts(Protocol):
    """Where a stored sample's parts come from. Each raises what reading the file gives reason to."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        ...

    def rows(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, W, C] rows of the image, which may be written to."""
        ...

    def truth(self) -> Segments | None: ...


class Stored(Sample):
    """A `Sample` whose `image` and `truth` are read when they are first asked for; `rows` reads but these rows.

    With an image and a truth given it is a sample like any other: so `dataclasses.replace` makes one of it.
    """

    def __init__(self, image: Tensor | None = None, truth: Segments | None = None, name: str = "",
                 complete: bool = True, *, parts: Parts | None = None) -> None:  # fmt: skip
        self.__dict__.update(name=name, complete=complete, _parts=parts)
        if parts is None:
            self.__dict__.update(image=image, truth=truth)

    @cached_property
    def image(self) -> Tensor:
        return image_tensor(self._parts.rows(0, self._parts.size[0]))

    @cached_property
    def truth(self) -> Segments | None:
        found: Segments | None = self._parts.truth()
        return found

    @property
    def size(self) -> tuple[int, int]:
        return super().size if "image" in self.__dict__ else self._parts.size

    def rows(self, start: int, stop: int) -> np.ndarray:
        if "image" in self.__dict__:
            return super().rows(start, stop)
        found: np.ndarray = self._parts.rows(start, stop)
        return found

    _parts: Any
