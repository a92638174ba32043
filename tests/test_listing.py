"""`pixelwise list`: everything that the code offers is listed, with what it says of itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pixelwise import losses, metrics
from pixelwise.core import registry
from pixelwise.errors import ConfigError
from pixelwise.listing import architectures, costs, keys, page, table


def printed(what: str, width: int = 80) -> str:
    with open(os.devnull, "w") as nowhere:
        console = Console(width=width, record=True, file=nowhere)
        table(what, console)
        return console.export_text()


def words(text: str) -> str:
    """The text without the table's wrapping."""
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("what", ["formats", "losses", "metrics"])
@pytest.mark.parametrize("width", [80, 160])
def test_fits_the_terminal(what: str, width: int) -> None:
    text = printed(what, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.startswith(what)


@pytest.fixture(scope="module")
def models() -> str:
    return printed("models", 80)


def test_models_fit_the_terminal(models: str) -> None:
    assert max(map(len, models.splitlines())) <= 80


def test_every_variant_with_its_parameters(models: str) -> None:
    title = "U-Net: Convolutional Networks for Biomedical Image Segmentation"
    assert f" unet 2015 {title} (1505.04597) " in words(models)
    assert "reads files of milesial, smp" in models
    assert re.search(r"^unet +31,044,821 +193\.0", models, re.MULTILINE)
    assert re.search(r"^mask_rcnn +44,073,416 +-", models, re.MULTILINE)
    for architecture, module in architectures():
        for variant in module.VARIANTS:
            name = f"{architecture}-{variant}" if variant else architecture
            assert re.search(rf"^{re.escape(name)} +[\d,]{{6,}} +([\d.,]+|-)", models, re.MULTILINE), name


def test_parameters_and_multiply_adds_are_those_of_the_net() -> None:
    """Held against PyTorch's own counter, on a net that has memory; it counts a multiply-add as two."""
    from torch.utils.flop_counter import FlopCounterMode

    real = registry.create_model("unet-tiny", classes=21).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        real(torch.zeros(1, 3, 512, 512))
    found = costs("unet")["unet-tiny"]
    assert found.parameters == sum(p.numel() for p in real.parameters())
    assert 2 * found.multiply_adds == counter.get_total_flops()


def test_what_depends_on_the_image_is_not_counted() -> None:
    for architecture, module in architectures():
        unknown = [name for name, counted in costs(architecture).items() if counted.multiply_adds is None]
        assert not unknown or getattr(module, "DRAWS", False), unknown


def test_the_page_of_models_is_current() -> None:
    path = Path(__file__).parent.parent / "docs" / "models.md"
    assert path.read_text(encoding="utf-8") == page(), "run python docs/make_models.py"


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
