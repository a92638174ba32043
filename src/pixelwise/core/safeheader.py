"""The header of a safetensors file, read with a diagnosis: what a file is that is cut, or no safetensors at all.

Layout: 8 bytes length n of the header (little endian), n bytes JSON {name: {dtype, shape, data_offsets}}, the data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pixelwise.errors import ModelFileError

LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
PICKLES = (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6)))  # torch.save since 1.6, and before


def read_header(path: Path) -> dict[str, Any]:
    """The header's JSON, checked against the file's length.

    Raises ModelFileError when the path is missing, a folder or unreadable, when the file is a pickle or of another
    kind, is cut short, or has a header that is no JSON.
    """
    size = _size(path)
    try:
        with path.open("rb") as file:
            start = file.read(16)
            length = int.from_bytes(start[:8], "little")
            if size < 8 or length > min(size - 8, LARGEST_HEADER):
                raise ModelFileError(_diagnose(path, start, size, length))
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    return _check(path, text, size - 8 - length)


def _size(path: Path) -> int:
    if path.is_dir():
        inside = sorted(p.name for p in path.glob("*.safetensors"))
        best = "model.safetensors" if "model.safetensors" in inside else (inside or [""])[0]
        hint = f"give the file in it: {path / best}" if inside else "it holds no .safetensors file"
        raise ModelFileError(f"{path} is a folder, a model is one file; {hint}.")
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.safetensors"))[:3] if path.parent.is_dir() else []
        hint = f"There are: {', '.join(near)}." if near else "Check the path; training writes model.safetensors."
        raise ModelFileError(f"There is no model file {path}. {hint}")
    return path.stat().st_size


def _diagnose(path: Path, start: bytes, size: int, length: int) -> str:
    """Why the first 8 bytes are no sensible header length."""
    if size == 0:
        return f"{path} is empty (0 bytes), not a model file: copy it again from its source."
    if start.startswith(PICKLES):
        return (
            f"{path} is a pickle (as torch.save writes), whatever its name says. Pixelwise opens none, because a "
            "pickle runs code when it is opened: use a model file that Pixelwise wrote."
        )
    if start[8:9] == b"{" or size < 8:
        return f"{path} is cut short: its header alone needs {length} bytes, the file has {size}. Copy it again."
    return f"{path} is not a safetensors file (it starts with {start[:8]!r}), so it is no model."


def _check(path: Path, text: bytes, data_size: int) -> dict[str, Any]:
    edited = "It was edited or damaged: use the original file."
    try:
        header = json.loads(text)
        ends = [spec["data_offsets"][1] for name, spec in header.items() if name != "__metadata__"]
        meta = header.get("__metadata__", {})
        sound = all(isinstance(e, int) for e in ends) and all(isinstance(v, str) for v in meta.values())
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{path}: its header is not readable ({reason}). {edited}") from error
    if not sound:
        raise ModelFileError(f"{path}: its header is not that of a safetensors file. {edited}")
    need = max(ends, default=0)
    if data_size < need:
        raise ModelFileError(f"{path} is cut short: {data_size} of {need} bytes of weights are there. Copy it again.")
    if data_size > need:
        raise ModelFileError(f"{path} has {data_size - need} bytes more than its header says. {edited}")
    return header
