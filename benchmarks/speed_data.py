"""What the data rows of `speed.py` share: drawn photographs with masks, and one pipeline in three libraries.

Every item: read a JPEG (and perhaps its mask, an 8-bit PNG), scale by a factor uniform in 0.5 to 2, crop 512 x 512,
flip, jitter brightness, contrast, saturation and hue, normalise to float32. The others do it as their documentation
writes it: torchvision decodes by `torchvision.io` (faster here than Pillow), resizes with antialiasing as it does by
default; albumentations reads by OpenCV and resizes without antialiasing, as it does by default.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from speed_side import Row, Work

SIZE, CROP, CLASSES, FILES, ITEMS = (1024, 2048), 512, 19, 4, 24
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.02}

_folders: list[tempfile.TemporaryDirectory[str]] = []  # live as long as the process


def octaves(rng: np.random.Generator, size: tuple[int, int], channels: int, last: int) -> np.ndarray:
    """[H, W, C] smooth noise, weaker from octave to octave, down to cells of size / 2^(last - 1): like a photograph."""
    total = np.zeros((*size, channels), np.float32)
    for octave in range(1, last):
        cells = rng.standard_normal((2**octave, 2 ** (octave + 1), channels)).astype(np.float32)
        total += cv2.resize(cells, size[::-1], interpolation=cv2.INTER_CUBIC).reshape(total.shape) * 0.6**octave
    return total


def draw(size: tuple[int, int] = SIZE, files: int = FILES) -> Path:
    """A folder of images/*.jpg (quality 90, colour halved, as cameras do) and masks/*.png with classes.txt."""
    _folders.append(tempfile.TemporaryDirectory())
    root = Path(_folders[-1].name)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    rows = [f"{i} class{i}" for i in range(CLASSES)] + ["255 void void"]
    (root / "classes.txt").write_text("\n".join(rows) + "\n")
    for i in range(files):
        rng = np.random.default_rng(i)
        fields = octaves(rng, size, CLASSES, 6)
        labels = fields.argmax(2).astype(np.uint8)
        colours = rng.integers(40, 200, (CLASSES, 3)).astype(np.float32)
        shade = octaves(rng, size, 1, 10) * 45
        pixels = colours[labels] + shade + rng.normal(0, 8, (*size, 3))
        pixels = cv2.GaussianBlur(pixels.clip(0, 255).astype(np.uint8), (0, 0), 0.6)  # a lens
        cv2.imwrite(str(root / "images" / f"{i}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        labels[:4] = 255
        cv2.imwrite(str(root / "masks" / f"{i}.png"), labels)
    return root


def ours(masks: bool, kept: bool = False) -> Work:
    from pixelwise.config import TransformSettings
    from pixelwise.core.sample import Preprocessing
    from pixelwise.data.dataset import open_data
    from pixelwise.data.disk import Disk
    from pixelwise.data.loader import make_loader
    from pixelwise.data.transforms import training_transforms
    from pixelwise.tasks import make_task

    def make(root: Path, crop: int, items: int) -> Work:
        data = open_data(root)
        records = tuple(r if masks else replace(r, semantic=None) for r in data) * (items // len(data))
        settings = TransformSettings(scale=(0.5, 2.0), uniform_scale=True, max_class_share=1.0, **JITTER)
        transform = training_transforms(settings, crop=crop)
        task = make_task("semantic", data.classes)
        cache = Disk(root / "cache", limit=10**9, margin=0) if kept else None
        loader = make_loader(data, records, task, transform=transform, batch_size=1, shuffle=True, cache=cache)
        preprocessing = Preprocessing(mean=MEAN, std=STD)

        def work() -> np.ndarray:
            loader.set_epoch(1, start=0)
            return moments(preprocessing(batch.images)[0] for batch in loader)

        if kept:
            sum(1 for _ in loader)  # an epoch that builds the cache
        return work

    make(draw((64, 128), 2), 32, 2)()
    return make(draw(), CROP, ITEMS)


def torchvision(masks: bool) -> Work:
    import torch
    from torchvision import io, tv_tensors
    from torchvision.transforms import v2

    def make(root: Path, size: tuple[int, int], crop: int, items: int) -> Work:
        pipeline = v2.Compose([
            v2.ScaleJitter(size[::-1], scale_range=(0.5, 2.0), antialias=True),  # it compares width with height
            v2.RandomCrop(crop, pad_if_needed=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(**JITTER),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
        ])  # fmt: skip
        images, maps = sorted((root / "images").iterdir()), sorted((root / "masks").iterdir())

        def item(i: int) -> torch.Tensor:
            image = tv_tensors.Image(io.decode_image(str(images[i % len(images)]), io.ImageReadMode.RGB))
            if not masks:
                return pipeline(image)
            return pipeline(image, tv_tensors.Mask(io.decode_image(str(maps[i % len(maps)]))))[0]

        def work() -> np.ndarray:
            torch.manual_seed(0)
            return moments(item(i) for i in range(items))

        return work

    make(draw((64, 128), 2), (64, 128), 32, 2)()
    return make(draw(), SIZE, CROP, ITEMS)


def albumentations(masks: bool) -> Work:
    import albumentations as A
    from albumentations.pytorch import ToTensorV2

    cv2.setNumThreads(1)

    def make(root: Path, crop: int, items: int) -> Work:
        pipeline = A.Compose([
            A.RandomScale((-0.5, 1.0), p=1),
            A.RandomCrop(crop, crop, pad_if_needed=True),
            A.HorizontalFlip(),
            A.ColorJitter((0.7, 1.3), (0.7, 1.3), (0.7, 1.3), (-0.02, 0.02), p=1),
            A.Normalize(MEAN, STD),
            ToTensorV2(),
        ], seed=0)  # fmt: skip
        images, maps = sorted((root / "images").iterdir()), sorted((root / "masks").iterdir())

        def item(i: int) -> Any:
            image = cv2.imread(str(images[i % len(images)]), cv2.IMREAD_COLOR_RGB)
            if not masks:
                return pipeline(image=image)["image"]
            return pipeline(image=image, mask=cv2.imread(str(maps[i % len(maps)]), cv2.IMREAD_UNCHANGED))["image"]

        return lambda: moments(item(i) for i in range(items))

    make(draw((64, 128), 2), 32, 2)()
    return make(draw(), CROP, ITEMS)


def moments(images: Iterable[Any]) -> np.ndarray:
    """[3] mean over the items of each channel's mean; takes all items, one at a time."""
    return np.mean([image[:, ::16, ::16].mean((1, 2)).numpy() for image in images], axis=0)


def compare(answers: Mapping[str, Any]) -> str:
    """The draws differ, so only how far the mean colours are apart can be said."""
    ours = np.array(answers["pixelwise"])
    most = max(float(np.abs(np.array(a) - ours).max()) for a in answers.values())
    return f"mean colour within {most:.2f} deviations (other draws)"


def row(what: str, masks: bool) -> Row:
    """A row where every side decodes."""
    sides = {
        "pixelwise": lambda: ours(masks),
        "torchvision": lambda: torchvision(masks),
        "albumentations": lambda: albumentations(masks),
    }
    return Row(what, sides, compare=compare, target={"torchvision": 2.2})


def row_from_cache(what: str, masks: bool) -> Row:
    """A row where ours reads from its decoded cache."""
    sides = {"pixelwise": lambda: ours(masks, kept=True), "torchvision": lambda: torchvision(masks)}
    return Row(what, sides, compare=compare, target={"torchvision": 10})
