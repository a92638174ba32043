"""PNG files written as the rows come, read back by Pillow and OpenCV."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.data.io import write_png
from pixelwise.data.png import PngStream

RNG = np.random.default_rng(0)


def written(pixels, cuts=(), palette=None):
    """The file's bytes, the rows given in the pieces that `cuts` make."""
    file, channels = io.BytesIO(), 1 if pixels.ndim == 2 else pixels.shape[2]
    stream = PngStream(file, pixels.shape[:2], pixels.dtype, channels=channels, palette=palette)
    for rows in np.split(pixels, sorted(cuts)):
        stream.write(rows)
    stream.finish()
    return file.getvalue()


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["uint8", "uint16"]), st.integers(1, 4), st.data())
def test_any_size_depth_and_cut_is_read_back(height, width, dtype, channels, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)
    if data.draw(st.booleans()):
        pixels[:] = pixels[:1]  # runs
    content = written(pixels, data.draw(st.lists(st.integers(0, height), max_size=3)))
    if channels != 2:  # OpenCV makes four channels of grey and alpha
        found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(found if found.ndim == 2 else found[..., [2, 1, 0, 3][:channels]], pixels)
    if dtype == "uint8" or channels == 1:  # Pillow halves the others
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)


def test_a_palette():
    pixels, palette = RNG.integers(0, 7, (33, 50), dtype=np.uint8), RNG.integers(0, 256, (7, 3), dtype=np.uint8)
    image = Image.open(io.BytesIO(written(pixels, (10,), palette)))
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(np.asarray(image.convert("RGB")), palette[pixels])


def test_many_parts():
    """More than one IDAT chunk and more than one piece of rows."""
    pixels = RNG.integers(0, 65536, (300, 3000), dtype=np.uint16)
    content = written(pixels, (1, 200))
    assert content.count(b"IDAT") > 1
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)


def test_a_class_map_is_no_larger_than_pillow_makes_it(tmp_path):
    pixels = np.kron(RNG.integers(0, 19, (16, 32)), np.ones((16, 16))).astype(np.uint8)
    write_png(tmp_path / "ours.png", pixels)
    Image.fromarray(pixels).save(tmp_path / "theirs.png", compress_level=4)
    assert (tmp_path / "ours.png").stat().st_size <= (tmp_path / "theirs.png").stat().st_size


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="cannot hold"):
        PngStream(io.BytesIO(), (2, 2), np.int32)
    with pytest.raises(ValueError, match="cannot hold"):
        PngStream(io.BytesIO(), (2, 2), np.uint16, palette=np.zeros((2, 3), np.uint8))
    stream = PngStream(io.BytesIO(), (2, 2), np.uint8)
    with pytest.raises(ValueError, match="after 0"):
        stream.write(np.zeros((1, 3), np.uint8))
    stream.write(np.zeros((1, 2), np.uint8))
    with pytest.raises(ValueError, match="1 rows"):
        stream.finish()
    with pytest.raises(ValueError, match="after 1"):
        stream.write(np.zeros((2, 2), np.uint8))
