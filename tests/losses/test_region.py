"""Dice and its relatives against smp, MONAI and loops; Lovasz-softmax against its definition and smp."""

import itertools

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss as MonaiDice
from monai.losses import GeneralizedDiceLoss as MonaiGeneralisedDice
from monai.losses import TverskyLoss as MonaiTversky
from segmentation_models_pytorch.losses import DiceLoss as SmpDice
from segmentation_models_pytorch.losses import LovaszLoss as SmpLovasz
from segmentation_models_pytorch.losses import TverskyLoss as SmpTversky
from torch.nn import functional as F

from pixelwise import losses
from pixelwise.errors import ConfigError

WEIGHT = [1.0, 2.0, 0.5, 4.0, 3.0]


def value_and_grad(loss, logits, target, **options):
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target, **options)
    value.backward()
    return value.detach(), leaf.grad


def cases(seed):
    """(logits, target) with 255: random, a class absent, one valid pixel, two classes, sure and wrong logits."""
    g = torch.Generator().manual_seed(seed)

    def draw(b, k, h, w, top, void, scale=2.0):
        target = torch.randint(0, top, (b, h, w), generator=g)
        target[torch.rand(b, h, w, generator=g) < void] = 255
        return torch.randn(b, k, h, w, generator=g) * scale, target

    yield draw(3, 5, 7, 9, 5, 0.2)
    yield draw(2, 6, 8, 5, 3, 0.1)
    yield draw(2, 2, 4, 4, 2, 0.5)
    yield draw(2, 4, 6, 6, 4, 0.0, scale=30.0)
    logits, target = draw(2, 3, 5, 5, 3, 1.0)
    target[1, 2, 3] = 2
    yield logits, target


# Dice and Tversky


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_is_smps(seed, smooth):
    for logits, target in cases(seed):
        theirs = SmpDice("multiclass", ignore_index=255, smooth=smooth)
        torch.testing.assert_close(
            value_and_grad(losses.dice, logits, target, smooth=smooth),
            value_and_grad(theirs, logits, target),
            atol=2e-6,
            rtol=1e-4,
        )


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.7), (0.7, 0.3), (1.0, 1.0)])
def test_tversky_is_smps(alpha, beta):
    for logits, target in cases(7):
        theirs = SmpTversky("multiclass", ignore_index=255, alpha=alpha, beta=beta)
        torch.testing.assert_close(
            value_and_grad(losses.tversky, logits, target, alpha=alpha, beta=beta),
            value_and_grad(theirs, logits, target),
            atol=2e-6,
            rtol=1e-4,
        )


def test_class_weights_are_smps(logits, void_target):
    theirs = SmpDice("multiclass", ignore_index=255, class_weights=WEIGHT)(logits, void_target)
    torch.testing.assert_close(losses.dice(logits, void_target, weight=WEIGHT), theirs)
    torch.testing.assert_close(losses.dice(logits, void_target, weight=[10 * w for w in WEIGHT]), theirs)


def test_dice_per_image_is_monais_where_every_image_holds_every_class(logits, target):
    logits = logits[:, :4]
    theirs = MonaiDice(softmax=True, to_onehot_y=True, smooth_nr=2e-3, smooth_dr=2e-3)(logits, target.unsqueeze(1))
    torch.testing.assert_close(losses.dice(logits, target, per_image=True, smooth=1e-3), theirs)
    theirs = MonaiDice(softmax=True, to_onehot_y=True, smooth_nr=0, smooth_dr=0, batch=True)(
        logits, target.unsqueeze(1)
    )
    torch.testing.assert_close(losses.dice(logits, target), theirs)


def test_tversky_per_image_is_monais_and_both_let_alpha_weigh_false_positives(logits, target):
    logits = logits[:, :4]
    theirs = MonaiTversky(softmax=True, to_onehot_y=True, alpha=0.2, beta=0.9, smooth_nr=0, smooth_dr=0)
    ours = losses.tversky(logits, target, alpha=0.2, beta=0.9, per_image=True)
    torch.testing.assert_close(ours, theirs(logits, target.unsqueeze(1)))


