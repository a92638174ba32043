"""What a writer wrote its reader reads: equal segments where the format can hold them, else the loss is said."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelwise.core.classes import Classes
from pixelwise.core.segments import NOTHING, UNKNOWN, Segments, look_up
from pixelwise.data.convert import convert
from pixelwise.data.dataset import DataSet, Record, open_data
from pixelwise.data.io import write_png
from pixelwise.data.writer import open_writer

few = settings(max_examples=25, deadline=None, derandomize=True)
CLASSES = Classes(names=("road", "car", "person"), things=("car", "person"), ids=(7, 26, 24), void=(0,), nothing=True)
CITY = ("road", "car", "person")
NAMES = ("two words", "Größe 测/a.b", "deep/images/b", "#1")

# {writer: (options, options of the reader)}; a reader has its writer's name
PAIRS = {
    "coco": ({}, {}),
    "coco-rle": ({"masks": "rle", "crowd": "text"}, {}),
    "coco_panoptic": ({}, {}),
    "yolo": ({}, {}),
    "cityscapes": ({"kind": "truth"}, {}),
    "labelme": ({}, {}),
    "folder": ({}, {}),
}


class Given:
    """A reader of segments that a test holds in memory."""

    def __init__(self, truths: dict[str, Segments]) -> None:
        self.truths = truths

    def __call__(self, record: Record) -> Segments:
        return self.truths[record.name]


def data_set(root: Path, truths: dict[str, Segments], classes: Classes = CLASSES) -> DataSet:
    """Images of noise with these truths, by turns in train, val and test."""
    splits: dict[str, tuple[Record, ...]] = {}
    for number, (name, truth) in enumerate(truths.items()):
        path = root / "source" / f"{name}.png"
        write_png(path, np.random.default_rng(number).integers(0, 255, (*truth.size, 3), dtype=np.uint8))
        split = ("train", "val", "test")[number % 3]
        splits[split] = (*splits.get(split, ()), Record(name, path, split=split, entry=number))
    return DataSet(root=root / "source", format="given", classes=classes, splits=splits, reader=Given(truths))


@st.composite
def drawn(draw: st.DrawFn) -> Segments:
    """Up to five segments with holes, pieces and overlaps on up to 12 x 12 pixels; crowd, unknown, keys, or nothing."""
    size = draw(st.tuples(st.integers(2, 12), st.integers(2, 12)))
    n = draw(st.integers(0, 5))
    masks = draw(hnp.arrays(bool, (n, *size)))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 2)))
    crowd = draw(hnp.arrays(bool, n, elements=st.sampled_from([False, False, True]))) & CLASSES.is_thing[labels]
    void = draw(hnp.arrays(bool, size)) if draw(st.booleans()) else None
    segments = Segments.from_masks(masks, labels, crowd=crowd, void=void)
    if draw(st.booleans()):
        segments = replace(segments, keys=torch.tensor(draw(st.permutations(range(1, n + 1))), dtype=torch.int64))
    return segments


truths = st.lists(drawn(), min_size=1, max_size=4)


def rows(segments: Segments, classes: Classes, *, crowd: bool = True) -> list[tuple[str, bool, bytes]]:
    """The segments that own pixels, in no order: class name, crowd, pixels."""
    found = zip(segments.labels.tolist(), segments.crowd.tolist(), segments.masks.numpy())
    return sorted((classes.names[k], c and crowd, m.tobytes()) for k, c, m in found if m.any())


def shown(segments: Segments) -> Segments:
    """What shows where segments overlap."""
    return Segments(segments.row_map(), segments.labels, crowd=segments.crowd, keys=segments.keys)


def told_apart(segments: Segments, classes: Classes, *, crowds: bool) -> Segments:
    """Stuff of one class as one row, and crowds too where `crowds`."""
    labels, crowd = segments.labels.tolist(), segments.crowd.tolist()
    first: dict[tuple[int, bool], int] = {}
    row = list(range(len(labels)))
    for at, (label, many) in enumerate(zip(labels, crowd)):
        if not classes.is_thing[label] or (many and crowds):
            row[at] = first.setdefault((label, many), at)
    ids = look_up(torch.tensor([*row, UNKNOWN, NOTHING], dtype=segments.ids.dtype), segments.ids)
    return replace(segments, ids=ids)


def expected(kind: str, truth: Segments) -> Segments:
    """What the format can hold of it."""
    if kind == "yolo":
        return truth.keep(~truth.crowd)
    if kind == "coco_panoptic":
        return told_apart(shown(truth), CLASSES, crowds=False)
    if kind in ("folder", "cityscapes"):
        return told_apart(shown(truth), CLASSES, crowds=True)
    return truth


def outside(kind: str, truth: Segments) -> tuple[np.ndarray, np.ndarray]:
    """[H, W] bool: pixels that are unknown and pixels that are nothing after the way through a format."""
    rest = expected(kind, truth).row_map().numpy()
    if kind in ("coco", "coco-rle", "yolo"):
        return np.zeros(rest.shape, bool), rest < 0
    if kind in ("coco_panoptic", "cityscapes"):
        return rest < 0, np.zeros(rest.shape, bool)
    return rest == UNKNOWN, rest == NOTHING


@pytest.mark.parametrize("kind", PAIRS)
@few
@given(truths)
def test_what_a_format_can_hold_comes_back(kind: str, truths: list[Segments]) -> None:
    name, (options, reading) = kind.partition("-")[0], PAIRS[kind]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = data_set(root, dict(zip(NAMES, truths)))
        done = convert(data, name, root / "out", to_options=options)
        assert sum(done.written.values()) == len(truths)
        if name in ("coco", "yolo", "labelme") and not any(rows(expected(kind, t), CLASSES) for t in truths):
            return  # no class may be known where nothing is annotated
        again = open_data(root / "out", name, **reading)
        assert set(again.classes.names) >= {CLASSES.names[k] for t in truths for k in expected(kind, t).labels.tolist()}
        read = {record.image.read_bytes(): (record, again.read(record).truth) for record in again}
        assert len(read) == len(truths)
        for record in data:
            found, segments = read[record.image.read_bytes()]
            assert found.split == record.split
            truth = data.reader(record)
            if segments is None:  # COCO: a split without any object
                alone = [data.reader(r) for r in data.records(record.split)]
                assert name == "coco"
                assert not any(rows(t, CLASSES) for t in alone)
                assert any("Splits without any object" in sentence for sentence in done.lost)
                continue
            stays = name != "yolo"
            want = rows(expected(kind, truth), CLASSES, crowd=stays)
            assert rows(segments, again.classes, crowd=stays) == want
            unknown, nothing = outside(kind, truth)
            covered = segments.row_map().numpy()
            np.testing.assert_array_equal(covered == UNKNOWN, unknown)
            np.testing.assert_array_equal(covered == NOTHING, nothing)


LOST = {  # a word of each sentence that must be there, for the truth below
    "coco": ["Unknown pixels, now nothing: 5.", "Segments of stuff, now objects: 2."],
    "coco_panoptic": ["Pixels known to be nothing, now unknown: ", "Pixels of several segments", "stuff joined"],
    "yolo": ["Crowd regions, left out: 1.", "Unknown pixels, now nothing: 5.", "Segments of stuff, now objects: 2.",
             "Class ids on disk"],
    "cityscapes": ["Pixels of several segments", "Pixels known to be nothing"],
    "labelme": [],
    "folder": ["Pixels of several segments", "stuff joined with another of their class: 1."],
    "geojson": ["Unknown pixels, now nothing: 5."],
    "objects": [],
}  # fmt: skip


def mixed() -> Segments:
    """Two pieces of road that are two rows, two cars that overlap in one pixel, a crowd of people, 5 unknown pixels."""
    masks = np.zeros((5, 10, 10), bool)
    masks[0, 0], masks[1, 9] = True, True
    masks[2, 2:5, 2:5], masks[3, 4:6, 4:6] = True, True
    masks[4, 7, 5:8] = True
    void = np.zeros((10, 10), bool)
    void[6, :5] = True
    return Segments.from_masks(masks, [0, 0, 1, 1, 2], crowd=[False] * 4 + [True], void=void)


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_said_with_its_count(name: str, tmp_path: Path) -> None:
    data = data_set(tmp_path, {"a": mixed()})
    options = {"kind": "truth"} if name == "cityscapes" else {}
    lost = convert(data, name, tmp_path / "out", to_options=options).lost
    assert len(lost) == len(LOST[name]), lost
    for word in LOST[name]:
        assert any(word in sentence for sentence in lost), (word, lost)


@pytest.mark.parametrize("name", LOST)
def test_scores_are_held_or_said_to_be_lost(name: str, tmp_path: Path) -> None:
    truth = replace(mixed(), scores=torch.tensor([1, 1, 0.5, 0.75, 1]))
    options = {"kind": "truth"} if name == "cityscapes" else {}
    lost = convert(data_set(tmp_path, {"a": truth}), name, tmp_path / "out", to_options=options).lost
    held = name in ("coco", "coco_panoptic", "geojson", "objects")
    assert ("Scores, left out: 2." in lost) != held


@pytest.mark.parametrize("kind", PAIRS)
def test_a_set_converted_twice_is_the_same(kind: str, tmp_path: Path) -> None:
    """What a reader gives its own writer loses nothing more."""
    name, (options, reading) = kind.partition("-")[0], PAIRS[kind]
    truths = {"one": mixed(), "b": mixed(), "c": mixed(), "x/two": Segments.empty((4, 6))}
    convert(data_set(tmp_path, truths), name, tmp_path / "first", to_options=options)
    first = open_data(tmp_path / "first", name, **reading)
    lost = convert(first, name, tmp_path / "second", to_options=options).lost
    assert [s for s in lost if not s.startswith("Class ids")] == []
    second = open_data(tmp_path / "second", name, **reading)
    assert first.classes == second.classes
    for one, other in zip(first, second):
        assert one.name == other.name
        mine, yours = first.read(one).truth, second.read(other).truth
        assert mine is not None
        assert yours is not None
        assert rows(mine, first.classes) == rows(yours, second.classes)
        assert torch.equal(mine.unknown, yours.unknown)


def test_keys_stay_where_the_format_has_ids(tmp_path: Path) -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 0], masks[1, 2] = True, True
    keys = torch.tensor([26007, 26003])
    truth = replace(Segments.from_masks(masks, [1, 1]), keys=keys)
    for name in ("coco", "coco_panoptic", "cityscapes", "folder"):
        options = {"kind": "truth"} if name == "cityscapes" else {}
        convert(data_set(tmp_path / name, {"a": truth}), name, tmp_path / name / "out", to_options=options)
        again = open_data(tmp_path / name / "out", name)
        segments = again.read(next(iter(again))).truth
        assert segments is not None
        by_key = {int(k): m.tobytes() for k, m in zip(segments.keys, segments.masks.numpy()) if m.any()}
        assert by_key.items() >= {26007: masks[0].tobytes(), 26003: masks[1].tobytes()}.items(), name


# -- the conversion itself --------------------------------------------------------------------------------------------


def test_images_are_copied_linked_or_left(tmp_path: Path) -> None:
    data = data_set(tmp_path, {"a": mixed()})
    for images, kinds in (("copy", (True, False)), ("link", (True, True)), ("none", (False, False))):
        out = tmp_path / images
        done = convert(data, "coco", out, images=images)  # type: ignore[arg-type]
        path = out / "train" / "a.png"
        assert (path.is_file(), path.is_symlink()) == kinds
        assert done.images == (images != "none")


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    data = data_set(tmp_path, {"a": mixed(), "b": mixed()})
    data.reader.truths["b"] = Segments.empty((3, 3))  # type: ignore[attr-defined]  # of another size than its image
    with pytest.raises(ValueError, match=r"3 x 3 pixels, its image .*b\.png is 10 x 10"):
        convert(data, "coco", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_a_folder_that_holds_files_is_refused_and_kept(tmp_path: Path) -> None:
    data = data_set(tmp_path, {"a": mixed()})
    (tmp_path / "out").mkdir()
    convert(data, "yolo", tmp_path / "out")  # an empty one is fine
    before = sorted(os.walk(tmp_path / "out"))
    with pytest.raises(OSError, match="holds files already"):
        convert(data, "coco", tmp_path / "out")
    with pytest.raises(OSError, match="lies inside the data set"):
        convert(data, "coco", tmp_path / "source" / "out")
    assert sorted(os.walk(tmp_path / "out")) == before


def test_words_that_are_none_are_named(tmp_path: Path) -> None:
    data = data_set(tmp_path, {"a": mixed()})
    for call, word in (
        (lambda: convert(data, "cocoo", tmp_path / "out"), "did you mean 'coco'"),
        (lambda: convert(data, "coco", tmp_path / "out", to_options={"mask": "rle"}), "did you mean 'masks'"),
        (lambda: convert(data, "coco", tmp_path / "out", splits=["tain"]), "has no split 'tain'"),
        (lambda: convert(data, "coco", tmp_path / "out", images="move"), "'copy', 'link' or 'none'"),  # type: ignore
    ):
        with pytest.raises(ValueError, match=word):
            call()
    assert not (tmp_path / "out").exists()


def test_images_that_would_meet_are_named(tmp_path: Path) -> None:
    writer = open_writer("yolo", tmp_path / "out", CLASSES)
    from pixelwise.data.writer import Item

    writer.write(Item(name="train/a", split="train", segments=mixed()))
    with pytest.raises(ValueError, match=r"'a' and 'train/a' of the split 'train' would both be written as 'a'"):
        writer.write(Item(name="a", split="train", segments=mixed()))


def test_unannotated_images_are_left_out_and_counted(tmp_path: Path) -> None:
    data = data_set(tmp_path, {"a": mixed(), "b": mixed()})
    bare = {split: tuple(replace(r, entry=None) if r.name == "b" else r for r in group)
            for split, group in data.splits.items()}  # fmt: skip
    done = convert(replace(data, splits=bare), "labelme", tmp_path / "out")
    assert done.written == {"train": 1}
    assert "Images without annotations, left out: 1." in done.lost


@pytest.mark.parametrize("name", ["yolo", "labelme", "folder"])
def test_splits_may_have_any_name(name: str, tmp_path: Path) -> None:
    data = data_set(tmp_path, {"a": mixed(), "b": mixed()})
    (group,) = {tuple(data)}
    data = replace(data, splits={"field2": tuple(replace(record, split="field2") for record in group)})
    convert(data, name, tmp_path / "out")
    assert list(open_data(tmp_path / "out").splits) == ["field2"]
