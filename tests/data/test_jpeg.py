"""The upper rows of a JPEG are those of the whole one, to the bit, in every form that cameras write."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pixelwise.data.decode import _check_jpeg
from pixelwise.data.io import read_image
from pixelwise.data.jpeg import upper_rows
from pixelwise.errors import ImageError

SIZE = (203, 157)


def picture(channels: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (26, 20, 3)).astype(np.uint8)
    pixels = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return pixels if channels == 3 else pixels[..., 0]


def by_opencv(sampling: int) -> bytes:
    ok, data = cv2.imencode(".jpg", picture(), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])
    assert ok
    return data.tobytes()


def by_pillow(channels: int = 3, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(channels)).save(file, "JPEG", **options)
    return file.getvalue()


FILES = {
    "4:4:4": lambda: by_opencv(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "4:2:2": lambda: by_opencv(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
    "4:2:0": lambda: by_opencv(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    "4:4:0": lambda: by_opencv(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "4:1:1": lambda: by_opencv(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "grey": lambda: by_pillow(1),
    "optimised": lambda: by_pillow(quality=95, optimize=True),
    "with more behind": lambda: by_pillow() + b"a film, \xff\xd8\xff\xd9 perhaps",
}
WHOLE = {  # those of which nothing can be left out
    "progressive": lambda: by_pillow(progressive=True),
    "restart marks": lambda: by_pillow(restart_marker_rows=2),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("rows", [1, 16, 100, 150])
def test_upper_rows_are_the_whole_ones(kind: str, rows: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(FILES[kind]())
    whole, upper = read_image(path, channels=3), read_image(path, channels=3, rows=rows)
    assert rows <= len(upper) < SIZE[0]
    assert np.array_equal(upper[:rows], whole[:rows])
    assert capfd.readouterr() == ("", "")  # no decoder complains


@pytest.mark.parametrize("kind", [*FILES, *WHOLE])
def test_where_it_pays_not_all_is_read(kind: str, tmp_path: Path) -> None:
    data = {**FILES, **WHOLE}[kind]()
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert upper_rows(data, _check_jpeg(path, data), 196) is None
    assert (upper_rows(data, _check_jpeg(path, data), 20) is None) == (kind in WHOLE)
    assert read_image(path, rows=20).shape[0] in ((SIZE[0],) if kind in WHOLE else (32, 48))


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_image_is_whole(turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "a.jpg"
    path.write_bytes(by_pillow(exif=exif))
    whole, upper = read_image(path), read_image(path, rows=20)
    assert np.array_equal(upper[:20], whole[:20])
    assert (len(upper) < len(whole)) == (turn == 1)


def test_a_cut_file_is_refused_though_its_upper_rows_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(by_pillow()[:-200])
    with pytest.raises(ImageError, match="truncated"):
        read_image(path, rows=8)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda\x00\x02", b"\xff\xd8\xff\xe0\x00", bytes(50)])
def test_what_is_no_jpeg_is_left_to_others(data: bytes) -> None:
    assert upper_rows(data, len(data), 8) is None
