"""Stored pixels in the channels and the range that a model was trained on: the rules of `prediction/images.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelwise.core.sample import Preprocessing
from pixelwise.errors import ImageError

LUMINANCE = (0.299, 0.587, 0.114)


def fit_channels(image: Tensor, preprocessing: Preprocessing, name: str) -> Tensor:
    """[C', H, W] of any depth -> [C, H, W] in the model's channels and range.

    The rule stands at the top of `prediction/images.py`. Raises ImageError with the file's `name`.
    """
    if 0 in image.shape:
        raise ImageError(name, f"has shape {list(image.shape)}: there is no pixel in it.")
    have, want = image.shape[0], preprocessing.channels
    image = _fit_range(image, preprocessing.range, name)
    if have == want:
        return image
    if have == 2 and want in (1, 3):  # grey and alpha
        image, have = image[:1], 1
    if have == 4 and want in (1, 3):  # colour and alpha
        image, have = image[:3], 3
    if have == want:
        return image
    if have == 1:
        return image.expand(want, -1, -1)
    if have == 3 and want == 1:
        weights = torch.tensor(LUMINANCE).view(3, 1, 1)
        return (_wide(image) * weights).sum(0, keepdim=True)
    raise ImageError(name, f"has {have} channels, the model takes {want}; convert the image, or choose another model.")


def _fit_range(image: Tensor, top: float, name: str) -> Tensor:
    """Stored values in the model's range: 8 bit is 0..255, 16 bit 0..65535, floats 0..1."""
    deep = top > 255
    if image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):
            raise ImageError(name, f"holds floats from {low:g} to {high:g}; give uint8 or uint16, or floats in 0..1.")
        return image.float() * top
    if image.dtype == torch.uint8:
        return _wide(image) * 257 if deep else image
    if image.dtype == torch.uint16:
        return image if deep else _wide(image) / 257
    kind = str(image.dtype).removeprefix("torch.")
    raise ImageError(name, f"holds {kind} values; an image must be uint8 or uint16, or floats in 0..1.")


def _wide(image: Tensor) -> Tensor:
    return image.to(torch.int32).float()  # torch converts few types from uint16, int32 among them
