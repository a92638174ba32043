"""The transforms one by one and as the chain that training uses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from pixelwise.core.sample import Sample, image_tensor
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.data.geometry import Placement
from pixelwise.data.transforms import (
    Blur,
    Chain,
    ColourJitter,
    Elastic,
    Flip,
    Gamma,
    Noise,
    Pad,
    RandomCrop,
    RandomScale,
    Resize,
    Rotation,
    training_transforms,
)
from pixelwise.errors import ConfigError, DataError

SETTINGS = SimpleNamespace(
    scale=(0.5, 1.5), scales=(), flip=0.5, vertical_flip=0.0, rotation=0.0, elastic=0.0, brightness=0.3, contrast=0.3,
    saturation=0.3, hue=0.02, blur=0.0, noise=0.0, max_class_share=0.75, rare_focus=0.0, min_visible=0.0,
    uniform_scale=False, copy_paste=0.0, paste_scale=(0.1, 2.0), paste_blend=0.0,
)  # fmt: skip


def settings(**changes: Any) -> Any:
    return SimpleNamespace(**{**vars(SETTINGS), **changes})


def no_pick(rng: np.random.Generator) -> Sample:
    raise AssertionError("no transform here asks for another sample")


def blocks(channels: int = 3, dtype: type = np.uint8, classes: int = 6, height: int = 90, width: int = 120) -> Sample:
    """Blocks of 15 x 15 pixels; the image is flat in each, its value tells the class."""
    rng = np.random.default_rng(5)
    labels = np.kron(rng.integers(0, classes, (height // 15, width // 15)), np.ones((15, 15), int))
    image = (labels[..., None] * 30 + 40) * np.ones(channels, int)
    truth = Segments.from_class_map(labels, num_classes=classes)
    return Sample(image_tensor(image.astype(dtype)), truth, "street/blocks")


def run(transform: Any, sample: Sample, seed: int = 0) -> Sample:
    return transform(sample, np.random.default_rng(seed), no_pick)


def classes_of(sample: Sample, void: int = 255) -> torch.Tensor:
    assert sample.truth is not None
    return sample.truth.class_map(void)


EVERYTHING = settings(rotation=15.0, elastic=2.0, blur=0.5, noise=0.02, vertical_flip=0.5, rare_focus=0.5)


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (7, np.uint8), (3, np.uint16), (5, np.uint16)]
)
def test_any_channels_and_depth(channels: int, dtype: type) -> None:
    sample = blocks(channels, dtype)
    before = sample.image.clone(), classes_of(sample).clone()
    chain = training_transforms(EVERYTHING, crop=(48, 64), class_counts=[1, 2, 3, 4, 5, 6])
    for seed in range(8):
        out = run(chain, sample, seed)
        assert out.image.shape == (channels, 48, 64)
        assert out.image.dtype == sample.image.dtype
        assert out.image.permute(1, 2, 0).is_contiguous()
        assert out.name == sample.name
        again = run(chain, sample, seed)
        assert torch.equal(out.image, again.image)
        assert torch.equal(classes_of(out), classes_of(again))
    assert torch.equal(sample.image, before[0])  # what is kept in memory is never written
    assert torch.equal(classes_of(sample), before[1])


def test_truth_follows_the_image_through_everything() -> None:
    """Away from edges, the flat blocks still tell their class."""
    sample = blocks(1)
    moving = settings(rotation=15.0, elastic=2.0, vertical_flip=0.5, brightness=0, contrast=0, saturation=0, hue=0)
    chain = training_transforms(moving, crop=(48, 64))
    for seed in range(20):
        out = run(chain, sample, seed)
        labels = classes_of(out).int()
        told = (out.image[0].float() - 40) / 30
        flat = (told - told.round()).abs() < 0.02
        right = (told.round().int() == labels)[flat & (labels != 255)]
        assert right.float().mean() > 0.97  # a blurred edge may look like a class between


def test_flips_are_always_aligned() -> None:
    """The textbook flips the image and then, by another draw, the mask (defect 4): aligned in half of the cases."""
    rng = np.random.default_rng(0)
    marks = rng.integers(0, 6, (8, 10))
    sample = Sample(image_tensor(marks.astype(np.uint8)), Segments.from_class_map(marks, num_classes=6), "marks")
    aligned, flipped = 0, 0
    for seed in range(200):
        out = run(Flip(0.5, 0.5), sample, seed)
        aligned += torch.equal(out.image[0], classes_of(out))
        flipped += not torch.equal(out.image, sample.image)
    assert aligned == 200
    assert 120 < flipped < 180  # three of four


@pytest.mark.parametrize("values", [(0, 10), (0, 255)])
@pytest.mark.parametrize(
    "transform", [Resize((37, 53)), RandomScale(0.7, 0.7), RandomScale(1.3, 1.3), Rotation(30), Elastic(3)]
)
def test_no_new_ids(values: tuple[int, int], transform: Any) -> None:
    """The textbook resizes masks bilinearly (defect 3): 0 and 10 gave 2 and 8 as well."""
    labels = np.kron(np.array([[0, 1], [1, 0]]), np.ones((20, 30), int)) * values[1]
    resized = tv.resize(torch.from_numpy(labels)[None].float(), [37, 53], InterpolationMode.BILINEAR)
    assert not set(resized.round().unique().tolist()) <= set(values)
    sample = Sample(
        image_tensor(labels.astype(np.uint8)), Segments.from_class_map(labels, void=-2, num_classes=256), ""
    )
    found = set(classes_of(run(transform, sample, 1), void=77).unique().tolist())
    assert set(values) <= found <= {*values, 77}


@pytest.mark.parametrize(
    "transform", [Rotation(45), Pad((120, 160)), RandomCrop((120, 160)), Elastic(8), RandomScale(0.5, 0.5)]
)
def test_padding_is_unknown_not_class_0(transform: Any) -> None:
    """Rotation fills masks with class 0 by default (defect 3)."""
    sample = blocks()
    assert sample.truth is not None
    ones = replace(sample, truth=Segments(torch.ones_like(sample.truth.ids), torch.arange(6)))
    chain = Chain((transform, Pad((100, 130))))
    out = run(chain, ones, 3)
    found = set(classes_of(out).unique().tolist())
    assert found == {1, 255}
    assert out.truth is not None
    assert (out.truth.ids[out.truth.unknown[None]] == UNKNOWN).all()


# -- scale ------------------------------------------------------------------------------------------------------------


def place(transform: Any, seed: int, size: tuple[int, int] = (100, 200)) -> Placement:
    return transform.place(Placement.whole(size), None, np.random.default_rng(seed))


def test_discrete_scales() -> None:
    scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    sizes = [place(RandomScale(choices=scales), seed).size for seed in range(300)]
    assert set(sizes) == {(50, 100), (75, 150), (100, 200), (125, 250), (150, 300)}
    assert min(sizes.count(s) for s in set(sizes)) > 35


def test_continuous_scale_is_log_uniform() -> None:
    heights = np.array([place(RandomScale(0.25, 4.0), seed, (1000, 1000)).size[0] for seed in range(600)])
    assert 250 <= heights.min() < 300
    assert 3400 < heights.max() <= 4000
    quarters = np.histogram(np.log2(heights / 1000), bins=4, range=(-2, 2))[0]
    assert quarters.min() > 110


def test_settings_choose_the_steps() -> None:
    still = {"scale": (1.0, 1.0), "flip": 0.0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    assert [type(t) for t in training_transforms(settings(**still), crop=32).transforms] == [RandomCrop]
    chain = training_transforms(settings(**{**still, "scales": (0.5, 1.0)}), crop=32, class_counts=[10, 0, 30])
    assert chain.transforms[0] == RandomScale(1.0, 1.0, (0.5, 1.0))
    crop = chain.transforms[1]
    assert isinstance(crop, RandomCrop)
    assert crop.size == (32, 32)
    assert crop.weights == pytest.approx((4.0, 0.0, 4 / 3))
    kinds = [type(t) for t in training_transforms(EVERYTHING, crop=32).transforms]
    assert kinds == [RandomScale, Rotation, Elastic, Flip, RandomCrop, ColourJitter, Blur, Noise]
    least = training_transforms(settings(**still, min_visible=0.4), crop=32, things=[True]).transforms[0]
    assert (least.min_visible, least.things) == (0.4, (True,))
    assert training_transforms(SETTINGS, crop=32, own=kinds.append).transforms[-1] == kinds.append


# -- crop -------------------------------------------------------------------------------------------------------------


def road(height: int = 200, width: int = 300) -> Sample:
    """Class 0 everywhere, a strip of class 1 at the top, and one small spot of class 2."""
    labels = np.zeros((height, width), int)
    labels[:60] = 1
    labels[150:156, 40:46] = 2
    return Sample(
        torch.zeros(3, height, width, dtype=torch.uint8), Segments.from_class_map(labels, num_classes=3), "road"
    )


def shares(transform: Any, sample: Sample, draws: int = 150) -> np.ndarray:
    """[draws, 4] share of each class, and of the unknown, in the crops."""
    out = [
        np.bincount(classes_of(run(transform, sample, seed), 3).numpy().ravel(), minlength=4) for seed in range(draws)
    ]
    return np.array(out) / np.sum(out, axis=1, keepdims=True)


def test_max_class_share() -> None:
    free = shares(RandomCrop((64, 64)), road())[:, :3].max(1)
    limited = shares(RandomCrop((64, 64), max_class_share=0.75, tries=30), road())[:, :3].max(1)
    assert (free > 0.75).mean() > 0.5
    assert (limited > 0.78).mean() < 0.02  # classes are counted on a lattice


def test_max_class_share_gives_up_on_one_class() -> None:
    assert sample_size(RandomCrop((64, 64), max_class_share=0.5), blocks(classes=1)) == (64, 64)


def test_nothing_counts_as_a_class() -> None:
    """Nuclei on empty ground: crops of ground alone, and of nuclei alone, are drawn again."""
    ids = np.full((200, 200), -1, np.int8)
    ids[:, :60] = 0
    sample = Sample(torch.zeros(1, 200, 200, dtype=torch.uint8), Segments(ids, [0]), "nuclei")
    crop = RandomCrop((40, 40), max_class_share=0.8, tries=60)
    found = []
    for seed in range(40):
        truth = run(crop, sample, seed).truth
        assert truth is not None
        found.append(float((truth.ids >= 0).float().mean()))
    assert min(found) > 0.17
    assert max(found) < 0.83


def sample_size(transform: Any, sample: Sample) -> tuple[int, int]:
    return run(transform, sample).size


@pytest.mark.parametrize(
    "before", [(), (RandomScale(0.5, 1.5),), (RandomScale(), Rotation(10), Elastic(3), Flip(0.5, 0.5))]
)
def test_focus_shows_the_rare_class(before: tuple[Any, ...]) -> None:
    weights = (1.0, 2.0, 1000.0)
    free = shares(Chain((*before, RandomCrop((48, 48)))), road())[:, 2]
    focused = shares(Chain((*before, RandomCrop((48, 48), focus=1.0, weights=weights))), road())[:, 2]
    half = shares(Chain((*before, RandomCrop((48, 48), focus=0.5, weights=weights))), road())[:, 2]
    assert (focused > 0).mean() > 0.97
    assert focused.mean() > 4 * free.mean()
    assert free.mean() < half.mean() < focused.mean()


def test_focus_shows_objects_where_there_are_no_weights() -> None:
    ids = np.full((200, 300), -1, np.int8)
    ids[20:24, 20:24], ids[100:190, 100:290] = 0, 1
    sample = Sample(torch.zeros(1, 200, 300, dtype=torch.uint8), Segments(ids, [0, 0]), "objects")
    small = [0 in classes_of(run(RandomCrop((40, 40), focus=1.0), sample, seed)) for seed in range(100)]
    assert all(small)
    seen = 0
    for seed in range(100):
        truth = run(RandomCrop((40, 40), focus=1.0), sample, seed).truth
        assert truth is not None
        seen += int(truth.pixel_counts.max()) <= 16  # the small object alone
    assert 30 < seen < 70


def test_focus_without_truth_or_rows_is_a_plain_crop() -> None:
    image = torch.zeros(1, 50, 50, dtype=torch.uint8)
    for truth in (None, Segments.empty((50, 50))):
        assert sample_size(RandomCrop((20, 20), focus=1.0), Sample(image, truth, "")) == (20, 20)


# -- chain ------------------------------------------------------------------------------------------------------------


def test_one_warp_is_what_the_steps_are_one_by_one() -> None:
    sample = blocks()
    steps = (Flip(1.0, 1.0), Pad((100, 140)), RandomCrop((50, 60)))
    one_by_one, rng = sample, np.random.default_rng(0)
    for step in steps:
        one_by_one = step(one_by_one, rng, no_pick)
    joined = run(Chain(steps), sample)
    assert torch.equal(joined.image, one_by_one.image)
    assert torch.equal(classes_of(joined), classes_of(one_by_one))


def test_own_callable_and_pick() -> None:
    def paste(sample: Sample, rng: np.random.Generator, pick: Any) -> Sample:
        return replace(sample, image=torch.maximum(sample.image, pick(rng).image))

    other = replace(blocks(), image=torch.full_like(blocks().image, 99))
    out = Chain((Flip(1.0), paste, Flip(1.0)))(blocks(), np.random.default_rng(0), lambda rng: other)
    assert torch.equal(out.image, blocks().image.clamp(min=99))


def broken(sample: Sample, rng: np.random.Generator, pick: Any) -> Any:
    raise KeyError("nowhere")


def returns_nothing(sample: Sample, rng: np.random.Generator, pick: Any) -> Any:
    return None


def forgets_the_truth(sample: Sample, rng: np.random.Generator, pick: Any) -> Any:
    return replace(sample, image=sample.image[:, :10])


@pytest.mark.parametrize(
    ("own", "reason"), [(broken, "nowhere"), (returns_nothing, "NoneType"), (forgets_the_truth, "(10, 120)")]
)
def test_failure_names_transform_and_sample(own: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        run(Chain((Flip(), own)), blocks())
    for word in (own.__name__, "street/blocks", reason):
        assert word in str(caught.value)


def test_own_pixelwise_errors_pass_untouched() -> None:
    def refuse(sample: Sample, rng: np.random.Generator, pick: Any) -> Sample:
        raise ConfigError("as I said")

    with pytest.raises(ConfigError, match=r"^as I said$"):
        run(Chain((refuse,)), blocks())


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomScale(1.5, 0.5),
        lambda: RandomScale(choices=(0.0, 1.0)),
        lambda: RandomCrop((0, 10)),
        lambda: RandomCrop((10, 10), focus=1.5),
        lambda: Resize((10, -1)),
        lambda: Elastic(3.0, 1),
        lambda: ColourJitter(hue=0.7),
        lambda: ColourJitter(brightness=-0.1),
        lambda: Flip(1.2),
        lambda: Blur(-0.5),
        lambda: Blur(0.5, 0.0, 1.0),
        lambda: Noise(-1.0),
        lambda: Gamma(-1.0),
        lambda: Rotation(-5.0),
    ],
)
def test_values_that_cannot_be(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_two_elastic_warps_are_refused() -> None:
    with pytest.raises(ConfigError, match="elastic"):
        run(Chain((Elastic(), Elastic())), blocks())
