"""Jitter, gamma, blur and noise: held against torchvision; the truth never changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from pixelwise.core.sample import Sample, image_tensor
from pixelwise.core.segments import Segments
from pixelwise.data.colour import Blur, ColourJitter, Gamma, Noise


def no_pick(rng: np.random.Generator) -> Sample:
    raise AssertionError("no transform here asks for another sample")


def run(transform: Any, sample: Sample, seed: int = 0) -> Sample:
    return transform(sample, np.random.default_rng(seed), no_pick)


def photo(seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 190, (40, 50, 3)).astype(np.uint8)
    return Sample(image_tensor(image), None, "photo")


@pytest.mark.parametrize("transform", [ColourJitter(), Gamma(), Blur(1.0), Noise(0.1)])
def test_values_change_and_truth_does_not(transform: Any) -> None:
    """The textbook jitters and normalises masks (defect 4): labels 0, 1, 2 became 0 and 1."""
    labels = np.arange(2000).reshape(40, 50) % 3
    sample = replace(photo(), truth=Segments.from_class_map(labels, num_classes=3))
    out = run(transform, sample)
    assert not torch.equal(out.image, sample.image)
    assert out.image.dtype == torch.uint8
    assert out.truth is sample.truth


@pytest.mark.parametrize("seed", range(3))
def test_jitter_agrees_with_torchvision(seed: int) -> None:
    sample = photo()
    b, c, s = 1 + np.random.default_rng(seed).uniform(-1, 1, 3) * 0.3
    for jitter, expected in (
        (ColourJitter(0.3, 0, 0, 0), tv.adjust_brightness(sample.image, b)),
        (ColourJitter(0, 0.3, 0, 0), tv.adjust_contrast(sample.image, c)),
        (ColourJitter(0, 0, 0.3, 0), tv.adjust_saturation(sample.image, s)),
    ):
        assert (run(jitter, sample, seed).image.int() - expected.int()).abs().max() <= 2  # theirs cuts, ours rounds


def test_hue_keeps_luma_and_greys() -> None:
    sample = photo()
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    out = run(ColourJitter(0, 0, 0, 0.04), sample, 2).image
    assert (out.int() - sample.image.int()).abs().max() > 5
    inside = ((out > 0) & (out < 255)).all(0)
    luma = ((out.float() - sample.image.float()) * weights).sum(0)
    assert luma[inside].abs().max() < 1.0
    grey = sample.image[:1].expand(3, -1, -1)
    turned = run(ColourJitter(0, 0, 0, 0.5), replace(sample, image=grey), 2).image
    assert (turned.int() - grey.int()).abs().max() <= 1


def test_jitter_without_strength_changes_nothing() -> None:
    assert torch.equal(run(ColourJitter(0, 0, 0, 0), photo()).image, photo().image)


def test_16_bit_jitter_is_8_bit_jitter_at_its_range() -> None:
    small = photo()
    wide = replace(small, image=(small.image.int() * 257).to(torch.uint16))
    for transform in (ColourJitter(), Gamma(0.4)):
        eight, sixteen = run(transform, small, 4).image, run(transform, wide, 4).image
        assert (sixteen.int() / 257 - eight.int()).abs().max() <= 1.01


def test_noise_has_the_deviation_it_says() -> None:
    flat = Sample(torch.full((3, 100, 100), 128, dtype=torch.uint8), None, "")
    found = [float(run(Noise(0.1), flat, seed).image.float().std()) / 255 for seed in range(60)]
    assert max(found) < 0.105
    assert 0.04 < float(np.mean(found)) < 0.06


@pytest.mark.parametrize("seed", range(3))
def test_blur_agrees_with_torchvision(seed: int) -> None:
    sample = photo()
    rng = np.random.default_rng(seed)
    rng.random()
    sigma = float(rng.uniform(0.3, 1.5))
    expected = tv.gaussian_blur(sample.image, [11, 11], [sigma, sigma])
    out = run(Blur(1.0, 0.3, 1.5), sample, seed).image
    inside = (slice(None), slice(6, -6), slice(6, -6))  # beyond the border they mirror without the border pixel
    assert (out.int() - expected.int())[inside].abs().max() <= 2


def test_many_channels_are_jittered_alike() -> None:
    image = photo().image[:1].expand(7, -1, -1).clone()
    out = run(ColourJitter(), replace(photo(), image=image), 3).image
    assert (out == out[:1]).all()
    assert not torch.equal(out, image)
