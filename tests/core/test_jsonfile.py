"""Values as JSON knows them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pixelwise.core.jsonfile import plain, write_json


def test_numbers_of_every_kind_become_json(tmp_path: Path):
    value = {"a": np.array([[0.5, np.nan], [1, 2]]), "b": (np.int64(3), np.float32(0.25), np.bool_(True)),
             "c": {"d": math.inf, "e": None, "f": "text"}}  # fmt: skip
    wanted = {"a": [[0.5, None], [1.0, 2.0]], "b": [3, 0.25, True], "c": {"d": None, "e": None, "f": "text"}}
    assert plain(value) == wanted
    write_json(tmp_path / "deep" / "x.json", value, indent=1)
    assert json.loads((tmp_path / "deep" / "x.json").read_text()) == wanted


def test_what_json_cannot_hold_is_refused_and_leaves_no_file(tmp_path: Path):
    with pytest.raises(TypeError, match="set"):
        write_json(tmp_path / "x.json", {"a": {1, 2}})
    assert not list(tmp_path.iterdir())
