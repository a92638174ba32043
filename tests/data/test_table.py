"""The class table beside the data: what people write, and what cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixelwise.core.classes import Classes
from pixelwise.data.table import find_table, read_table
from pixelwise.errors import DataError


def write(tmp_path: Path, text: str, name: str = "classes.txt") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_camvid_form(tmp_path: Path) -> None:
    table = read_table(
        write(tmp_path, "# index name r g b\n0 Sky 128 128 128\n1 Road 128 64 128\n11 Void 0 0 0\n# ignore index: 11\n")
    )
    assert table.classes.names == ("Sky", "Road")
    assert table.classes.void == (11,)
    assert table.classes.colours == ((128, 128, 128), (128, 64, 128))
    assert table.colours == {(128, 128, 128): 0, (128, 64, 128): 1, (0, 0, 0): 11}
    assert table.told_void
    assert not table.told_things


def test_words_and_names_with_spaces(tmp_path: Path) -> None:
    text = '0 ground nothing\n3 potted plant thing\n5 "gate 7" stuff\n9 haze void\n'
    table = read_table(write(tmp_path, text))
    assert table.classes == Classes(
        names=("potted plant", "gate 7"), things=("potted plant",), ids=(3, 5), void=(9,), nothing=True
    )
    assert table.nothing == (0,)
    assert table.told_things
    assert table.colours == {}


def test_names_alone(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "__ignore__\n_background_\ncat\ntv/monitor", "labels.txt"))
    assert table.classes.names == ("_background_", "cat", "tv/monitor")
    assert table.classes.ids == (0, 1, 2)
    assert table.classes.void == (255,)
    assert find_table(tmp_path) == tmp_path / "labels.txt"


def test_json(tmp_path: Path) -> None:
    classes = Classes(names=("a", "b"), things=("b",), ids=(4, 7), void=(0, 9), colours=((1, 2, 3), (4, 5, 6)))
    table = read_table(write(tmp_path, json.dumps(classes.to_dict()), "classes.json"))
    assert table.classes == classes
    assert table.colours == {(1, 2, 3): 4, (4, 5, 6): 7}
    bare = read_table(write(tmp_path, '{"names": ["a", "b"]}', "classes.json"))
    assert bare.colours == {}


def test_shared_colour_tells_nothing(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "0 a 0 0 0\n1 b 9 9 9\n2 unknown 0 0 0 void\n"))
    assert table.colours == {(9, 9, 9): 1}


def test_255_is_void_unless_it_is_a_class(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "0 a\n1 b\n")).classes.void == (255,)
    assert read_table(write(tmp_path, "0 a\n255 b\n")).classes.void == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 road 1 2 3\nnonsense\n", "line 2 'nonsense' is no class; expected `index name r g b`"),
        ("64 128 64 Animal\n", "the name begins with a number; the order is"),
        ("0 road 300 0 0\n", "line 1: the colour .* above 255"),
        ("0 road 1 2 3\n1 sky\n", "some classes have a colour and 'sky' has none"),
        ("0 road\n0 sky\n", "ids on disk must differ"),
        ("0 road\n1 road\n", r"Class names must differ; \['road'\]"),
        ("# nothing here\n", "names no class"),
    ],
)
def test_faults_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        read_table(path)
    assert str(path) in str(error.value)


def test_json_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"classes\.json: .*did you mean 'names'"):
        read_table(write(tmp_path, '{"names": ["a"], "name": 1}', "classes.json"))
    with pytest.raises(DataError, match=r"classes\.json"):
        read_table(write(tmp_path, "{", "classes.json"))
    with pytest.raises(DataError, match='expected an object with "names"'):
        read_table(write(tmp_path, "[]", "classes.json"))


def test_a_row_named_void_is_void_without_saying_it_twice(tmp_path):
    (tmp_path / "classes.txt").write_text("0 road\n1 sky\n255 void\n-1 Void\n")
    table = read_table(tmp_path / "classes.txt")
    assert table.classes.names == ("road", "sky")
    assert set(table.classes.void) == {255, -1}
    assert table.told_void
