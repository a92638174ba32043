"""The Python in the pages of docs/ runs as it stands there, top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/data.md"


def test_the_page_about_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)


def test_the_class_table_on_the_page(tmp_path: Path) -> None:
    from pixelwise.data.table import read_table

    text = PAGE.read_text(encoding="utf-8")
    (table,) = re.findall(r"^```\n(# index name.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "classes.txt").write_text(table)
    found = read_table(tmp_path / "classes.txt")
    assert found.classes.names == ("road", "person", "gate 7")
    assert found.classes.things == ("person",)
    assert found.nothing == (3,)
    assert sorted(found.classes.void) == [11, 255]