def test_an_absent_class_adds_0_where_monai_adds_about_1(logits, target):
    ours = losses.dice(logits, target, per_image=True)
    theirs = MonaiDice(softmax=True, to_onehot_y=True, smooth_nr=1e-5, smooth_dr=1e-5)(logits, target.unsqueeze(1))
    assert (theirs - ours).item() == pytest.approx(1 / 5, abs=1e-4)


def dice_by_loop(p, target, per_image):
    """1 - 2 sum(p y) / (sum p + sum y), class by class, pixel by pixel."""
    sets = [[b] for b in range(len(target))] if per_image else [list(range(len(target)))]
    by_set = []
    for images in sets:
        total = 0.0
        for k in range(p.shape[1]):
            both = mass = size = 0.0
            for b in images:
                for y, x in np.ndindex(*target.shape[1:]):
                    if target[b, y, x] == 255:
                        continue
                    both += p[b, k, y, x] * (target[b, y, x] == k)
                    mass += p[b, k, y, x]
                    size += target[b, y, x] == k
            total += 1 - 2 * both / (mass + size) if size else 0.0
        by_set.append(total / p.shape[1])
    return sum(by_set) / len(by_set)


@pytest.mark.parametrize("per_image", [False, True])
def test_soft_dice_is_the_loop(logits, void_target, per_image):
    p = logits.double().softmax(1).numpy()
    expected = dice_by_loop(p, void_target.numpy(), per_image)
    assert losses.dice(logits, void_target, per_image=per_image).item() == pytest.approx(expected, rel=1e-5)


def test_hard_dice_is_the_textbooks_count(logits, void_target):
    """With a net that is sure of everything, 1 - 2TP / (2TP + FP + FN) of its class map, class by class."""
    guess, valid = logits.argmax(1), void_target != 255
    expected = []
    for k in range(5):
        tp = ((guess == k) & (void_target == k)).sum().item()
        fp = ((guess == k) & (void_target != k) & valid).sum().item()
        fn = ((guess != k) & (void_target == k)).sum().item()
        expected.append(1 - 2 * tp / (2 * tp + fp + fn) if tp + fn else 0.0)
    sure = F.one_hot(guess, 5).permute(0, 3, 1, 2) * 1000.0
    assert losses.dice(sure, void_target).item() == pytest.approx(np.mean(expected), rel=1e-6)


def test_dice_takes_integer_labels_and_a_perfect_net_scores_0(target):
    """Textbook defect: flattened softmax against integer labels does not even have the labels' size, and where sizes
    are made equal the ids act as weights, so that a perfect net scores below 0."""
    perfect = F.one_hot(target, 5).permute(0, 3, 1, 2) * 200.0
    assert losses.dice(perfect, target).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(RuntimeError):
        (perfect.softmax(1).reshape(-1) * target.reshape(-1)).sum()
    hard = target.float().reshape(-1)
    assert 1 - 2 * (hard * hard).sum() / (hard.sum() * 2) < 0


def test_dice_is_the_class_mean_not_one_flattened_ratio(logits, target):
    """Textbook defect: one ratio over all classes lets the frequent ones drown the rare ones."""
    p, truth = logits.softmax(1), F.one_hot(target, 5).permute(0, 3, 1, 2)
    flattened = 1 - 2 * (p * truth).sum() / (p.sum() + truth.sum())
    assert abs(losses.dice(logits, target) - flattened) > 1e-3


def test_dice_does_not_overflow_in_half_precision():
    """Textbook defect: the sum of 1024x1024 ones is inf in float16."""
    assert torch.ones(2**20, dtype=torch.float16).sum().isinf()
    logits = torch.zeros(1, 2, 1024, 1024, dtype=torch.float16)
    assert losses.dice(logits, torch.zeros(1, 1024, 1024, dtype=torch.uint8)).item() == pytest.approx(1 / 6)


def test_dice_counts_on_in_a_class_of_millions_of_pixels():
    """Added up one by one in float32, 0.88 at a time, four million pixels come out 5 per cent wrong."""
    logits = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 2**22)
    p = torch.tensor([2.0, 0.0]).softmax(0)[0].item()
    value = losses.dice(logits, torch.zeros(1, 1, 2**22, dtype=torch.uint8))
    assert value.item() == pytest.approx((1 - 2 * p / (p + 1)) / 2, abs=1e-6)


