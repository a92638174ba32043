"""Places of GeoTIFFs as rasterio reads them, and polygons that lie where the pixels do."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.core.classes import Classes
from pixelwise.core.polygons import fill
from pixelwise.core.segments import Segments
from pixelwise.data.georeference import georeference_of
from pixelwise.data.writer import Item, open_writer
from pixelwise.errors import ConfigError

rasterio = pytest.importorskip("rasterio")
features = pytest.importorskip("rasterio.features")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CLASSES = Classes(names=("field", "tree"), things=("tree",))
UTM = rasterio.Affine(0.5, 0, 500000.25, 0, -0.5, 5300000)
TURNED = rasterio.Affine(0.3, 0.4, 1000, 0.4, -0.3, 2000)
DEGREES = rasterio.Affine(1e-5, 0, 11.5, 0, -2e-5, 48.25)
LOCAL = "+proj=tmerc +lat_0=47 +lon_0=11 +k=0.9999 +x_0=0 +y_0=0 +ellps=bessel +units=m +no_defs"


def geotiff(path, transform, crs, **words):
    with rasterio.open(path, "w", driver="GTiff", height=12, width=16, count=1, dtype="uint8", crs=crs,
                       transform=transform) as file:  # fmt: skip
        file.write(np.zeros((1, 12, 16), np.uint8))
        file.update_tags(**words)
    return path


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize(
    ("transform", "crs"),
    [(UTM, "EPSG:32632"), (TURNED, "EPSG:31468"), (DEGREES, "EPSG:4326"), (DEGREES, "EPSG:4269"), (UTM, LOCAL)],
)
def test_the_place_is_rasterios(tmp_path, transform, crs, point):
    path = geotiff(tmp_path / "a.tif", transform, crs, **({"AREA_OR_POINT": "Point"} if point else {}))
    found = georeference_of(path)
    points = np.array([[0, 0], [16, 0], [16, 12], [3, 7]])
    with rasterio.open(path) as file:
        expected = [rasterio.transform.xy(file.transform, y, x, offset="ul") for x, y in points.tolist()]
        assert found.epsg == file.crs.to_epsg()
        assert found.mirrors == (file.transform.determinant < 0)
    assert np.abs(found(points) - expected).max() <= abs(transform.determinant) ** 0.5 / 1000


def test_images_without_a_place_have_none(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_bytes(b"II*\0\x08\0\0\0")
    assert [georeference_of(tmp_path / name) for name in ("a.png", "a.tif", "b.tif", "c.tif")] == [None] * 4


def segments():
    ids = np.full((12, 16), -1)
    ids[2:9, 3:12], ids[4:6, 5:9], ids[0, :3] = 0, -1, 1
    ids[11, 15] = 1
    return Segments(torch.from_numpy(ids.astype(np.int8)), [0, 1])


@pytest.mark.parametrize(
    ("transform", "crs", "name"),
    [
        (UTM, "EPSG:32632", "urn:ogc:def:crs:EPSG::32632"),
        (TURNED, "EPSG:31468", "urn:ogc:def:crs:EPSG::31468"),
        (DEGREES, "EPSG:4326", "urn:ogc:def:crs:OGC:1.3:CRS84"),
    ],
)
def test_polygons_lie_where_the_pixels_do(tmp_path, transform, crs, name):
    """rasterio draws them back onto the image's own grid."""
    image = geotiff(tmp_path / "a.tif", transform, crs)
    writer = open_writer("geojson", tmp_path / "out", CLASSES)
    writer.write(Item(name="a", segments=segments(), image=image))
    content = json.loads((tmp_path / "out/a.geojson").read_text())
    assert content["crs"] == {"type": "name", "properties": {"name": name}}
    for feature, mask in zip(content["features"], segments().masks.numpy(), strict=True):
        drawn = features.rasterize([feature["geometry"]], mask.shape, transform=transform)
        assert np.array_equal(drawn.astype(bool), mask)
        shape = feature["geometry"]["coordinates"]
        for polygon in [shape] if feature["geometry"]["type"] == "Polygon" else shape:
            for number, ring in enumerate(polygon):
                x, y = np.array(ring).T - np.array(ring[:1]).T
                area = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum()
                assert area > 0 if number == 0 else area < 0
    assert writer.finish() == ()


def test_pixels_where_there_is_no_number_or_pixels_are_asked_for(tmp_path):
    for crs, options, lost in ((LOCAL, {}, 1), ("EPSG:32632", {"coordinates": "pixels"}, 0)):
        writer = open_writer("geojson", tmp_path / "out", CLASSES, **options)
        writer.write(Item(name="a", segments=segments(), image=geotiff(tmp_path / "a.tif", UTM, crs)))
        content = json.loads((tmp_path / "out/a.geojson").read_text())
        assert "crs" not in content
        rings = [ring[:-1] for ring in content["features"][0]["geometry"]["coordinates"]]
        assert np.array_equal(fill([rings], (12, 16)), segments().masks[0].numpy())
        assert [sentence.endswith("written in pixels: 1.") for sentence in writer.finish()] == [True] * lost
    with pytest.raises(ConfigError, match="coordinates is 'auto' or 'pixels', got 'metres'"):
        open_writer("geojson", tmp_path, CLASSES, coordinates="metres")
