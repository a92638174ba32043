"""The doctor: each fault alone, all of them at once, and sets that are fine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pixelwise.cli import main
from pixelwise.data.doctor import Finding, Findings, admit, examine
from pixelwise.data.doctor.kinds import KINDS
from pixelwise.data.doctor.screen import bar, percent
from pixelwise.data.streets import write_streets
from pixelwise.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
SPLITS = {"train": 4, "val": 2, "test": 2}


def picture(path: Path, size: tuple[int, int] = (40, 48), channels: int = 3, **options: object) -> Path:
    """Noise of (height, width), so that no two are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if channels == 1 else (*size, channels)
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path, **options)
    return path


def mask(path: Path, ids: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ids is None:
        ids = np.zeros((40, 48), np.uint8)
        ids[10:30, 10:40] = 1
        ids[30:, :] = 2
    Image.fromarray(ids).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of 8 images with nothing wrong: train-0 .. train-3, val-0, val-1, test-0, test-1."""
    for split, count in SPLITS.items():
        names = [f"{split}-{i}" for i in range(count)]
        for name in names:
            picture(tmp_path / f"images/{name}.png")
            mask(tmp_path / f"masks/{name}.png")
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / f"splits/{split}.txt").write_text("\n".join(names))
    (tmp_path / "classes.txt").write_text("0 ground 0 0 0\n1 crop 0 255 0\n2 weed 255 0 0\n255 unknown 9 9 9 void\n")
    return tmp_path


def found(findings: Findings, code: str) -> Finding:
    """The one finding of that code."""
    codes = [f.code for f in findings.findings]
    assert codes.count(code) == 1, f"{code} is not in {codes}"
    return findings.findings[codes.index(code)]


def assert_only(root: Path, code: str, *files: str, quick: bool | None = None) -> Finding:
    """The set has this one finding and no other, in both parts or the one named."""
    for part in (False, True) if quick is None else (quick,):
        findings = examine(root, quick=part)
        assert [f.code for f in findings.findings] == [code], part
        finding = found(findings, code)
        assert finding.files == files
        assert findings.ok == (finding.severity != "error")
    return finding


@pytest.mark.parametrize("quick", [True, False])
def test_nothing_wrong(root: Path, quick: bool) -> None:
    findings = examine(root, quick=quick)
    assert findings.ok
    assert findings.findings == ()
    assert findings.splits == SPLITS
    assert findings.format == "folder"
    assert findings.dataset is not None
    assert findings.dataset.read(findings.dataset.records("train")[0]).size == (40, 48)


# -- pairs and splits -------------------------------------------------------------------------------------------------


def test_image_without_mask(root: Path) -> None:
    (root / "masks/train-1.png").unlink()
    (root / "masks/val-0.png").unlink()
    finding = assert_only(root, "image-without-mask", "images/train-1.png", "images/val-0.png")
    assert finding.message == "2 images without a mask"
    assert f"mv {root}/images/train-1.png {root}-aside/" in finding.command


def test_mask_without_image(root: Path) -> None:
    mask(root / "masks/stray.png")
    finding = assert_only(root, "mask-without-image", "masks/stray.png")
    assert finding.severity == "warning"
    assert finding.command == f"rm {root}/masks/stray.png"


def test_images_without_any_mask(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.unlink()
    finding = found(examine(root), "layout")
    assert "8 images without masks" in finding.message


def test_split_lists_name_every_bad_line(root: Path) -> None:
    (root / "splits/val.txt").write_text("val-0\nval-1\nnobody\nval-0\nghost\n")
    finding = found(examine(root), "split-list")
    assert finding.files == ("splits/val.txt",) * 3
    said = " ".join(finding.details)
    assert "line 3: there is no image 'nobody'" in said
    assert "line 4: 'val-0' stands there already, in line 1" in said
    assert "line 5: there is no image 'ghost'" in said


def test_two_files_of_one_name(root: Path) -> None:
    picture(root / "images/train-0.jpg")
    finding = found(examine(root), "same-name")
    assert finding.files == ("images/train-0.png",)
    assert "have the same name but for the ending" in finding.details[0]


def test_the_same_image_in_two_lists(root: Path) -> None:
    with (root / "splits/test.txt").open("a") as file:
        file.write("\ntrain-2\n")
    finding = assert_only(root, "split-leak", "images/train-2.png")
    assert finding.details == ("in 'train'; also in 'test' as the same file",)
    assert finding.severity == "warning"


def test_equal_pixels_under_another_name_and_ending(root: Path) -> None:
    Image.open(root / "images/train-2.png").save(root / "images/val-0.bmp")
    (root / "images/val-0.png").unlink()
    assert [f.code for f in examine(root, quick=True).findings] == ["endings"]
    finding = found(examine(root), "split-leak")
    assert finding.details == ("in 'train'; also in 'val' as val-0.bmp",)


def test_the_same_image_twice_in_a_split(root: Path) -> None:
    (root / "images/train-3.png").write_bytes((root / "images/train-0.png").read_bytes())
    finding = assert_only(root, "duplicate", "images/train-0.png", quick=False)
    assert finding.details == ("in 'train', also as train-3.png",)


def test_equal_names_of_different_images_in_split_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / split / "images/0001.png")
        mask(tmp_path / split / "masks/0001.png")
    assert "split-leak" not in [f.code for f in examine(tmp_path).findings]
    (tmp_path / "val/images/0001.png").write_bytes((tmp_path / "train/images/0001.png").read_bytes())
    for quick in (True, False):
        assert found(examine(tmp_path, quick=quick), "split-leak").files == ("train/images/0001.png",)


def test_no_validation_split(root: Path) -> None:
    (root / "splits/val.txt").unlink()
    finding = assert_only(root, "no-split")
    assert finding.severity == "note"


def test_no_training_split(root: Path) -> None:
    (root / "splits/train.txt").unlink()
    finding = assert_only(root, "no-train")
    assert finding.severity == "error"
    assert finding.message.endswith("to train on: there are val, test")
    assert "splits/train.txt" in finding.remedy
    assert admit(root, None, print).splits.keys() == {"val", "test"}  # for a training that names another


# -- files that cannot be read ----------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut, "is truncated"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "begins like text"),
    ],
    ids=["truncated", "empty", "text"],
)
@pytest.mark.parametrize("folder", ["images", "masks"])
def test_unreadable(root: Path, spoil, reason: str, folder: str) -> None:
    for name in ("train-1", "test-0"):
        spoil(root / f"{folder}/{name}.png")
    finding = assert_only(root, "unreadable", f"{folder}/test-0.png", f"{folder}/train-1.png")
    assert all(reason in detail for detail in finding.details)


def test_truncated_jpeg(root: Path) -> None:
    (root / "images/train-1.png").unlink()
    cut(picture(root / "images/train-1.jpg", quality=95))
    for quick in (True, False):
        assert "JPEG ends after" in found(examine(root, quick=quick), "unreadable").details[0]


def test_damage_inside_is_found_by_decoding(root: Path) -> None:
    path = root / "images/train-1.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert examine(root, quick=True).ok
    finding = assert_only(root, "unreadable", "images/train-1.png", quick=False)
    assert "checksum" in finding.details[0]


def test_every_file_is_bad(root: Path) -> None:
    for path in (root / "masks").iterdir():
        cut(path)
    finding = found(examine(root), "unreadable")
    assert finding.count == 8


def test_bomb(root: Path) -> None:
    header = bytearray((root / "images/train-1.png").read_bytes())
    header[16:24] = (60_000).to_bytes(4) * 2
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4)
    (root / "images/train-1.png").write_bytes(header)
    for quick in (True, False):
        assert found(examine(root, quick=quick), "gigantic").details == ("60,000 x 60,000 pixels",)


# -- sizes and modes --------------------------------------------------------------------------------------------------


def test_sizes_differ(root: Path) -> None:
    mask(root / "masks/val-0.png", np.ones((40, 47), np.uint8))
    finding = found(examine(root, quick=True), "size-differs")
    assert finding.details == ("47 x 40, its image 48 x 40",)
    assert found(examine(root), "size-differs").files == ("masks/val-0.png",)


def test_exif_rotation(root: Path) -> None:
    (root / "images/train-1.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(root / "images/train-1.jpg", (40, 48), exif=exif)
    findings = examine(root, quick=True)
    assert found(findings, "rotated").details == ("orientation 6",)
    assert "before its EXIF rotation" in found(findings, "size-differs").details[0]
    ids = np.zeros((48, 40), np.uint8)
    mask(root / "masks/train-1.png", ids)
    assert "size-differs" not in [f.code for f in examine(root, quick=True).findings]


def test_one_pixel_is_refused_by_name(root: Path) -> None:
    picture(root / "images/train-1.png", (1, 1))
    mask(root / "masks/train-1.png", np.zeros((1, 1), np.uint8))
    picture(root / "images/test-1.png", (1, 1))
    mask(root / "masks/test-1.png", np.zeros((1, 1), np.uint8))
    findings = examine(root, quick=True)
    assert found(findings, "one-pixel").files == ("images/train-1.png",)
    assert found(findings, "small").files == ("images/test-1.png",)
    assert not findings.ok


def test_alpha_depth_and_mixtures(root: Path) -> None:
    picture(root / "images/train-0.png", channels=4)
    picture(root / "images/train-1.png", channels=1)
    Image.fromarray(RNG.integers(0, 65536, (40, 48), dtype=np.uint16)).save(root / "images/train-2.png")
    findings = examine(root)
    assert found(findings, "alpha").files == ("images/train-0.png",)
    assert found(findings, "sixteen-bit").files == ("images/train-2.png",)
    assert found(findings, "channels").message == "images differ in channels: 2 with 1, 6 with 3"
    assert findings.ok
    assert findings.notes == ()
    assert findings.to_dict()["modes"] == {"RGB 8 bit": 5, "RGBA 8 bit": 1, "L 8 bit": 1, "I;16 16 bit": 1}


# -- masks ------------------------------------------------------------------------------------------------------------


def test_unknown_ids(root: Path) -> None:
    ids = np.zeros((40, 48), np.uint8)
    ids[0, :5], ids[1, :3] = 7, 9
    mask(root / "masks/train-3.png", ids)
    mask(root / "masks/val-1.png", ids * 0 + 7)
    finding = assert_only(root, "unknown-ids", "masks/train-3.png", "masks/val-1.png")
    assert finding.details == ("id 7: 5 pixels, id 9: 3 pixels", "id 7: 1,920 pixels")
    assert finding.command == f"echo 7 NAME >> {root}/classes.txt"


def test_jpeg_masks(root: Path) -> None:
    (root / "masks/train-3.png").unlink()
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(root / "masks/train-3.jpg")
    assert assert_only(root, "lossy-mask", "masks/train-3.jpg").details == ("JPEG",)


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("quick", [True, False])
def test_colour_masks_without_a_table(root: Path, table: bool, quick: bool) -> None:
    if table:
        (root / "classes.txt").write_text("0 ground\n1 crop\n")
    else:
        (root / "classes.txt").unlink()
    colours = np.array([[0, 0, 0], [128, 0, 0]], np.uint8)
    for path in (root / "masks").iterdir():
        mask(path, colours[np.arange(40 * 48).reshape(40, 48) % 4 // 3])
    finding = found(examine(root, quick=quick), "colour-mask")
    assert finding.count == 8
    assert finding.details[0] == "2 colours: (0 0 0) 75 %, (128 0 0) 25 %"
    assert f"Write {root}/classes.txt" in finding.remedy


def test_colours_that_the_table_does_not_know(root: Path) -> None:
    pixels = np.zeros((40, 48, 3), np.uint8)
    pixels[:2] = (1, 2, 3)
    mask(root / "masks/train-0.png", pixels)
    finding = assert_only(root, "unknown-colours", "masks/train-0.png")
    assert "(1, 2, 3) (96 pixels)" in finding.details[0]


def test_faulty_class_table(root: Path) -> None:
    (root / "classes.txt").write_text("0 ground\nnonsense\n")
    cut(root / "images/train-0.png")
    findings = examine(root)
    assert "line 2 'nonsense'" in found(findings, "class-table").details[0]
    assert found(findings, "unreadable").files == ("images/train-0.png",)


def test_empty_and_void_masks(root: Path) -> None:
    mask(root / "masks/train-0.png", np.zeros((40, 48), np.uint8))
    mask(root / "masks/train-1.png", np.full((40, 48), 255, np.uint8))
    findings = examine(root)
    assert found(findings, "empty-mask").files == ("masks/train-0.png",)
    assert found(findings, "all-void").files == ("masks/train-1.png",)
    assert found(findings, "all-void").severity == "warning"


def test_an_instance_on_two_classes(root: Path) -> None:
    for path in (root / "masks").iterdir():
        ids = np.zeros((40, 48), np.uint16)
        ids[12:28, 12:20] = 1
        if path.stem == "train-2":
            ids[12:40, 12:20] = 1
        mask(root / "instances" / path.name, ids)
    (root / "classes.txt").write_text("0 ground\n1 crop thing\n2 weed thing\n")
    findings = examine(root)
    assert [f.code for f in findings.findings] == ["truth", "joined"]  # crop and weed lie outside the objects, too
    finding = found(findings, "truth")
    assert finding.files == ("instances/train-2.png",)
    assert "lies on several classes" in finding.details[0]


def test_one_broken_map_does_not_hide_the_things(root: Path) -> None:
    """Which classes are things is looked for in the maps, of which one is broken inside."""
    for path in (root / "masks").iterdir():
        ids = np.zeros((40, 48), np.uint8)
        ids[12:28, 12:20] = 1
        mask(root / "instances" / path.name, ids)
    path = root / "instances/train-1.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    findings = examine(root)
    assert found(findings, "unreadable").files == ("instances/train-1.png",)
    assert findings.classes is not None
    assert findings.classes.things == ("crop",)
    assert len(findings.censuses["train"].per_image) == 3


def test_a_map_with_unknown_ids_does_not_hide_the_things(root: Path) -> None:
    ids = np.zeros((40, 48), np.uint8)
    ids[12:28, 12:20] = 1
    for path in (root / "masks").iterdir():
        mask(root / "instances" / path.name, ids)
    mask(root / "masks/train-1.png", ids * 0 + 7)
    mask(root / "masks/train-2.png", ids[:30])
    findings = examine(root)
    assert {f.code for f in findings.of("error")} == {"unknown-ids", "size-differs"}
    assert findings.classes is not None
    assert findings.classes.things == ("crop",)


def test_both_files_of_a_pair_are_told(root: Path) -> None:
    cut(root / "images/train-1.png")
    mask(root / "masks/train-1.png", np.full((40, 48), 7, np.uint8))
    findings = examine(root)
    assert found(findings, "unreadable").files == ("images/train-1.png",)
    assert found(findings, "unknown-ids").files == ("masks/train-1.png",)


def test_commands_quote_names(root: Path) -> None:
    mask(root / "masks/a b's.png")
    assert found(examine(root, quick=True), "mask-without-image").command.endswith("""/masks/a b'"'"'s.png'""")


