"""What holds for every loss: void, all void, half precision, memory layout, many classes, errors, no option ignored."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelwise import losses
from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.losses.mix import LOSSES

SETTINGS = {"ohem": {"threshold": 0.5, "min_kept": 20}, "topk": {"fraction": 0.3}}
# Beside the plain form of each loss, the forms that take another path.
FORMS = {name: (loss, SETTINGS.get(name, {})) for name, loss in LOSSES.items()}
FORMS |= {
    "ce smoothed": (losses.cross_entropy, {"label_smoothing": 0.2}),
    "focal steep": (losses.focal, {"gamma": 0.3}),
    "dice per image": (losses.dice, {"per_image": True}),
    "gdice per image": (losses.generalised_dice, {"per_image": True}),
    "lovasz all": (losses.lovasz_softmax, {"classes": "all"}),
    "lovasz per image": (losses.lovasz_softmax, {"per_image": True}),
    "lovasz all per image": (losses.lovasz_softmax, {"classes": "all", "per_image": True}),
    "boundary of some": (losses.boundary_loss, {"classes": [1, 0]}),
}
every_form = pytest.mark.parametrize("form", FORMS)
NAMES = list(FORMS)


def run(form, logits, target, **more):
    """Value and gradient."""
    loss, options = FORMS[form]
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target, **options, **more)
    value.backward()
    return value.detach(), leaf.grad


@every_form
@pytest.mark.parametrize("mess", [0.0, torch.inf, -torch.inf, torch.nan])
def test_all_void_is_exactly_0_with_zero_gradient(form, logits, mess):
    value, grad = run(form, logits + mess, torch.full((2, 12, 16), 255))
    assert value == 0
    assert (grad == 0).all()
    assert value.shape == ()


@every_form
def test_void_has_no_gradient_and_no_say(form, logits, void_target):
    value, grad = run(form, logits, void_target)
    void = (void_target == 255).unsqueeze(1).expand_as(logits)
    assert (grad[void] == 0).all()
    assert grad[~void].any()
    for mess in (torch.randn_like(logits) * 50, torch.full_like(logits, torch.nan), torch.full_like(logits, torch.inf)):
        value_2, grad_2 = run(form, torch.where(void, mess, logits), void_target)
        assert value_2 == value
        assert torch.equal(grad_2, grad)


@st.composite
def batches(draw):
    """(logits, target, the same spread out between void pixels, which pixels those are)."""
    seed = draw(st.integers(0, 10**6))
    b, k, h, w = draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(b, k, h, w)) * draw(st.sampled_from([0.1, 3.0, 100.0]))
    target = rng.integers(0, draw(st.integers(1, k)), (b, h, w))
    target[rng.random(target.shape) < draw(st.sampled_from([0.0, 0.5]))] = 255
    more_h, more_w, more_b = (draw(st.integers(0, 3)) for _ in range(3))
    rows = np.sort(rng.choice(h + more_h, h, replace=False))
    columns = np.sort(rng.choice(w + more_w, w, replace=False))
    images = np.sort(rng.choice(b + more_b, b, replace=False))
    return logits, target, (b + more_b, h + more_h, w + more_w), (images, rows, columns), rng


@pytest.mark.parametrize("form", [name for name in NAMES if "boundary" not in name])
@given(batch=batches())
@settings(max_examples=25, deadline=None)
def test_adding_void_pixels_anywhere_changes_nothing(form, batch):
    assert_spread_changes_nothing(form, batch)


@pytest.mark.parametrize("form", ["boundary", "boundary of some"])
@given(batch=batches())
@settings(max_examples=25, deadline=None)
def test_adding_void_pixels_around_changes_nothing_for_distances(form, batch):
    """Between two pixels void does change how far apart they are; around the image it must not matter."""
    logits, target, (b, h, w), (images, rows, columns), rng = batch
    rows, columns = np.arange(len(rows)) + (h - len(rows)) // 2, np.arange(len(columns)) + (w - len(columns))
    assert_spread_changes_nothing(form, (logits, target, (b, h, w), (images, rows, columns), rng))


def assert_spread_changes_nothing(form, batch):
    logits, target, (b, h, w), (images, rows, columns), rng = batch
    wide_target = np.full((b, h, w), 255)
    wide_target[np.ix_(images, rows, columns)] = target
    wide_logits = rng.normal(size=(b, logits.shape[1], h, w)) * 9
    everything = np.arange(logits.shape[1])
    wide_logits[np.ix_(images, everything, rows, columns)] = logits
    value, grad = run(form, torch.from_numpy(logits), torch.from_numpy(target))
    wide_value, wide_grad = run(form, torch.from_numpy(wide_logits), torch.from_numpy(wide_target))
    torch.testing.assert_close(wide_value, value, rtol=1e-9, atol=1e-12)
    inner = wide_grad[np.ix_(images, everything, rows, columns)]
    if "topk" not in form and "lovasz" not in form:  # where pixels tie, which of them counts is arbitrary
        torch.testing.assert_close(inner, grad, rtol=1e-6, atol=1e-12)
    assert wide_grad.count_nonzero() == inner.count_nonzero()


@every_form
def test_a_single_valid_pixel(form, logits):
    target = torch.full((2, 12, 16), 255)
    target[1, 4, 5] = 2
    value, grad = run(form, logits, target)
    assert value.isfinite()
    assert grad.isfinite().all()
    alone, _ = run(form, logits[1:, :, 4:5, 5:6], target[1:, 4:5, 5:6])
    torch.testing.assert_close(alone, value)


@every_form
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_huge_logits_stay_finite(form, logits, void_target, scale):
    value, grad = run(form, logits * scale, void_target)
    assert value.isfinite()
    assert grad.isfinite().all()


@every_form
def test_a_perfect_net_has_nothing_to_learn(form, target):
    value, grad = run(form, F.one_hot(target, 5).permute(0, 3, 1, 2) * 500.0, target)
    assert grad.isfinite().all()
    if "smoothed" not in form:
        assert value <= 1e-6
        assert grad.abs().max() < 1e-6


@every_form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(form, logits, void_target, dtype):
    half = logits.to(dtype)
    value, grad = run(form, half, void_target)
    expected, _ = run(form, half.float(), void_target)
    assert value.dtype == torch.float32
    assert value == expected
    assert grad.dtype == dtype
    with torch.autocast("cpu", dtype=dtype):
        value, _ = run(form, half.float(), void_target)
    assert value.dtype == torch.float32
    assert value == expected


@every_form
def test_float64_stays_and_the_gradient_is_right(form):
    g = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (2, 3, 4), generator=g)
    target[0, 0] = 255
    loss, options = FORMS[form]
    if form == "ohem":
        options = {"threshold": 0.3, "min_kept": 5}
    assert loss(logits, target, **options).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: loss(x, target, **options), logits, eps=1e-7, atol=1e-5)


@every_form
def test_memory_layout_does_not_matter(form, logits, void_target):
    expected = run(form, logits, void_target)
    loss, options = FORMS[form]
    for laid in (
        logits.to(memory_format=torch.channels_last),
        logits.transpose(2, 3).contiguous().transpose(2, 3),
        torch.stack([logits, logits], -1)[..., 0],
    ):
        leaf = laid.detach().requires_grad_()
        value = loss(leaf, void_target.transpose(1, 2).contiguous().transpose(1, 2), **options)
        value.backward()
        torch.testing.assert_close((value.detach(), leaf.grad), expected, check_stride=False)


@every_form
@pytest.mark.parametrize("classes", [2, 1000])
def test_two_and_a_thousand_classes(form, classes):
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(2, classes, 9, 11, generator=g)
    target = torch.randint(0, classes, (2, 9, 11), generator=g)
    target[0, :2] = 255 if classes == 2 else 1255
    value, grad = run(form, logits, target, ignore_index=int(target[0, 0, 0]))
    assert value.isfinite()
    assert grad.isfinite().all()
    assert grad.any()


@every_form
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_ids_of_any_integer_type(form, logits, void_target, dtype):
    assert run(form, logits, void_target.to(dtype))[0] == run(form, logits, void_target)[0]


@every_form
@pytest.mark.parametrize("void", [-100, -1, 5, 4000])
def test_any_id_may_mean_void(form, logits, void_target, void):
    renamed = torch.where(void_target == 255, void, void_target)
    assert run(form, logits, renamed, ignore_index=void)[0] == run(form, logits, void_target)[0]


@every_form
def test_a_class_may_be_void(form, logits, target):
    both = torch.where(target == 2, 255, target)
    assert run(form, logits, target, ignore_index=2)[0] == run(form, logits, both)[0]


@every_form
def test_unknown_ids_are_refused_by_name(form, logits, void_target):
    void_target[0, 5, :3] = 26
    void_target[1, 5, :2] = -1
    with pytest.raises(DataError, match=r"-1 \(2 pixels\), 26 \(3 pixels\).*0\.\.4.*ignore_index 255") as caught:
        run(form, logits, void_target)
    assert isinstance(caught.value, PixelwiseError)


def test_a_negative_id_alone_is_refused(logits, target):
    target[0, 0, 0] = -1
    with pytest.raises(DataError, match=r"-1 \(1 pixels\)"):
        losses.lovasz_softmax(logits, target)


def test_many_unknown_ids_are_counted_not_listed(logits):
    with pytest.raises(DataError, match="and 182 more"):
        losses.dice(logits, torch.arange(192).reshape(1, 12, 16).expand(2, -1, -1))


@every_form
def test_the_textbooks_255_without_ignore_index_is_an_error_that_says_so(form, logits, void_target):
    """Textbook defect: 255 into a loss that does not know void is a crash in torch, on a GPU of the whole process."""
    with pytest.raises(IndexError):
        F.cross_entropy(logits, void_target)
    with pytest.raises(DataError, match="255"):
        run(form, logits, void_target, ignore_index=-1)


@every_form
@pytest.mark.parametrize(
    ("shape", "target", "word"),
    [
        ((2, 5, 12, 16), torch.zeros(2, 6, 8).long(), "size of the target"),
        ((2, 5, 12, 16), torch.zeros(2, 1, 12, 16).long(), r"\[2, 12, 16\]"),
        ((2, 5, 12, 16), torch.zeros(2, 12, 16), "integer class ids"),
        ((2, 1, 12, 16), torch.zeros(2, 12, 16).long(), "2 classes or more"),
        ((5, 12, 16), torch.zeros(12, 16).long(), r"\[B, K, H, W\]"),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(form, shape, target, word):
    with pytest.raises(ConfigError, match=word):
        run(form, torch.zeros(shape), target)


@every_form
def test_integer_logits_are_refused(form, target):
    loss, options = FORMS[form]
    with pytest.raises(ConfigError, match="floating point"):
        loss(torch.zeros(2, 5, 12, 16, dtype=torch.long), target, **options)


@every_form
def test_an_empty_batch_is_0(form):
    value, grad = run(form, torch.zeros(0, 3, 4, 4), torch.zeros(0, 4, 4).long())
    assert value == 0
    assert grad.shape == (0, 3, 4, 4)


@pytest.mark.parametrize("form", [name for name in NAMES if name not in ("lovasz", "lovasz per image")])
def test_no_value_is_waited_for_once_ids_are_checked(form):
    """On the meta device there are no values, so whatever would wait for a GPU raises."""
    loss, options = FORMS[form]
    logits = torch.zeros(2, 5, 12, 16, device="meta", requires_grad=True)
    target = torch.zeros(2, 12, 16, device="meta", dtype=torch.uint8)
    if "boundary" in form:
        options = options | {"maps": torch.zeros(2, 5, 12, 16, device="meta")}
    value = loss(logits, target, check=False, **options)
    value.backward()
    assert value.shape == ()
    with pytest.raises((NotImplementedError, RuntimeError)):  # the check itself does look
        loss(logits, target, **options)


OTHER = {
    "weight": [1.0, 2.0, 0.5, 4.0, 3.0],
    "alpha": 0.8,
    "beta": 0.1,
    "gamma": 1.5,
    "smooth": 3.0,
    "label_smoothing": 0.1,
    "threshold": 0.05,
    "min_kept": 60,
    "fraction": 0.6,
    "per_image": True,
    "classes": {"lovasz": "all", "boundary": [1, 2]},
    "maps": torch.ones(2, 5, 12, 16),
    "pixel_weight": 1 + torch.arange(2 * 12 * 16).view(2, 12, 16) % 3,
}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (name, option)
        for name, loss in LOSSES.items()
        for option in inspect.signature(loss).parameters
        if option not in ("logits", "target", "ignore_index", "check", "align_corners")
    ],
)
def test_every_option_does_something(name, option, logits, void_target):
    loss = LOSSES[name]
    base = {"threshold": 0.01} if name == "ohem" and option != "threshold" else {}
    if name == "ohem":
        base["min_kept"] = 10
    base.pop(option, None)
    value = OTHER[option]
    plain = loss(logits, void_target, **base)
    changed = loss(logits, void_target, **base, **{option: value[name] if isinstance(value, dict) else value})
    assert abs(changed - plain) > 1e-5


@every_form
def test_all_share_the_call(form):
    loss, _ = FORMS[form]
    parameters = inspect.signature(loss).parameters
    assert list(parameters)[:2] == ["logits", "target"]
    assert parameters["ignore_index"].default == 255
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[2:])
