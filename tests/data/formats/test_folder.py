"""Folders of images and masks as people have them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.core.classes import Classes
from pixelwise.core.segments import NOTHING, UNKNOWN
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.data.io import write_png
from pixelwise.data.layout import hashed_split
from pixelwise.errors import ConfigError, DataError, ImageError

SIZE = (6, 8)
IDS = np.arange(48, dtype=np.uint8).reshape(SIZE) % 3  # ids 0, 1, 2


def image(path: Path, channels: int = 3, dtype: type = np.uint8, size: tuple[int, int] = SIZE) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*size, channels), dtype=dtype)
    write_png(path, pixels if channels == 3 else pixels[..., 0])


def mask(path: Path, ids: np.ndarray = IDS) -> None:
    write_png(path, ids)


def plain(root: Path, names: tuple[str, ...] = ("a", "b", "c"), images: str = "images", masks: str = "masks") -> Path:
    for name in names:
        image(root / images / f"{name}.png")
        mask(root / masks / f"{name}.png")
    return root


def everything(data: DataSet) -> dict[str, str]:
    """{record name: split}."""
    return {record.name: record.split for record in data}


# -- layouts


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("img", "mask"),
        ("imgs", "labels"),
        ("Images", "Annotations"),
        ("JPEGImages", "SegmentationClass"),
    ],
)
def test_folder_names(tmp_path: Path, images: str, masks: str) -> None:
    data = open_data(plain(tmp_path, images=images, masks=masks), format="folder")
    assert len(data) == 3
    sample = data.read(next(iter(data)))
    assert sample.image.shape == (3, *SIZE)
    assert sample.truth is not None
    np.testing.assert_array_equal(sample.truth.class_map(), IDS)


def test_nested_folders_keep_their_path(tmp_path: Path) -> None:
    data = open_data(plain(tmp_path, ("day/1", "night/1")))
    assert set(everything(data)) == {"day/1", "night/1"}


def test_split_folders_above(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        plain(tmp_path / split, (f"{split}1",))
    assert everything(open_data(tmp_path)) == {"train/train1": "train", "val/val1": "val", "test/test1": "test"}


def test_split_folders_below(tmp_path: Path) -> None:
    plain(tmp_path, ("training/a", "validation/b", "test/c"))
    assert everything(open_data(tmp_path)) == {"training/a": "train", "validation/b": "val", "test/c": "test"}


def test_split_lists(tmp_path: Path) -> None:
    plain(tmp_path, ("a", "b", "x/c", "d"))
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("a\nb.png\n\n# comment\n")
    (tmp_path / "splits" / "test.txt").write_text("x/c\n")
    data = open_data(tmp_path)
    assert everything(data) == {"a": "train", "b": "train", "x/c": "test"}
    assert list(data.splits) == ["train", "test"]
    assert any("1 images stand in no split list" in note for note in data.notes)
    with pytest.raises(
        DataError, match=r"no split 'val'. It has train \(images: 2\), test \(images: 1\).*splits/val.txt"
    ):
        data.records("val")


def test_split_list_naming_a_missing_file(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("a\nbb\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: there is no image 'bb'"):
        open_data(tmp_path)
    (tmp_path / "splits" / "train.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"train\.txt, line 3: 'a' stands there already, in line 1"):
        open_data(tmp_path)


def test_an_image_in_two_lists_is_said(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("a\nb\n")
    (tmp_path / "splits" / "val.txt").write_text("b\nc\n")
    assert "1 images stand in several split lists, the first 'b'." in open_data(tmp_path).notes


def test_ambiguous_short_name_in_a_list(tmp_path: Path) -> None:
    """'1' could be x/1 or y/1: the list must say which."""
    plain(tmp_path, ("x/1", "y/1"))
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("1\n")
    with pytest.raises(DataError, match="there is no image '1'"):
        open_data(tmp_path)


def test_hashed_split_does_not_move_when_files_are_added(tmp_path: Path) -> None:
    names = tuple(f"{i:03}" for i in range(60))
    before = everything(open_data(plain(tmp_path, names[:40])))
    after = everything(open_data(plain(tmp_path, names)))
    assert {name: after[name] for name in before} == before
    assert set(after.values()) == {"train", "val", "test"}
    data = open_data(tmp_path)
    assert any("divided by a hash of their name (seed 0)" in note for note in data.notes)
    assert everything(open_data(tmp_path, seed=1)) != after


def test_hashed_split_shares_and_values() -> None:
    splits = [hashed_split(str(i)) for i in range(20_000)]
    shares = [splits.count(s) / len(splits) for s in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.7, 0.15, 0.15], atol=0.01)
    assert [hashed_split(n) for n in "abcdefgh"] == FROZEN  # of another version, the split of all users would move


FROZEN = ["val", "train", "train", "test", "train", "train", "test", "train"]


# -- pairs


def test_suffix(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "images" / f"{name}.png")
        mask(tmp_path / "masks" / f"{name}_mask.png")
    data = open_data(tmp_path)
    assert set(everything(data)) == {"a", "b"}
    assert any("the file named as it and '_mask'" in note for note in data.notes)


def test_one_folder_for_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / f"{name}.png")
        mask(tmp_path / f"{name}_gt.png")
    assert set(everything(open_data(tmp_path))) == {"a", "b"}


def test_jpg_pairs_with_png(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "a.png")
    assert len(open_data(tmp_path)) == 1


def test_image_without_mask(tmp_path: Path) -> None:
    plain(tmp_path)
    image(tmp_path / "images" / "lonely.png")
    mask(tmp_path / "masks" / "widow.png")
    split = hashed_split("lonely")
    data = None
    with pytest.raises(DataError, match=rf"lonely\.png: no mask of that name, .* the split '{split}'"):
        data = open_data(plain(tmp_path, tuple(str(i) for i in range(40))))
    assert data is None
    data = open_data(tmp_path, missing="skip")
    assert [p.name for p in data.unpaired] == ["lonely.png"]
    assert any("have no mask and are left out" in note for note in data.notes)
    assert any("1 masks have no image and are left out" in note and note.endswith("widow.png.") for note in data.notes)


def test_images_without_masks(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=r"1 images without masks\. .*pixelwise predict"):
        open_data(tmp_path)


def test_split_without_masks_can_be_predicted(tmp_path: Path) -> None:
    plain(tmp_path / "train")
    image(tmp_path / "test" / "images" / "z.png")
    data = open_data(tmp_path)
    (record,) = data.records("test")
    assert data.read(record).truth is None
    assert any("'test' has images but no masks" in note for note in data.notes)


def test_two_images_of_one_name(tmp_path: Path) -> None:
    plain(tmp_path, ("a",))
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "images" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png have the same name"):
        open_data(tmp_path)


def test_empty_missing_and_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is empty"):
        open_data(tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        open_data(tmp_path / "none")
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(DataError, match="is a file; a data set is a folder"):
        open_data(tmp_path / "file.txt")
    with pytest.raises(DataError, match=r"found no folder of images; there are file\.txt"):
        open_data(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        open_data(tmp_path)


def test_unknown_format_and_option(tmp_path: Path) -> None:
    plain(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'folder'"):
        open_data(tmp_path, format="foldr")
    with pytest.raises(ConfigError, match="did you mean 'channels'"):
        open_data(tmp_path, chanels=3)
    with pytest.raises(ConfigError, match="missing is 'refuse' or 'skip'"):
        open_data(tmp_path, missing="ignore")


# -- what the ids mean


def test_table_beside_the_data(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n2 unknown void\n")
    data = open_data(tmp_path)
    assert data.classes.names == ("sky", "road")
    truth = data.read(next(iter(data))).truth
    assert truth is not None
    np.testing.assert_array_equal(truth.ids[0], np.choose(IDS, [0, 1, UNKNOWN]))
    assert truth.keys is not None
    assert truth.keys.tolist() == [0, 1]


def test_nothing_is_not_void(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "classes.txt").write_text("0 ground nothing\n1 nucleus\n2 blur void\n")
    data = open_data(tmp_path)
    assert data.classes.nothing
    truth = data.read(next(iter(data))).truth
    assert truth is not None
    np.testing.assert_array_equal(truth.ids[0], np.choose(IDS, [NOTHING, 0, UNKNOWN]))


def test_unknown_id_names_file_id_and_count(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n")
    data = open_data(tmp_path)
    record = next(iter(data))
    with pytest.raises(DataError, match=rf"{record.name}\.png: .*does not know: 2 \(16 pixels\)\. It knows 0, 1 as"):
        data.read(record)


def test_found_by_looking_and_said(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "a.png", np.choose(IDS, [3, 7, 255]).astype(np.uint8))
    data = open_data(tmp_path)
    assert data.classes.names == ("class 3", "class 7")
    assert data.classes.ids == (3, 7)
    assert data.classes.void == (255,)
    assert any("found 2 classes, ids 3, 7, by looking at all 1 masks; 255 is taken for void" in n for n in data.notes)


def test_masks_of_0_and_255_are_two_classes(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "a.png", np.where(IDS > 0, 255, 0).astype(np.uint8))
    data = open_data(tmp_path)
    truth = data.read(next(iter(data))).truth
    assert truth is not None
    np.testing.assert_array_equal(truth.ids[0], IDS > 0)
    assert data.classes.names == ("background", "foreground")
    assert any("only 0 and 255" in note for note in data.notes)


def test_masks_of_0_and_255_under_a_table_of_0_and_1(tmp_path: Path) -> None:
    """Else everything but background would be void in silence."""
    image(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "a.png", np.where(IDS > 0, 255, 0).astype(np.uint8))
    (tmp_path / "classes.txt").write_text("0 ground\n1 cell\n")
    data = open_data(tmp_path)
    truth = data.read(next(iter(data))).truth
    assert truth is not None
    np.testing.assert_array_equal(truth.ids[0], IDS > 0)
    assert any("255 is read as 1" in note for note in data.notes)
    (tmp_path / "classes.txt").write_text("0 ground\n1 cell\n# ignore index: 255\n")
    told = open_data(tmp_path)
    truth = told.read(next(iter(told))).truth
    assert truth is not None
    np.testing.assert_array_equal(truth.ids[0], np.where(IDS > 0, UNKNOWN, 0))


def test_palette_colours_are_kept(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    palette = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    write_png(tmp_path / "masks" / "a.png", IDS, palette)
    assert open_data(tmp_path).classes.colours == ((10, 20, 30), (40, 50, 60), (70, 80, 90))


def test_palette_that_contradicts_the_table_is_said(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    write_png(tmp_path / "masks" / "a.png", IDS, np.array([[1, 1, 1], [2, 2, 2], [3, 3, 3]]))
    (tmp_path / "classes.txt").write_text("0 a 2 2 2\n1 b 1 1 1\n2 c 3 3 3\n")
    data = open_data(tmp_path)
    assert any("index 0 ('a') in the colour that the class table gives to 'b'" in note for note in data.notes)


def test_colour_masks(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    colours = np.array([[128, 64, 128], [70, 130, 180], [0, 0, 0]], np.uint8)
    write_png(tmp_path / "masks" / "a.png", colours[IDS])
    with pytest.raises(DataError, match=r"a\.png: is a colour mask .* write a classes\.txt"):
        open_data(tmp_path)
    (tmp_path / "classes.txt").write_text("4 road 128 64 128\n9 sky 70 130 180\n0 unknown 0 0 0 void\n")
    data = open_data(tmp_path)
    truth = data.read(next(iter(data))).truth
    assert truth is not None
    np.testing.assert_array_equal(truth.ids[0], np.choose(IDS, [0, 1, UNKNOWN]))
    (tmp_path / "classes.txt").write_text("4 road 128 64 128\n9 sky 70 130 180\n")
    data = open_data(tmp_path)
    with pytest.raises(
        DataError, match=r"a\.png: has 1 colours that no class of the table has: \(0, 0, 0\) \(16 pixels\)"
    ):
        data.read(next(iter(data)))


def test_jpeg_masks_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(IDS).save(tmp_path / "masks" / "a.jpg")
    with pytest.raises(DataError, match="mask in lossy JPEG"):
        open_data(tmp_path)


def test_pictures_for_masks(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png", size=(40, 40))
    mask(tmp_path / "masks" / "a.png", np.arange(1600, dtype=np.uint16).reshape(40, 40))
    with pytest.raises(DataError, match="1600 different ids in the masks"):
        open_data(tmp_path)


def test_given_classes(tmp_path: Path) -> None:
    plain(tmp_path)
    data = open_data(tmp_path, class_table=Classes(names=("x", "y", "z"), ids=(2, 1, 0)))
    truth = data.read(next(iter(data))).truth
    assert truth is not None
    np.testing.assert_array_equal(truth.class_map(), 2 - IDS)
    (tmp_path / "other.txt").write_text("0 p\n1 q\n2 r\n")
    assert open_data(tmp_path, class_table=tmp_path / "other.txt").classes.names == ("p", "q", "r")


# -- images


def test_grey_and_rgb_mixed(tmp_path: Path) -> None:
    plain(tmp_path, tuple("abcdefgh"))
    image(tmp_path / "images" / "a.png", channels=1)
    data = open_data(tmp_path)
    assert data.channels == 3
    assert {tuple(data.read(r).image.shape) for r in data} == {(3, *SIZE)}
    assert any("1 with 1, 7 with 3" in note for note in data.notes)


def test_bands_and_16_bits(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 65536, (*SIZE, 7), dtype=np.uint16)
    np.save(tmp_path / "images" / "a.npy", pixels)
    mask(tmp_path / "masks" / "a.png")
    data = open_data(tmp_path)
    assert (data.channels, data.dtype) == (7, "uint16")
    np.testing.assert_array_equal(data.read(next(iter(data))).image, pixels.transpose(2, 0, 1))


def test_8_bits_among_16_keep_white_white(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png", channels=1, dtype=np.uint16)
    write_png(tmp_path / "images" / "b.png", np.full(SIZE, 255, np.uint8))
    for name in "ab":
        mask(tmp_path / "masks" / f"{name}.png")
    data = open_data(tmp_path)
    assert data.dtype == "uint16"
    (record,) = [r for r in data if r.name == "b"]
    assert int(data.read(record).image.to(int).min()) == 65535


def test_mask_of_another_size_names_both(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png", size=(10, 20))
    mask(tmp_path / "masks" / "a.png")
    data = open_data(tmp_path)
    with pytest.raises(DataError, match=r"mask is 8 x 6 pixels, its image .*a\.png is 20 x 10"):
        data.read(next(iter(data)))


def test_mask_that_fits_only_the_unturned_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "images" / "a.jpg", exif=exif)
    mask(tmp_path / "masks" / "a.png")
    data = open_data(tmp_path)
    with pytest.raises(DataError, match="would fit the image before its EXIF rotation"):
        data.read(next(iter(data)))


def test_unreadable_files_are_left_to_read(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "masks" / "a.png").write_bytes(b"")
    (tmp_path / "images" / "b.png").write_text("no picture")
    data = open_data(tmp_path)
    faults = {}
    for record in data:
        try:
            data.read(record)
        except ImageError as error:
            faults[record.name] = error.reason
    assert set(faults) == {"a", "b"}
    assert "0 bytes" in faults["a"]


def test_without_instances(tmp_path: Path) -> None:
    plain(tmp_path, ("a",))
    write_png(tmp_path / "instances" / "a.png", np.where(IDS == 2, 40, 0).astype(np.uint8))
    data = open_data(tmp_path)
    whole, flat = data.read(next(iter(data))), data.without_instances().read(next(iter(data.without_instances())))
    assert whole.truth is not None
    assert flat.truth is not None
    np.testing.assert_array_equal(whole.truth.class_map(), flat.truth.class_map())
    assert flat.truth.labels.tolist() == [0, 1, 2]
    assert whole.truth.keys is not None
    assert 40 in whole.truth.keys.tolist()


def test_data_set_pickles(tmp_path: Path) -> None:
    data = open_data(plain(tmp_path))
    again = pickle.loads(pickle.dumps(data))
    record = next(iter(again))
    assert (again.read(record).image == data.read(record).image).all()
