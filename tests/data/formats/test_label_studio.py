"""Label Studio: JSON and JSON-MIN, brush codes from its own converter, finding images, and what is refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelwise.core import brush
from pixelwise.core.segments import BOX, Segments
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.io import write_png
from pixelwise.errors import DataError

SIZE = (10, 20)
# mask2rle of label-studio-converter 2ef5400 for the mask [6, 9] (7 y + 5 x) % 4 == 0
CODE = [0, 0, 0, 216, 57, 27, 252, 127, 246, 192, 35, 255, 182, 1, 31, 252, 96, 17, 255, 219, 0, 143, 255, 9, 128, 71,
        255, 108, 2, 63, 252, 38, 1, 31, 253, 176, 8, 255, 227, 0, 143, 254, 216, 4, 127, 246, 192, 35, 255, 140, 2, 63,
        251, 96, 17, 255, 219, 0, 0]  # fmt: skip
YS, XS = np.mgrid[:6, :9]
STRIPES = (7 * YS + 5 * XS) % 4 == 0


def encode(values: np.ndarray, sizes: tuple[int, ...] = (3, 4, 8, 16), *, literal: bool = False) -> list[int]:
    """Values 0..255 as one block after another: runs, or up to 8 values one by one."""
    text = f"{len(values):032b}{7:05b}" + "".join(f"{bits - 1:04b}" for bits in sizes)
    at = 0
    while at < len(values):
        if literal:
            part = values[at : at + 8]
            text += f"000{len(part) - 1:0{sizes[0]}b}" + "".join(f"{v:08b}" for v in part)
        else:
            part = values[at : at + 1 + int((np.append(values[at + 1 :], 256) != values[at]).argmax())][: 1 << sizes[3]]
            text += f"111{len(part) - 1:0{sizes[3]}b}{values[at]:08b}"
        at += len(part)
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]


def region(kind: str, label: str | None, size: tuple[int, int] = SIZE, id: str = "r", **value: Any) -> dict[str, Any]:
    if label is not None:
        value[kind] = [label]
    return {"id": id, "type": kind, "value": value, "original_height": size[0], "original_width": size[1],
            "from_name": "tool", "to_name": "image", "image_rotation": 0}  # fmt: skip


def square(label: str | None, x0: float, y0: float, x1: float, y1: float, **more: Any) -> dict[str, Any]:
    points = [[100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    return region("polygonlabels", label, points=points, closed=True, **more)


def task(*regions: dict[str, Any], number: int = 1, image: str = "/data/upload/1/0a1b2c3d-a.png") -> dict[str, Any]:
    done = {"id": 7, "completed_by": 1, "result": list(regions), "was_cancelled": False, "ground_truth": False}
    return {"id": number, "annotations": [done], "predictions": [], "data": {"image": image}}


def make(root: Path, *tasks: Any, names: tuple[str, ...] = ("a.png",), size: tuple[int, int] = SIZE) -> Path:
    for name in names:
        write_png(root / "images" / name, np.zeros((*size, 3), np.uint8))
    (root / "project-1.json").write_text(json.dumps(list(tasks), ensure_ascii=False), "utf-8")
    return root


def truth(data: DataSet, at: int = 0) -> Segments:
    segments = data.read(list(data)[at]).truth
    assert segments is not None
    return segments


def area(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_brush_code_of_label_studios_own_converter() -> None:
    np.testing.assert_array_equal(brush.decode(CODE, (6, 9)), STRIPES)


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("sizes", [(3, 4, 8, 16), (3, 1, 2, 9)])
def test_brush_codes_of_runs_and_of_single_values(literal: bool, sizes: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 3, (7, 11, 4)).astype(np.uint8).repeat(3, 1)
    np.testing.assert_array_equal(
        brush.decode(encode(pixels.ravel(), sizes, literal=literal), (7, 33)), pixels[..., 3] > 0
    )


def test_bad_brush_codes_are_named() -> None:
    for code, message in ((CODE[:-9], "cut off"), ([1, 2], "no whole head"), ([300] * 9, "list of bytes"),
                          ("text", "list of bytes"), (CODE[:4] + [255] * 60, "cut off")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            brush.decode(code, (6, 9))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has 216 values, the image of 8 x 6 has 192"):
        brush.decode(CODE, (6, 8))


def test_polygons_brushes_rectangles_and_ellipses(tmp_path: Path) -> None:
    mask = area(2, 5, 3, 9)
    rle = encode(np.repeat(np.where(mask, 255, 0).ravel(), 4))
    make(tmp_path, task(
        square("Car", 0, 0, 4, 2),
        region("brushlabels", "Straße", format="rle", rle=rle),
        region("rectanglelabels", "Car", x=50, y=50, width=20, height=30, rotation=0),
        region("ellipselabels", "Car", x=75, y=50, radiusX=10, radiusY=20, rotation=90),
        region("keypointlabels", "Car", x=1, y=1, width=0.5), region("choices", None, choices=["night"])))  # fmt: skip
    data = open_data(tmp_path)
    assert (data.format, data.default_task, data.classes.names) == ("label_studio", "instance", ("Car", "Straße"))
    segments = truth(pickle.loads(pickle.dumps(data)))
    assert segments.labels.tolist() == [0, 0, 1, 0]  # the last drawn first, since it lies above
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    np.testing.assert_array_equal(segments.masks[0].numpy(), ((xs - 15) / 2) ** 2 + ((ys - 5) / 2) ** 2 < 1)
    np.testing.assert_array_equal(segments.masks[2].numpy(), mask)
    np.testing.assert_array_equal(segments.masks[3].numpy(), area(0, 2, 0, 4))
    assert segments.kind is not None
    assert segments.kind.tolist() == [0, BOX, 0, 0]
    np.testing.assert_allclose(segments.boxes[1].numpy(), [10, 5, 14, 8])
    assert int(segments.unknown.sum()) == int((area(5, 8, 10, 14) & ~segments.masks.any(0).numpy()).sum())


def test_json_min_is_read_as_json_is(tmp_path: Path) -> None:
    wanted = [square("Car", 0, 0, 4, 2), square("Bus", 5, 0, 9, 2)]
    flat = [{**r["value"], "original_width": SIZE[1], "original_height": SIZE[0]} for r in wanted]
    one = truth(open_data(make(tmp_path / "json", task(*wanted))))
    minimal = {"id": 1, "image": "a.png", "annotator": 1, "annotation_id": 7, "lead_time": 3.1, "tool": flat}
    other = truth(open_data(make(tmp_path / "min", minimal, {**minimal, "annotation_id": 8, "tool": []})))
    assert one.labels.tolist() == other.labels.tolist()
    np.testing.assert_array_equal(one.ids.numpy(), other.ids.numpy())


def test_a_tool_and_its_label_as_two_results_are_one_object(tmp_path: Path) -> None:
    shape = square(None, 0, 0, 4, 2)["value"]
    named = region("labels", "Car", **shape)
    assert len(truth(open_data(make(tmp_path, task(region("polygon", None, **shape), named))))) == 1


def test_which_annotation_and_which_tasks_are_read(tmp_path: Path) -> None:
    several = task(square("Car", 0, 0, 1, 1))
    several["annotations"].append({"result": [square("Car", 0, 0, 3, 3)], "ground_truth": True})
    cancelled = task(square("Car", 0, 0, 1, 1), number=2, image="b.png")
    cancelled["annotations"][0]["was_cancelled"] = True
    empty = task(number=3, image="c.png")
    untouched = {"id": 4, "annotations": [], "data": {"image": "d.png"}}
    data = open_data(make(tmp_path, several, cancelled, empty, untouched, names=("a.png", "b.png", "c.png", "d.png")))
    areas = {r.name: truth(data, at).areas.tolist() for at, r in enumerate(data)}
    assert areas == {"a": [9], "c": []}  # c is a true negative
    assert any("2 tasks of project-1.json are not annotated" in note for note in data.notes)
    assert any("1 tasks have several annotations" in note for note in data.notes)


@pytest.mark.parametrize("told", [
    "/data/upload/3/0a1b2c3d-a%20b.png", "/data/local-files/?d=set/one/a b.png", "s3://bucket/set/one/a%20b.png",
    "https://example.com/set/one/a%20b.png?X-Amz-Date=1", "set\\one\\a b.png",
])  # fmt: skip
def test_images_are_found_by_the_end_of_their_path(tmp_path: Path, told: str) -> None:
    upload = "upload" in told
    names = ("one/a b.png",) if upload else ("one/a b.png", "two/a b.png")
    data = open_data(make(tmp_path, task(square("Car", 0, 0, 1, 1), image=told), names=names))
    assert [r.name for r in data] == ["one/a b"]


def test_images_that_are_missing_or_not_to_be_told_apart_are_named(tmp_path: Path) -> None:
    make(tmp_path, task(square("Car", 0, 0, 1, 1)), task(number=2, image="gone.png"))
    with pytest.raises(DataError, match=r"project-1\.json: the image 'gone\.png' is not below .*missing=skip"):
        open_data(tmp_path)
    assert len(open_data(tmp_path, missing="skip")) == 1
    make(tmp_path, task(image="a.png"), names=("x/a.png",))
    with pytest.raises(DataError, match=r"'a\.png' may be .* or .*; keep the folders"):
        open_data(tmp_path)
    make(tmp_path, {"id": 5, "annotations": [{"result": []}], "data": {"text": "hello"}})
    with pytest.raises(DataError, match="task 5 names no image"):
        open_data(tmp_path)


BAD = {
    "no label": (square(None, 0, 0, 1, 1), "task 1, region 1 has no label"),
    "two labels": (region("polygonlabels", None, points=[[0, 0], [9, 0], [9, 9]], polygonlabels=["a", "b"]),
                   "has the labels a, b; expected one"),
    "points that are words": (region("polygonlabels", "Car", points=[["a", "b"]] * 3), "points must be pairs"),
    "a code of another size": (region("brushlabels", "Car", rle=CODE), "a brush code has 216 values"),
    "a box of words": (region("rectanglelabels", "Car", x="a", y=0, width=1, height=1), "must be numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_regions_are_named(tmp_path: Path, name: str) -> None:
    wrong, message = BAD[name]
    (tmp_path / "classes.txt").write_text("0 Car\n")
    data = open_data(make(tmp_path, task(wrong)))
    with pytest.raises(DataError, match=rf"project-1\.json: (task 1, region 1.*)?{message}"):
        truth(data)


def test_polygons_of_two_points_are_left_out_and_said(tmp_path: Path) -> None:
    data = open_data(make(tmp_path, task(region("polygonlabels", "Car", points=[[0, 0], [9, 9]]))))
    assert len(truth(data)) == 0
    (fault,) = data.reader.faults(next(iter(data)))  # type: ignore[attr-defined]
    assert (fault.code, fault.detail) == ("short-polygon", "task 1, region 1 has 2 points")


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    make(tmp_path, task(square("Car", 0, 0, 1, 1)))
    text = (tmp_path / "project-1.json").read_text()
    (tmp_path / "project-1.json").write_text(text[:-20])
    with pytest.raises(DataError, match=r"project-1\.json: is no whole JSON file"):
        open_data(tmp_path)
