"""The boundary loss and its distance maps against brute-force distances, MONAI and the authors' values."""

import numpy as np
import pytest
import torch

from pixelwise import losses
from pixelwise.errors import ConfigError


def nearest_distance(pixel, others):
    return min(np.hypot(pixel[0] - y, pixel[1] - x) for y, x in others)


def maps_by_hand(image, classes, void=255):
    """The definition, pair by pair: d to the class outside it, 1 - d to the others inside it, 0 without a boundary."""
    maps = np.zeros((classes, *image.shape))
    for k in range(classes):
        inside = list(map(tuple, np.argwhere(image == k)))
        outside = list(map(tuple, np.argwhere((image != k) & (image != void))))
        if inside and outside:
            for pixel in outside:
                maps[k][pixel] = nearest_distance(pixel, inside)
            for pixel in inside:
                maps[k][pixel] = 1 - nearest_distance(pixel, outside)
    return maps


def test_distance_maps_are_the_definition(void_target):
    maps = losses.distance_maps(void_target, 5)
    assert maps.dtype == torch.float32
    for image, planes in zip(void_target.numpy(), maps.numpy(), strict=True):
        np.testing.assert_allclose(planes, maps_by_hand(image, 5), atol=1e-6)


def test_distance_maps_on_a_drawn_square():
    target = torch.zeros(1, 5, 5, dtype=torch.uint8)
    target[0, 1:4, 1:4] = 1
    expected = [
        [2**0.5, 1, 1, 1, 2**0.5],
        [1, 0, 0, 0, 1],
        [1, 0, -1, 0, 1],
        [1, 0, 0, 0, 1],
        [2**0.5, 1, 1, 1, 2**0.5],
    ]
    torch.testing.assert_close(losses.distance_maps(target, 2)[0, 1], torch.tensor(expected))


def test_distance_maps_are_0_without_a_boundary():
    alone = torch.full((1, 4, 4), 1)
    assert not losses.distance_maps(alone, 3).any()
    assert not losses.distance_maps(torch.full((1, 4, 4), 255), 3).any()


def test_no_distance_is_measured_to_void():
    target = torch.tensor([[[1, 1, 1, 255, 255, 0]]])
    np.testing.assert_allclose(losses.distance_maps(target, 2)[0, 1, 0], [-4, -3, -2, 0, 0, 3])


def test_the_authors_values(logits, target):
    """LIVIAETS/boundary-loss on this batch: all classes, and classes 1 and 2."""
    assert losses.boundary_loss(logits, target).item() == pytest.approx(0.149725, abs=1e-6)
    assert losses.boundary_loss(logits, target, classes=[1, 2]).item() == pytest.approx(0.206810, abs=1e-6)


def test_it_is_monais_where_every_class_is_present(logits, target):
    """Not equal where a class is absent only in that both then say 0; so all 5 are compared."""
    from monai.losses import BoundaryLoss

    theirs = BoundaryLoss(softmax=True, to_onehot_y=True)(logits, target.unsqueeze(1))
    torch.testing.assert_close(losses.boundary_loss(logits, target), theirs)
    without_background = BoundaryLoss(softmax=True, to_onehot_y=True, include_background=False)
    ours = losses.boundary_loss(logits, target, classes=[1, 2, 3, 4])
    torch.testing.assert_close(ours, without_background(logits, target.unsqueeze(1)))


def test_the_mean_is_over_valid_pixels(logits, void_target):
    maps = np.stack([maps_by_hand(image, 5) for image in void_target.numpy()])
    p = logits.double().softmax(1).numpy()
    valid = (void_target != 255).numpy()[:, None]
    expected = (p * maps * valid).sum() / (valid.sum() * 5)
    assert losses.boundary_loss(logits, void_target).item() == pytest.approx(expected, rel=1e-5)


def test_maps_made_beforehand_give_the_same(logits, void_target):
    maps = losses.distance_maps(void_target, 5)
    torch.testing.assert_close(
        losses.boundary_loss(logits, void_target, maps=maps), losses.boundary_loss(logits, void_target)
    )


def test_moving_closer_lowers_the_loss():
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[0, 2:5, 2:5] = 1

    def guess(shift):
        logits = torch.zeros(1, 2, 8, 8)
        logits[0, 1, 2:5, 2 + shift : 5 + shift] = 9.0
        logits[0, 0] = 4.0
        return losses.boundary_loss(logits, target).item()

    assert guess(0) < guess(1) < guess(2) < guess(3)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"classes": []}, "list of class ids"),
        ({"classes": "foreground"}, "list of class ids"),
        ({"classes": [5]}, r"0\.\.4"),
        ({"classes": [1, 1]}, "different"),
        ({"classes": [-1]}, "at least 0"),
        ({"maps": torch.zeros(2, 5, 6, 8)}, "maps must be"),
    ],
)
def test_options_that_cannot_be_are_refused(logits, target, options, word):
    with pytest.raises(ConfigError, match=word):
        losses.boundary_loss(logits, target, **options)
