"""Images by windows: to the bit what reading them whole gives, and whole only where a file leaves no choice."""

import struct

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from pixelwise.core.sample import Preprocessing
from pixelwise.data import windows
from pixelwise.data.windows import Band, open_windows
from pixelwise.errors import ImageError
from pixelwise.prediction.images import stored_pixels

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

RNG = np.random.default_rng(1)
SIZE = (67, 91)
CUTS = [(0, 0, 67, 91), (0, 0, 1, 1), (0, 40, 20, 30), (10, 0, 20, 91), (5, 3, 25, 40), (40, 50, 27, 41), (0, 0, 9, 9)]


def pre(channels=3, top=255.0):
    return Preprocessing(channels=channels, order="", range=top, mean=(0.5,) * channels, std=(0.2,) * channels)


def smooth(channels=3, dtype=np.uint8):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    planes = [(x * (k + 2) + y * (3 - k)) % 256 for k in range(channels)]
    pixels = np.stack(planes, -1).astype(dtype) * (257 if dtype == np.uint16 else 1)
    return pixels if channels > 1 else pixels[..., 0]


def assert_equal_to_whole(path, preprocessing, *, windowed=True, cuts=CUTS):
    whole = stored_pixels(path, preprocessing)
    with open_windows(path, preprocessing) as opened:
        assert opened.windowed == windowed, opened.why
        assert bool(opened.why) == (not windowed)
        assert opened.size == tuple(whole.shape[1:])
        for top, left, height, width in cuts:
            found = opened.read((top, left, height, width))
            assert found.dtype == whole.dtype
            assert torch.equal(found, whole[:, top : top + height, left : left + width])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["plain", "strips", "tiles", "deflate", "lzw", "big", "motorola"])
