"""Statistics of a split against plain numpy over all pixels at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pixelwise.data.dataset import open_data
from pixelwise.data.io import write_png
from pixelwise.data.statistics import statistics
from pixelwise.errors import DataError


def make(root: Path, dtype: type = np.uint8, grey: bool = False) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    images, maps = [], []
    for i in range(5):
        size = (6 + i, 9)
        image = rng.integers(0, np.iinfo(dtype).max, size if grey else (*size, 3), dtype=dtype, endpoint=True)
        ids = rng.choice([0, 1, 2, 255], size).astype(np.uint8)
        ids[ids == i] = 0
        write_png(root / "train" / "images" / f"{i}.png", image)
        write_png(root / "train" / "masks" / f"{i}.png", ids)
        images.append(image)
        maps.append(ids)
    (root / "classes.txt").write_text("0 a\n1 b\n2 c\n5 never\n")
    return images, maps


@pytest.mark.parametrize(("dtype", "grey"), [(np.uint8, False), (np.uint8, True), (np.uint16, True)])
def test_against_numpy(tmp_path: Path, dtype: type, grey: bool) -> None:
    images, maps = make(tmp_path, dtype, grey)
    found = statistics(open_data(tmp_path))
    pixels = np.concatenate([i.reshape(-1, 1 if grey else 3) for i in images]) / np.iinfo(dtype).max
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-9)
    flat = np.concatenate([m.ravel() for m in maps])
    assert found.pixel_counts.dtype == np.int64
    assert found.pixel_counts.tolist() == [int((flat == k).sum()) for k in (0, 1, 2, 5)]
    assert found.image_counts.tolist() == [sum(int((m == k).any()) for m in maps) for k in (0, 1, 2, 5)]
    known = [int((m != 255).sum()) for m in maps]
    assert found.seen_counts.tolist() == [sum(n for m, n in zip(maps, known) if (m == k).any()) for k in (0, 1, 2, 5)]
    assert found.void == int((flat == 255).sum())
    assert found.nothing == 0
    assert found.sizes == {(6 + i, 9): 1 for i in range(5)}
    assert found.images == 5


def test_objects_and_nothing(tmp_path: Path) -> None:
    ids = np.zeros((8, 8), np.uint16)
    ids[0, 0], ids[2:4, 2:4], ids[5, 5:8] = 1, 2, 9
    write_png(tmp_path / "train" / "images" / "a.png", np.zeros((8, 8), np.uint8))
    write_png(tmp_path / "train" / "instances" / "a.png", ids)
    found = statistics(open_data(tmp_path))
    assert found.objects == (3,)
    assert found.object_counts.tolist() == [3]
    assert found.pixel_counts.tolist() == [8]
    assert found.seen_counts.tolist() == [64]  # with what is known to be nothing
    assert found.nothing == 56
    assert found.void == 0


def test_limit_spreads_over_the_split(tmp_path: Path) -> None:
    make(tmp_path)
    data = open_data(tmp_path)
    found = statistics(data, limit=2)
    assert found.images == 2
    assert found.sizes == {(6, 9): 1, (10, 9): 1}
    with pytest.raises(DataError, match="limit=0"):
        statistics(data, limit=0)
    with pytest.raises(DataError, match="no split 'val'"):
        statistics(data, "val")


def test_to_dict_is_plain_json(tmp_path: Path) -> None:
    import json

    make(tmp_path)
    found = statistics(open_data(tmp_path)).to_dict()
    assert json.loads(json.dumps(found)) == found
