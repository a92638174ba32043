"""Reading and writing pixels: every mode as viewers show it, and every fault found before it is believed."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pixelwise.core.atomic import atomic
from pixelwise.data import io
from pixelwise.data.io import read_header, read_image, read_mask, write_png
from pixelwise.data.png import PngStream
from pixelwise.errors import ImageError, OutputError


@pytest.fixture
def photo() -> np.ndarray:
    """[24, 40, 3] smooth colours, so that JPEG keeps them close."""
    y, x = np.mgrid[:24, :40]
    return np.stack([x * 6, y * 10, 255 - x * 3], -1).astype(np.uint8)


# -- images as viewers show them


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "CMYK"])
def test_modes(tmp_path: Path, photo: np.ndarray, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image = Image.fromarray(photo).convert(mode)
    image.save(path)
    pixels = read_image(path)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("L" if mode in ("L", "LA", "1") else "RGB"))
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == np.uint8
    assert read_header(path).channels == (1 if expected.ndim == 2 else 3)


def test_grey_palette_is_grey(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    grey.putpalette([255 - v for v in range(256) for _ in range(3)])
    grey.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), 255 - np.arange(64).reshape(8, 8))


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "webp"])
def test_lossless_formats_keep_pixels(tmp_path: Path, photo: np.ndarray, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(photo).save(path, **({"lossless": True} if ending == "webp" else {}))
    np.testing.assert_array_equal(read_image(path), photo)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_stay_sixteen(tmp_path: Path, ending: str, channels: int) -> None:
    """Pillow reads 16-bit RGB as 8 bits in silence; ours must not."""
    wide = np.random.default_rng(0).integers(0, 65536, (9, 7, channels), dtype=np.uint16)
    path = tmp_path / f"a.{ending}"
    cv2.imwrite(str(path), wide[..., ::-1] if channels == 3 else wide[..., 0])
    pixels = read_image(path)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, wide if channels == 3 else wide[..., 0])
    assert read_header(path).dtype == "uint16"


def test_sixteen_bit_alpha(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (9, 7, 4), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), wide[..., [2, 1, 0, 3]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), wide[..., :3])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=4), wide)


def test_pages_are_channels(tmp_path: Path) -> None:
    bands = np.random.default_rng(1).integers(0, 65536, (5, 6, 8), dtype=np.uint16)
    pages = [Image.fromarray(band) for band in bands]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), bands.transpose(1, 2, 0))
    assert read_header(tmp_path / "a.tif").channels == 5


def test_arrays(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 255, (6, 8, 7), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy"), array)
    np.save(tmp_path / "b.npy", array.astype(np.float32))
    with pytest.raises(ImageError, match="float32 values; an image must be uint8 or uint16"):
        read_image(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"no plain \.npy"):
        read_image(tmp_path / "c.npy")


def test_float_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="pixel mode 'F'"):
        read_image(tmp_path / "a.tif")


def test_channels(tmp_path: Path, photo: np.ndarray) -> None:
    write_png(tmp_path / "grey.png", photo[..., 0])
    write_png(tmp_path / "rgb.png", photo)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png", channels=3), np.repeat(photo[..., :1], 3, 2))
    with pytest.raises(ImageError, match=r"has 3 channels, the data set has 1"):
        read_image(tmp_path / "rgb.png", channels=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_exif_rotation_as_pillow_shows_it(tmp_path: Path, photo: np.ndarray, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(photo).save(path, exif=exif)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    pixels = read_image(path)
    np.testing.assert_array_equal(pixels, expected)
    assert read_header(path).size == expected.shape[:2]


# -- faults


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="no such file"):
        read_header(tmp_path / "none.png")


def test_folder_named_as_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_image, read_mask, read_header])
def test_empty_file(tmp_path: Path, read) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.png: the file is empty \(0 bytes\)"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_image, read_mask, read_header])
def test_text_named_png(tmp_path: Path, read) -> None:
    (tmp_path / "a.png").write_text("this is no picture")
    with pytest.raises(ImageError, match=r"no image, whatever its ending says .it begins like text"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95, -2, -1])
@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_truncation(tmp_path: Path, photo: np.ndarray, ending: str, keep: float, mode: str) -> None:
    path = tmp_path / f"a.{ending}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)] if keep > 0 else data[: int(keep)])
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        read_image(path)
    if ending == "png":
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            read_mask(path)


def test_truncation_even_when_pillow_was_told_to_accept_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for ending in ("jpg", "png"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(ImageError, match="truncated"):
            read_image(path)


def test_truncated_jpeg_with_a_whole_thumbnail(tmp_path: Path, photo: np.ndarray) -> None:
    """The end mark of the thumbnail inside must not pass for that of the image."""
    path = tmp_path / "a.jpg"
    Image.fromarray(photo).resize((16, 16)).save(tmp_path / "thumb.jpg")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    thumb, data = (tmp_path / "thumb.jpg").read_bytes(), path.read_bytes()
    segment = b"\xff\xed" + struct.pack(">H", len(thumb) + 2) + thumb
    path.write_bytes(data[:2] + segment + data[2:])
    read_image(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_with_a_film_behind_it(tmp_path: Path, photo: np.ndarray, progressive: bool) -> None:
    """Phones append a film, in which any bytes may stand; the image before it is whole."""
    path = tmp_path / "a.jpg"
    Image.fromarray(photo).save(path, progressive=progressive)
    expected = read_image(path)
    path.write_bytes(path.read_bytes() + b"ftypmp42\xff\xda\x00\x0cfilm")
    np.testing.assert_array_equal(read_image(path), expected)


def test_animation(tmp_path: Path, photo: np.ndarray) -> None:
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="animation of 2 pictures"):
        read_image(tmp_path / "a.gif")
    frames[0].save(tmp_path / "b.gif")
    assert read_image(tmp_path / "b.gif").shape == photo.shape


def test_flipped_bit_in_png(tmp_path: Path, photo: np.ndarray) -> None:
    path = tmp_path / "a.png"
    write_png(path, photo)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged: the checksum"):
        read_image(path)


def _bomb(path: Path, width: int, height: int) -> None:
    """A PNG whose header claims a size that its few bytes do not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