# -- classes ----------------------------------------------------------------------------------------------------------


def test_class_frequencies(root: Path) -> None:
    census = examine(root).censuses["train"]
    np.testing.assert_array_equal(census.pixels, [4 * (1920 - 600 - 480), 4 * 600, 4 * 480])
    np.testing.assert_array_equal(census.images, [4, 4, 4])
    np.testing.assert_allclose(census.shares, np.array([840, 600, 480]) / 1920)


def test_absent_class_and_imbalance(root: Path) -> None:
    ids = np.zeros((40, 48), np.uint8)
    ids[0, :10] = 1
    for i in range(4):
        mask(root / f"masks/train-{i}.png", ids)
    for name in ("val-0", "val-1"):
        mask(root / f"masks/{name}.png", ids + ids)
    findings = examine(root)
    assert found(findings, "absent-class").message.endswith("never occurs in the training split: weed")
    assert found(findings, "absent-elsewhere").message.endswith("crop in 'val'")
    assert found(findings, "imbalance").message.endswith("'ground' has 191 times the pixels of 'crop'")
    assert findings.ok


def test_objects_per_image(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"images/{i}.png")
        ids = np.zeros((40, 48), np.uint16)
        for n in range(i):
            ids[10 * n : 10 * n + 5, 5:20] = 300 + n
        mask(tmp_path / f"instances/{i}.png", ids)
    (tmp_path / "train.txt").write_text("0\n1\n2\n3\n")
    findings = examine(tmp_path)
    assert findings.censuses["train"].per_image == [0, 1, 2, 3]
    assert found(findings, "no-object").files == ("instances/0.png",)


