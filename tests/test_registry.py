"""The registry: what lies in the folders is found, wrong names and options get the nearest right one."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

import pixelwise
from pixelwise.core import registry
from pixelwise.core.registry import check_options, create_model, load, modules, split_variant
from pixelwise.errors import ConfigError


@pytest.mark.parametrize("kind", registry.FOLDERS)
def test_every_file_of_a_folder_is_found_and_can_be_imported(kind):
    folder = Path(pixelwise.__file__).parent / registry.FOLDERS[kind]
    files = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")}
    assert files <= set(modules(kind))
    for name in files:
        assert load(kind, name).__doc__


def test_names_split_at_the_first_hyphen():
    assert split_variant("deeplab-v3-plus") == ("deeplab", "v3-plus")
    assert split_variant("unet") == ("unet", "")


def test_wrong_names_variants_options_and_counts_are_refused():
    with pytest.raises(ConfigError, match=r"no model 'unte'.*did you mean 'unet'"):
        create_model("unte", classes=3)
    with pytest.raises(ConfigError, match="unet has no variant 'gigantic'"):
        create_model("unet-gigantic", classes=3)
    with pytest.raises(ConfigError, match=r"has no option 'widht'.*did you mean 'width'"):
        create_model("unet", classes=3, widht=8)
    for classes in (0, True, 2.0, "3"):
        with pytest.raises(ConfigError, match="classes must be"):
            create_model("unet", classes=classes)


def test_options_override_the_variant(monkeypatch):
    module = types.ModuleType("a_net")
    module.VARIANTS = {"": {}, "small": {"width": 8, "depth": 2}}
    module.build = lambda *, classes, width=64, depth=4: (classes, width, depth)
    monkeypatch.setitem(sys.modules, "a_net", module)
    monkeypatch.setattr(registry, "modules", lambda kind: {"anet": "a_net"})
    assert create_model("anet", classes=3) == (3, 64, 4)
    assert create_model("anet-small", classes=3) == (3, 8, 2)
    assert create_model("anet-small", classes=3, depth=5) == (3, 8, 5)


def test_outside_packages_join_through_entry_points(monkeypatch):
    class Entry:
        name, value, module = "theirs", "their_package.net:build", "their_package.net"

    monkeypatch.setattr(registry, "entry_points", lambda group: [Entry] if group == "pixelwise.models" else [])
    assert modules.__wrapped__("models")["theirs"] == "their_package.net"
    assert "theirs" not in modules.__wrapped__("formats")


def test_the_number_of_classes_is_no_option():
    with pytest.raises(ConfigError, match="no option 'classes'"):
        check_options(lambda *, classes, width=1: None, {"classes": 3}, "Model 'x'")