@pytest.mark.parametrize("read", [read_image, read_mask, read_header])
def test_bomb(tmp_path: Path, read) -> None:
    _bomb(tmp_path / "a.png", 60_000, 60_000)
    with pytest.raises(ImageError, match=r"60000 x 60000 pixels, more than the limit of 300,000,000; raise max_pixels"):
        read(tmp_path / "a.png")


def test_limit_between_ours_and_pillows(tmp_path: Path) -> None:
    """Pillow's own limit (179 million) is lower than ours and must neither raise nor warn; it is put back."""
    limit = Image.MAX_IMAGE_PIXELS
    _bomb(tmp_path / "a.png", 15_000, 15_000)
    assert read_header(tmp_path / "a.png").size == (15_000, 15_000)
    assert limit == Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="limit of 1,000"):
        read_header(tmp_path / "a.png", max_pixels=1000)


# -- masks


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_ids_as_stored(tmp_path: Path, dtype: type) -> None:
    ids = np.array([[0, 1, 2], [18, 19, 255]], dtype)
    write_png(tmp_path / "a.png", ids)
    mask = read_mask(tmp_path / "a.png")
    np.testing.assert_array_equal(mask, ids)
    assert mask.dtype == dtype


def test_palette_ids_are_indices(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    write_png(tmp_path / "a.png", ids, palette=np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]]))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[3:6] == [128, 0, 0]
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)


def test_few_bit_ids(tmp_path: Path) -> None:
    """1, 2 and 4 bit palettes, as small tools write them."""
    for bits in (1, 2, 4):
        ids = np.arange(2**bits, dtype=np.uint8)[None].repeat(3, 0)
        image = Image.fromarray(ids)
        image.putpalette(bytes(3 * 2**bits))
        image.save(tmp_path / "a.png", bits=bits)
        np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)
    Image.fromarray(np.eye(4) > 0).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), np.eye(4))


def test_colour_mask(tmp_path: Path) -> None:
    table = {(0, 0, 0): 0, (255, 0, 0): 7, (0, 255, 0): 300}
    pixels = np.array([[[0, 0, 0], [255, 0, 0]], [[0, 255, 0], [255, 0, 0]]], np.uint8)
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", table), [[0, 7], [300, 7]])
    with pytest.raises(ImageError, match=r"a colour mask and nothing says .* write a classes\.txt"):
        read_mask(tmp_path / "a.png")
    pixels[0, 0] = 1, 2, 3
    write_png(tmp_path / "a.png", pixels)
    with pytest.raises(ImageError, match=r"a\.png: has 1 colours .* \(1, 2, 3\) \(1 pixels\)"):
        read_mask(tmp_path / "a.png", table)


def test_grey_saved_as_rgb(tmp_path: Path) -> None:
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3)
    write_png(tmp_path / "a.png", np.repeat(ids[..., None], 3, 2))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)


def test_jpeg_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r"a mask in lossy JPEG, .* export the mask again as PNG"):
        read_mask(tmp_path / "a.jpg")


def test_negative_ids_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[-1, 70000]]))
    assert read_mask(tmp_path / "a.npy").tolist() == [[-1, 70000]]


# -- writing


def test_write_creates_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_png(tmp_path / "a" / "b" / "c.png", np.zeros((2, 2), np.uint8))
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["c.png"]


def test_atomic_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic(target) as temporary:
            assert temporary.parent == tmp_path
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PngStream, "finish", full)
    with pytest.raises(OutputError, match=r"a\.png cannot be written: the disk is full"):
        write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_full_for_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fill() -> None:
        with atomic(tmp_path / "a.bin"), open("/dev/full", "wb") as file:
            file.write(bytes(1 << 20))

    with pytest.raises(OutputError, match="the disk is full"):
        fill()
    assert not list(tmp_path.iterdir())


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_png(tmp_path / "a" / "b.png", np.zeros((2, 2), np.uint8))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        write_png(tmp_path / "b.png", np.zeros((2, 2), np.uint8))


def test_write_refuses_what_png_lacks(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="int64"):
        write_png(tmp_path / "b.png", np.zeros((2, 2), np.int64))


def test_public_names() -> None:
    assert all(hasattr(io, name) for name in io.__all__)
