"""Drawn streets on disk, laid out as Cityscapes is."""

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pixelwise.data.streets.labels import COLOURS
from pixelwise.data.streets.scene import Scene, draw_scene
from pixelwise.errors import ConfigError, OutputError

# Scenes go round the cities of their split, so that each split has nested folders from its second scene on.
CITIES: dict[str, tuple[str, ...]] = {
    "train": ("lindenau", "marktburg", "seefeld"),
    "val": ("altmuehl", "neubrueck"),
    "test": ("hafenau", "waldheim"),
}
FRAME = 19  # the frame of its sequence that Cityscapes annotates


def write_streets(
    root: str | Path,
    *,
    train: int = 48,
    val: int = 12,
    test: int = 12,
    size: tuple[int, int] = (256, 512),
    seed: int = 0,
) -> Path:
    """Draw streets into `root` in the layout of Cityscapes and return `root`.

    Per scene `leftImg8bit/SPLIT/CITY/CITY_SSSSSS_000019_leftImg8bit.png` and under `gtFine` its `_gtFine_labelIds.png`
    (8 bit), `_gtFine_instanceIds.png` (16 bit) and `_gtFine_color.png`. Unlike the original's, the test split has its
    truth. A file is written whole or not at all; one of the same name is replaced, others are left alone.
    `size` is (height, width). Raises ConfigError for an impossible size or count, OutputError where it cannot write.
    """
    root = Path(root)
    if min(train, val, test) < 0:
        raise ConfigError(f"{train}, {val} and {test} streets were asked for; give counts from 0 up")
    for split, count in (("train", train), ("val", val), ("test", test)):
        for index in range(count):
            city = CITIES[split][index % len(CITIES[split])]
            write_scene(root, split, city, index, draw_scene(seed, index, size, split))
    return root


def write_scene(root: Path, split: str, city: str, sequence: int, scene: Scene) -> None:
    """Write the four files of one scene."""
    name = f"{city}_{sequence:06d}_{FRAME:06d}"
    truth = root / "gtFine" / split / city / f"{name}_gtFine"
    _write_png(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", scene.image[..., ::-1])
    _write_png(truth.with_name(f"{truth.name}_labelIds.png"), scene.label_ids)
    _write_png(truth.with_name(f"{truth.name}_instanceIds.png"), scene.instance_ids)
    _write_png(truth.with_name(f"{truth.name}_color.png"), colour_map(scene.label_ids)[..., ::-1])


def colour_map(label_ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Label ids `[H, W]` in Cityscapes' colours, `[H, W, 3]` uint8 RGB."""
    table = np.zeros((256, 3), np.uint8)
    for label, colour in COLOURS.items():
        table[label] = colour
    return table[label_ids]


def _write_png(path: Path, pixels: npt.NDArray[np.generic]) -> None:
    encoded = cv2.imencode(".png", np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, 3])[1]
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(encoded.tobytes())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: a drawn street could not be written: {error.strerror}; choose another folder"
        ) from error
