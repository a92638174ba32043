"""Normalising stored pixels: form against form to the bit, in every memory format."""

from __future__ import annotations

import pytest
import torch

from pixelwise.kernels.compiled import only
from pixelwise.kernels.normalise import normalise


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 65)])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "strided"])
@pytest.mark.parametrize("own", [False, True])
def test_both_forms_agree_to_the_bit(
    dtype: torch.dtype, channels: int, size: tuple[int, int], layout: str, own: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256 if dtype == torch.uint8 else 65536, (2, channels, *size), generator=generator)
    if layout == "channels last":
        images = images.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        images = images.transpose(2, 3).contiguous().transpose(2, 3)
    images = images.to(dtype)
    mean, scale = torch.rand((2, 2, channels) if own else (2, channels), generator=generator) * 100
    expected = (images.int().float() - mean[..., None, None]) * scale[..., None, None]
    for form in ("torch", "numba"):
        with only(form):  # type: ignore[arg-type]
            found = normalise(images, mean, scale)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
        if layout != "strided":
            last = layout == "channels last"
            assert found.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def test_floats_are_taken_as_they_are() -> None:
    images = torch.rand(1, 3, 4, 5)
    found = normalise(images, torch.ones(3), torch.full((3,), 2.0))
    assert torch.equal(found, (images - 1) * 2)
    assert normalise(images[:0].byte(), torch.ones(3), torch.ones(3)).shape == (0, 3, 4, 5)
