"""`pixelwise list`: everything that the code offers is listed, with what it says of itself."""

from __future__ import annotations

import os
import re

import pytest
from rich.console import Console

from pixelwise import losses, metrics
from pixelwise.core import registry
from pixelwise.errors import ConfigError
from pixelwise.listing import keys, parameters, table


def printed(what: str, width: int = 80) -> str:
    with open(os.devnull, "w") as nowhere:
        console = Console(width=width, record=True, file=nowhere)
        table(what, console)
        return console.export_text()


def words(text: str) -> str:
    """The text without the table's wrapping."""
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("what", ["models", "formats", "losses", "metrics"])
@pytest.mark.parametrize("width", [80, 160])
def test_fits_the_terminal(what: str, width: int) -> None:
    text = printed(what, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.startswith(what)


def test_every_variant_with_its_parameters() -> None:
    text = printed("models", 160)
    assert re.search(r"^ *unet +31,044,821 +U-Net \(Ronneberger, Fischer, Brox 2015, 1505\.04597\)", text, re.MULTILINE)
    for architecture in registry.modules("models"):
        for variant in registry.load("models", architecture).VARIANTS:
            name = f"{architecture}-{variant}" if variant else architecture
            assert re.search(rf"^ *{re.escape(name)} +{parameters(name):,} ", text, re.MULTILINE)
    real = registry.create_model("unet-tiny", classes=21)
    assert parameters("unet-tiny") == sum(p.numel() for p in real.parameters())


def test_every_format_with_its_description() -> None:
    text = words(printed("formats"))
    for name in registry.modules("formats"):
        assert f"{name} {registry.load('formats', name).DESCRIPTION}" in text


def test_every_loss_with_its_options() -> None:
    text = words(printed("losses", 200))
    for name, options, what in losses.table():
        assert f"{name} {what}" in text
        assert options in text
        losses.parse(name)


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_metric_with_its_keys(name: str) -> None:
    text = words(printed("metrics", 200))
    assert f" {name} " in text
    found = keys(getattr(metrics, name))
    assert ", ".join(found) in text
    assert found


def test_keys_that_others_build_on() -> None:
    assert {"iou", "dice", "miou", "pixel_accuracy", "mean_accuracy", "fwiou"} <= set(keys(metrics.ConfusionMatrix))
    assert {"pq", "sq", "rq"} <= set(keys(metrics.PanopticQuality))
    assert {"ap", "ap50", "ap75"} <= set(keys(metrics.AveragePrecision))


def test_an_unknown_list_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'losses'"):
        table("loses")
