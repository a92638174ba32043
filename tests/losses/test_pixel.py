"""Cross-entropy, focal, OHEM and top-k against torch, the original repositories' values and loops."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelwise import losses
from pixelwise.errors import ConfigError

WEIGHT = torch.tensor([1.0, 2.0, 0.5, 4.0, 3.0])


def value_and_grad(loss, logits, target, **options):
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target, **options)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_torchs(logits, target, void_target, weight, smoothing):
    for truth in (target, void_target):
        ours = value_and_grad(losses.cross_entropy, logits, truth, weight=weight, label_smoothing=smoothing)
        torchs = value_and_grad(
            F.cross_entropy, logits, truth, weight=weight, label_smoothing=smoothing, ignore_index=255
        )
        torch.testing.assert_close(ours, torchs)


def test_cross_entropy_with_no_weight_left_is_zero(logits, target):
    weight = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])  # class 4 never occurs
    assert F.cross_entropy(logits, target, weight=weight).isnan()
    value, grad = value_and_grad(losses.cross_entropy, logits, target, weight=weight, label_smoothing=0.1)
    assert value == 0
    assert not grad.any()


def test_cross_entropy_of_an_image_is_the_textbooks_double_sum():
    logits = torch.tensor([[[[0.0, 1.0]], [[0.0, 3.0]]]])  # [1, 2, 1, 2]
    p = [0.5, math.exp(3) / (math.exp(3) + math.exp(1))]
    expected = -sum(map(math.log, p)) / 2
    assert losses.cross_entropy(logits, torch.tensor([[[0, 1]]])).item() == pytest.approx(expected, rel=1e-6)


# Focal


def focal_by_loop(logits, target, gamma, alpha):
    p = torch.softmax(logits.double(), 1).numpy()
    values = []
    for b, y, x in np.ndindex(*target.shape):
        t = int(target[b, y, x])
        if t != 255:
            values.append(-alpha[t] * (1 - p[b, t, y, x]) ** gamma * math.log(p[b, t, y, x]))
    return sum(values) / len(values)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_formula(logits, void_target, gamma):
    alpha = [0.25, 1.0, 0.5, 2.0, 1.0]
    plain = losses.focal(logits, void_target, gamma=gamma).item()
    assert plain == pytest.approx(focal_by_loop(logits, void_target, gamma, [1] * 5), rel=1e-5)
    scaled = losses.focal(logits, void_target, gamma=gamma, alpha=alpha).item()
    assert scaled == pytest.approx(focal_by_loop(logits, void_target, gamma, alpha), rel=1e-5)


def test_focal_with_gamma_0_is_cross_entropy(logits, void_target):
    for weight in (None, WEIGHT):
        ours = value_and_grad(losses.focal, logits, void_target, gamma=0, weight=weight)
        ce = value_and_grad(losses.cross_entropy, logits, void_target, weight=weight)
        torch.testing.assert_close(ours, ce)


def test_focal_against_monai(logits, target):
    from monai.losses import FocalLoss

    theirs = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)  # averages over the 5 classes as well
    value = theirs(logits, target.unsqueeze(1)) * 5
    torch.testing.assert_close(losses.focal(logits, target), value)


def test_focal_takes_p_t_before_the_weights(logits, target):
    """Textbook defect: p_t = exp(-weighted cross-entropy) is no probability, and is off by up to 0.7."""
    alpha = torch.tensor([0.25, 2.0, 1.0, 3.0, 1.0])
    weighted = F.cross_entropy(logits, target, weight=alpha, reduction="none")
    bent = ((1 - torch.exp(-weighted)) ** 2 * weighted).mean()
    plain = F.cross_entropy(logits, target, reduction="none")
    right = (alpha[target] * (1 - torch.exp(-plain)) ** 2 * plain).mean()
    assert abs(bent - right) > 0.01
    torch.testing.assert_close(losses.focal(logits, target, alpha=alpha), right)


def test_focal_is_per_pixel_not_of_the_mean(logits, target):
    """Textbook defect: the focal factor of a mean-reduced cross-entropy is another number."""
    mean = F.cross_entropy(logits, target)
    of_mean = (1 - torch.exp(-mean)) ** 2 * mean
    assert abs(losses.focal(logits, target) - of_mean) > 0.01


def test_focal_alpha_is_not_looked_up_at_void(logits, void_target):
    """Textbook defect: alpha[255] raises."""
    assert losses.focal(logits, void_target, alpha=WEIGHT).isfinite()


def test_focal_single_alpha_only_scales(logits, target):
    torch.testing.assert_close(losses.focal(logits, target, alpha=0.25), 0.25 * losses.focal(logits, target))


def test_focal_weight_only_sets_proportions(logits, target):
    value = losses.focal(logits, target, weight=WEIGHT)
    torch.testing.assert_close(losses.focal(logits, target, weight=WEIGHT * 7), value)
    expected = losses.focal(logits, target, alpha=WEIGHT) * target.numel() / WEIGHT[target].sum()
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_focal_is_calm_where_the_net_is_sure(gamma):
    logits = torch.tensor([[[[200.0, -200.0]], [[-200.0, 200.0]]]])
    value, grad = value_and_grad(losses.focal, logits, torch.tensor([[[0, 1]]]), gamma=gamma)
    assert value == 0
    assert grad.isfinite().all()


# OHEM: values of HRNet's own code on this batch


@pytest.mark.parametrize(
    ("threshold", "min_kept", "plain", "void"),
    [
        (0.7, 1, 3.582892, 3.604020),
        (0.2, 50, 4.562562, 4.533062),
        (0.05, 100, 5.249560, 5.223712),
        (0.01, 1, 5.830855, 5.844364),
    ],
)
def test_ohem_is_hrnets(logits, target, void_target, threshold, min_kept, plain, void):
    options = {"threshold": threshold, "min_kept": min_kept}
    assert losses.ohem_cross_entropy(logits, target, **options).item() == pytest.approx(plain, abs=2e-6)
    assert losses.ohem_cross_entropy(logits, void_target, **options).item() == pytest.approx(void, abs=2e-6)


def test_ohem_with_weights_is_hrnets(logits, target, void_target):
    options = {"threshold": 0.1, "min_kept": 80, "weight": WEIGHT}
    assert losses.ohem_cross_entropy(logits, target, **options).item() == pytest.approx(8.464032, abs=2e-6)
    assert losses.ohem_cross_entropy(logits, void_target, **options).item() == pytest.approx(8.563439, abs=2e-6)


def test_ohem_keeps_exactly_the_hard_pixels(logits, void_target):
    _, grad = value_and_grad(losses.ohem_cross_entropy, logits, void_target, threshold=0.0, min_kept=37)
    kept = grad.abs().sum(1) > 0
    assert kept.sum() == 37
    p = logits.softmax(1).gather(1, void_target.where(void_target != 255, 0).unsqueeze(1)).squeeze(1)
    valid = void_target != 255
    assert p[kept].max() < p[valid & ~kept].min()


def test_ohem_that_keeps_all_is_cross_entropy(logits, void_target):
    for min_kept in (1, 10**9):
        ours = value_and_grad(losses.ohem_cross_entropy, logits, void_target, threshold=1.0, min_kept=min_kept)
        torch.testing.assert_close(ours, value_and_grad(losses.cross_entropy, logits, void_target))


def test_ohem_of_one_easy_pixel_is_zero(logits):
    target = torch.full((2, 12, 16), 255)
    target[0, 0, 0] = 1
    logits[0, 1, 0, 0] = 30.0
    value, grad = value_and_grad(losses.ohem_cross_entropy, logits, target)
    assert value == 0
    assert not grad.any()


# Top-k: DeepLab's values where there is no void; a loop where there is


@pytest.mark.parametrize(("fraction", "expected"), [(0.2, 6.414642), (0.5, 5.295153), (1.0, 3.272159)])
def test_topk_is_deeplabs_without_void(logits, target, fraction, expected):
    value = losses.topk_cross_entropy(logits, target, fraction=fraction)
    assert value.item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.333, 0.7, 1.0])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_topk_divides_by_the_valid_pixels_it_keeps(logits, void_target, fraction, weight):
    each = F.cross_entropy(logits, void_target, weight=weight, reduction="none", ignore_index=255)
    each = np.sort(each[void_target != 255].double().numpy())[::-1]
    expected = each[: max(1, int(fraction * len(each)))].mean()
    value = losses.topk_cross_entropy(logits, void_target, fraction=fraction, weight=weight)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_topk_of_everything_is_cross_entropy(logits, void_target):
    ours = value_and_grad(losses.topk_cross_entropy, logits, void_target, fraction=1.0)
    torch.testing.assert_close(ours, value_and_grad(losses.cross_entropy, logits, void_target))


@pytest.mark.parametrize(
    ("loss", "options", "word"),
    [
        (losses.cross_entropy, {"label_smoothing": 1.5}, "label_smoothing"),
        (losses.cross_entropy, {"weight": [1.0, 2.0]}, "one value per class"),
        (losses.cross_entropy, {"weight": torch.ones(5, 1)}, "one value per class"),
        (losses.cross_entropy, {"weight": [1, 1, 1, 1, -1]}, "at least 0"),
        (losses.cross_entropy, {"weight": "median"}, "one per class"),
        (losses.focal, {"gamma": -1}, "gamma must be at least 0"),
        (losses.focal, {"gamma": "two"}, "finite number"),
        (losses.focal, {"gamma": math.nan}, "finite number"),
        (losses.focal, {"alpha": -0.5}, "alpha"),
        (losses.focal, {"alpha": [1.0]}, "alpha must have one value per class"),
        (losses.ohem_cross_entropy, {"threshold": 2}, "threshold must be in 0..1"),
        (losses.ohem_cross_entropy, {"min_kept": 0.5}, "whole number"),
        (losses.topk_cross_entropy, {"fraction": 20}, "fraction must be in 0..1"),
    ],
)
def test_options_that_cannot_be_are_refused(logits, target, loss, options, word):
    with pytest.raises(ConfigError, match=word):
        loss(logits, target, **options)


@pytest.mark.parametrize("name", ["ce", "focal", "ohem", "topk"])
def test_pixels_of_weight_one_change_nothing_and_of_weight_zero_give_no_gradient(name, logits, void_target):
    loss, weights = losses.mix.LOSSES[name], torch.ones(2, 12, 16)
    assert torch.equal(loss(logits, void_target, pixel_weight=weights), loss(logits, void_target))
    weights[:, 5:] = 0
    logits = logits.clone().requires_grad_()
    loss(logits, void_target, pixel_weight=weights).backward()
    assert not logits.grad[:, :, 5:].any()
    assert logits.grad[:, :, :5].any()


def test_pixel_weights_against_torch(logits, target):
    """The mean stays over pixels; top-k chooses among weighed losses, as DeepLab's code does."""
    weights = 1 + (torch.arange(2 * 12 * 16).view(2, 12, 16) % 5 == 0) * 2.0
    weighed = F.cross_entropy(logits, target, reduction="none") * weights
    torch.testing.assert_close(losses.cross_entropy(logits, target, pixel_weight=weights), weighed.mean())
    hardest = weighed.flatten().topk(int(0.2 * weighed.numel())).values.mean()
    torch.testing.assert_close(losses.topk_cross_entropy(logits, target, pixel_weight=weights), hardest)
    with pytest.raises(ConfigError, match=r"pixel_weight must be \[B, H, W\]"):
        losses.cross_entropy(logits, target, pixel_weight=weights[0])


def test_a_mix_gives_pixel_weights_to_those_that_add_up_pixels(logits, target):
    weights = 1 + (torch.arange(2 * 12 * 16).view(2, 12, 16) % 5 == 0) * 2.0
    plain, weighed = (losses.mix.parse("ce+dice")(logits, target, pixel_weight=w) for w in (None, weights))
    assert torch.equal(plain["dice"], weighed["dice"])
    torch.testing.assert_close(weighed["ce"], losses.cross_entropy(logits, target, pixel_weight=weights))
    assert weighed["ce"] > plain["ce"]
