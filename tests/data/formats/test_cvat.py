"""CVAT for images 1.1: shapes of all kinds, z_order, groups, sizes, subsets, and XML that is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest

from pixelwise.core.segments import BOX, Segments
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.io import write_png
from pixelwise.errors import DataError

SIZE = (10, 20)
HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>t</name><labels>
<label><name>car</name><color>#c06060</color><attributes><attribute><name>colour</name></attribute></attributes></label>
<label><name>Straße</name><color>#0000ff</color></label></labels></task></meta>
"""


def square(label: str, x0: float, y0: float, x1: float, y1: float, z: int = 0, **more: str) -> str:
    points = f"{x0:.2f},{y0:.2f};{x1:.2f},{y0:.2f};{x1:.2f},{y1:.2f};{x0:.2f},{y1:.2f}"
    return element("polygon", label=label, points=points, z_order=str(z), occluded="0", source="manual", **more)


def element(tag: str, **values: str) -> str:
    told = " ".join(f"{name}={quoteattr(value)}" for name, value in values.items())
    return f'<{tag} {told}><attribute name="note">a &lt; b</attribute></{tag}>'


def image(name: str, *shapes: str, size: tuple[int, int] = SIZE, **more: str) -> str:
    told = "".join(f" {key}={quoteattr(value)}" for key, value in more.items())
    head = f'<image id="0" name={quoteattr(name)} width="{size[1]}" height="{size[0]}"{told}'
    return f"{head}>\n{''.join(shapes)}\n</image>\n" if shapes else f"{head} />\n"


def make(root: Path, *images: str, head: str = HEAD, names: tuple[str, ...] = ("a.png",), size=SIZE) -> Path:
    for name in names:
        write_png(root / "images" / name, np.zeros((*size, 3), np.uint8))
    (root / "annotations.xml").write_text(f"{head}{''.join(images)}</annotations>\n", encoding="utf-8")
    return root


def truth(data: DataSet, at: int = 0) -> Segments:
    segments = data.read(list(data)[at]).truth
    assert segments is not None
    return segments


def area(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_all_kinds_of_shapes(tmp_path: Path) -> None:
    make(tmp_path, image("a.png",
         element("ellipse", label="car", cx="15", cy="5", rx="4", ry="2", z_order="0"),
         element("mask", label="Straße", rle="1, 2, 1, 1", left="2", top="6", width="5", height="1", z_order="0"),
         square("car", 0, 0, 3, 2),
         element("polyline", label="car", points="1,1;2,2"), element("tag", label="car"))[:-9] +
         element("points", label="car", points="1,1") + "</image>")  # fmt: skip
    data = open_data(tmp_path)
    assert (data.format, data.default_task) == ("cvat", "instance")
    assert data.classes.names == ("car", "Straße")
    assert data.classes.colours == ((192, 96, 96), (0, 0, 255))
    segments = truth(data)
    assert segments.labels.tolist() == [0, 1, 0]  # the last drawn first, since it lies above
    np.testing.assert_array_equal(segments.masks[0].numpy(), area(0, 2, 0, 3))
    np.testing.assert_array_equal(segments.masks[1].numpy(), area(6, 7, 3, 5) | area(6, 7, 6, 7))
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    np.testing.assert_array_equal(segments.masks[2].numpy(), ((xs - 15) / 4) ** 2 + ((ys - 5) / 2) ** 2 < 1)
    assert any("2 lines, points, cuboids and skeletons have no area" in note for note in data.notes)


def test_a_higher_z_order_hides_what_is_below_and_so_draws_holes(tmp_path: Path) -> None:
    make(tmp_path, image("a.png", square("Straße", 4, 4, 6, 6, z=2), square("car", 0, 0, 10, 10, z=-1),
                         square("car", 8, 0, 12, 10, z=-1)))  # fmt: skip
    cut, kept = truth(open_data(tmp_path)), truth(open_data(tmp_path, hidden="keep"))
    assert cut.labels.tolist() == kept.labels.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(cut.masks[2].numpy(), area(0, 10, 0, 10) & ~area(4, 6, 4, 6))
    np.testing.assert_array_equal(kept.masks[2].numpy(), area(0, 10, 0, 10))
    assert int((cut.masks[1] & cut.masks[2]).sum()) == 20  # of equal height: they overlap
    assert int(cut.row_map()[0, 9]) == 1  # and the later shows


def test_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    make(tmp_path, image("a.png", square("car", 0, 0, 2, 2, group_id="4"), square("car", 5, 0, 7, 2, group_id="4"),
                         square("Straße", 9, 0, 12, 2, group_id="4"), square("car", 0, 5, 2, 7),
                         square("car", 4, 5, 6, 7)))  # fmt: skip
    segments = truth(open_data(tmp_path))
    assert segments.labels.tolist() == [0, 0, 1, 0]
    np.testing.assert_array_equal(segments.masks[3].numpy(), area(0, 2, 0, 2) | area(0, 2, 5, 7))


def test_boxes_say_where_and_not_which_pixels(tmp_path: Path) -> None:
    box = {"label": "car", "xtl": "2.50", "ytl": "2.00", "xbr": "6.00", "ybr": "5.00", "z_order": "0"}
    make(tmp_path, image("a.png", square("Straße", 0, 0, 4, 4), element("box", **box)))
    segments = truth(open_data(tmp_path))
    assert segments.kind is not None
    assert segments.kind.tolist() == [BOX, 0]
    np.testing.assert_array_equal(segments.boxes.numpy(), [[2.5, 2, 6, 5], [0, 0, 4, 4]])
    np.testing.assert_array_equal(segments.unknown.numpy(), area(2, 5, 2, 6) & ~area(0, 4, 0, 4))
    make(tmp_path, image("a.png", element("box", **box, rotation="90.00")))
    np.testing.assert_allclose(truth(open_data(tmp_path)).boxes.numpy(), [[2.75, 1.75, 5.75, 5.25]])


def test_several_sizes_names_subsets_and_true_negatives(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "other" / "two words.png", np.zeros((5, 6), np.uint8))
    names = ("a > b.png", "c.png")
    make(tmp_path, image("a > b.png", subset="train"), image("c.png", square("car", 0, 0, 2, 2), subset="Validation"),
         image("two words.png", square("car", 0, 0, 6, 5), size=(5, 6), subset="test"), names=names)  # fmt: skip
    data = open_data(tmp_path)
    assert {split: [r.name for r in group] for split, group in data.splits.items()} == {
        "train": ["a > b"], "val": ["c"], "test": ["two words"]}  # fmt: skip
    assert len(truth(data)) == 0
    assert not truth(data).unknown.any()
    assert truth(pickle.loads(pickle.dumps(data)), 2).size == (5, 6)
    assert bool((truth(data, 2).ids == 0).all())


def test_several_files(tmp_path: Path) -> None:
    make(tmp_path, image("a.png", square("car", 0, 0, 2, 2)), names=("a.png", "b.png"))
    (tmp_path / "more.xml").write_text(f"{HEAD}{image('b.png', square('car', 0, 0, 3, 3))}</annotations>", "utf-8")
    data = open_data(tmp_path)
    areas = {record.name: truth(data, at).areas.tolist() for at, record in enumerate(data)}
    assert areas == {"a": [4], "b": [9]}


BOMB = ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]>'
        "<annotations><meta><labels><label><name>&y;</name></label></labels></meta></annotations>")  # fmt: skip


