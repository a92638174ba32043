"""Class weights against their papers' formulas, written out; absent classes; refusals."""

import math

import numpy as np
import pytest
import torch

from pixelwise.errors import ConfigError, DataError
from pixelwise.losses import class_weights
from pixelwise.losses.weights import RULES, effective_number, enet, inverse, median_frequency

COUNTS = [600_000, 300_000, 90_000, 9_000, 1_000]
every_rule = pytest.mark.parametrize("rule", RULES)


def test_inverse_gives_every_class_the_same_say():
    weights = inverse(COUNTS).double()
    assert torch.allclose(weights * torch.tensor(COUNTS), torch.full((5,), 200_000.0, dtype=torch.float64))
    assert weights[0].item() == pytest.approx(1_000_000 / (5 * 600_000))


def test_median_frequency_is_segnets():
    seen = [1_000_000, 1_000_000, 500_000, 100_000, 50_000]
    frequency = [c / s for c, s in zip(COUNTS, seen, strict=True)]  # .6 .3 .18 .09 .02
    expected = [0.18 / f for f in frequency]
    np.testing.assert_allclose(median_frequency(COUNTS, seen=seen), expected, rtol=1e-6)
    torch.testing.assert_close(class_weights(COUNTS, "median", seen=seen), median_frequency(COUNTS, seen=seen))
    torch.testing.assert_close(class_weights(COUNTS, "enet", seen=seen), enet(COUNTS))  # which does not ask for it
    assert median_frequency(COUNTS)[2] == 1  # the median class, when all count as seen everywhere


def test_enet_is_the_papers():
    expected = [1 / math.log(1.02 + c / 1_000_000) for c in COUNTS]
    np.testing.assert_allclose(enet(COUNTS), expected, rtol=1e-6)
    assert enet([1, 0])[1].item() == pytest.approx(50.498, abs=1e-3)


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999])
def test_effective_number_is_the_papers(beta):
    counts = [5000, 800, 60, 3]
    each = np.array([(1 - beta) / (1 - beta**n) for n in counts])
    np.testing.assert_allclose(effective_number(counts, beta=beta), each * 4 / each.sum(), rtol=1e-5)


def test_effective_number_of_beta_0_and_1_are_flat_and_inverse():
    np.testing.assert_allclose(effective_number(COUNTS, beta=0.0), np.ones(5))
    proportions = effective_number(COUNTS, beta=1.0).double() * torch.tensor(COUNTS)
    np.testing.assert_allclose(proportions / proportions[0], np.ones(5), rtol=1e-5)


def test_effective_number_by_default_tells_pixels_apart():
    """The paper's betas are for counts of images: on pixels they see no difference between these classes."""
    np.testing.assert_allclose(effective_number([600_000, 300_000, 90_000], beta=0.999), np.ones(3))
    weights = effective_number(COUNTS)
    assert (weights.diff() > 0).all()
    inverse_spread, spread = COUNTS[0] / COUNTS[-1], (weights[-1] / weights[0]).item()
    assert 100 < spread < inverse_spread
    n = sum(COUNTS) / 5
    each = np.array([1 / (n * (1 - (1 - 1 / n) ** c)) for c in COUNTS])
    np.testing.assert_allclose(weights, each / each.mean(), rtol=1e-5)


@every_rule
def test_an_absent_class_is_treated_as_the_rarest(rule):
    weights = class_weights([700, 0, 200, 100, 0], rule)
    assert weights.isfinite().all()
    if rule != "enet":  # whose formula has a value for 0 pixels, above all others
        assert weights[1] == weights[4] == weights[3]
        torch.testing.assert_close(weights[[0, 2, 3]], class_weights([700, 200, 100], rule))
    assert weights[1] == weights.max()


@every_rule
def test_rarer_weighs_more_and_equal_weighs_equal(rule):
    assert (class_weights(COUNTS, rule).diff() > 0).all()
    torch.testing.assert_close(class_weights([70, 70, 70], rule), class_weights([70, 70, 70], rule)[:1].expand(3))


@every_rule
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda c: torch.tensor(c, dtype=torch.int32)])
def test_counts_of_any_kind(rule, kind):
    weights = class_weights(kind(COUNTS), rule)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, class_weights(COUNTS, rule))


@every_rule
def test_terapixels_and_single_classes(rule):
    assert class_weights([10**15, 1], rule).isfinite().all()
    assert class_weights([10], rule).isfinite().all()


@every_rule
@pytest.mark.parametrize("counts", [[0, 0], [3, -1], [[1, 2]], 5, [1.0, math.nan], []])
def test_counts_that_cannot_be_are_refused(rule, counts):
    with pytest.raises(DataError, match="counts"):
        class_weights(counts, rule)


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'median'"):
        class_weights(COUNTS, "medain")
    with pytest.raises(ConfigError, match="offset"):
        enet(COUNTS, offset=1.0)
    with pytest.raises(ConfigError, match="beta"):
        effective_number(COUNTS, beta=1.2)
    with pytest.raises(DataError, match="seen"):
        median_frequency(COUNTS, seen=[1] * 5)
    with pytest.raises(DataError, match="seen"):
        median_frequency(COUNTS, seen=[10**7] * 4)