def test_tiff(tmp_path, kind, dtype, channels):
    path, pixels = tmp_path / "a.tif", smooth(channels, dtype)
    options = {"plain": {}, "strips": {"rowsperstrip": 7, "compression": "deflate"}, "big": {"bigtiff": True},
               "tiles": {"tile": (16, 32)}, "deflate": {"tile": (32, 16), "compression": "deflate", "predictor": True},
               "motorola": {"byteorder": ">"}}  # fmt: skip
    if kind == "lzw":
        height, width = SIZE
        shape = {"height": height, "width": width, "count": channels, "photometric": "rgb" if channels > 1 else None}
        with rasterio.open(path, "w", driver="GTiff", dtype=dtype, compress="lzw", interleave="pixel", tiled=True,
                           blockxsize=32, blockysize=16, **{k: v for k, v in shape.items() if v}) as file:  # fmt: skip
            file.write(np.moveaxis(pixels.reshape(*SIZE, channels), -1, 0))
    else:
        more = {"photometric": "rgb" if channels > 1 else "minisblack", "extrasamples": [2] * (channels == 4)}
        tifffile.imwrite(path, pixels, **options[kind], **more)
    top = 65535.0 if dtype == np.uint16 else 255.0
    assert_equal_to_whole(path, pre(3, top))
    if channels < 4 or kind != "lzw":
        assert_equal_to_whole(path, pre(channels, top))
    if channels == 3:
        assert_equal_to_whole(path, pre(1, 255.0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_arrays(tmp_path, dtype, channels):
    np.save(tmp_path / "a.npy", smooth(channels, dtype))
    assert_equal_to_whole(tmp_path / "a.npy", pre(channels, 65535.0))
    np.save(tmp_path / "b.npy", np.asfortranarray(smooth(channels, dtype)))
    with open_windows(tmp_path / "b.npy", pre(channels, 65535.0)) as opened, \
            open_windows(tmp_path / "a.npy", pre(channels, 65535.0)) as like:  # fmt: skip
        assert all(torch.equal(opened.read(cut), like.read(cut)) for cut in CUTS)


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA", "I;16"])
def test_png(tmp_path, mode):
    if mode == "I;16":
        Image.fromarray(smooth(1, np.uint16)).save(tmp_path / "a.png")
    else:
        Image.fromarray(smooth(3)).convert(mode).save(tmp_path / "a.png")
    for channels in (1, 3, 4) if mode == "RGBA" else (1, 3):
        assert_equal_to_whole(tmp_path / "a.png", pre(channels))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(tmp_path, mode, subsampling):
    """Grey is equal; of colour another edition of libjpeg enlarges the chroma: every window is equal to GDAL's own."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    pixels = np.stack([x * 2, y * 3, 255 - x - y], -1).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.jpg", subsampling=subsampling, quality=90)
    if mode == "L":
        assert_equal_to_whole(tmp_path / "a.jpg", pre(1))
        return
    with rasterio.open(tmp_path / "a.jpg") as file:
        expected = torch.from_numpy(file.read())
    with open_windows(tmp_path / "a.jpg", pre(3)) as opened:
        assert opened.windowed
        for top, left, height, width in CUTS:
            found = opened.read((top, left, height, width))
            assert torch.equal(found, expected[:, top : top + height, left : left + width])
    whole = stored_pixels(tmp_path / "a.jpg", pre(3)).int()
    assert int((expected.int() - whole).abs().max()) <= 6


def test_geotiff_with_overviews_and_five_bands(tmp_path):
    """Files that are not read whole at all: Pillow takes overviews for pages, and knows no five bands."""
    pixels = np.moveaxis(smooth(5), -1, 0)
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", height=SIZE[0], width=SIZE[1], count=5, dtype="uint8", tiled=True,
                       blockxsize=16, blockysize=16, crs="EPSG:32632",
                       transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)) as file:  # fmt: skip
        file.write(pixels)
        file.build_overviews([2, 4])
    with open_windows(path, pre(5)) as opened:
        assert opened.windowed
        for top, left, height, width in CUTS:
            found = opened.read((top, left, height, width)).numpy()
            assert np.array_equal(found, pixels[:, top : top + height, left : left + width])
    assert np.array_equal(stored_pixels(path, pre(5)).numpy(), pixels)
    with pytest.raises(ImageError):
        stored_pixels(path, pre(5), max_pixels=100)
    with pytest.raises(ImageError, match="5 channels"):
        stored_pixels(path, pre(3))


@pytest.mark.parametrize(("name", "why"), [
    ("turned.jpg", "EXIF"), ("progressive.jpg", "progressive"), ("cmyk.jpg", "CMYK"), ("palette.png", "colours are P"),
    ("a.bmp", "format BMP"), ("bit.tif", "palette"), ("palette.tif", "palette"), ("pages.tif", "pages"),
    ("turned.tif", "turned"), ("inverted.tif", "inverted"),
])  # fmt: skip
def test_what_must_be_decoded_whole(tmp_path, name, why):
    path, image = tmp_path / name, Image.fromarray(smooth(3))
    exif = Image.Exif()
    exif[0x0112] = 6
    if name == "turned.jpg":
        image.save(path, exif=exif)
    elif name == "progressive.jpg":
        image.save(path, progressive=True)
    elif name == "cmyk.jpg":
        image.convert("CMYK").save(path)
    elif name.startswith("palette"):
        image.convert("P").save(path)
    elif name == "a.bmp":
        image.save(path)
    elif name == "bit.tif":
        image.convert("1").save(path)
    elif name == "pages.tif":
        tifffile.imwrite(path, np.stack([smooth(1)] * 3), photometric="minisblack")
    elif name == "turned.tif":
        image.save(path, tiffinfo={274: 3})
    else:
        tifffile.imwrite(path, smooth(1), photometric="miniswhite", compression="deflate")
    assert_equal_to_whole(path, pre(3), windowed=False, cuts=CUTS[1:3])
    with open_windows(path, pre(3)) as opened:
        assert why in opened.why


def test_pngs_with_interlacing_are_decoded_whole(tmp_path):
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[28] = 1  # of one pixel both ways of storing it are the same
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "a.png").write_bytes(data)
    with open_windows(tmp_path / "a.png", pre(1)) as opened:
        assert not opened.windowed


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "plain.tif", "packed.tif"])
def test_files_that_are_cut_off(tmp_path, name):
    path = tmp_path / name
    pixels = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    if name.endswith("tif"):
        tifffile.imwrite(path, pixels, compression=None if name == "plain.tif" else "deflate", rowsperstrip=8)
    else:
        Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])

    def read_all():
        with open_windows(path, pre(3)) as opened:
            for top in range(0, SIZE[0], 16):
                opened.read((top, 0, min(16, SIZE[0] - top), SIZE[1]))

    with pytest.raises(ImageError, match=r"a\.|plain|packed"):
        read_all()


@pytest.mark.parametrize("content", [b"", b"text", b"II*\0", b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\xff\xff\xff\xff"])
def test_no_images(tmp_path, content):
    for name in ("a.png", "a.tif"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError):
            open_windows(tmp_path / name, pre(3))
    with pytest.raises(ImageError, match="no such file"):
        open_windows(tmp_path / "missing.tif", pre(3))


def test_limits_hold_for_what_is_decoded_whole(tmp_path):
    Image.fromarray(smooth(3)).save(tmp_path / "a.png")
    Image.fromarray(smooth(3)).save(tmp_path / "a.bmp")
    assert open_windows(tmp_path / "a.png", pre(3), max_pixels=100).windowed
    with pytest.raises(ImageError, match="more than the limit of 100"):
        open_windows(tmp_path / "a.bmp", pre(3), max_pixels=100)


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "available", lambda: False)
    Image.fromarray(smooth(3)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", smooth(3))
    tifffile.imwrite(tmp_path / "tiles.tif", smooth(3), tile=(16, 16), compression="deflate")
    assert_equal_to_whole(tmp_path / "a.tif", pre(3))  # mapped
    assert_equal_to_whole(tmp_path / "a.png", pre(3), windowed=False)
    for name in ("a.png", "tiles.tif"):
        with pytest.raises(ImageError, match=r"limit of 100.*pixelwise\[large\]"):
            open_windows(tmp_path / name, pre(3), max_pixels=100)


def test_a_band_decodes_no_row_twice(tmp_path):
    class Counting:
        bands, dtype, size = 1, "uint8", (100, 10)
        rows = RNG.integers(0, 256, (1, 100, 10), dtype=np.uint8)

        def __init__(self):
            self.seen = []

        def read(self, window):
            self.seen += range(window[0], window[0] + window[2])
            return self.rows[:, window[0] : window[0] + window[2]]

    source = Counting()
    band = Band(source)
    for top in (0, 30, 60, 80):
        height = min(40, 100 - top)
        for left in (0, 4):
            part = band.read((top, left, height, 6))
            assert np.array_equal(part, source.rows[:, top : top + height, left : left + 6])
    assert source.seen == list(range(100))
    assert np.array_equal(band.read((10, 0, 5, 10)), source.rows[:, 10:15])
    assert source.seen[100:] == list(range(10, 15))