# -- what is no data set ----------------------------------------------------------------------------------------------


def test_what_is_no_data_set_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        examine(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is empty"):
        examine(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="found no folder of images"):
        examine(tmp_path)
    with pytest.raises(DataError, match="is a file"):
        examine(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="did you mean 'folder'"):
        examine(tmp_path, format="foldr")


# -- other formats ----------------------------------------------------------------------------------------------------


def test_formats_with_their_own_tables(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i in range(2):
            picture(tmp_path / f"{split}/{i}.png")
            mask(tmp_path / f"{split}annot/{i}.png")
    mask(tmp_path / "trainannot/0.png", np.full((40, 48), 40, np.uint8))
    findings = examine(tmp_path)
    assert findings.format == "camvid"
    assert found(findings, "unknown-ids").details == ("id 40: 1,920 pixels",)
    assert found(findings, "absent-class").count == 8


def test_cityscapes(tmp_path: Path) -> None:
    for i in range(2):
        stem = f"train/bonn/bonn_00000{i}_000019"
        picture(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png")
        mask(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", np.full((40, 48), 7, np.uint8))
    picture(tmp_path / "leftImg8bit/train/bonn/bonn_000009_000019_leftImg8bit.png")
    findings = examine(tmp_path)
    assert findings.format == "cityscapes"
    assert found(findings, "image-without-mask").count == 1
    assert found(findings, "absent-class").count == 18
    cut(tmp_path / "leftImg8bit/train/bonn/bonn_000000_000019_leftImg8bit.png")
    assert found(examine(tmp_path, quick=True), "unreadable").count == 1


# -- before training --------------------------------------------------------------------------------------------------


def test_admit_says_warnings_and_refuses_errors(root: Path) -> None:
    mask(root / "masks/stray.png")
    said: list[str] = []
    assert admit(root, None, said.append).records("train")
    assert said == ["warning   1 mask without an image, left out (masks/stray.png)"]
    cut(root / "images/train-1.png")
    (root / "masks/val-0.png").unlink()
    with pytest.raises(DataError) as caught:
        admit(root, None, said.append)
    text = str(caught.value)
    assert "1 file that cannot be read (images/train-1.png: is truncated" in text
    assert "1 image without a mask (images/val-0.png)" in text
    assert text.endswith(f"pixelwise check {root}")


# -- how it is told ---------------------------------------------------------------------------------------------------


def sick(root: Path) -> Findings:
    cut(root / "images/train-1.png")
    (root / "masks/val-0.png").unlink()
    mask(root / "masks/train-3.png", np.full((40, 48), 7, np.uint8))
    for i in range(7):
        mask(root / f"masks/stray-{i}.png")
    return examine(root)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_terminal(root: Path, width: int) -> None:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115  # closed with the test
    sick(root).print(console)
    console.file.close()
    text = console.export_text()
    assert max(len(line) for line in text.splitlines() if not line.startswith("    $ ")) <= width
    order = [text.index(word) for word in ("images ", "ground", "✗ error", "! warning", "3 errors, 1 warning")]
    assert order == sorted(order)
    assert "masks/stray-4.png" in text
    assert "masks/stray-5.png" not in text
    assert "and 2 more" in text


def test_plain_values(root: Path) -> None:
    findings = sick(root)
    told = json.loads(json.dumps(findings.to_dict(), allow_nan=False))
    assert told["ok"] is False
    assert told["splits"] == {"train": 4, "val": 1, "test": 2}
    assert [f["severity"] for f in told["findings"]] == ["error", "error", "error", "warning"]
    strays = told["findings"][-1]
    assert strays["count"] == len(strays["files"]) == 7
    assert strays["command"] == f"rm {root}/masks/stray-0.png"
    assert told["statistics"]["train"]["masks"] == 3
    assert told["classes"]["names"] == ["ground", "crop", "weed"]


def test_exit_codes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def check(*words: str) -> object:
        with pytest.raises(SystemExit) as stopped:
            main(["check", *words])
        return stopped.value.code

    assert check(str(root), "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    cut(root / "images/train-1.png")
    assert check(str(root), "--quick") == 1
    assert "1 file that cannot be read" in capsys.readouterr().out
    assert check(str(root / "nowhere")) == 2


def test_bars_and_figures() -> None:
    assert bar(1.0, 4) == "████"
    assert bar(0.5, 4) == "██  "
    assert bar(1e-9, 4) == "▏   "
    assert bar(0.0, 4) == "    "
    assert [percent(v) for v in (0, 1e-6, 0.0029, 0.317)] == ["-", "<0.01", "0.29", "31.7"]


def test_every_kind_has_both_forms() -> None:
    for code, kind in KINDS.items():
        assert "{n" not in kind.one, code
        assert kind.many.format(n=2), code
        words = {"root": "r", "file": "f", "aside": "a", "table": "t", "id": "1"}
        assert "{" not in kind.remedy.format(**words) + kind.command.format(**words), code


# -- real sets --------------------------------------------------------------------------------------------------------

REAL = os.environ.get("PIXELWISE_DATA")


def real(name: str, **options: object) -> Findings:
    if REAL is None:
        pytest.skip("PIXELWISE_DATA is not set: it names the folder of real data sets")
    return examine(Path(REAL) / name, **options)


def test_mixed_modes_and_endings_of_nuclei() -> None:
    findings = real("dsb2018_nuclei", quick=True)
    assert findings.ok
    assert findings.splits == {"train": 498, "val": 66, "test": 100}
    assert len(findings.headers.sizes) == 9
    assert "541" in found(findings, "endings").message
    assert found(findings, "channels").message.startswith("images differ in channels")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "images"), [("camvid", 701), ("cwfid_cropweed", 60), ("dsb2018_nuclei", 664)])
def test_real_sets_are_fine(name: str, images: int) -> None:
    findings = real(name)
    assert findings.ok
    assert sum(findings.splits.values()) == images
    census = findings.censuses["train"]
    if name == "camvid":
        known = [16.85, 23.26, 0.98, 31.66, 4.49, 9.72, 1.17, 1.13, 5.87, 0.64, 0.29]  # % of all pixels, its README
        np.testing.assert_allclose(100 * census.pixels / (367 * 360 * 480), known, atol=0.006)
        assert "'Road' has 109 times the pixels of 'Bicyclist'" in found(findings, "imbalance").message
    if name == "cwfid_cropweed":
        assert sum(sum(c.per_image) for c in findings.censuses.values()) == 492
    if name == "dsb2018_nuclei":
        assert sum(sum(c.per_image) for c in findings.censuses.values()) == 28_986


def test_options_of_a_format_reach_training(tmp_path: Path) -> None:
    root = write_streets(tmp_path / "streets", train=2, val=1, test=1, size=(32, 64))
    assert admit(root, None, print).default_task == "panoptic"
    assert admit(root, None, print, {"instances": False}).default_task == "semantic"
    with pytest.raises(ConfigError, match="did you mean 'instances'"):
        admit(root, None, print, {"instance": False})


def test_images_without_masks_are_refused_unless_skipping_is_asked_for(tmp_path: Path) -> None:
    images, masks = tmp_path / "train" / "images", tmp_path / "train" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    stripes = np.arange(256).reshape(16, 16).astype(np.uint8) % 2
    for name in ("a", "b", "c"):
        Image.fromarray(stripes * 99).save(images / f"{name}.png")
        if name != "c":
            Image.fromarray(stripes).save(masks / f"{name}.png")
    with pytest.raises(DataError, match="without a mask"):
        admit(tmp_path, None, print)
    assert len(admit(tmp_path, None, print, {"missing": "skip"}).records("train")) == 2


def test_the_check_honours_options(tmp_path: Path) -> None:
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / "train" / "masks").mkdir()
    stripes = np.arange(256).reshape(16, 16).astype(np.uint8) % 2
    for name in ("a", "b"):
        Image.fromarray(stripes * 99).save(tmp_path / "train" / "images" / f"{name}.png")
    Image.fromarray(stripes).save(tmp_path / "train" / "masks" / "a.png")
    table = tmp_path / "words.txt"
    table.write_text("0 soil\n1 leaf\n")
    codes = [f.code for f in examine(tmp_path, options={"missing": "skip"}).findings]
    assert "image-without-mask" not in codes
    assert "image-without-mask" in [f.code for f in examine(tmp_path).findings]
    found = examine(tmp_path, options={"class_table": str(table), "missing": "skip"})
    assert found.classes is not None
    assert found.classes.names == ("soil", "leaf")
    assert "gigantic" in [f.code for f in examine(tmp_path, options={"max_pixels": 100}).findings]
    with pytest.raises(ConfigError, match="'maybe'"):
        examine(tmp_path, options={"missing": "maybe"})
