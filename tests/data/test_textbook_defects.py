"""The faults of the textbook's data code, each beside what ours does with the same files.

Each test first shows the fault with the textbook's own steps, so that it cannot pass by chance.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

from pixelwise.core.segments import UNKNOWN
from pixelwise.data.dataset import open_data
from pixelwise.data.io import read_mask, write_png

IDS = np.array([[0, 1, 2], [18, 19, 255]], np.uint8)


def folder(root: Path, ids: np.ndarray, palette: np.ndarray | None = None, classes: str | None = None) -> Path:
    write_png(root / "images" / "a.png", np.zeros((*ids.shape, 3), np.uint8))
    write_png(root / "masks" / "a.png", ids, palette)
    if classes:
        (root / "classes.txt").write_text(classes)
    return root / "masks" / "a.png"


def truth_of(root: Path) -> np.ndarray:
    data = open_data(root)
    truth = data.read(next(iter(data))).truth
    assert truth is not None
    return truth.ids[0].numpy()


def test_labels_are_not_scaled(tmp_path: Path) -> None:
    """ToTensor divides a mask by 255 and `.long()` cuts what is left to 0."""
    path = folder(tmp_path, IDS, classes="".join(f"{i} c{i}\n" for i in range(20)))
    with Image.open(path) as image:
        textbook = transforms.ToTensor()(image.convert("L")).squeeze().long()
    assert textbook.unique().tolist() == [0, 1]
    np.testing.assert_array_equal(truth_of(tmp_path), np.where(IDS == 255, UNKNOWN, IDS.astype(int)))


def test_palette_masks_are_indices_not_brightness(tmp_path: Path) -> None:
    palette = np.zeros((256, 3), np.uint8)
    palette[[1, 2, 255]] = [128, 0, 0], [0, 128, 0], [224, 224, 192]
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    path = folder(tmp_path, ids, palette)
    with Image.open(path) as image:
        assert sorted(np.unique(np.asarray(image.convert("L"))).tolist()) == [0, 38, 75, 220]
    np.testing.assert_array_equal(read_mask(path), ids)
    np.testing.assert_array_equal(truth_of(tmp_path), [[0, 1], [2, UNKNOWN]])


def test_masks_are_not_blended(tmp_path: Path) -> None:
    """A bilinear Resize makes ids that nobody drew; ours keeps a mask at its own size until the joint transforms."""
    ids = np.where(np.eye(9) > 0, 10, 0).astype(np.uint8)
    path = folder(tmp_path, ids, classes="0 a\n10 b\n")
    with Image.open(path) as image:
        blended = np.unique(np.asarray(transforms.Resize((7, 7))(image)))
    assert len(blended) > 2
    truth = truth_of(tmp_path)
    assert truth.shape == (9, 9)
    assert np.unique(truth).tolist() == [0, 1]


def cityscapes(root: Path) -> None:
    for number, city in enumerate(("aachen", "ulm")):
        stem = f"{city}_000000_000019"
        write_png(root / "leftImg8bit/train" / city / f"{stem}_leftImg8bit.png", np.full((4, 34, 3), number, np.uint8))
        base = root / "gtFine/train" / city
        write_png(base / f"{stem}_gtFine_labelIds.png", np.arange(34, dtype=np.uint8)[None].repeat(4, 0))
        write_png(base / f"{stem}_gtFine_instanceIds.png", np.arange(34, dtype=np.uint16)[None].repeat(4, 0))
        write_png(base / f"{stem}_gtFine_color.png", np.zeros((4, 34, 3), np.uint8))
        (base / f"{stem}_gtFine_polygons.json").write_text("{}")


def test_cities_are_folders(tmp_path: Path) -> None:
    """Listing one folder level finds no image at all."""
    cityscapes(tmp_path)
    assert [f for f in os.listdir(tmp_path / "leftImg8bit/train") if f.endswith(".png")] == []
    assert len(open_data(tmp_path).records("train")) == 2


def test_pairs_by_name_not_by_order(tmp_path: Path) -> None:
    """gtFine has four files an image, so sorted lists of images and masks do not match."""
    cityscapes(tmp_path)
    images = sorted((tmp_path / "leftImg8bit").rglob("*.*"))
    masks = sorted((tmp_path / "gtFine").rglob("*.*"))
    assert len(masks) == 4 * len(images)
    for record in open_data(tmp_path):
        assert record.semantic is not None
        stem = record.image.name.removesuffix("_leftImg8bit.png")
        assert record.semantic.name == f"{stem}_gtFine_labelIds.png"


def test_raw_ids_are_not_train_ids(tmp_path: Path) -> None:
    """Label id 26 (car) into a loss of 19 classes is out of bounds; ours gives 13 there, and void where no class is."""
    cityscapes(tmp_path)
    raw = torch.from_numpy(read_mask(next((tmp_path / "gtFine").rglob("*labelIds.png"))).astype(np.int64))[None]
    logits = torch.zeros(1, 19, 4, 34)
    with pytest.raises(IndexError, match="out of bounds"):
        F.cross_entropy(logits, raw)
    data = open_data(tmp_path, instances=False)
    truth = data.read(data.records("train")[0]).truth
    assert truth is not None
    target = truth.class_map(void=255).long()[None]
    assert int(target[0, 0, 26]) == 13
    assert sorted(target.unique().tolist()) == [*range(19), 255]
    assert torch.isfinite(F.cross_entropy(logits, target, ignore_index=255))


def test_misnamed_mask_is_an_error_not_a_shift(tmp_path: Path) -> None:
    """With sorted lists a missing mask shifts all that follow by one."""
    for name in "abc":
        write_png(tmp_path / "train" / "images" / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
    for name in "ac":
        write_png(tmp_path / "train" / "masks" / f"{name}.png", np.full((4, 4), ord(name) - 97, np.uint8))
    with pytest.raises(ValueError, match=r"b\.png: no mask of that name"):
        open_data(tmp_path)
    data = open_data(tmp_path, missing="skip")
    assert [(r.name, r.semantic.name if r.semantic else "") for r in data] == [
        ("train/a", "a.png"),
        ("train/c", "c.png"),
    ]
