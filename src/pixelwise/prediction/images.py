"""Any picture a person may hold -> stored pixels [C, H, W] in the channels and the range a model was trained on.

The rule, from what is given to what the model takes:
  orientation  EXIF rotation is applied
  palette, CMYK, YCbCr, 1 bit   become RGB (grey where the palette is grey); 1 bit becomes 0 and 255
  alpha        is dropped, unless the model takes four channels
  grey         is repeated to as many channels as the model takes
  colour       for a model of one channel becomes its luminance, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)
  depth        8 bits for a 16-bit model are spread over its range (x 257), 16 bits for an 8-bit model shrunk (/ 257)
  floats       must lie in 0..1 and are spread over the model's range
Any other number of channels is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from pixelwise.core.sample import Preprocessing, image_tensor
from pixelwise.data.channels import fit_channels
from pixelwise.data.io import MAX_PIXELS, read_image
from pixelwise.data.windows import raster_pixels
from pixelwise.errors import ImageError

MOST_CHANNELS = 64  # more in the last axis is an image with its axes in another order


def stored_pixels(image: Any, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """A path, PIL image, array [H, W] or [H, W, C] or tensor [C, H, W] -> [C, H, W] uint8, uint16 or float32.

    Raises ImageError for what cannot be read or brought into the model's channels, naming the file or kind of input.
    """
    if isinstance(image, str | Path):
        return _from_file(Path(image), preprocessing, max_pixels)
    if isinstance(image, Image.Image):
        return fit_channels(image_tensor(_from_pillow(image, preprocessing.channels)), preprocessing, "PIL image")
    if isinstance(image, np.ndarray):
        return fit_channels(image_tensor(_checked(image)), preprocessing, "array")
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise ImageError("tensor", f"has shape {list(image.shape)}; an image is [C, H, W].")
        return fit_channels(image.detach().cpu(), preprocessing, "tensor")
    kinds = "a path, a PIL image, an array [H, W, C] or a tensor [C, H, W]"
    raise ImageError(type(image).__name__, f"is no image; give {kinds}.")


def _from_file(path: Path, preprocessing: Preprocessing, max_pixels: int) -> Tensor:
    try:
        pixels = read_image(path, max_pixels=max_pixels, channels=4 if preprocessing.channels == 4 else None)
    except ImageError:
        found = raster_pixels(path, preprocessing, max_pixels)
        if found is None:
            raise
        return found
    return fit_channels(image_tensor(pixels), preprocessing, str(path))


def _from_pillow(image: Image.Image, channels: int) -> np.ndarray:
    """[H, W] or [H, W, C] uint8 or uint16 with the EXIF rotation applied, as `read_image` gives it for a file."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("LA", "La", "RGBa"):
        image = image.convert({"LA": "L", "La": "L", "RGBa": "RGBA"}[image.mode])
    elif image.mode not in ("L", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    if image.mode == "RGBA" and channels != 4:
        image = image.convert("RGB")
    pixels = np.array(image)
    if pixels.dtype == np.int32:  # Pillow's mode "I", in which 16-bit files arrive
        if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
            raise ImageError("PIL image", f"holds values {pixels.min()}..{pixels.max()}, which do not fit 16 bits.")
        return pixels.astype(np.uint16)
    return _checked(pixels)


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ImageError("array", f"has shape {list(pixels.shape)}; an image is [H, W] or [H, W, C].")
    if pixels.ndim == 3 and pixels.shape[2] > MOST_CHANNELS:
        shape = list(pixels.shape)
        raise ImageError("array", f"has shape {shape}, so {shape[2]} channels; channels stand last: [H, W, C].")
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
