"""Cityscapes as it lies on disk: the ids, the layout, fine and coarse, groups; the ids against torchvision's table."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import Cityscapes

from pixelwise.core.segments import UNKNOWN
from pixelwise.data.dataset import open_data
from pixelwise.data.formats.cityscapes import CLASSES
from pixelwise.data.io import write_png
from pixelwise.errors import ConfigError, DataError

SIZE = (10, 34)
LABELS = np.arange(34, dtype=np.uint8)[None].repeat(10, 0)  # every label id once a row


def scene(root: Path, split: str, city: str, number: int, *kinds: str, labels: np.ndarray = LABELS,
          instances: np.ndarray | None = None) -> None:  # fmt: skip
    stem = f"{city}_{number:06}_000019"
    write_png(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", np.full((*SIZE, 3), number, np.uint8))
    for kind in kinds:
        folder = root / kind / split / city
        write_png(folder / f"{stem}_{kind}_labelIds.png", labels)
        write_png(folder / f"{stem}_{kind}_color.png", np.zeros((*SIZE, 3), np.uint8))
        (folder / f"{stem}_{kind}_polygons.json").write_text("{}")
        if instances is not None:
            write_png(folder / f"{stem}_{kind}_instanceIds.png", instances)


def test_ids_colours_and_things_are_those_of_torchvision() -> None:
    known = {c.id: c for c in Cityscapes.classes}
    evaluated = sorted((c for c in known.values() if 0 <= c.train_id < 19), key=lambda c: c.train_id)
    assert CLASSES.names == tuple(c.name for c in evaluated)
    assert CLASSES.ids == tuple(c.id for c in evaluated)
    assert CLASSES.colours == tuple(c.color for c in evaluated)
    assert CLASSES.things == tuple(c.name for c in evaluated if c.has_instances)
    assert set(CLASSES.void) == set(known) - set(CLASSES.ids)


def test_label_ids_become_train_ids(tmp_path: Path) -> None:
    scene(tmp_path, "train", "aachen", 1, "gtFine")
    data = open_data(tmp_path)
    assert (data.format, data.default_task) == ("cityscapes", "semantic")
    truth = data.read(data.records("train")[0]).truth
    assert truth is not None
    train_id = {c.id: c.train_id for c in Cityscapes.classes}
    expected = [train_id[i] if train_id[i] < 19 else UNKNOWN for i in range(34)]
    np.testing.assert_array_equal(truth.ids[0].numpy()[0], expected)


def test_every_city_of_a_split_and_pairs_by_name(tmp_path: Path) -> None:
    """One folder level is not enough, and gtFine holds four files an image: sorted lists do not match."""
    for number, city in enumerate(("aachen", "bochum", "ulm")):
        scene(tmp_path, "train", city, number, "gtFine", labels=np.full(SIZE, 7 + number % 2, np.uint8))
    scene(tmp_path, "val", "lindau", 9, "gtFine")
    data = open_data(tmp_path)
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 3, "val": 1}
    for record in data.records("train"):
        sample = data.read(record)
        assert sample.truth is not None
        assert int(sample.truth.class_map()[0, 0]) == int(sample.image[0, 0, 0]) % 2


def test_instances_groups_and_void(tmp_path: Path) -> None:
    ids = np.full(SIZE, 7, np.uint16)  # road
    ids[0, :5], ids[0, 5:9], ids[1, :3], ids[2, :2], ids[3, :6], ids[4] = 26000, 26001, 24, 24003, 29000, 3
    ids[5] = 0
    labels = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
    scene(tmp_path, "train", "ulm", 1, "gtFine", labels=labels, instances=ids)
    data = open_data(tmp_path)
    assert data.default_task == "panoptic"
    truth = data.read(data.records("train")[0]).truth
    assert truth is not None
    assert truth.keys is not None
    found = {key: (CLASSES.names[label], crowd, area) for key, label, crowd, area in zip(
        truth.keys.tolist(), truth.labels.tolist(), truth.crowd.tolist(), truth.pixel_counts.tolist())}  # fmt: skip
    road = int((ids == 7).sum())
    assert found == {
        7: ("road", False, road),
        24: ("person", True, 3),
        24003: ("person", False, 2),
        26000: ("car", False, 5),
        26001: ("car", False, 4),
    }
    assert int(truth.unknown.sum()) == 6 + 34 + 34  # caravan, out of roi, unlabelled
    semantic = open_data(tmp_path, instances=False)
    again = semantic.read(semantic.records("train")[0]).truth
    assert again is not None
    np.testing.assert_array_equal(again.class_map(), truth.class_map())


def test_fine_coarse_and_both(tmp_path: Path) -> None:
    scene(tmp_path, "train", "aachen", 1, "gtFine", "gtCoarse")
    scene(tmp_path, "train_extra", "bayreuth", 2, "gtCoarse")
    scene(tmp_path, "val", "lindau", 3, "gtFine", "gtCoarse")

    def kinds(annotations: str) -> dict[str, list[str]]:
        data = open_data(tmp_path, annotations=annotations)
        return {s: [str(r.semantic).rpartition("_gt")[2][:4] for r in records] for s, records in data.splits.items()}

    assert kinds("fine") == {"train": ["Fine"], "val": ["Fine"]}
    assert kinds("coarse") == {"train": ["Coar", "Coar"], "val": ["Fine"]}
    assert kinds("both") == {"train": ["Fine", "Coar"], "val": ["Fine"]}
    assert "2 images have fine and 1 coarse annotations." in open_data(tmp_path, annotations="both").notes
    with pytest.raises(ConfigError, match="'fine', 'coarse' or 'both', got 'best'"):
        open_data(tmp_path, annotations="best")


def test_faults(tmp_path: Path) -> None:
    scene(tmp_path, "train", "aachen", 1)
    (tmp_path / "gtFine").mkdir()
    with pytest.raises(DataError, match="1 images without annotations"):
        open_data(tmp_path)
    scene(tmp_path, "train", "aachen", 2, "gtFine")
    with pytest.raises(DataError, match=r"aachen_000001_000019_leftImg8bit\.png: no mask"):
        open_data(tmp_path)
    assert len(open_data(tmp_path, missing="skip")) == 1
    with pytest.raises(DataError, match=r"expected leftImg8bit/ and gtFine/"):
        open_data(tmp_path / "gtFine", format="cityscapes")


def test_unknown_label_id(tmp_path: Path) -> None:
    scene(tmp_path, "train", "aachen", 1, "gtFine", labels=np.where(LABELS == 5, 77, LABELS).astype(np.uint8))
    data = open_data(tmp_path)
    with pytest.raises(DataError, match=r"_labelIds\.png: .*does not know: 77 \(10 pixels\)"):
        data.read(data.records("train")[0])
    ids = np.full(SIZE, 77001, np.int32) % 65536
    scene(tmp_path, "train", "aachen", 1, "gtFine", instances=ids.astype(np.uint16))
    data = open_data(tmp_path)
    kind = 77001 % 65536
    if kind // 1000 not in CLASSES.ids:
        with pytest.raises(DataError, match=rf"the id {kind} \(340 pixels\) means class {kind // 1000}"):
            data.read(data.records("train")[0])


def test_drawn_streets_are_read_as_cityscapes(tmp_path: Path) -> None:
    streets = pytest.importorskip("pixelwise.data.streets", reason="the drawn streets are not there")
    streets.write_streets(tmp_path, train=2, val=1, test=1, size=(64, 128), seed=0)
    data = open_data(tmp_path)
    assert data.format == "cityscapes"
    assert data.default_task == "panoptic"
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 2, "val": 1, "test": 1}
    semantic = open_data(tmp_path, instances=False)
    for record, plain in zip(data, semantic):
        sample, flat = data.read(record), semantic.read(plain)
        assert sample.image.shape == (3, 64, 128)
        assert sample.truth is not None
        assert flat.truth is not None
        np.testing.assert_array_equal(sample.truth.class_map(), flat.truth.class_map())
        assert len(sample.truth) > 3


def panoptic_files(root: Path, split: str, ids: dict[str, np.ndarray], *, train_ids: bool = False) -> Path:
    """The panoptic files of a split as cityscapesscripts' createPanopticImgs documents them: {stem: instanceIds}."""
    labels = {c.id: c for c in Cityscapes.classes}
    name = f"cityscapes_panoptic_{split}" + ("_trainId" if train_ids else "")
    images, annotations = [], []
    for stem, found in ids.items():
        segments, shown = [], np.zeros((*found.shape, 3), np.uint8)
        for key in np.unique(found).tolist():
            label = labels[key if key < 1000 else key // 1000]
            if label.ignore_in_eval:
                continue
            mask = found == key
            shown[mask] = key % 256, key // 256 % 256, key // 65536
            segments.append({"id": key, "category_id": label.train_id if train_ids else label.id,
                             "area": int(mask.sum()), "iscrowd": int(label.has_instances and key < 1000)})  # fmt: skip
        write_png(root / "gtFine" / name / f"{stem}_gtFine_panoptic.png", shown)
        size = {"height": found.shape[0], "width": found.shape[1]}
        images.append({"id": stem, "file_name": f"{stem}_gtFine_leftImg8bit.png", **size})
        annotations.append({"image_id": stem, "file_name": f"{stem}_gtFine_panoptic.png", "segments_info": segments})
    categories = [{"id": c.train_id if train_ids else c.id, "name": c.name, "isthing": int(c.has_instances)}
                  for c in Cityscapes.classes if not c.ignore_in_eval]  # fmt: skip
    path = root / "gtFine" / f"{name}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.mark.parametrize("train_ids", [False, True])
def test_panoptic_files_say_what_instance_ids_say(tmp_path: Path, train_ids: bool) -> None:
    rng, kinds, made = np.random.default_rng(0), [7, 11, 24, 26, 24001, 24002, 26001, 33017, 3, 29], {}
    for number, split in enumerate(("train", "val")):
        ids = rng.choice(kinds, SIZE).astype(np.uint16)
        labels = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
        scene(tmp_path, split, "ulm", number, "gtFine", labels=labels, instances=ids)
        made[split] = ids
    plain = open_data(tmp_path)
    for number, split in enumerate(("train", "val")):
        panoptic_files(tmp_path, split, {f"ulm_{number:06}_000019": made[split]}, train_ids=train_ids)
    other = open_data(tmp_path, panoptic=True)
    assert (other.format, other.default_task, list(other.splits)) == ("cityscapes", "panoptic", ["train", "val"])
    assert other.classes.names == plain.classes.names
    assert other.classes.ids == (tuple(range(19)) if train_ids else CLASSES.ids)
    other = pickle.loads(pickle.dumps(other))
    for split in ("train", "val"):
        (a,), (b,) = plain.records(split), other.records(split)
        assert a.name == b.name
        one, two = plain.read(a).truth, other.read(b).truth
        assert one is not None
        assert two is not None
        np.testing.assert_array_equal(one.class_map(), two.class_map())
        for column in ("keys", "labels", "crowd"):
            assert getattr(one, column).tolist() == getattr(two, column).tolist()
        np.testing.assert_array_equal(one.ids, two.ids)


def test_panoptic_files_are_enough(tmp_path: Path) -> None:
    scene(tmp_path, "train", "ulm", 1)
    (tmp_path / "gtFine").mkdir()
    with pytest.raises(DataError, match="images without annotations"):
        open_data(tmp_path)
    with pytest.raises(DataError, match="there is no gtFine/cityscapes_panoptic_SPLIT"):
        open_data(tmp_path, panoptic=True)
    path = panoptic_files(tmp_path, "train", {"ulm_000001_000019": np.full(SIZE, 26001)})
    data = open_data(tmp_path)
    assert (data.format, data.default_task) == ("cityscapes", "panoptic")
    assert len(data.read(data.records("train")[0]).truth or ()) == 1
    path.write_text(path.read_text().replace('"car"', '"bike"'))
    with pytest.raises(DataError, match="expected Cityscapes' 19 classes"):
        open_data(tmp_path)