# Log-cosh, focal Tversky, generalised Dice


def test_log_cosh_dice(logits, void_target):
    for options in ({}, {"per_image": True}, {"weight": WEIGHT, "smooth": 2.0}):
        expected = np.log(np.cosh(losses.dice(logits, void_target, **options).item()))
        assert losses.log_cosh_dice(logits, void_target, **options).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 4 / 3, 3.0])
def test_focal_tversky_is_the_papers_power_class_by_class(logits, void_target, gamma):
    """smp's power is of the mean over classes, so it is asked for one class at a time."""
    theirs = [
        SmpTversky("multiclass", classes=[k], ignore_index=255, alpha=0.3, beta=0.7, gamma=1 / gamma) for k in range(5)
    ]
    expected = sum(loss(logits, void_target) for loss in theirs) / 5
    torch.testing.assert_close(losses.focal_tversky(logits, void_target, gamma=gamma), expected)


def test_focal_tversky_with_gamma_1_is_tversky(logits, void_target):
    torch.testing.assert_close(
        value_and_grad(losses.focal_tversky, logits, void_target, gamma=1.0, alpha=0.3, beta=0.7, weight=WEIGHT),
        value_and_grad(losses.tversky, logits, void_target, alpha=0.3, beta=0.7, weight=WEIGHT),
    )


@pytest.mark.parametrize("scale", [10.0, 17.0, 40.0, 1000.0])
def test_focal_tversky_has_no_infinite_slope_near_perfect(target, scale):
    perfect = F.one_hot(target, 5).permute(0, 3, 1, 2) * scale
    value, grad = value_and_grad(losses.focal_tversky, perfect, target)
    assert value >= 0
    assert grad.isfinite().all()


@pytest.mark.parametrize("per_image", [False, True])
def test_generalised_dice_is_monais_where_no_class_is_absent(logits, target, per_image):
    theirs = MonaiGeneralisedDice(
        softmax=True, to_onehot_y=True, batch=not per_image, smooth_nr=0.0, smooth_dr=1e-12
    )  # fmt: skip
    torch.testing.assert_close(
        value_and_grad(losses.generalised_dice, logits[:, :4], target, per_image=per_image),
        value_and_grad(theirs, logits[:, :4], target.unsqueeze(1)),
        atol=1e-6,
        rtol=1e-4,
    )


def test_generalised_dice_leaves_an_absent_class_out(logits, void_target):
    p, valid = logits.double().softmax(1).numpy(), (void_target != 255).numpy()
    above = below = 0.0
    for k in range(4):  # class 4 is absent
        truth = (void_target == k).numpy()
        w = 1 / truth.sum() ** 2
        above += w * p[:, k][truth].sum()
        below += w * (p[:, k][valid].sum() + truth.sum())
    assert losses.generalised_dice(logits, void_target).item() == pytest.approx(1 - 2 * above / below, rel=1e-5)


# Lovasz-softmax


def jaccard_loss(mistakes, truth):
    """1 - |truth without mistakes| / |truth or mistakes|: the Jaccard loss of the prediction that errs there."""
    union = len(truth | mistakes)
    return 1 - len(truth - mistakes) / union if union else 0.0


def lovasz_extension(errors, truth):
    """The Lovasz extension of the Jaccard loss as a Choquet integral: over levels t, the loss of {errors >= t}."""
    levels = sorted({0.0, *errors})
    return sum(
        (high - low) * jaccard_loss({i for i, e in enumerate(errors) if e >= high}, truth)
        for low, high in itertools.pairwise(levels)
    )


def lovasz_by_definition(p, target, classes):
    pixels = [tuple(i) for i in np.argwhere(target != 255)]
    terms = []
    for k in range(p.shape[1]):
        truth = {i for i, pixel in enumerate(pixels) if target[pixel] == k}
        if truth or classes == "all":
            errors = [abs((i in truth) - p[b, k, y, x]) for i, (b, y, x) in enumerate(pixels)]
            terms.append(lovasz_extension(errors, truth))
    return np.mean(terms)


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_lovasz_is_its_definition(classes, seed):
    for logits, target in cases(seed):
        expected = lovasz_by_definition(logits.double().softmax(1).numpy(), target.numpy(), classes)
        value = losses.lovasz_softmax(logits.double(), target, classes=classes).item()
        assert value == pytest.approx(expected, rel=1e-10)