def test_entities_are_never_expanded(tmp_path: Path) -> None:
    (tmp_path / "annotations.xml").write_text(BOMB)
    with pytest.raises(DataError, match="declares a document type or entities"):
        open_data(tmp_path)
    (tmp_path / "annotations.xml").write_text(BOMB.replace('"ha"', f'SYSTEM "{tmp_path}/secret"'))
    with pytest.raises(DataError, match="declares a document type or entities"):
        open_data(tmp_path, "cvat")


BAD = {
    "an unknown label": (square("cat", 0, 0, 2, 2), r"shape 1 \(polygon\) has the label 'cat', which is no class"),
    "points that are no pairs": (element("polygon", label="car", points="1,2;3"), "points must be x,y;x,y;"),
    "points that are words": (element("polygon", label="car", points="a,b;c,d;e,f"), "points must be pairs x y"),
    "a short code": (element("mask", label="car", rle="2, 1", left="0", top="0", width="2", height="2"),
                     "the run-length code covers 3 pixels, its box 2 x 2 has 4"),
    "a code of words": (element("mask", label="car", rle="x", left="0", top="0", width="2", height="2"),
                        "rle must be whole numbers"),
    "no width": (element("mask", label="car", rle="4", left="0", top="0", height="2"), "width is None, expected"),
    "a box of words": (element("box", label="car", xtl="left", ytl="0", xbr="1", ybr="1"), "xtl is 'left'"),
    "z_order": (square("car", 0, 0, 2, 2).replace('z_order="0"', 'z_order="top"'), "z_order is 'top'"),
    "an unknown kind": (element("blob", label="car"), "is of a kind that is not known"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_shapes_are_named(tmp_path: Path, name: str) -> None:
    shape, message = BAD[name]
    data = open_data(make(tmp_path, image("a.png", shape)))
    with pytest.raises(DataError, match=rf"annotations\.xml: image 'a\.png'.*{message}"):
        truth(data)


def test_bad_files_are_named(tmp_path: Path) -> None:
    make(tmp_path, image("a.png", square("car", 0, 0, 2, 2)), image("gone/b.png"))
    with pytest.raises(DataError, match=r"annotations\.xml: the image 'gone/b\.png' is not below .*missing=skip"):
        open_data(tmp_path)
    data = open_data(tmp_path, missing="skip")
    assert len(data) == 1
    assert any("1 images are listed and not there" in note for note in data.notes)
    text = (tmp_path / "annotations.xml").read_text()
    (tmp_path / "annotations.xml").write_text(text[:-30])
    with pytest.raises(DataError, match=r"annotations\.xml: is no whole XML file \(.*line"):
        open_data(tmp_path)
    (tmp_path / "annotations.xml").write_text("<annotations><track id='0'/></annotations>")
    with pytest.raises(DataError, match="CVAT for video"):
        open_data(tmp_path)
    make(tmp_path, image("a.png"), image("a.png"))
    with pytest.raises(DataError, match=r"the image 'a\.png' is listed twice"):
        open_data(tmp_path)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    data = open_data(make(tmp_path, image("a.png", square("car", 0, 0, 2, 2), size=(20, 10))))
    with pytest.raises(DataError, match=r"annotations\.xml: the annotation is 10 x 20 pixels, its image"):
        truth(data)
