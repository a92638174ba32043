"""Samples, batches and preprocessing against plain torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pixelwise.core.outputs import Frame
from pixelwise.core.sample import Preprocessing, Sample, collate, image_tensor, percentiles
from pixelwise.core.segments import Segments
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import DataError, ModelFileError


def sample(h: int, w: int, *, dtype=np.uint8, channels: int = 3, truth: bool = True, name: str = "a") -> Sample:
    rng = np.random.default_rng(h * 100 + w)
    pixels = rng.integers(0, np.iinfo(dtype).max + 1, (h, w, channels)).astype(dtype)
    segments = Segments.from_class_map(rng.integers(0, 3, (h, w)), num_classes=3) if truth else None
    return Sample(image_tensor(pixels), segments, name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_smaller_images_are_padded_with_their_border_and_unknown(dtype):
    a, b = sample(4, 6, dtype=dtype), sample(3, 7, dtype=dtype, name="b")
    batch = collate([a, b])
    assert batch.images.shape == (2, 3, 4, 7)
    assert batch.images.dtype == a.image.dtype
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    first, second = batch.images.to(torch.int32)
    assert torch.equal(first[:, :, :6], a.image.to(torch.int32))
    assert torch.equal(first[:, :, 6], a.image.to(torch.int32)[:, :, 5])
    assert torch.equal(second[:, 3], b.image.to(torch.int32)[:, 2])
    assert batch.frames == (Frame((4, 6), (4, 7), (0, 0, 4, 6)), Frame((3, 7), (4, 7), (0, 0, 3, 7)))
    assert batch.names == ("a", "b")
    assert bool(batch.truths[0].unknown[:, 6].all())
    assert not bool(batch.truths[0].unknown[:, :6].any())
    assert bool(batch.truths[1].unknown[3].all())
    assert torch.equal(batch.truths[1].class_map()[:3], b.truth.class_map())


def test_truths_with_different_layers_and_types_share_a_batch():
    masks = np.ones((2, 4, 4), bool)
    two = Sample(sample(4, 4).image, Segments.from_masks(masks, [1, 2]), "two")
    many = Sample(sample(4, 4).image, Segments(np.zeros((4, 4), np.int16), torch.arange(200)), "many")
    batch = collate([two, many])
    assert batch.ids.shape == (2, 2, 4, 4)
    assert batch.ids.dtype == torch.int16
    assert np.array_equal(batch.truths[0].masks.numpy(), masks)
    assert len(batch.truths[1]) == 200
    assert not bool(batch.truths[1].unknown.any())


def test_a_sample_without_truth_beside_others_is_unknown():
    batch = collate([sample(4, 4), sample(4, 4, truth=False)])
    assert len(batch.truths) == 2
    assert bool(batch.truths[1].unknown.all())
    assert collate([sample(4, 4, truth=False)]).truths == ()


def test_a_batch_can_be_padded_to_a_size():
    batch = collate([sample(3, 3)], size=(8, 5))
    assert batch.images.shape == (1, 3, 8, 5)
    assert int(batch.truths[0].unknown.sum()) == 8 * 5 - 9
    with pytest.raises(DataError, match="more than"):
        collate([sample(9, 3)], size=(8, 5))


def test_samples_that_do_not_go_together_are_named():
    with pytest.raises(DataError, match="'grey' has 1 channels"):
        collate([sample(4, 4), sample(4, 4, channels=1, name="grey")])
    with pytest.raises(DataError, match=r"'deep'.*uint16"):
        collate([sample(4, 4), sample(4, 4, dtype=np.uint16, name="deep")])
    crooked = Sample(sample(4, 4).image, Segments.empty((4, 5)), "crooked")
    with pytest.raises(DataError, match=r"'crooked'.*truth"):
        collate([crooked])


def test_moving_a_batch_moves_all_of_it():
    moved = collate([sample(4, 4)]).to("meta")
    assert {moved.images.device.type, moved.ids.device.type, moved.tables[0]["labels"].device.type} == {"meta"}


def test_grey_and_read_only_pixels_become_images():
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    pixels.flags.writeable = False
    assert image_tensor(pixels).tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert image_tensor(np.zeros((2, 3, 5), np.uint8)).shape == (5, 2, 3)


@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255.0), (torch.uint16, 65535.0)])
def test_preprocessing_is_range_mean_and_deviation(dtype, top):
    stored = torch.randint(0, int(top) + 1, (2, 3, 4, 5)).to(dtype)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (stored.double() / top - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    found = Preprocessing(range=top, mean=mean, std=std)(stored)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_preprocessing_keeps_the_memory_format():
    stored = torch.zeros(2, 3, 4, 5, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert Preprocessing()(stored).is_contiguous(memory_format=torch.channels_last)


def test_another_number_of_channels_is_not_broadcast():
    with pytest.raises(DataError, match="images have 1 channels, the net takes 3"):
        Preprocessing()(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))


def test_preprocessing_comes_back_from_json():
    made = Preprocessing(channels=2, order="", range=65535.0, mean=(0.1, 0.2), std=(0.3, 0.4))
    assert Preprocessing.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"channels": 2}, "2 channels but 3 values of mean"),
        ({"std": [1, 0, 1]}, "above 0"),
        ({"std": [1, float("nan"), 1]}, "above 0"),
        ({"range": 0}, "above 0"),
        ({"means": []}, "did you mean 'mean'"),
        ({"mean": "abc"}, "cannot be made"),
        ({"mean": 5}, "cannot be made"),
    ],
)
def test_malformed_preprocessing_is_refused(data, message):
    with pytest.raises(ModelFileError, match=message):
        Preprocessing.from_dict(data)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_percentiles_are_numpys(dtype):
    rng = np.random.default_rng(0)
    stored = rng.integers(0, np.iinfo(dtype).max, (3, 2, 17, 23)).astype(dtype)
    stored[1] = 7
    stored[2] = rng.integers(3, 5, (2, 17, 23))
    wanted = (0, 1, 37.5, 99.8, 100)
    expected = np.stack([np.percentile(image, wanted) for image in stored], 1)
    np.testing.assert_allclose(percentiles(torch.from_numpy(stored), wanted), expected, rtol=1e-6)


def test_dim_images_are_stretched_like_bright_ones():
    bright = torch.arange(200, dtype=torch.uint8).view(1, 1, 10, 20)
    both = torch.cat([bright, bright // 10 + 3, torch.full_like(bright, 9)])
    made = Preprocessing(channels=1, order="L", mean=(0,), std=(1,), percentiles=(0, 100))
    stretched = made(both)
    torch.testing.assert_close(stretched[0], bright[0] / 199)
    torch.testing.assert_close(stretched[1], (bright[0] // 10) / 19)
    assert (stretched[2] == 0).all()  # an even image stays even
    assert Preprocessing.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert "percentiles" not in Preprocessing().to_dict()


@pytest.mark.parametrize("wrong", [(5, 5), (-1, 99), (1, 101), (1,), (float("nan"), 99)])
def test_percentiles_that_cannot_be_are_refused(wrong):
    with pytest.raises(ModelFileError, match="percentiles"):
        Preprocessing(percentiles=wrong)


def test_bgr_turns_the_channels_round():
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    words = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "range": 1.0}
    assert Preprocessing(order="BGR", **words)(images).flatten().tolist() == [30, 20, 10]
    assert Preprocessing(order="RGB", **words)(images).flatten().tolist() == [10, 20, 30]
    with pytest.raises(ModelFileError, match="BGR is that of 3 channels"):
        Preprocessing(channels=1, order="BGR", mean=(0.0,), std=(1.0,))


def test_preprocessing_with_and_without_a_size_rule_round_trips():
    ruled = Preprocessing(order="BGR", size=SizeRule(short=800, long=1333, rounding="floor", antialias=False))
    assert Preprocessing.from_dict(ruled.to_dict()) == ruled
    plain = Preprocessing().to_dict()
    assert "size" not in plain  # as older versions wrote it, and as they can read it
    assert Preprocessing.from_dict(plain) == Preprocessing()
    with pytest.raises(ModelFileError, match="size rule"):
        Preprocessing.from_dict({**plain, "size": {"long": 3}})
    with pytest.raises(ModelFileError, match="cannot be made"):
        Preprocessing.from_dict({**plain, "size": 5})