def test_lovasz_of_a_hard_prediction_is_its_mean_jaccard_loss(logits, target):
    guess = logits.argmax(1)
    sure = F.one_hot(guess, 5).permute(0, 3, 1, 2) * 1000.0
    iou = [((guess == k) & (target == k)).sum() / ((guess == k) | (target == k)).sum() for k in range(4)]
    assert losses.lovasz_softmax(sure, target).item() == pytest.approx(1 - np.mean(iou), rel=1e-6)


@pytest.mark.parametrize("per_image", [False, True])
def test_lovasz_is_smps(logits, void_target, per_image):
    theirs = SmpLovasz("multiclass", per_image=per_image, ignore_index=255)
    torch.testing.assert_close(
        value_and_grad(losses.lovasz_softmax, logits, void_target, per_image=per_image),
        value_and_grad(theirs, logits, void_target),
        atol=1e-6,
        rtol=1e-3,  # smp takes the slopes as differences of float32 numbers near 1
    )


@pytest.mark.parametrize(
    ("classes", "per_image", "plain", "void"),
    [
        ("present", False, 0.837392, 0.845568),
        ("present", True, 0.838317, 0.845943),
        ("all", False, 0.837093, 0.843456),
        ("all", True, 0.832798, 0.838809),
    ],
)
def test_lovasz_has_the_authors_values(logits, target, void_target, classes, per_image, plain, void):
    options = {"classes": classes, "per_image": per_image}
    assert losses.lovasz_softmax(logits, target, **options).item() == pytest.approx(plain, abs=2e-6)
    assert losses.lovasz_softmax(logits, void_target, **options).item() == pytest.approx(void, abs=2e-6)


def test_lovasz_slopes_keep_their_digits_on_many_pixels():
    """float32 against float64 at a million pixels; differences of Jaccard indices are off by several per cent here."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 1000, 1000, generator=g)
    target = torch.randint(0, 2, (1, 1000, 1000), generator=g)
    _, single = value_and_grad(losses.lovasz_softmax, logits, target)
    _, double = value_and_grad(losses.lovasz_softmax, logits.double(), target)
    # Pixels whose errors tie in float32 may swap places, which is worth one place's difference in slope.
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-10)


def test_lovasz_in_chunks_of_classes_is_the_same(monkeypatch, logits, void_target):
    whole = value_and_grad(losses.lovasz_softmax, logits, void_target, weight=WEIGHT)
    monkeypatch.setattr("pixelwise.losses.lovasz.SORTED_AT_ONCE", 2 * void_target.numel())
    torch.testing.assert_close(value_and_grad(losses.lovasz_softmax, logits, void_target, weight=WEIGHT), whole)


def test_lovasz_weights_average_over_the_classes_present(logits, target):
    alone = []
    for k in range(4):
        weight = [0.0] * 5
        weight[k] = 1.0
        alone.append(losses.lovasz_softmax(logits, target, weight=weight).item())
    expected = np.average(alone, weights=WEIGHT[:4])
    assert losses.lovasz_softmax(logits, target, weight=WEIGHT).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "options", "word"),
    [
        (losses.dice, {"smooth": -1}, "smooth must be at least 0"),
        (losses.dice, {"per_image": 1}, "per_image must be True or False"),
        (losses.tversky, {"alpha": -0.1}, "alpha"),
        (losses.tversky, {"beta": None}, "beta"),
        (losses.focal_tversky, {"gamma": 0}, "gamma"),
        (losses.lovasz_softmax, {"classes": "presnt"}, "did you mean 'present'"),
        (losses.lovasz_softmax, {"classes": [1, 2]}, "classes"),
    ],
)
def test_options_that_cannot_be_are_refused(logits, target, loss, options, word):
    with pytest.raises(ConfigError, match=word):
        loss(logits, target, **options)
