"""Walking large JSON files: the same values as `json` gives, the places they lie at, and bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.data.coco.index import index
from pixelwise.data.slices import Slices, walk
from pixelwise.errors import DataError

few = settings(max_examples=80, deadline=None, derandomize=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from(["a", "b", "ä", "]", '"']), values, max_size=4)


@few
@given(documents, st.booleans(), st.sampled_from([None, 1]), st.sampled_from(["", "\ufeff"]))
def test_values_and_places_are_those_of_json(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], ascii: bool, indent: int | None, mark: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(mark + json.dumps(document, ensure_ascii=ascii, indent=indent), encoding="utf-8")
    found: dict[str, Any] = {}
    for element in walk(path, ("a", "ä")):
        whole = element.number < 0
        if whole:
            found[element.member] = element.value
        else:
            found.setdefault(element.member, []).append(element.value)
            assert element.number == len(found[element.member]) - 1
        assert Slices.of(path, [element.start], [element.end]).read(slice(0, 1)) == [element.value]
    assert found == document


@few
@given(documents, st.data())
def test_a_file_that_is_cut_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(document).encode()
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_bytes(text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.raises(DataError, match=r"cut\.json"):
        list(walk(path, ("a", "b")))


@pytest.mark.parametrize("text", ["{" + '"a": [' * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a" 1}', "{1: 2}",
                                  '{"a": 1,}', '{"a": [1,]}', '{"a": [1 2]}', "nul", '{"a": tru}',
                                  '{"a": 1} {}'])  # fmt: skip
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"x\.json"):
        list(walk(path, ("a",)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(walk(tmp_path / "none.json", ()))


def test_an_index_takes_little_more_than_the_text(tmp_path: Path) -> None:
    """The parsed document would take several times the file; the index is some bytes an annotation."""
    rng, count = np.random.default_rng(0), 4000
    rings = rng.uniform(0, 99, (count, 60)).round(2).tolist()
    notes = [{"id": i, "image_id": i % 100, "category_id": 1, "segmentation": [rings[i]]} for i in range(count)]
    images = [{"id": i, "file_name": f"{i}.png", "height": 99, "width": 99} for i in range(100)]
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"annotations": notes, "images": images, "categories": [{"id": 1, "name": "x"}]}))
    size = path.stat().st_size
    tracemalloc.start()
    found = index(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * size + 1_500_000  # the bytes, and the text made of them
    assert found.table.slices.starts.nbytes + found.table.slices.ends.nbytes == 16 * count
    assert [note["id"] for note in found.table.annotations(7)] == list(range(7, count, 100))
