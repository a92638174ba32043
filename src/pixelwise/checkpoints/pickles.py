"""Arrays out of a plain pickle, as detectron2 and Detectron publish weights, without running anything in it.

A pickle is a program that may call any function it can name. Here it can name the few that write down arrays, and gets
stand-ins that only note what they are given. Any other name ends the reading.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import ModelFileError

KINDS = "fiub"  # numbers; an array of objects would hold further pickled values
CONVERT = (
    "Open it where it comes from and save its weights as tensors: "
    'torch.save({name: torch.as_tensor(value) for name, value in weights.items()}, "weights.pth").'
)


class _Type:
    """Stands in for numpy.dtype."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str):
            raise pickle.UnpicklingError(f"a type of numbers is given as {type(code).__name__}")
        self.dtype = np.dtype(code)
        if self.dtype.kind not in KINDS:
            raise pickle.UnpicklingError(f"an array of {self.dtype} is no array of numbers")

    def __setstate__(self, state: tuple) -> None:
        if len(state) > 1 and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray, filled in two steps as numpy writes it."""

    value: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        self.value = _array(data, kind, shape, "F" if fortran else "C")


def _array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(data, str):  # Python 2 wrote bytes as text
        data = data.encode("latin-1")
    count = math.prod(shape)
    if not isinstance(kind, _Type) or not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array is not given as numbers")
    if len(data) != count * kind.dtype.itemsize or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array of shape {list(shape)} has {len(data)} bytes")
    return np.frombuffer(bytearray(data), kind.dtype).reshape(shape, order=order)  # a copy that may be written to


def _empty(subtype: object, shape: object, code: object) -> _Array:
    """Stands in for numpy's _reconstruct."""
    return _Array()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    """Stands in for numpy's _frombuffer, which protocol 5 writes."""
    made = _Array()
    made.value = _array(data, kind, shape, order)
    return made


def _scalar(kind: Any, data: Any) -> _Array:
    return _from_buffer(data, kind, ())


def _bytes(text: Any, encoding: Any) -> bytes:
    """Stands in for _codecs.encode, by which old protocols write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes are not written as Latin-1")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """Stands in for bytes, by which old protocols write an empty one."""
    return b""


class _Call:
    """What a pickle gets for a name: it can call it, and change nothing of it."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *values: Any) -> Any:
        return self._make(*values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"it sets {name} of a function")


ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _Call(_Type),
    ("collections", "OrderedDict"): _Call(OrderedDict),
    ("_codecs", "encode"): _Call(_bytes),
    ("__builtin__", "bytes"): _Call(_no_bytes),
    ("builtins", "bytes"): _Call(_no_bytes),
}
for core in ("numpy.core", "numpy._core"):  # renamed in numpy 2
    ADMITTED[f"{core}.multiarray", "_reconstruct"] = _Call(_empty)
    ADMITTED[f"{core}.multiarray", "scalar"] = _Call(_scalar)
    ADMITTED[f"{core}.numeric", "_frombuffer"] = _Call(_from_buffer)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return ADMITTED[module, name]


def read_pickle(path: Path) -> Any:
    """What a pickle holds, arrays as numpy arrays. Raises ModelFileError for one that holds or names anything but
    numbers, text, arrays and plain containers, and for a damaged one. Nothing that it names is called."""
    try:
        with path.open("rb") as file:
            return _settle(_Reader(file, encoding="latin-1").load())
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    # a damaged program fails in whatever step it has come to
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
            MemoryError, OverflowError, RecursionError) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise ModelFileError(
            f"{path} is a pickle that was not opened: {reason}. Only arrays of numbers in plain containers are read, "
            f"because a pickle can run code. {CONVERT}"
        ) from error


def _settle(value: Any) -> Any:
    """The same with arrays for the stand-ins."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _settle(v) for key, v in value.items() if not isinstance(key, _Array | _Type)}
    if isinstance(value, list | tuple):
        return [_settle(v) for v in value]
    return value
