"""PNG maps against Pillow, for every filter; damage is an ImageError."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.io import read_image, read_mask
from pixelwise.data.scanlines import decode_map
from pixelwise.errors import ImageError
from pixelwise.kernels import compiled

SIZE = (37, 53)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(filters: np.ndarray, kind: int = 0, raw: bytes | None = None, pieces: int = 1) -> bytes:
    """A map whose bytes are random and whose rows are said to have these filters."""
    rows = np.random.default_rng(0).integers(0, 256, (SIZE[0], SIZE[1] + 1)).astype(np.uint8)
    rows[::3, 1:] = 0  # rows that only repeat
    rows[:, 0] = filters
    packed = zlib.compress(rows.tobytes() if raw is None else raw)
    parts = [
        packed[i::1] if pieces == 1 else p for i, p in enumerate(np.array_split(np.frombuffer(packed, "u1"), pieces))
    ]
    head = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 8, kind, 0, 0, 0)
    palette = chunk(b"PLTE", np.repeat(np.arange(256), 3).astype(np.uint8).tobytes()) if kind == 3 else b""
    data = b"".join(chunk(b"IDAT", bytes(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + data + chunk(b"IEND", b"")


FILTERS = {**{str(f): np.full(SIZE[0], f) for f in range(5)}, "mixed": np.arange(SIZE[0]) * 7 % 5}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("kind", [0, 3])
@pytest.mark.parametrize("pieces", [1, 4])
def test_it_is_pillows(name: str, kind: int, pieces: int, tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(png(FILTERS[name], kind, pieces=pieces))
    with Image.open(path) as image:
        expected = np.asarray(image)
    assert np.array_equal(decode_map(path.read_bytes()), expected)
    assert np.array_equal(read_mask(path), expected)
    assert np.array_equal(read_image(path, channels=3)[..., 0], expected)  # the palette is grey


@pytest.mark.parametrize("raw", [b"", bytes(SIZE[0] * (SIZE[1] + 1) - 1), bytes(SIZE[0] * (SIZE[1] + 1) + 1),
                                 bytes([5]) * (SIZE[0] * (SIZE[1] + 1))])  # fmt: skip
def test_damage_is_named(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(png(FILTERS["0"], raw=raw))
    with pytest.raises(ImageError, match="damaged"):
        read_mask(path)


@pytest.mark.parametrize(
    "options", [{"bits": 4}, {"interlaced": True}, {"mode": "I;16"}, {"mode": "1"}, {"mode": "LA"}]
)
def test_other_kinds_are_left_to_pillow(options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    data = bytearray(png(FILTERS["0"]))
    if options.get("interlaced"):
        data[28] = 1
        assert decode_map(bytes(data)) is None
        return
    mode = str(options.get("mode", "P"))
    values = np.random.default_rng(1).integers(0, 2, SIZE)
    image = Image.fromarray((values * 3).astype(np.uint8 if mode != "I;16" else np.uint16))
    image = image if mode in ("I;16",) else image.convert(mode)
    image.save(path, bits=4) if mode == "P" else image.save(path)
    assert decode_map(path.read_bytes()) is None
    expected = np.asarray(Image.open(path))
    assert np.array_equal(read_mask(path), expected if expected.ndim == 2 else expected[..., 0])


def test_without_numba_pillow_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(png(FILTERS["mixed"]))
    expected = read_mask(path)
    monkeypatch.setattr(compiled, "numba", None)
    assert decode_map(path.read_bytes()) is None
    assert np.array_equal(read_mask(path), expected)
