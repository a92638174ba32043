"""Mixes read from text: what they compute, what they print, what they refuse."""

import pickle

import pytest
import torch

from pixelwise import losses
from pixelwise.errors import ConfigError, DataError
from pixelwise.losses import Mix, Term, names, parse, table
from pixelwise.losses.mix import LOSSES

WEIGHT = torch.tensor([1.0, 2.0, 0.5, 4.0, 3.0])


def test_a_mix_is_the_weighted_terms(logits, void_target):
    parts = parse("ce+0.5*dice")(logits, void_target)
    assert list(parts) == ["ce", "dice"]
    torch.testing.assert_close(parts["ce"], losses.cross_entropy(logits, void_target))
    torch.testing.assert_close(parts["dice"], 0.5 * losses.dice(logits, void_target))


def test_options_reach_their_loss(logits, void_target):
    parts = parse("focal(gamma=3) + 0.5*tversky(alpha=0.3,beta=0.7,per_image=true) + 2e-1 * lovasz(classes=all)")(
        logits, void_target
    )
    torch.testing.assert_close(parts["focal"], losses.focal(logits, void_target, gamma=3))
    tversky = losses.tversky(logits, void_target, alpha=0.3, beta=0.7, per_image=True)
    torch.testing.assert_close(parts["tversky"], 0.5 * tversky)
    torch.testing.assert_close(parts["lovasz"], 0.2 * losses.lovasz_softmax(logits, void_target, classes="all"))


def test_class_weights_go_to_the_losses_that_add_up_pixels(logits, void_target):
    mix = parse("ce+focal(weight=[1,1,1,1,1])+dice")
    parts = mix(logits, void_target, weight=WEIGHT)
    torch.testing.assert_close(parts["ce"], losses.cross_entropy(logits, void_target, weight=WEIGHT))
    torch.testing.assert_close(parts["focal"], losses.focal(logits, void_target))  # its own weights win
    torch.testing.assert_close(parts["dice"], losses.dice(logits, void_target))
    own = parse("dice(weight=[1,2,0.5,4,3])")(logits, void_target)["dice"]
    torch.testing.assert_close(own, losses.dice(logits, void_target, weight=WEIGHT))


def test_class_weights_nobody_takes_are_refused(logits, void_target):
    mix = parse("dice+lovasz")
    assert not mix.takes_class_weights
    with pytest.raises(ConfigError, match=r"no term of dice\+lovasz takes them; those that do: ce, focal, ohem, topk"):
        mix(logits, void_target, weight=WEIGHT)


def test_ids_are_looked_at_once_and_void_is_passed_on(logits, void_target, monkeypatch):
    mix = parse("dice+ce")  # which tries each loss, and so looks as well
    looks = []
    look = losses.arguments._check_ids
    monkeypatch.setattr("pixelwise.losses.arguments._check_ids", lambda *a: (looks.append(a), look(*a)))
    mix(logits, void_target)
    assert len(looks) == 1
    mix(logits, void_target, check=False)
    assert len(looks) == 1
    with pytest.raises(DataError):
        mix(logits, void_target, ignore_index=-1)
    renamed = torch.where(void_target == 255, 77, void_target)
    torch.testing.assert_close(mix(logits, renamed, ignore_index=77), mix(logits, void_target))


def test_all_void_under_every_loss_at_once_leaves_the_weights_alone(logits):
    """Textbook defect: a crop that is all void makes cross-entropy NaN, and one NaN step destroys a net."""
    logits = logits.requires_grad_()
    parts = parse("+".join(names()))(logits, torch.full((2, 12, 16), 255))
    sum(parts.values()).backward()
    assert all(value == 0 for value in parts.values())
    assert not logits.grad.any()
    target = torch.full((2, 12, 16), 255)
    assert torch.nn.functional.cross_entropy(logits, target, ignore_index=255).isnan()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_can_be_named(name, logits, target):
    mix = parse(f"0.3*{name}")
    torch.testing.assert_close(mix(logits, target)[name], 0.3 * LOSSES[name](logits, target))
    assert parse(LOSSES[name].__name__) == parse(name)


