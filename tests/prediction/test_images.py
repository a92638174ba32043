"""Any picture -> the model's channels and range, by the documented rule."""

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.core.sample import Preprocessing
from pixelwise.errors import ImageError
from pixelwise.prediction.images import fit_channels, stored_pixels

RGB = Preprocessing()
GREY = Preprocessing(channels=1, order="L", mean=(0.5,), std=(0.2,))
DEEP = Preprocessing(channels=1, order="L", mean=(0.5,), std=(0.2,), range=65535)
RGBA = Preprocessing(channels=4, order="RGBA", mean=(0.5,) * 4, std=(0.2,) * 4)
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
FLAT = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)


def chw(array):
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)


def pillow_of(mode):
    """(image, what an RGB model must see) for each mode that people have."""
    colour, grey = Image.fromarray(COLOUR), Image.fromarray(FLAT)
    alpha = np.dstack([COLOUR, FLAT])
    palette = grey.convert("P")
    palette.putpalette(RNG.integers(0, 256, 768, dtype=np.uint8).tolist())
    cmyk = colour.convert("CMYK")
    return {
        "RGB": (colour, COLOUR),
        "L": (grey, np.dstack([FLAT] * 3)),
        "RGBA": (Image.fromarray(alpha), COLOUR),
        "LA": (Image.fromarray(np.dstack([FLAT, FLAT]), mode=None), np.dstack([FLAT] * 3)),
        "P": (palette, np.asarray(palette.convert("RGB"))),
        "CMYK": (cmyk, np.asarray(cmyk.convert("RGB"))),
        "1": (grey.point(lambda v: 255 * (v > 99), mode="1"), np.dstack([np.where(FLAT > 99, 255, 0)] * 3)),
        "I;16": (Image.fromarray(WIDE), np.dstack([WIDE / 257] * 3)),
    }[mode]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1", "I;16"])
def test_every_mode_as_pillow_image_and_as_file(mode, tmp_path):
    image, expected = pillow_of(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    for given in (image, path, str(path)):
        torch.testing.assert_close(stored_pixels(given, RGB).float(), chw(expected), atol=1e-2, rtol=0)


def test_exif_rotation_is_applied(tmp_path):
    image = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    image.save(tmp_path / "x.png", exif=exif)
    expected = chw(np.rot90(COLOUR, -1).copy())
    assert torch.equal(stored_pixels(tmp_path / "x.png", RGB).float(), expected)
    assert torch.equal(stored_pixels(Image.open(tmp_path / "x.png"), RGB).float(), expected)


def test_arrays_and_tensors():
    assert torch.equal(stored_pixels(COLOUR, RGB).float(), chw(COLOUR))
    assert torch.equal(stored_pixels(FLAT, RGB).float(), chw(FLAT).expand(3, -1, -1))
    assert torch.equal(stored_pixels(FLAT[:, :, None], RGB).float(), chw(FLAT).expand(3, -1, -1))
    assert torch.equal(stored_pixels(torch.from_numpy(COLOUR).permute(2, 0, 1), RGB).float(), chw(COLOUR))
    assert torch.equal(stored_pixels(COLOUR[::-1, ::2], RGB).float(), chw(COLOUR[::-1, ::2].copy()))
    swapped = WIDE.astype(">u2")
    assert torch.equal(stored_pixels(swapped, DEEP).int(), torch.from_numpy(WIDE.astype(np.int32))[None])


def test_floats_are_spread_over_the_models_range():
    floats = RNG.random((5, 7, 3)).astype(np.float32)
    torch.testing.assert_close(stored_pixels(floats, RGB), chw(floats) * 255)
    torch.testing.assert_close(stored_pixels(torch.rand(1, 2, 2) * 0 + 0.5, DEEP), torch.full((1, 2, 2), 0.5 * 65535))


def test_depth():
    assert torch.equal(stored_pixels(FLAT, DEEP).int(), torch.from_numpy(FLAT.astype(np.int32) * 257)[None])
    assert torch.equal(stored_pixels(WIDE, DEEP).int(), torch.from_numpy(WIDE.astype(np.int32))[None])
    white = np.full((2, 2), 65535, np.uint16)
    assert (stored_pixels(white, GREY) == 255).all()


def test_luminance():
    found = stored_pixels(COLOUR, GREY)[0].numpy()
    pillow = np.asarray(Image.fromarray(COLOUR).convert("L"))
    assert found.shape == (5, 7)
    assert np.abs(found - pillow).max() <= 1  # Pillow rounds


def test_alpha_is_kept_for_a_model_of_four_channels(tmp_path):
    alpha = np.dstack([COLOUR, FLAT])
    Image.fromarray(alpha).save(tmp_path / "x.png")
    for given in (tmp_path / "x.png", Image.fromarray(alpha), alpha):
        assert torch.equal(stored_pixels(given, RGBA).float(), chw(alpha))
    assert torch.equal(stored_pixels(Image.fromarray(alpha), GREY), stored_pixels(COLOUR, GREY))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 5, 6), np.uint8), "has 6 channels, the model takes 3"),
        (np.zeros((3, 100, 200), np.uint8), r"channels stand last"),
        (np.zeros((0, 5), np.uint8), "shape"),
        (np.zeros((2, 2, 2, 2), np.uint8), "shape"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.full((2, 2), 128.0), "floats from 128 to 128"),
        (np.full((2, 2), np.nan), "floats"),
        (torch.zeros(2, 2, dtype=torch.uint8), r"\[C, H, W\]"),
        (torch.zeros(3, 0, 2, dtype=torch.uint8), "no pixel"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), r"\[C, H, W\]"),
        (42, "is no image"),
    ],
)
def test_refused(image, said):
    with pytest.raises(ImageError, match=said):
        stored_pixels(image, RGB)


def test_other_channel_counts_are_refused_by_name():
    with pytest.raises(ImageError, match=r"a\.tif.*5 channels"):
        fit_channels(torch.zeros(5, 2, 2, dtype=torch.uint8), RGB, "a.tif")
