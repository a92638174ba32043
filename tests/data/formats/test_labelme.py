"""labelme: shapes of all kinds, groups, images inside the file, a real sample, and what is refused by name."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.data.convert import convert
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.io import read_mask, write_png
from pixelwise.errors import DataError

SIZE = (10, 20)
PIXELS = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


def shape(label: str | None, points: Any, kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def png(array: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def make(root: Path, *shapes: dict[str, Any], name: str = "a", image: bool = True, **more: Any) -> Path:
    if image:
        write_png(root / f"{name}.png", PIXELS)
    root.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.png", "imageData": None,
               "imageHeight": SIZE[0], "imageWidth": SIZE[1], **more}  # fmt: skip
    (root / f"{name}.json").write_text(json.dumps(content))
    return root


def truth(data: DataSet) -> Segments:
    segments = data.read(next(iter(data))).truth
    assert segments is not None
    return segments


def area(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_all_kinds_of_shapes(tmp_path: Path) -> None:
    part = np.array([[True, False], [True, True]])
    make(tmp_path,
         shape("a polygon", box(0, 0, 3, 2), None),
         shape("a rectangle", [[8, 4], [4, 1]], "rectangle"),
         shape("a circle", [[12, 5], [12, 8]], "circle"),
         shape("a mask", [[16, 1], [17, 2]], "mask", mask=png(part)),
         shape("a point", [[1, 1]], "point"),
         shape("a line", [[1, 1], [2, 2]], "linestrip"))  # fmt: skip
    data = open_data(tmp_path)
    assert (data.format, data.default_task) == ("labelme", "instance")
    found = {data.classes.names[k]: m.numpy() for k, m in zip(truth(data).labels, truth(data).masks)}
    np.testing.assert_array_equal(found["a polygon"], area(0, 2, 0, 3))
    np.testing.assert_array_equal(found["a rectangle"], area(1, 4, 4, 8))
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    np.testing.assert_array_equal(found["a circle"], (xs - 12) ** 2 + (ys - 5) ** 2 < 9)
    np.testing.assert_array_equal(found["a mask"][1:3, 16:18], part)
    assert found["a mask"].sum() == 3
    assert set(found) == {"a polygon", "a rectangle", "a circle", "a mask"}


def test_groups_crowds_the_unknown_and_the_order(tmp_path: Path) -> None:
    make(tmp_path,
         shape("car", box(0, 0, 2, 2), group_id=3), shape("car", box(4, 0, 6, 2), group_id=3),
         shape("person", box(4, 0, 6, 1), group_id=3),  # of another label, so another object
         shape("car", box(1, 1, 5, 3)),
         shape("__ignore__", box(0, 2, 20, 4)),
         shape("_background_", box(0, 6, 20, 7)),
         shape("person", box(0, 8, 20, 10), flags={"crowd": True}))  # fmt: skip
    data = open_data(tmp_path)
    segments = truth(data)
    assert data.classes.names == ("car", "person")
    rows = [(data.classes.names[k], c, m.sum().item())
            for k, c, m in zip(segments.labels, segments.crowd.tolist(), segments.masks)]  # fmt: skip
    assert rows == [("person", True, 40), ("car", False, 4), ("person", False, 2), ("car", False, 8)]
    assert segments.row_map()[1, 1] == 1  # the later of two cars
    np.testing.assert_array_equal(segments.unknown.numpy(), area(2, 4, 0, 20))  # it hides what lies below


@pytest.mark.parametrize("file", ["PNG", "JPEG"])
def test_an_image_inside_the_file(tmp_path: Path, file: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, file)
    make(tmp_path, shape("car", box(0, 0, 2, 2)), image=False, imageData=base64.b64encode(buffer.getvalue()).decode())
    data = open_data(tmp_path)
    sample = data.read(next(iter(data)))
    expected = np.asarray(Image.open(buffer).convert("RGB"))
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), expected)
    out = tmp_path.with_name(f"{tmp_path.name}-out")
    convert(data, "yolo", out)
    (image,) = (p for p in out.rglob("*") if p.suffix in (".png", ".jpg"))
    assert image.read_bytes() == buffer.getvalue()
    assert image.suffix == {"PNG": ".png", "JPEG": ".jpg"}[file]


def test_images_in_another_folder_and_sizes_untold(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a.png", PIXELS)
    make(tmp_path / "json", shape("car", box(0, 0, 2, 2)), image=False, imagePath="..\\images\\a.png", imageHeight=None,
         imageWidth=None)  # fmt: skip
    data = open_data(tmp_path)
    assert truth(data).size == SIZE
    assert next(iter(data)).image == tmp_path / "json" / "../images/a.png"


def test_an_empty_file_is_a_true_negative_and_no_file_is_an_error(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, shape("car", box(0, 0, 2, 2)), name="b")
    data = open_data(tmp_path)
    assert [len(data.read(r).truth or ()) for r in sorted(data, key=lambda r: r.name)] == [0, 1]
    write_png(tmp_path / "c.png", PIXELS)
    with pytest.raises(DataError, match=r"c\.png: no JSON file of that name"):
        open_data(tmp_path)
    data = open_data(tmp_path, missing="skip")
    assert (len(data), data.unpaired) == (2, (tmp_path / "c.png",))


def test_a_class_table_is_believed(tmp_path: Path) -> None:
    make(tmp_path, shape("car", box(0, 0, 2, 2)))
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nbus\ncar\n")
    assert open_data(tmp_path).classes.names == ("bus", "car")
    (tmp_path / "classes.txt").write_text("3 car thing\n1 road stuff\n")
    classes = open_data(tmp_path).classes
    assert (classes.names, classes.things, classes.ids, classes.nothing) == (("car", "road"), ("car",), (3, 1), True)
    data = open_data(tmp_path, class_table=Classes(names=("cat",)))
    with pytest.raises(DataError, match=r"a\.json: shape 1 has the label 'car', which is no class; did you mean 'cat'"):
        truth(data)


BAD = {
    "no label": (shape(None, box(0, 0, 2, 2)), "shape 1 has no label"),
    "an unknown type": (shape("car", box(0, 0, 2, 2), "spline"), "shape 1 is of the type 'spline'"),
    "a rectangle of three points": (
        shape("car", [[0, 0], [1, 1], [2, 2]], "rectangle"),
        "a rectangle, needs two points",
    ),
    "points that are words": (shape("car", [["a", "b"]] * 3), "points must be pairs x y"),
    "points that are not finite": (shape("car", [[0, 0], [5, float("nan")], [3, 3]]), "not finite"),
    "a mask that is no PNG": (shape("car", [[0, 0], [1, 1]], "mask", mask="AAAA"), "holds no PNG as base64"),
    "a mask without a picture": (shape("car", [[0, 0], [1, 1]], "mask"), "holds no PNG as base64"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_shapes_are_named(tmp_path: Path, name: str) -> None:
    wrong, message = BAD[name]
    data = open_data(make(tmp_path, wrong), class_table=Classes(names=("car",)))
    with pytest.raises(DataError, match=rf"a\.json: {message}|a\.json: shape 1.*{message}"):
        truth(data)


def test_polygons_of_two_points_are_left_out_and_said(tmp_path: Path) -> None:
    data = open_data(make(tmp_path, shape("car", [[0, 0], [3, 3]]), shape("car", box(-9, 0, 2, 2))))
    assert len(truth(data)) == 1
    faults = data.reader.faults(next(iter(data)))  # type: ignore[attr-defined]
    told = [(f.code, f.detail) for f in faults]
    assert told == [
        ("short-polygon", "shape 1 has 2 points"),
        ("outside", "shape 2 leaves the image of 20 x 10 pixels"),
    ]


def test_bad_files_are_named(tmp_path: Path) -> None:
    make(tmp_path, shape("car", box(0, 0, 2, 2)), image=False)
    with pytest.raises(DataError, match=r"a\.json: its image 'a\.png' is not there, and imageData is empty"):
        open_data(tmp_path)
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text[:-9])
    with pytest.raises(DataError, match=r"a\.json: is no whole JSON file"):
        open_data(tmp_path, "labelme")
    make(tmp_path, image=False, imageData="AAAA", shapes=[])
    with pytest.raises(DataError, match="no shape carries a name"):
        open_data(tmp_path)


@pytest.mark.parametrize("content", ["", "[1, 2]", "{}", '{"shapes": [{"label": "ca'])
def test_a_damaged_file_beside_an_image_is_named(tmp_path: Path, content: str) -> None:
    make(tmp_path, shape("cat", box(1, 1, 5, 5)))
    make(tmp_path, name="b")
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(DataError, match=r"b\.json"):
        open_data(tmp_path)


def test_a_shape_without_a_label_makes_no_class(tmp_path: Path) -> None:
    make(tmp_path, shape("cat", box(1, 1, 5, 5)), shape(None, box(6, 6, 8, 8)))
    assert open_data(tmp_path).classes.names == ("cat",)


def test_a_real_sample_is_what_labelme_makes_of_it() -> None:
    """labelme's own class maps of Pascal VOC images; its polygons have an outline of a pixel that ours do not."""
    root = Path(os.environ.get("PIXELWISE_DATA", ""), "format_samples", "labelme_voc2011")
    if not root.is_dir():
        pytest.skip("PIXELWISE_DATA is not set")
    data = open_data(root / "data_annotated", class_table=root / "labels.txt")
    assert len(data) == 3
    for record in data:
        segments = data.read(record).truth
        assert segments is not None
        theirs = read_mask(root / "data_dataset_voc" / "SegmentationClass" / f"{record.name}.png")
        ours = segments.class_map(255, nothing=254).numpy()
        for label in np.unique(segments.labels):
            mine, yours = ours == label, theirs == label + 1  # theirs counts the background
            for one, other in ((mine, yours), (yours, mine)):
                assert not (one & ~ndimage.binary_dilation(other, np.ones((3, 3)))).any()
        objects = read_mask(root / "data_dataset_voc" / "SegmentationObject" / f"{record.name}.png")
        assert len(np.setdiff1d(objects, [0, 255])) == len(segments)
