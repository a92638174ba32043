"""A dialect renames, drops, changes and says what it does not know."""

from __future__ import annotations

import pytest
import torch

from pixelwise.core.keys import Dialect, prefixed
from pixelwise.errors import ConfigError, ModelFileError


def dialect(**changes):
    words = {
        "signs": (r"^stem\.", r"head\.weight$"),
        "rules": ((r"stem\.(\d+)\.(\w+)", r"body.\1.\2"), (r"head\.(.*)", r"out.\1"), (r"counter.*", "")),
        "options": lambda shapes: {"classes": len(shapes["head.weight"])},
    }
    return Dialect(**{**words, **changes})


def test_share_counts_the_signs_that_match():
    assert dialect().share(["stem.0.weight", "head.weight"]) == 1
    assert dialect().share(["stem.0.weight", "other"]) == 0.5
    assert dialect().share([]) == 0


def test_the_first_rule_that_fits_the_whole_name_counts():
    rules = ((r"a\.(.*)", r"first.\1"), (r"a\.b", "second"))
    assert dialect(rules=rules).rename("a.b") == "first.b"
    assert dialect(rules=rules).rename("x.a.b") is None  # not a part of a name


def test_translate_renames_drops_and_names_the_rest():
    state = {"stem.0.weight": torch.ones(2), "head.weight": torch.arange(3.0), "counter": torch.zeros(1),
             "extra": torch.zeros(1)}  # fmt: skip
    turned = dialect(change=lambda name, t: t.flip(0) if name == "out.weight" else t).translate(state)
    assert list(turned.tensors) == ["body.0.weight", "out.weight"]
    assert turned.tensors["out.weight"].tolist() == [2, 1, 0]
    assert turned.origin["out.weight"] == "head.weight"
    assert (turned.dropped, turned.left) == (("counter",), ("extra",))


def test_two_names_that_become_one_are_refused():
    rules = ((r"(?:old|new)\.w", "w"),)
    with pytest.raises(ModelFileError, match=r"'old\.w' and 'new\.w' both become 'w'"):
        dialect(rules=rules).translate({"old.w": torch.ones(1), "new.w": torch.ones(1)})


def test_a_dialect_without_signs_would_recognise_everything():
    with pytest.raises(ConfigError, match="at least one sign"):
        dialect(signs=())


def test_prefixed_moves_the_rules_of_a_part():
    rules = prefixed("backbone.", "encoder.body.", [(r"res(\d)\.(.*)", r"layer\1.\2"), ("mean|std", "")])
    moved = dialect(rules=rules)
    assert moved.rename("backbone.res2.w") == "encoder.body.layer2.w"
    assert moved.rename("backbone.std") == ""
    assert moved.rename("backboneXres2.w") is None  # the prefix is literal
    assert moved.rename("std") is None


def test_a_replacement_may_look_at_all_names():
    def count(match, names):
        return f"{match[1]}.of{len(names)}"

    found = dialect(rules=prefixed("encoder.", "body.", [(r"(\w+)\.w", count)]))
    turned = found.translate({"encoder.a.w": torch.zeros(1), "encoder.b.w": torch.zeros(1)})
    assert list(turned.tensors) == ["body.a.of2", "body.b.of2"]
    assert found.rename("encoder.a.w", ["encoder.a.w"]) == "body.a.of1"