@pytest.mark.parametrize(
    "text",
    [
        "ce",
        "ce+0.5*dice",
        "0.25*focal(gamma=2)+0.5*tversky(alpha=0.3,beta=0.7)",
        "lovasz(classes='all',per_image=True)+boundary(classes=(1, 2))",
        "dice(weight=(1, 2.5, 3))",
    ],
)
def test_a_mix_prints_as_it_is_read(text):
    mix = parse(text)
    assert str(mix) == text
    assert parse(str(mix)) == mix
    assert hash(parse(str(mix))) == hash(mix)


def test_blanks_do_not_matter():
    assert parse("  ce +  .5 * dice( smooth = 1 ) ") == parse("ce+0.5*dice(smooth=1)")


def test_a_mix_is_frozen_and_can_be_pickled(logits, void_target):
    mix = parse("ce+0.5*tversky(alpha=0.3)")
    again = pickle.loads(pickle.dumps(mix))
    assert again == mix
    torch.testing.assert_close(again(logits, void_target), mix(logits, void_target))
    with pytest.raises(AttributeError):
        mix.terms = ()
    assert mix == Mix((Term("ce"), Term("tversky", 0.5, (("alpha", 0.3),))))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("dise", "did you mean 'dice'"),
        ("ce+0.5*lovasc", "did you mean 'lovasz'"),
        ("cross_entrpy", "did you mean 'cross_entropy'"),
        ("focal(gama=2)", "loss 'focal' has no option 'gama'; did you mean 'gamma'"),
        ("ce(smooth=1)", "has no option 'smooth'"),
        ("dice(ignore_index=3)", "no option 'ignore_index'"),
        ("boundary(maps=1)", "no option 'maps'"),
        ("focal(gamma=-1)", r"loss focal\(gamma=-1\): gamma must be at least 0"),
        ("focal(gamma=two)", "finite number"),
        ("focal(gamma=1,gamma=2)", "twice|cannot read"),
        ("dice(per_image=1)", "True or False"),
        ("ohem(min_kept=2.5)", "whole number"),
        ("tversky(0.3)", r"name\(option=value\)"),
        ("tversky(**a)", "no option"),
        ("lovasz(classes=presnt)", "did you mean 'present'"),
        ("ce(weight=[1,x])", r"numbers in \[\]"),
        ("ce(weight={[]:1})", "cannot read the value"),
        ("boundary(classes=[])", "list of class ids"),
        ("boundary(classes=[a])", r"numbers in \[\]"),
        ("boundary(classes=[0.5])", "whole number"),
        ("ce+ce", "names ce twice"),
        ("ce+cross_entropy", "names ce twice"),
        ("0*ce", "leave that term out"),
        ("-1*ce", "at least 0"),
        ("1e999*ce", "finite number"),
        ("dice*0.5", "finite number"),
        ("two*ce", "finite number"),
        ("ce-dice", "cannot read"),
        ("-ce", "cannot read"),
        ("ce+", "cannot read"),
        ("", "cannot read"),
        ("\0", "cannot read"),
        ("ce dice", "cannot read"),
        ("0.5", "cannot read"),
        ("2*3*ce", "cannot read|finite number"),
        ("__import__('os').getcwd()", "cannot read"),
        ("torch.nn", "cannot read"),
    ],
)
def test_text_that_cannot_be_is_refused(text, word):
    with pytest.raises(ConfigError, match=word):
        parse(text)


def test_the_table_lists_every_loss_with_options_and_source():
    rows = table()
    assert [row[0] for row in rows] == list(names()) == list(LOSSES)
    by_name = {name: (options, about) for name, options, about in rows}
    assert "gamma=2.0" in by_name["focal"][0]
    assert "ignore_index" not in by_name["ce"][0]
    assert all(about.endswith(".") or "arXiv" in about for _, about in by_name.values())


def test_the_public_names_exist():
    assert all(hasattr(losses, name) for name in losses.__all__)
    functions = {loss.__name__ for loss in LOSSES.values()}
    assert functions <= set(losses.__all__)
