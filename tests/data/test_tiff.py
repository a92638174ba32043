"""Tiled TIFF as the rows come, read back by GDAL, tifffile and Pillow, and the place on the earth of another."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from pixelwise.data.tiff import TILE, TiffStream, place_of, read_tags

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
RNG = np.random.default_rng(0)


def write(path, pixels, *, big=False, **options):
    with path.open("wb") as file:
        stream = TiffStream(file, pixels.shape, pixels.dtype, **options)
        if big:  # what four gigabytes would ask for
            stream.big = True
            file.seek(0)
            stream._at = file.write(b"II+\0\x08\0\0\0" + bytes(8))
        for rows in np.split(pixels, [1, len(pixels) // 2]) if len(pixels) > 2 else [pixels]:
            stream.write(rows)
        stream.finish()
    return path


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("size", [(1, 1), (TILE, TILE), (300, 513), (700, 100)])
def test_all_readers_agree(tmp_path, size, dtype, big):
    pixels = RNG.integers(0, np.iinfo(dtype).max, size, dtype=dtype, endpoint=True)
    path = write(tmp_path / "a.tif", pixels, big=big)
    with rasterio.open(path) as file:
        assert file.block_shapes == [(TILE, TILE)]
        assert np.array_equal(file.read(1), pixels)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == big
        assert np.array_equal(file.asarray(), pixels)
    if dtype != "uint32":  # Pillow knows 32 bits with sign alone
        assert np.array_equal(np.asarray(Image.open(path)), pixels)


def test_a_palette(tmp_path):
    pixels, palette = RNG.integers(0, 7, (33, 50), dtype=np.uint8), RNG.integers(0, 256, (7, 3), dtype=np.uint8)
    path = write(tmp_path / "a.tif", pixels, palette=palette)
    assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), palette[pixels])
    with rasterio.open(path) as file:
        assert [file.colormap(1)[k][:3] for k in range(7)] == [tuple(c) for c in palette.tolist()]


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_the_place_on_the_earth(tmp_path, endian):
    pixels = RNG.integers(0, 7, (40, 50), dtype=np.uint8)
    transform = rasterio.Affine(0.5, 0, 500123.25, 0, -0.25, 5e6)
    with rasterio.open(tmp_path / "image.tif", "w", driver="GTiff", height=40, width=50, count=1, dtype="uint8",
                       crs="EPSG:32632", transform=transform, endianness=endian) as file:  # fmt: skip
        file.write(pixels, 1)
    path = write(tmp_path / "map.tif", pixels, place=place_of(tmp_path / "image.tif"))
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 32632
        assert file.transform == transform
        assert np.array_equal(file.read(1), pixels)


def test_ground_points(tmp_path):
    points = [rasterio.control.GroundControlPoint(r, c, 5e5 + c, 5e6 - r, 0) for r, c in ((0, 0), (0, 40), (30, 7))]
    with rasterio.open(
        tmp_path / "image.tif", "w", driver="GTiff", height=40, width=50, count=1, dtype="uint8"
    ) as file:
        file.gcps = (points, rasterio.CRS.from_epsg(32632))
    path = write(tmp_path / "map.tif", np.zeros((40, 50), np.uint8), place=place_of(tmp_path / "image.tif"))
    with rasterio.open(path) as file:
        found, crs = file.gcps
        assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]
        assert crs.to_epsg() == 32632


def test_images_without_a_place(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.tif")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    assert place_of(tmp_path / "a.tif") == place_of(tmp_path / "a.png") == {}
    assert read_tags(tmp_path / "a.tif")[256].values.tolist() == [4]


def test_large_files_are_big_tiff():
    assert not TiffStream(io.BytesIO(), (60_000, 60_000), np.uint8).big
    assert TiffStream(io.BytesIO(), (60_000, 60_000), np.uint16).big


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="cannot hold"):
        TiffStream(io.BytesIO(), (2, 2), np.float32)
    stream = TiffStream(io.BytesIO(), (2, 2), np.uint8)
    with pytest.raises(ValueError, match="after 0"):
        stream.write(np.zeros((3, 2), np.uint8))
    with pytest.raises(ValueError, match="0 rows"):
        stream.finish()
